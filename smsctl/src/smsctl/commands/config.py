"""`smsctl config …`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from smsgateway import ConfigurationCheck
from smsgateway import Mistake as ConfigurationMistake

from smsctl.columns import Column, Grid, text_of
from smsctl.command import Session, command, ended
from smsctl.commands.arguments import file_text
from smsctl.failures import ExitCode
from smsctl.screen import visible

app = typer.Typer(no_args_is_help=True, help="Check, apply and show the configuration.")

MISTAKE_COLUMNS: Sequence[Column[ConfigurationMistake]] = (
    Column("line", lambda m: m.line),
    Column("column", lambda m: m.column),
    Column("path", lambda m: m.path),
    Column("detail", lambda m: m.detail),
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="TOML; - reads standard input.")]


@command(app, "check", operator=True)
def check(session: Session, file: File) -> None:
    """Say what is wrong with a configuration; it changes nothing. Exits with 1 if anything is."""
    checked = session.gateway.check_configuration(file_text(file))
    _show(session, file, checked)
    if not checked.ok:
        raise ended(ExitCode.FAILED)
    _warn(session, file, checked.warnings)


@command(app, "apply", operator=True)
def apply(session: Session, file: File) -> None:
    """Put a configuration into force, unless it has errors: then exit with 1.

    Secrets that the API process cannot read, and ids of accounts that do not exist, are warnings, on
    standard error.
    """
    content = file_text(file)
    checked = session.gateway.check_configuration(content)
    if not checked.ok:
        _show(session, file, checked)
        raise ended(ExitCode.FAILED)
    applied = session.gateway.apply_configuration(content)
    done = "is in force now" if applied.changed else "was in force already"
    session.screen.show(applied, Text(f"Version {applied.version} {done}."))
    _warn(session, file, applied.warnings)


@command(app, "show", operator=True)
def show(session: Session) -> None:
    """Show the configuration in force; its secrets are references."""
    configuration = session.gateway.configuration()
    session.screen.remark(
        f"Version {configuration.version}, applied {text_of(configuration.applied_at)} "
        f"by {configuration.applied_by or 'nobody known'}."
    )
    session.screen.show(configuration, Text(visible(configuration.content).rstrip("\n")))


def _show(session: Session, file: Path, checked: ConfigurationCheck) -> None:
    lines = [Text(visible(_line(file, mistake))) for mistake in checked.mistakes]
    if checked.ok:
        lines = [Text(f"{file}: there are no errors.")]
    elif checked.more_mistakes:
        lines.append(Text(f"{file}: there are {checked.more_mistakes} more errors."))
    session.screen.show(checked, *lines, table=Grid(MISTAKE_COLUMNS, checked.mistakes))


def _warn(session: Session, file: Path, warnings: Sequence[ConfigurationMistake]) -> None:
    for warning in warnings:
        session.screen.remark(f"Warning: {_line(file, warning)}")


def _line(file: Path, mistake: ConfigurationMistake) -> str:
    """As compilers write it, so that editors can go there."""
    where = [str(file), *(str(n) for n in (mistake.line, mistake.column) if n is not None)]
    what = f"{mistake.path}: {mistake.detail}" if mistake.path else mistake.detail
    return f"{':'.join(where)}: {what}"
