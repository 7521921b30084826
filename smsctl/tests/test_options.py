"""Every option of every command, with a value that is right and with ones that are wrong."""

import re

import pytest
import typer.main

from smsctl import following
from smsctl.main import app

# By command: arguments without which it is refused; {message}, {batch} … are things that exist.
ARGUMENTS = {
    "send": "--to +447700900123 --from ACME --body Hello",
    "message list": "",
    "message show": "{message}",
    "message explain": "{message}",
    "message cancel": "{waiting}",
    "batch send": "{file} --from ACME --body Hello",
    "batch watch": "{batch}",
    "batch list": "",
    "batch show": "{batch} --results",
    "batch pause": "{batch}",
    "batch resume": "{batch}",
    "batch cancel": "{batch}",
    "dlq list": "",
    "dlq replay": "--limit 5",
    "provider status": "",
    "provider show": "primary",
    "provider reparse": "primary",
    "provider address": "primary",
    "provider test": "primary --to +447700900123",
    "config check": "{configuration}",
    "config apply": "{configuration}",
    "config show": "",
    "key create": "--name shop --environment live --scope messages:send",
    "key list": "",
    "key revoke": "{key}",
    "callback list": "",
    "callback replay": "--failed",
    "callback secret": "",
    "profile list": "",
    "events tail": "",
    "account create": "acme",
    "account list": "",
    "account show": "acme",
    "account suspend": "acme",
    "account resume": "acme",
    "account create-key": "acme --name shop --environment live --scope messages:send",
    "operator-key create": "--name ops --scope config:manage",
    "operator-key list": "",
    "operator-key revoke": "{key}",
    "profile add": "new --api http://127.0.0.1:9 --key k",
    "profile use": "lab",
    "profile remove": "lab",
}
OF_OPERATORS = (
    *("account ", "operator-key ", "config "),
    *("provider reparse", "provider address", "provider test"),
)
# By option, a value that every command with it takes; True for a flag.
VALUES = {
    "--to": "+447700900123",
    "--from": "ACME",
    "--body": "Hello",
    "--text": "Hello",
    "--account-id": "default",
    "--mode": "alert",
    "--priority": "high",
    "--callback-url": "https://shop.example.com/sms",
    "--validity": "60",
    "--receipt-deadline": "60",
    "--missing-receipt": "expire",
    "--parameter": "dlt_entity=1",
    "--at": "{soon}",
    "--metadata": "order=17",
    "--idempotency-key": "one",
    "--timeout": "30",
    "--size": "10",
    "--to-column": "to",
    "--refused": "refused.csv",
    "--limit": "3",
    "--status": "delivered",
    "--provider": "primary",
    "--since": "1h",
    "--until": "2026-11-01T00:00:00Z",
    "--state": "failed",
    "--message": "{message}",
    "--name": "shop",
    "--environment": "live",
    "--scope": "messages:read",
    "--expires-at": "{later}",
    "--output": "json",
    "-o": "tsv",
    "--profile": "lab",
    "--api": "{api}",
    "--key": "{secret}",
}
WRONG = ("", "0", "-1", "1.5", "x", "9" * 30, "2026-13-01", "tomorrow", "\0", "é" * 300)


def commands_of(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


OF_ALL = {"--output", "-o", "--profile", "--api", "--key"}  # tried with one command
COMMANDS = dict(commands_of(typer.main.get_command(app)))
OPTIONS = [
    (name, option, parameter.is_flag)
    for name, command in COMMANDS.items()
    for parameter in command.params
    if parameter.param_type_name == "option"
    for option in (*parameter.opts, *parameter.secondary_opts)
    if option != "--help" and (option not in OF_ALL or name == "message list")
]
NOT_FOR_PEOPLE = re.compile(
    r"Traceback|Input should|validation error|Value error|pydantic|\bNone\b|recipients\["
    r"|Recipient 0|\(s\)|validity_period|scheduled_at|idempotency_key"
)


def test_every_command_is_tried():
    assert set(ARGUMENTS) == set(COMMANDS)


@pytest.fixture(autouse=True)
def only_one_look(monkeypatch):
    """`events tail` ends after one look, as by Ctrl-C."""
    monkeypatch.setattr(following, "_pause", _interrupt)


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def things(smsctl, configured, nothing_configured):
    """What the arguments name."""
    (nothing_configured / "list.csv").write_text("to\n+447700900123\n")
    (nothing_configured / "gateway.toml").write_text('[providers.a]\ntype = "simulator"\n')
    smsctl("profile", "add", "lab", "--api", configured.url, "--key", configured.key)
    found = {
        "file": "list.csv",
        "configuration": "gateway.toml",
        "api": configured.url,
        "secret": configured.key,
        "soon": "2026-12-20T00:00:00Z",
        "later": "2027-12-01T00:00:00Z",
    }
    for thing, line in {
        "message": "send --to +447700900123 --from A --body b",
        "waiting": "send --to +447700900198 --from A --body b",
        "batch": "batch send list.csv --from A --body b",
        "key": "key create --name a --environment live --scope messages:send",
    }.items():
        run = smsctl(*line.split())
        found[thing] = re.search(r"\b(?:msg|bat|key)_\w+", run.out + run.err)[0]
    return found


def line_of(command, things, *option):
    """A command line with one option more, or with another value of one that it needs anyway."""
    words = [word.format(**things) for word in ARGUMENTS[command].split()]
    if option and option[0] in words:
        place = words.index(option[0])
        del words[place : place + min(2, len(option))]
    return [*command.split(), *words, *option]


@pytest.mark.parametrize(
    ("command", "option", "is_flag"),
    [each for each in OPTIONS if each[1] != "--cursor"],  # its values come from a page before
)
def test_an_option_is_taken(command, option, is_flag, smsctl, things):
    if is_flag:
        given = [option]
    elif option == "--columns":
        parameter = next(p for p in COMMANDS[command].params if option in p.opts)
        given = [option, re.search(r"of: (\w+)", parameter.help)[1]]
    else:
        given = [option, VALUES[option].format(**things)]
    if option == "--api":
        given += ["--key", things["secret"]]
    run = smsctl(*line_of(command, things, *given))
    expected = {0, 1, 6, 8}
    if command.startswith(OF_OPERATORS):
        # A key of an account is refused, the account does not exist, operators have other scopes.
        expected = {*expected, 2, 3, 4}
    if command == "events tail":
        expected = {130}
    assert run.code in expected, run.err
    assert NOT_FOR_PEOPLE.search(run.err) is None


@pytest.mark.parametrize(
    ("command", "option"),
    [(command, option) for command, option, is_flag in OPTIONS if not is_flag],
)
def test_a_wrong_value_is_refused_in_words_for_people(command, option, smsctl, things):
    for value in WRONG:
        run = smsctl(*line_of(command, things, option, value))
        assert NOT_FOR_PEOPLE.search(run.err) is None, (value, run.err)
        if run.code in {2, 3, 4, 5, 6}:
            assert run.err.startswith("smsctl: "), (value, run.err)
            assert run.err.count("\n") == 1, "one line"
