"""`smsctl send`."""

import uuid
from typing import Annotated

import typer
from rich.text import Text
from smsgateway import ConnectionFailed, MessageStatus, Unavailable

from smsctl.command import Session, command, ended
from smsctl.commands.arguments import (
    AtOption,
    CallbackUrlOption,
    MetadataOption,
    ModeOption,
    PriorityOption,
    SenderOption,
    SmartEncodingOption,
    ValidityOption,
    body_text,
    pairs,
)
from smsctl.failures import ExitCode, Mistake
from smsctl.screen import visible
from smsctl.tables import accepted_lines
from smsctl.waiting import Seen, show_waiting

DEFAULT_WAIT = 120.0


def add_to(app: typer.Typer) -> None:
    """Makes `send` a command of `app`."""
    command(app, "send")(send)


def send(
    session: Session,
    to: Annotated[str, typer.Option(help="The recipient's number, such as +447700900123.")],
    sender: SenderOption,
    body: Annotated[str, typer.Option(help="The text; - reads it from standard input.")],
    priority: PriorityOption = None,
    mode: ModeOption = None,
    callback_url: CallbackUrlOption = None,
    validity: ValidityOption = None,
    at: AtOption = None,
    metadata: MetadataOption = None,
    smart_encoding: SmartEncodingOption = True,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Two sends with one key are one message.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show what happens until it ends.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long --wait waits.")
    ] = DEFAULT_WAIT,
) -> None:
    """Send a message.

    With --wait the exit code tells how it ended: 0 delivered, 1 otherwise, 8 not yet.
    """
    key = idempotency_key or uuid.uuid4().hex
    text = body_text(body)
    gateway = session.gateway
    try:
        accepted = gateway.send(
            to=to,
            sender=sender,
            body=text,
            priority=priority,
            mode=mode,
            callback_url=callback_url,
            validity_period=validity,
            scheduled_at=at,
            metadata=pairs(metadata) if metadata else None,
            smart_encoding=smart_encoding,
            idempotency_key=key,
        )
    except ValueError as error:
        raise Mistake(str(error)) from None
    except (ConnectionFailed, Unavailable):
        session.screen.remark(
            f"To try again without any risk of sending it twice, add --idempotency-key {key}."
        )
        raise
    for warning in accepted.warnings:
        session.screen.remark(f"Warning: {warning}")
    if not wait:
        session.screen.show(accepted, *accepted_lines(accepted))
        return
    if not session.screen.for_programs:
        session.screen.show(accepted, *accepted_lines(accepted))
    seen = show_waiting(session.screen, gateway, accepted.message_id, timeout)
    ending = {
        **accepted.model_dump(mode="json"),
        "status": seen.message.status,
        "message": seen.message,
        "events": [event.model_dump(mode="json") for event in seen.events],
    }
    session.screen.show(ending, _last_words(seen))
    code = _exit_code(seen)
    if code is ExitCode.STILL_GOING:
        session.screen.remark(
            f"It goes on; `smsctl message show {accepted.message_id}` tells how it ended."
        )
    if code is not ExitCode.OK:
        raise ended(code)


def _exit_code(seen: Seen) -> ExitCode:
    if seen.message.status == MessageStatus.DELIVERED:
        return ExitCode.OK
    return ExitCode.FAILED if seen.message.has_ended else ExitCode.STILL_GOING


def _last_words(seen: Seen) -> Text:
    message = seen.message
    by = f" by {message.provider}" if message.provider else ""
    why = f" ({message.reason})" if message.reason and message.reason != message.status else ""
    verb = "Ended as" if message.has_ended else "Not ended in time: it is still"
    return Text(visible(f"{verb} {message.status}{by}{why}."))
