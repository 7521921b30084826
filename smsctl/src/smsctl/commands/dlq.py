"""`smsctl dlq …`: dead letters, and sending them again."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text
from smsgateway import Replayed, Skipped

from smsctl.columns import MESSAGE_COLUMNS, Column, Grid, counted
from smsctl.command import Session, command, ended
from smsctl.commands.arguments import CursorOption, LimitOption, gathered, not_empty, show_page
from smsctl.failures import ExitCode, Mistake

app = typer.Typer(no_args_is_help=True, help="Look at dead letters and send them again.")

SKIPPED_COLUMNS: Sequence[Column[Skipped]] = (
    Column("not replayed", lambda s: s.message_id),
    Column("why", lambda s: s.detail, is_sentence=True),
)


@command(app, "list", columns=MESSAGE_COLUMNS)
def list_(
    session: Session,
    provider: Annotated[
        str | None, typer.Option(help="Only those that this provider had or was offered.")
    ] = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
) -> None:
    """List the messages that nothing was left to try for."""
    gateway = session.gateway
    page = gathered(
        lambda size, start: gateway.dead_letters(
            provider=provider or None, limit=size, cursor=start
        ),
        limit,
        cursor,
    )
    show_page(session, page, MESSAGE_COLUMNS, "dead letters")


@command(app, "replay")
def replay(
    session: Session,
    message_ids: Annotated[
        list[str] | None,
        typer.Argument(parser=not_empty, metavar="[MESSAGE_ID]…", help="Just these."),
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Those that this provider had or was offered.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many at most; 100 if not said.")
    ] = None,
) -> None:
    """Send dead letters again: those named, those of a provider, or as many as --limit says.

    Exits with 1 if one that was named is not replayed.
    """
    if not message_ids and not provider and limit is None:
        raise Mistake(
            "Say which dead letters to replay: their ids, --provider NAME, or --limit NUMBER."
        )
    done = session.gateway.replay_dead_letters(
        message_ids=message_ids or None,
        provider=provider or None,
        limit=limit,
    )
    lines: list[RenderableType] = [Text(f"{counted(len(done.replayed), 'message')} sent again.")]
    if done.replayed:
        lines.append(Text("\n".join(done.replayed)))
    if done.skipped:
        lines.append(Grid(SKIPPED_COLUMNS, done.skipped))
    if not done.replayed and not done.skipped:
        lines.append(Text(_what_there_is(done)))
    session.screen.show(done, *lines)
    if message_ids and set(message_ids) - set(done.replayed):
        raise ended(ExitCode.FAILED)


def _what_there_is(done: Replayed) -> str:
    """What a replay that took nothing could have taken."""
    if not done.remaining:
        return "There are no dead letters."
    counts = ", ".join(
        f"{each.provider or 'no provider'}: {each.messages}" for each in done.remaining
    )
    return f"None matches. Dead letters by provider: {counts}."
