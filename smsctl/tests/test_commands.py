import json
import stat
from datetime import UTC, datetime, timedelta

import pytest
from sdks.python.tests.fakes.gateway import BIND_ERROR, InjectedFault, provider_shown
from smsgateway import PermissionDenied, Problem, Provider

from smsctl.columns import PROVIDER_COLUMNS
from smsctl.failures import failure_of

TO = "+447700900123"
DEAD = "+447700900199"


@pytest.fixture
def sent(smsctl, configured):
    def send(to=TO, body="Your table is ready."):
        run = smsctl("send", "--wait", "--to", to, "--from", "Acme", "--body", body, "-o", "json")
        return json.loads(run.out)["message_id"]

    return send


def shown(run):
    """The cells of a table's rows, by its headings."""
    lines = [line for line in run.out.splitlines() if line.strip("─ ")]
    return [line.split() for line in lines]


def test_a_listing_has_a_row_for_each_message_the_newest_first(smsctl, sent):
    first, second = sent(), sent(DEAD)
    run = smsctl("message", "list")
    assert run.code == 0
    heading, *rows = shown(run)
    assert heading[:4] == ["message", "accepted", "status", "reason"]
    assert [row[0] for row in rows] == [second, first]
    assert "dead_letter" in rows[0]


def test_a_listing_can_be_narrowed(smsctl, sent):
    sent()
    dead = sent(DEAD)
    narrowed = (
        ("--status", "dead_letter"),
        ("--to", DEAD),
        ("--to", DEAD, "--mode", "transactional", "--from", "Acme"),
        ("--since", "2020-01-01T00:00:00Z", "--status", "dead_letter"),
    )
    for options in narrowed:
        listed = json.loads(smsctl("message", "list", "-o", "json", *options).out)
        assert [message["message_id"] for message in listed["items"]] == [dead]
    assert (
        smsctl("message", "list", "--until", "2020-01-01T00:00:00Z").out
        == "There are no such messages.\n"
    )


@pytest.mark.parametrize("since", ["30s", "15m", "1h", "7d", "2w"])
def test_a_listing_can_begin_so_long_ago(smsctl, sent, configured, since):
    message_id = sent()
    run = smsctl("message", "list", "--since", since, "--columns", "message")
    assert run.out.split() == ["message", message_id]
    asked = datetime.fromisoformat(dict(configured.exchanges[-1].query)["since"])
    number, unit = int(since[:-1]), since[-1]
    names = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    age = datetime.now(UTC) - asked - timedelta(**{names[unit]: number})
    assert timedelta(0) <= age < timedelta(minutes=2)
    assert smsctl("message", "list", "--until", "1h").out == "There are no such messages.\n"


@pytest.mark.parametrize("since", ["1", "h", "1y", "-1h", "1.5h", "", "999999999w", "2026-12-01"])
def test_what_is_neither_a_time_nor_an_age_is_refused(smsctl, configured, since):
    run = smsctl("message", "list", "--since", since)
    assert run.code == 2
    assert "Invalid value for '--since': " in run.err
    assert not configured.exchanges


LISTINGS = [
    ("message", "list"),
    ("dlq", "list"),
    ("batch", "list"),
    ("callback", "list"),
    ("provider", "status"),
    ("key", "list"),
    ("profile", "list"),
]


@pytest.mark.parametrize("words", LISTINGS)
def test_every_listing_can_be_tab_separated_and_of_chosen_columns(smsctl, sent, configured, words):
    sent(DEAD)
    configured.add_callback(sent())
    smsctl("profile", "add", "here", "--api", configured.url, "--key", configured.key)
    everything = smsctl(*words, "-o", "tsv")
    assert everything.code == 0
    heading, *rows = [line.split("\t") for line in everything.out.splitlines()]
    assert rows or words == ("batch", "list")
    assert {len(row) for row in rows} <= {len(heading)}
    chosen = [heading[-1], heading[0]]
    run = smsctl(*words, "-o", "tsv", "--columns", ",".join(chosen))
    lines = [line.split("\t") for line in run.out.splitlines()]
    assert lines == [chosen, *([row[-1], row[0]] for row in rows)]
    if rows:
        table = smsctl(*words, "--columns", chosen[1])
        assert table.out.split("\n")[0].split() == [chosen[1].replace("current", "*")]
    unknown = smsctl(*words, "--columns", "nothing")
    assert unknown.code == 2
    assert "there is no column 'nothing'; there are: " in unknown.err


