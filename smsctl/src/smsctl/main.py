"""`smsctl`: the commands put together, and how the program ends."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from smsctl import __version__
from smsctl.command import ApiOption, General, KeyOption, OutputOption, ProfileOption
from smsctl.commands import batch, callback, config, dlq, key, message, profile, provider, send
from smsctl.failures import ExitCode, Failure
from smsctl.screen import OutputFormat, Screen


class Commands(TyperGroup):
    """The commands; mistakes on the command line are told as all other failures are."""

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
            code = _told(mistake, given)
        sys.exit(code or ExitCode.OK)


def _told(mistake: typer.TyperException, given: Sequence[str]) -> ExitCode:
    # Typer passes on how pydantic begins what it says of a value.
    sentence = mistake.format_message().replace("Value error, ", "")
    if sentence:
        context = getattr(mistake, "ctx", None)
        name = context.command_path if context is not None else "smsctl"
        failure = Failure(ExitCode.REFUSED, sentence, f"`{name} --help` tells more.")
        Screen(_format_in(given)).fail(failure)
    # Without a sentence, the help that it asks for has been shown.
    return ExitCode.REFUSED


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
    "7 too many requests, 8 not ended in time.",
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
    "callback": callback.app,
    "profile": profile.app,
}.items():
    app.add_typer(group, name=name)


def run() -> None:
    """The entry point; however it is started, it is called by the name that completion knows."""
    app(prog_name="smsctl")
