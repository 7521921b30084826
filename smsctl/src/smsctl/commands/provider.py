"""`smsctl provider …`."""

import time
from typing import Annotated

import typer
from rich.text import Text
from smsgateway import DEFAULT_WAIT, Page, Provider, ReparsedReceipts

from smsctl.columns import (
    PROVIDER_COLUMNS,
    accepted_lines,
    counted,
    provider_details,
    result_of_test,
)
from smsctl.command import Session, command, ended
from smsctl.commands.arguments import not_empty, show_page
from smsctl.commands.send import exit_code
from smsctl.failures import ExitCode
from smsctl.screen import visible
from smsctl.waiting import show_waiting_for_test

app = typer.Typer(
    no_args_is_help=True, help="Look at providers, test them, and parse their receipts again."
)
ProviderName = Annotated[
    str, typer.Argument(parser=not_empty, metavar="NAME", help="The provider's name.")
]


@command(app, "status", columns=PROVIDER_COLUMNS)
def status(
    session: Session,
    provider: Annotated[
        str, typer.Option(help="Only this one; by default, and if empty, all of them.")
    ] = "",
) -> None:
    """Show the health of providers, and what they did in the last 60 minutes."""
    gateway = session.gateway
    found = (gateway.provider(provider),) if provider else gateway.providers()
    show_page(session, Page[Provider](items=found), PROVIDER_COLUMNS, "providers")


@command(app, "show")
def show(session: Session, provider: ProviderName) -> None:
    """Show all of a provider, and what each of its workers reports."""
    found = session.gateway.provider(provider)
    session.screen.show(found, provider_details(found))


@command(app, "address", operator=True)
def address(session: Session, provider: ProviderName) -> None:
    """Show the fixed address at which a provider reports receipts.

    For a provider that has one address for all messages, to be entered there. It contains a secret.
    Exits with 1 if the provider has no such address.
    """
    found = session.gateway.provider_addresses(provider)
    session.screen.show(found, Text(visible(found.receipts or found.detail or "")))
    if found.receipts is None:
        raise ended(ExitCode.FAILED)


@command(app, "test", operator=True)
def send_test(
    session: Session,
    provider: ProviderName,
    to: Annotated[str, typer.Option(help="The recipient's number, such as +447700900123.")],
    sender: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="The sender ID; by default the first that the configuration names for the account.",
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="The text; by default one that says that it is a test.")
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(
            "--account-id",
            metavar="ACCOUNT_ID",
            help="The account that the message belongs to; by default the only one there is.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the end.")
    ] = DEFAULT_WAIT,
) -> None:
    """Send one message through a provider, whatever the routes say, and show each step.

    The exit code is 0 if the message was delivered, 1 if it ended otherwise, and 8 if it has not ended
    yet.
    """
    began = time.monotonic()
    gateway = session.gateway
    accepted = gateway.send_provider_test(
        provider, to=to, sender=sender, body=text, account_id=account
    )
    for warning in accepted.warnings:
        session.screen.remark(f"Warning: {warning}")
    if not session.screen.for_programs:
        session.screen.show(accepted, *accepted_lines(accepted))
    seen, explained = show_waiting_for_test(
        session.screen, gateway, provider, accepted.message_id, timeout
    )
    session.screen.show(explained, *result_of_test(explained, time.monotonic() - began))
    code = exit_code(seen)
    if code is not ExitCode.OK:
        raise ended(code)


@command(app, "reparse", operator=True)
def reparse(session: Session, provider: ProviderName) -> None:
    """Parse receipts again that could not be parsed, by the configuration in force.

    Exits with 1 if some still cannot be parsed.
    """
    done = session.gateway.reparse_receipts(provider)
    parsed, unparsed = done.parsed, done.unparsed
    while done.next_after is not None:
        done = session.gateway.reparse_receipts(provider, after=done.next_after)
        parsed, unparsed = parsed + done.parsed, unparsed + done.unparsed
    session.screen.show(
        ReparsedReceipts(parsed=parsed, unparsed=unparsed),
        Text(f"{counted(parsed, 'receipt')} parsed; {unparsed} still cannot be parsed."),
    )
    if unparsed:
        raise ended(ExitCode.FAILED)