def test_a_column_that_is_not_shown_by_itself_can_be_chosen(smsctl, sent):
    sent(TO, "Two\nlines\tand a tab \\ \x1b")
    assert "body" not in smsctl("message", "list", "-o", "tsv").out
    run = smsctl("message", "list", "-o", "tsv", "--columns", "to,body,segments")
    assert run.out.splitlines() == [
        "to\tbody\tsegments",
        f"{TO}\tTwo\\nlines\\tand a tab \\\\ \\u001b\t1",
    ]


def test_what_is_no_listing_is_tab_separated_by_its_members(smsctl, sent, configured):
    message_id = sent()
    members = dict(
        line.split("\t")
        for line in smsctl("message", "show", message_id, "-o", "tsv").out.splitlines()
    )
    assert (members["message_id"], members["status"]) == (message_id, "delivered")
    assert (members["segments"], members["scheduled_at"]) == ("1", "")
    assert members["cancel_requested"] == "false"
    explained = smsctl("message", "explain", message_id, "-o", "tsv").out.splitlines()
    assert explained[0].split("\t")[:3] == ["at", "after", "event"]
    waited = smsctl("send", "--to", TO, "--from", "A", "--body", "b", "--wait", "-o", "tsv")
    assert "status\tdelivered" in waited.out.splitlines()
    missing = smsctl("message", "show", "msg_none", "-o", "tsv")
    assert (missing.code, missing.out) == (4, "")
    assert missing.err.startswith("smsctl: ")


def test_a_tab_separated_listing_prints_its_next_cursor_on_stderr(smsctl, sent):
    sent()
    sent()
    run = smsctl("message", "list", "--limit", "1", "-o", "tsv")
    assert len(run.out.splitlines()) == 2
    assert "--cursor" in run.err


def test_a_long_listing_is_gathered_from_pages_and_can_be_gone_on_with(smsctl, configured):
    for _ in range(5):
        smsctl("send", "--to", TO, "--from", "Acme", "--body", "Hello")
    everything = [m.id for m in reversed(configured.messages.values())]
    first = smsctl("message", "list", "--limit", "3")
    assert [row[0] for row in shown(first)[1:]] == everything[:3]
    cursor = first.err.partition("--cursor ")[2].split()[0]
    rest = json.loads(smsctl("message", "list", "--cursor", cursor, "-o", "json").out)
    assert [m["message_id"] for m in rest["items"]] == everything[3:]
    assert rest["next_cursor"] is None


def test_more_than_a_page_is_asked_for_in_pages(smsctl, configured):
    smsctl("message", "list", "--limit", "450")
    assert dict(configured.exchanges[-1].query) == {"limit": "200"}


def test_a_message_is_shown_with_its_details(smsctl, sent):
    message_id = sent(TO, "Two\nlines")
    run = smsctl("message", "show", message_id)
    assert run.code == 0
    assert f"message      {message_id}" in run.out
    assert "delivered" in run.out
    assert json.loads(smsctl("message", "show", message_id, "-o", "json").out)["body"] == (
        "Two\nlines"
    )


def test_text_that_steers_a_terminal_is_spelled_out(smsctl, sent):
    message_id = sent(TO, "\x1b[2Jgone \u202egnp [bold]")
    run = smsctl("message", "show", message_id)
    assert "\\u001b[2Jgone \\u202egnp [bold]" in run.out
    assert "\x1b" not in run.out


def test_an_explanation_prints_all_of_it(smsctl, sent, configured):
    message_id = sent()
    callback_id = configured.add_callback(message_id)
    run = smsctl("message", "explain", message_id)
    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[0] == "The message is delivered."
    sections = ("Steps", "Parts that providers accepted", "Callbacks", "Message")
    places = [lines.index(section) for section in sections]
    assert places == sorted(places)
    assert callback_id in run.out
    assert "7f3a" in run.out


