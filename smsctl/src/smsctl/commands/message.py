"""`smsctl message …`."""

from datetime import datetime
from typing import Annotated

import typer
from smsgateway import MessageStatus, Mode

from smsctl.command import Session, command
from smsctl.commands.arguments import (
    CursorOption,
    LimitOption,
    MessageId,
    gathered,
    moment,
    show_page,
)
from smsctl.tables import MESSAGE_COLUMNS, explanation, message_details

app = typer.Typer(no_args_is_help=True, help="Look at messages, explain them, cancel them.")


@command(app, "list")
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
        typer.Option(parser=moment, metavar="TIME", help="Only those accepted from then on."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(parser=moment, metavar="TIME", help="Only those accepted before then."),
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
    show_page(session.screen, page, MESSAGE_COLUMNS)


@command(app, "show")
def show(session: Session, message_id: MessageId) -> None:
    """Show a message as it stands."""
    message = session.gateway.message(message_id)
    session.screen.show(message, message_details(message))


@command(app, "explain")
def explain(session: Session, message_id: MessageId) -> None:
    """Explain a message: timeline, attempts, parts, receipts, callbacks, and why."""
    explained = session.gateway.explain(message_id)
    session.screen.show(explained, explanation(explained))


@command(app, "cancel")
def cancel(session: Session, message_id: MessageId) -> None:
    """Cancel a message, where that is still possible."""
    message = session.gateway.cancel(message_id)
    session.screen.show(message, message_details(message))
    if message.status != MessageStatus.CANCELED:
        session.screen.remark(
            "A provider has it already: it is asked to forget it, where it can be asked."
        )
