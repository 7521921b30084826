"""`smsctl events …`: what happens to all messages."""

import json
import sys
from datetime import datetime
from typing import Annotated

import typer
from rich.text import Text
from smsgateway import AccountEvent, MessageStatus

from smsctl.columns import EVENT_LINE_COLUMNS, Grid, event_line
from smsctl.command import Session, command
from smsctl.commands.arguments import moment_or_age
from smsctl.following import follow
from smsctl.screen import OutputFormat, Screen

app = typer.Typer(no_args_is_help=True, help="Follow what happens to messages.")


@command(app, "tail")
def tail(
    session: Session,
    status: Annotated[
        MessageStatus | None, typer.Option(help="Only transitions to this status.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=moment_or_age,
            metavar="TIME",
            help="When to begin, or how long ago: 15m, 1h; by default a minute ago.",
        ),
    ] = None,
) -> None:
    """Show the events of all messages as they come, until Ctrl-C.

    It continues when the gateway was away. With --output json, each line is a JSON document.
    """
    lines = _Lines(session.screen)
    follow(session.gateway, status, since, lines.show, session.screen.remark)


class _Lines:
    """An event on each line, in the format of the screen, written at once."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        if screen.format is OutputFormat.TSV:
            self._write("\t".join(column.name for column in EVENT_LINE_COLUMNS))

    def show(self, event: AccountEvent) -> None:
        """Write an event."""
        match self._screen.format:
            case OutputFormat.JSON:
                self._write(json.dumps(event.model_dump(mode="json", by_alias=True)))
            case OutputFormat.TSV:
                self._screen.lines([[*Grid(EVENT_LINE_COLUMNS, [event]).cells()][1]])
                sys.stdout.flush()
            case OutputFormat.TABLE:
                self._screen.out.print(Text(event_line(event)))

    def _write(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