def test_an_explanation_is_at_most_eighty_columns_wide_and_cuts_no_word(smsctl, sent, configured):
    message_id = sent()
    configured.add_callback(message_id)
    sentence = "Waiting for a provider of its route: primary and backup are down, and more. " * 4
    configured.summary = [sentence.strip(), sentence.strip()]
    run = smsctl("message", "explain", message_id)
    assert [line for line in run.out.splitlines() if len(line.rstrip()) > 80] == []
    assert " ".join(run.out.split()).count(sentence.strip()) == 2


def test_a_message_that_went_nowhere_is_explained_without_empty_tables(smsctl, sent):
    run = smsctl("message", "explain", sent(DEAD))
    assert "Steps" in run.out
    assert "no_provider_up" in run.out
    assert "Parts" not in run.out


def test_a_scheduled_message_is_canceled_once(smsctl, configured):
    at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    sent = smsctl("send", "--to", TO, "--from", "A", "--body", "b", "--at", at, "-o", "json")
    message_id = json.loads(sent.out)["message_id"]
    run = smsctl("message", "cancel", message_id, "-o", "json")
    assert (run.code, json.loads(run.out)["status"]) == (0, "canceled")
    again = smsctl("message", "cancel", message_id)
    assert again.code == 6
    assert "The message has ended: it is canceled." in again.err


def test_a_cancel_of_what_a_provider_has_says_that_it_may_still_be_delivered(
    smsctl, configured, sent
):
    message_id = sent()
    shown = json.loads(smsctl("message", "show", message_id, "-o", "json").out)
    response = json.dumps({**shown, "status": "sent", "cancel_requested": True}).encode()
    configured.faults.append(InjectedFault(202, {"content-type": "application/json"}, response))
    run = smsctl("message", "cancel", message_id)
    assert run.code == 0
    assert run.err == (
        "A provider already has it, and is asked to cancel it if it supports that; it may still be "
        "delivered.\n"
    )


def test_dead_letters_are_listed_and_replayed_by_id(smsctl, sent):
    dead = sent(DEAD)
    assert [row[0] for row in shown(smsctl("dlq", "list"))[1:]] == [dead]
    run = smsctl("dlq", "replay", dead)
    assert run.code == 0
    assert run.out == f"1 message sent again.\n{dead}\n"
    assert smsctl("dlq", "list").out == "There are no dead letters.\n"


def test_dead_letters_of_a_provider_are_replayed_up_to_a_limit(smsctl, sent, configured):
    sent(DEAD)
    run = smsctl("dlq", "replay", "--provider", "primary", "--limit", "500", "-o", "json")
    assert run.code == 0
    assert json.loads(run.out) == {
        "replayed": [],
        "skipped": [],
        "remaining": [{"provider": None, "messages": 1}],
    }
    asked = json.loads(configured.exchanges[-1].body)
    assert asked == {"provider": "primary", "limit": 500}


def test_a_replay_that_takes_nothing_says_what_there_is(smsctl, sent):
    assert smsctl("dlq", "replay", "--provider", "primary").out == (
        "0 messages sent again.\nThere are no dead letters.\n"
    )
    sent(DEAD)
    run = smsctl("dlq", "replay", "--provider", "primary")
    assert run.code == 0
    assert run.out == (
        "0 messages sent again.\nNone matches. Dead letters by provider: no provider: 1.\n"
    )


def test_an_unknown_provider_is_an_error_and_the_known_ones_are_named(smsctl, configured):
    run = smsctl("dlq", "replay", "--provider", "twilio")
    assert run.code != 0
    assert "There is no such provider; known: backup, primary." in run.err


def test_as_many_dead_letters_as_said_are_replayed(smsctl, sent):
    for _ in range(2):
        sent(DEAD)
    run = smsctl("dlq", "replay", "--limit", "1", "-o", "json")
    assert len(json.loads(run.out)["replayed"]) == 1


