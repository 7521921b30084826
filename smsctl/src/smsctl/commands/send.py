"""`smsctl send`."""

import uuid
from datetime import datetime
from typing import Annotated, TypedDict

import typer
from rich.text import Text
from smsgateway import (
    DEFAULT_WAIT,
    ConnectionFailed,
    MessageStatus,
    MissingReceipt,
    Mode,
    Priority,
    Unavailable,
)

from smsctl.columns import accepted_lines, preview_lines
from smsctl.command import Session, command, ended
from smsctl.commands.arguments import (
    AtOption,
    CallbackUrlOption,
    MetadataOption,
    MissingReceiptOption,
    ModeOption,
    ParameterOption,
    PriorityOption,
    ReceiptDeadlineOption,
    SenderOption,
    SmartEncodingOption,
    ValidityOption,
    body_text,
    pairs,
)
from smsctl.failures import ExitCode, Mistake
from smsctl.screen import visible
from smsctl.sentences import ended_as
from smsctl.waiting import Seen, show_waiting


class _Request(TypedDict):
    """What is asked for, as the client takes it."""

    to: str
    sender: str
    body: str
    priority: Priority | None
    mode: Mode | None
    callback_url: str | None
    validity_period: int | None
    receipt_deadline: int | None
    missing_receipt: MissingReceipt | None
    scheduled_at: datetime | None
    metadata: dict[str, str] | None
    parameters: dict[str, str] | None
    smart_encoding: bool


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
    receipt_deadline: ReceiptDeadlineOption = None,
    missing_receipt: MissingReceiptOption = None,
    at: AtOption = None,
    metadata: MetadataOption = None,
    parameter: ParameterOption = None,
    smart_encoding: SmartEncodingOption = True,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Two sends with one key are one message.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Send nothing: show encoding, segments and route."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show what happens until it ends.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long --wait waits.")
    ] = DEFAULT_WAIT,
) -> None:
    """Send a message.

    With --wait the exit code is 0 if the message was delivered, 1 if it ended otherwise, and 8 if it
    has not ended yet. With --dry-run it is 0 if a route takes the message, and 1 if none does.
    """
    if dry_run and wait:
        raise Mistake(
            "With --dry-run nothing is sent that --wait could wait for: give one of them."
        )
    request = _Request(
        to=to,
        sender=sender,
        body=body_text(body),
        priority=priority,
        mode=mode,
        callback_url=callback_url,
        validity_period=validity,
        receipt_deadline=receipt_deadline,
        missing_receipt=missing_receipt,
        scheduled_at=at,
        metadata=pairs(metadata) if metadata else None,
        parameters=pairs(parameter, "--parameter") if parameter else None,
        smart_encoding=smart_encoding,
    )
    if dry_run:
        _preview(session, request)
        return
    key = idempotency_key or uuid.uuid4().hex
    gateway = session.gateway
    try:
        accepted = gateway.send(**request, idempotency_key=key)
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
    session.screen.show(ending, Text(visible(ended_as(seen.message))))
    code = exit_code(seen)
    if code is ExitCode.STILL_GOING:
        session.screen.remark(
            f"It has not ended yet; `smsctl message show {accepted.message_id}` shows its status."
        )
    if code is not ExitCode.OK:
        raise ended(code)


def _preview(session: Session, request: _Request) -> None:
    preview = session.gateway.preview(**request)
    for warning in preview.warnings:
        session.screen.remark(f"Warning: {warning}")
    session.screen.show(
        preview, *preview_lines(preview, request["receipt_deadline"], request["missing_receipt"])
    )
    if preview.route is None:
        session.screen.remark("No route takes it: it would be accepted, and fail.")
        raise ended(ExitCode.FAILED)
    if not any(each.up for each in preview.providers):
        session.screen.remark(
            "No provider of its route is up: it would wait. `smsctl provider status` shows why."
        )


def exit_code(seen: Seen) -> ExitCode:
    """The exit code of a command that has waited for a message."""
    if seen.message.status == MessageStatus.DELIVERED:
        return ExitCode.OK
    return ExitCode.FAILED if seen.message.has_ended else ExitCode.STILL_GOING
