"""`smsctl message …`."""

from datetime import datetime
from typing import Annotated

import typer
from smsgateway import MessageStatus, Mode

from smsctl.columns import MESSAGE_COLUMNS, explanation, message_details, timeline
from smsctl.command import Session, command
from smsctl.commands.arguments import (
    CursorOption,
    LimitOption,
    MessageId,
    gathered,
    moment_or_age,
    show_page,
)

app = typer.Typer(no_args_is_help=True, help="Look at messages, explain them, cancel them.")


@command(app, "list", columns=MESSAGE_COLUMNS)
def list_(
    session: Session,
    status: Annotated[MessageStatus | None, typer.Option(help="Only those in this status.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="Only those of this mode.")] = None,
    to: Annotated[str | None, typer.Option(help="Only those to this number.")] = None,
    sender: Annotated[str | None, typer.Option("--from", help="Only those of this sender.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="Only those last given to this provider.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=moment_or_age,
            metavar="TIME|AGE",
            help="Only those accepted from then on; 1h is an hour ago.",
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            parser=moment_or_age, metavar="TIME|AGE", help="Only those accepted before then."
        ),
    ] = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
) -> None:
    """List messages, the newest first."""
    gateway = session.gateway
    page = gathered(
        lambda size, start: gateway.messages(
            status=status,
            mode=mode,
            to=to or None,
            sender=sender or None,
            provider=provider or None,
            since=since,
            until=until,
            limit=size,
            cursor=start,
        ),
        limit,
        cursor,
    )
    show_page(session, page, MESSAGE_COLUMNS, "such messages")


@command(app, "show")
def show(session: Session, message_id: MessageId) -> None:
    """Show a message as it stands."""
    message = session.gateway.message(message_id)
    session.screen.show(message, message_details(message))


@command(app, "explain")
def explain(session: Session, message_id: MessageId) -> None:
    """Explain a message: what became of it, what it waits for and until when, and each step."""
    explained = session.gateway.explain(message_id)
    rendered = explanation(explained, is_terminal=session.screen.out.is_terminal)
    session.screen.show(explained, rendered, table=timeline(explained.events))


@command(app, "cancel")
def cancel(session: Session, message_id: MessageId) -> None:
    """Cancel a message, where that is still possible."""
    message = session.gateway.cancel(message_id)
    session.screen.show(message, message_details(message))
    if message.status != MessageStatus.CANCELED:
        session.screen.remark(
            "A provider already has it, and is asked to cancel it if it supports that; it may still "
            "be delivered."
        )