def test_a_named_message_that_is_not_replayed_is_a_failure(smsctl, sent):
    dead, fine = sent(DEAD), sent()
    run = smsctl("dlq", "replay", dead, fine)
    assert run.code == 1
    assert dead in run.out
    assert "It is not a dead letter." in run.out


def test_replaying_everything_has_to_be_said(smsctl, configured):
    run = smsctl("dlq", "replay", "--provider", "")
    assert run.code == 2
    assert "Say which dead letters" in run.err
    assert not configured.exchanges


@pytest.mark.parametrize("options", [(), ("--provider", "")])
def test_all_providers_are_shown(smsctl, configured, options):
    run = smsctl("provider", "status", *options)
    assert run.code == 0
    assert [row[:4] for row in shown(run)[1:]] == [
        ["primary", "smpp", "live", "up"],
        ["backup", "smpp", "live", "down"],
    ]
    assert "2/2" in run.out
    up, down = run.out.splitlines()[-2:]
    assert up.rstrip().endswith("batches 195 (demand 310.5), single messages 5 (demand 0.5)")
    assert down.rstrip().endswith(BIND_ERROR["detail"])


def test_one_provider_is_shown(smsctl, configured):
    run = smsctl("provider", "status", "--provider", "backup", "-o", "json")
    assert [provider["state"] for provider in json.loads(run.out)["items"]] == ["down"]
    missing = smsctl("provider", "status", "--provider", "nobody")
    assert missing.code == 4
    assert missing.err == "smsctl: There is no such provider in the configuration.\n"


def test_figures_of_a_rate_are_empty_without_a_rate_or_a_bind():
    provider = Provider.model_validate(provider_shown("primary", "up"))
    cells = {column.heading: column.of for column in PROVIDER_COLUMNS}
    assert cells["rate after throttling"](provider) == "100%"
    without_rate = provider.model_copy(update={"rate": None})
    assert cells["shares/s"](without_rate) is None
    for each in (without_rate, provider.model_copy(update={"binds_up": 0})):
        assert cells["rate after throttling"](each) is None


def test_all_receipts_of_a_provider_are_parsed_again(smsctl, configured):
    run = smsctl("provider", "reparse", "backup")
    assert (run.code, run.out.strip()) == (1, "697 receipts parsed; 3 still cannot be parsed.")
    assert smsctl("provider", "reparse", "primary").code == 0
    run = smsctl("provider", "reparse", "backup", "-o", "json")
    assert json.loads(run.out) == {"parsed": 697, "unparsed": 3, "next_after": None}
    assert smsctl("provider", "reparse", "nobody").code == 4


WRONG = "[providers.primary]\ntype = 'pigeon'\n"
RIGHT = "[providers.backup]\ntype = 'smpp'\n"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "gateway.toml"


def test_mistakes_in_a_configuration_are_reported_with_their_place(smsctl, configured, file):
    file.write_text(WRONG)
    run = smsctl("config", "check", str(file))
    assert run.code == 1
    assert run.out == (
        f"{file}:2:8: providers.primary.type: is not a type of provider: use smpp.\n"
    )
    document = json.loads(smsctl("config", "check", str(file), "-o", "json").out)
    assert document["mistakes"][0]["line"] == 2


def test_a_right_configuration_is_checked_applied_and_shown(smsctl, configured, file):
    file.write_text(RIGHT)
    assert smsctl("config", "check", str(file)).out == f"{file}: there are no errors.\n"
    assert configured.version == 1
    assert smsctl("config", "apply", str(file)).out == "Version 2 is in force now.\n"
    assert smsctl("config", "apply", "-", stdin=RIGHT).out == "Version 2 was in force already.\n"
    run = smsctl("config", "show")
    assert run.out == RIGHT
    assert run.err.startswith("Version 2, applied ")


def test_a_secret_that_the_api_cannot_read_is_a_warning_on_stderr(smsctl, configured, file):
    file.write_text(RIGHT + 'password = "env:AWAY"\n')
    run = smsctl("config", "apply", str(file))
    assert (run.code, run.out) == (0, "Version 2 is in force now.\n")
    line = len(RIGHT.splitlines()) + 1
    assert run.err == f"Warning: {file}:{line}:12: providers.primary.password: not there\n"


