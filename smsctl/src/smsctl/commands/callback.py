"""`smsctl callback …`."""

from typing import Annotated

import typer
from rich.text import Text
from smsgateway import CallbackState

from smsctl.columns import CALLBACK_COLUMNS, counted
from smsctl.command import Session, command
from smsctl.commands.arguments import CursorOption, LimitOption, gathered, not_empty, show_page
from smsctl.failures import Mistake
from smsctl.screen import visible

app = typer.Typer(no_args_is_help=True, help="List callbacks and replay them.")


@command(app, "list", columns=CALLBACK_COLUMNS)
def list_(
    session: Session,
    state: Annotated[CallbackState | None, typer.Option(help="Only those in this state.")] = None,
    message: Annotated[
        str | None, typer.Option(metavar="MESSAGE_ID", help="Only those of this message.")
    ] = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
) -> None:
    """List the callbacks that were sent to your servers, or are due; the newest first."""
    gateway = session.gateway
    page = gathered(
        lambda size, start: gateway.callbacks(
            state=state, message_id=message or None, limit=size, cursor=start
        ),
        limit,
        cursor,
    )
    show_page(session, page, CALLBACK_COLUMNS, "callbacks")


@command(app, "replay")
def replay(
    session: Session,
    callback_ids: Annotated[
        list[str] | None,
        typer.Argument(parser=not_empty, metavar="[CALLBACK_ID]…", help="Just these."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Those that failed.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many of the failed ones at most.")
    ] = None,
) -> None:
    """Send callbacks again: those named, or with --failed those that failed."""
    if bool(callback_ids) == failed:
        raise Mistake("Say which callbacks to send again: either their ids, or --failed.")
    gateway = session.gateway
    if failed:
        count = gateway.replay_callbacks(state=CallbackState.FAILED, limit=limit).replayed
    else:
        for callback_id in callback_ids or ():
            gateway.replay_callback(callback_id)
        count = len(callback_ids or ())
    session.screen.show(
        {"replayed": count}, Text(f"{counted(count, 'callback')} to be sent again.")
    )


@command(app, "secret")
def secret(session: Session) -> None:
    """Show the secret that your servers verify callbacks with."""
    found = session.gateway.callback_secret()
    session.screen.show(found, Text(visible(found.secret)))
