"""`smsctl`: the commands put together, and how the program ends."""

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from smsctl import __version__
from smsctl.command import ApiOption, General, KeyOption, OutputOption, ProfileOption
from smsctl.commands import (
    account,
    batch,
    callback,
    config,
    dlq,
    events,
    key,
    message,
    operator_key,
    profile,
    provider,
    send,
)
from smsctl.failures import ExitCode, Failure
from smsctl.screen import OutputFormat, Screen

_WORDS = (
    (re.compile(r"Value error, "), ""),
    (re.compile(r"Input should be greater than or equal to (\S+)$"), r"it must be at least \1."),
    (re.compile(r"Input should be less than or equal to (\S+)$"), r"it must be at most \1."),
    (re.compile(r"Input should be a valid integer, .*$"), "it must be a whole number."),
    (re.compile(r"Input should be a valid number, .*$"), "it must be a number."),
    (re.compile(r"Unable to parse input string as an integer, .*$"), "it is too large."),
    (re.compile(r"Input should be (.*?)\.?$"), r"it must be \1."),
)


class Commands(TyperGroup):
    """The commands; mistakes on the command line are reported like all other failures."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and end the process with the exit code."""
        del standalone_mode
        given = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.Abort:
            code = ExitCode.INTERRUPTED
        except typer.TyperException as mistake:
            code = _reported(mistake, given)
        sys.exit(code or ExitCode.OK)


def _reported(mistake: typer.TyperException, given: Sequence[str]) -> ExitCode:
    sentence = _plain(mistake.format_message())
    if sentence:
        context = getattr(mistake, "ctx", None)
        name = context.command_path if context is not None else "smsctl"
        failure = Failure(ExitCode.REFUSED, sentence, f"`{name} --help` has the details.")
        Screen(_format_in(given)).fail(failure)
    # Without a sentence, the help that it asks for has been shown.
    return ExitCode.REFUSED


def _plain(sentence: str) -> str:
    """What Typer says, where it passes on what pydantic says of a value, in words for people."""
    for theirs, ours in _WORDS:
        sentence, replaced = theirs.subn(ours, sentence)
        if replaced:
            break
    return sentence


def _format_in(given: Sequence[str]) -> OutputFormat:
    """The format asked for by a command line that could not be read as a whole."""
    following = zip(given, [*given[1:], ""], strict=True)
    asked = [value for name, value in following if name in {"--output", "-o"}]
    asked += [text.partition("=")[2] for text in given if text.startswith("--output=")]
    asked += [text[2:] for text in given if text.startswith("-o") and len(text) > len("-o")]
    return OutputFormat.JSON if OutputFormat.JSON in asked else OutputFormat.TABLE


app = typer.Typer(
    name="smsctl",
    cls=Commands,
    no_args_is_help=True,
    # Its traces would show local variables, and with them numbers and keys.
    pretty_exceptions_enable=False,
    help="Send messages through the gateway, follow and explain them, and keep the gateway well.",
    epilog="Exit codes: 0 ok, 1 failed, 2 refused, 3 key, 4 not found, 5 unreachable, 6 conflict, "
    "8 not ended in time.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"smsctl {__version__}")
        raise typer.Exit


@app.callback()
def general(
    ctx: typer.Context,
    output: OutputOption = None,
    profile: ProfileOption = None,
    api: ApiOption = None,
    key: KeyOption = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that may stand before a command as well as after it."""
    del version
    ctx.obj = General(output, profile, api, key)


send.add_to(app)
for name, group in {
    "message": message.app,
    "batch": batch.app,
    "dlq": dlq.app,
    "provider": provider.app,
    "config": config.app,
    "key": key.app,
    "account": account.app,
    "operator-key": operator_key.app,
    "callback": callback.app,
    "events": events.app,
    "profile": profile.app,
}.items():
    app.add_typer(group, name=name)


def run() -> None:
    """The entry point; however it is started, it is called by the name that completion knows."""
    app(prog_name="smsctl")