def test_a_provider_shows_what_each_worker_reports(smsctl, configured):
    run = smsctl("provider", "show", "backup")
    assert "2 workers: The transceiver is not bound: the SMSC refused the bind" in run.out
    listed = smsctl("provider", "status", "--columns", "provider,error,error_code,why", "-o", "tsv")
    assert "backup\tbind_refused\tESME_RINVPASWD\tThe transceiver is not bound" in listed.out


def test_a_wrong_configuration_is_not_applied(smsctl, configured, file):
    file.write_text(WRONG)
    run = smsctl("config", "apply", str(file))
    assert run.code == 1
    assert ":2:8:" in run.out
    assert configured.version == 1


def test_a_file_that_is_not_there_or_not_text_is_refused(smsctl, configured, file):
    assert "cannot be read: No such file" in smsctl("config", "check", str(file)).err
    file.write_bytes(b"\xff")
    run = smsctl("config", "apply", str(file))
    assert (run.code, configured.exchanges) == (2, [])
    assert "not text in UTF-8" in run.err


def test_a_key_is_made_shown_once_used_and_revoked(smsctl, configured):
    made = smsctl(
        *("key", "create", "--name", "shop", "--environment", "test"),
        *("--scope", "messages:read", "--scope", "messages:send"),
        *("--expires-at", "2100-01-01T00:00:00Z"),
    )
    assert made.code == 0
    key = made.out.strip()
    assert "shown this once" in made.err
    assert smsctl("--key", key, "message", "list").code == 0
    listed = smsctl("key", "list")
    assert key not in listed.out
    assert shown(listed)[2][:5] == ["key_2", "shop", "test", "messages:read", "messages:send"]
    assert smsctl("key", "revoke", "key_2").out == "key_2 is revoked.\n"
    revoked = smsctl("message", "list", "--key", key)
    assert revoked.code == 3
    assert "valid key (`smsctl key create`)" in revoked.err
    assert "python worker.py bootstrap" in revoked.err
    assert key not in revoked.err


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("operator-key-needed", "Use an operator's key"),
        ("account-key-needed", "Use a key of an account"),
        ("account-suspended", "An operator resumes it"),
    ],
)
def test_a_key_of_the_wrong_kind_is_advised_of_the_kind_and_not_of_scopes(kind, advice):
    refused = PermissionDenied(
        Problem(type=f"urn:smsgateway:problem:{kind}", title="Refused", status=403)
    )
    failure = failure_of(refused, origin="--api")
    assert advice in failure.advice
    assert "scope" not in failure.advice


def test_an_account_is_created_listed_suspended_and_resumed(smsctl, configured):
    made = json.loads(smsctl("account", "create", "Acme Logistics", "-o", "json").out)
    assert made["name"] == "Acme Logistics"
    assert made["id"] in smsctl("account", "list").out
    for command, is_suspended in (("suspend", True), ("show", True), ("resume", False)):
        run = smsctl("account", command, made["id"], "-o", "json")
        assert (json.loads(run.out)["suspended_at"] is not None) == is_suspended, command
    run = smsctl("account", "create", "Acme Logistics")
    assert (run.code, "Another account has this name" in run.err) == (6, True)
    made = smsctl("account", "create", "Beta")
    assert "`smsctl account create-key acc_" in made.err
    assert smsctl("account", "show", "acc_none").code == 4


def test_an_operator_makes_the_first_key_of_an_account(smsctl, configured):
    made = json.loads(smsctl("account", "create", "Acme Logistics", "-o", "json").out)
    key = smsctl(
        *("account", "create-key", made["id"], "--name", "admin"),
        *("--environment", "live", "--scope", "admin"),
    )
    assert "shown this once" in key.err
    assert smsctl("--key", key.out.strip(), "message", "list").code == 0


def test_an_operators_key_is_made_listed_and_revoked(smsctl, configured):
    made = smsctl("operator-key", "create", "--name", "ci", "--scope", "config:manage")
    key = made.out.strip()
    assert key.startswith("sg_operator_")
    assert smsctl("--key", key, "config", "show").code == 0
    listed = smsctl("operator-key", "list")
    assert key not in listed.out
    assert smsctl("operator-key", "revoke", "key_01").out == "key_01 is revoked.\n"
    assert smsctl("--key", key, "config", "show").code == 3


def test_commands_of_operators_take_the_operators_key_and_others_do_not(
    smsctl, configured, monkeypatch
):
    assert smsctl("config", "show").code == 0
    assert smsctl("message", "list").code == 0
    monkeypatch.setenv("SMSCTL_KEY", configured.operator_key)
    assert smsctl("message", "list").code == 3
    monkeypatch.delenv("SMSCTL_OPERATOR_KEY")
    assert smsctl("config", "show").code == 0


def test_a_missing_scope_is_an_exit_code_of_its_own_kind(smsctl, configured):
    run = smsctl("--key", configured.key_with("messages:read"), "key", "list")
    assert run.code == 3
    assert "keys:manage" in run.err


def test_callbacks_are_listed_and_replayed(smsctl, configured):
    first, second, third = (configured.add_callback("msg_1") for _ in range(3))
    listed = smsctl("callback", "list", "--state", "failed", "--message", "msg_1")
    assert [row[0] for row in shown(listed)[1:]] == [third, second, first]
    assert smsctl("callback", "replay", first).out == "1 callback to be sent again.\n"
    run = smsctl("callback", "replay", "--failed", "-o", "json")
    assert json.loads(run.out) == {"replayed": 2}
    assert smsctl("callback", "replay", "cb_none").code == 4


@pytest.mark.parametrize("options", [(), ("cb_1", "--failed")])
def test_a_replay_of_callbacks_needs_either_ids_or_failed(smsctl, configured, options):
    run = smsctl("callback", "replay", *options)
    assert run.code == 2
    assert not configured.exchanges


def test_the_secret_of_callbacks_is_printed_alone(smsctl, configured):
    run = smsctl("callback", "secret")
    assert run.out.startswith("whsec_")
    assert run.out.count("\n") == 1


ANSWERS = [
    (401, 3),
    (403, 3),
    (404, 4),
    (409, 6),
    (400, 2),
    (413, 2),
    (422, 2),
    (429, 5),
    (500, 1),
    (503, 5),
    (302, 1),
]


@pytest.mark.parametrize(("status", "code"), ANSWERS)
def test_each_kind_of_refusal_has_its_exit_code(smsctl, configured, status, code):
    problem = {"type": "urn:smsgateway:problem:no", "title": "No", "detail": "It is not to be."}
    content = json.dumps(problem | {"status": status}).encode()
    headers = {"content-type": "application/problem+json", "retry-after": "40"}
    configured.faults.append(InjectedFault(status, headers, content))
    run = smsctl("message", "show", "msg_1", "-o", "json")
    error = json.loads(run.err)["error"]
    assert run.out == ""
    assert run.code == error["exit_code"] == code
    assert error["detail"]
    if status != 302:
        assert error["problem"]["detail"] == "It is not to be."
    if status == 429:
        assert error["advice"] == "Try again in 40 s."


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_that_is_no_gateway_is_a_failure_of_the_address(smsctl, configured, status):
    configured.faults.append(InjectedFault(status, {"content-type": "text/html"}, b"<p>No</p>"))
    run = smsctl("message", "show", "msg_1")
    assert run.code == 1
    assert "is that of the gateway's API." in run.err
    assert "GET " not in run.err


def test_a_problem_of_the_gateway_is_reported_in_its_own_sentence(smsctl, configured):
    run = smsctl("account", "show", "acc_nope", "--key", configured.operator_key)
    assert (run.code, run.err) == (4, "smsctl: There is no such account.\n")


def test_the_wrong_value_of_a_repeated_option_is_repeated(smsctl, configured):
    run = smsctl(
        *[
            "key",
            "create",
            "--name",
            "a",
            "--environment",
            "live",
            "--scope",
            "admin",
            "--scope",
            "a:b",
        ]
    )
    assert run.code == 2
    assert "--scope a:b: " in run.err


def test_the_general_options_stand_before_or_after_and_after_wins(smsctl, configured):
    before = smsctl("--output", "json", "provider", "status")
    after = smsctl("--output", "json", "provider", "status", "--output", "table")
    assert json.loads(before.out)["items"]
    assert shown(after)[0][0] == "provider"


@pytest.mark.parametrize("where", [["--output", "json"], ["-o", "json"], ["--output=json"]])
def test_a_mistake_on_the_command_line_is_json_too_where_that_is_asked_for(smsctl, where):
    run = smsctl("message", "show", *where)
    assert run.code == 2
    error = json.loads(run.err)["error"]
    assert "MESSAGE_ID" in error["detail"]
    assert error["advice"] == "`smsctl message show --help` has the details."


@pytest.mark.parametrize("group", [[], ["message"], ["dlq"], ["profile"]])
def test_a_group_alone_shows_what_it_offers(smsctl, group):
    run = smsctl(*group)
    assert run.code == 2
    assert "list" in run.out or "message" in run.out
    assert run.err == ""


@pytest.mark.parametrize(
    "arguments", [["message", "show", ""], ["key", "revoke", ""], ["dlq", "replay", ""]]
)
def test_an_empty_id_is_refused(smsctl, configured, arguments):
    run = smsctl(*arguments)
    assert run.code == 2
    assert "must not be empty" in run.err
    assert not configured.exchanges


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_profiles_are_added_used_and_removed(smsctl, gateway, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_KEY", gateway.key)
    config = tmp_path / "config" / "smsctl" / "config.toml"
    added = smsctl("profile", "add", "shop", "--api", f"{gateway.url}/", "--key", "env:SHOP_KEY")
    assert (added.code, added.out) == (0, f"Added the profile shop, in {config}.\n")
    assert mode_of(config) == 0o600
    assert mode_of(config.parent) == 0o700
    assert smsctl("message", "list").code == 0
    smsctl("profile", "add", "other", "--api", "http://other.example.com", "--key", gateway.key)
    listed = smsctl("profile", "list")
    assert shown(listed)[1:] == [
        ["other", "http://other.example.com", f"{gateway.key[:24]}…"],
        ["*", "shop", f"{gateway.url}/", "env:SHOP_KEY"],
    ]
    assert smsctl("profile", "use", "other").code == 0
    items = json.loads(smsctl("profile", "list", "-o", "json").out)["items"]
    assert [item["name"] for item in items if item["is_current"]] == ["other"]
    assert smsctl("--profile", "shop", "message", "list").code == 0
    assert smsctl("profile", "remove", "other").code == 0
    nothing = smsctl("message", "list")
    assert nothing.code == 2
    assert "smsctl profile add" in nothing.err


def test_a_profile_needs_an_address_a_key_and_a_name(smsctl):
    assert "--api" in smsctl("profile", "add", "shop").err
    assert "--key env:NAME" in smsctl("profile", "add", "shop", "--api", "http://h").err
    named = smsctl("profile", "add", "two words", "--api", "http://h", "--key", "k")
    assert (named.code, "letters" in named.err) == (2, True)
    unknown = smsctl("profile", "use", "shop")
    assert (unknown.code, "There is no profile 'shop'" in unknown.err) == (2, True)


def test_a_keys_file_is_kept_by_its_full_path(smsctl, gateway, nothing_configured):
    (nothing_configured / "key").write_text(f"{gateway.key}\n")
    smsctl("profile", "add", "shop", "--api", gateway.url, "--key", "file:key", "--use")
    assert f"file:{nothing_configured}/key" in smsctl("profile", "list").out
    assert smsctl("message", "list").code == 0


def test_profiles_that_others_can_read_are_pointed_out(smsctl, gateway, tmp_path):
    smsctl("profile", "add", "shop", "--api", gateway.url, "--key", gateway.key)
    config = tmp_path / "config" / "smsctl" / "config.toml"
    assert smsctl("message", "list").err == ""
    config.chmod(0o644)
    assert f"Others can read {config}" in smsctl("message", "list").err
