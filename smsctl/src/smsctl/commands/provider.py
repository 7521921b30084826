"""`smsctl provider …`."""

from typing import Annotated

import typer
from rich.text import Text
from smsgateway import Page, Provider, ReparsedReceipts

from smsctl.columns import PROVIDER_COLUMNS, counted, provider_details
from smsctl.command import Session, command, ended
from smsctl.commands.arguments import not_empty, show_page
from smsctl.failures import ExitCode

app = typer.Typer(no_args_is_help=True, help="Look at providers, and parse their receipts again.")


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
def show(
    session: Session,
    provider: Annotated[
        str, typer.Argument(parser=not_empty, metavar="NAME", help="The provider's name.")
    ],
) -> None:
    """Show all of a provider, and what each of its workers reports."""
    found = session.gateway.provider(provider)
    session.screen.show(found, provider_details(found))


@command(app, "reparse", operator=True)
def reparse(
    session: Session,
    provider: Annotated[
        str, typer.Argument(parser=not_empty, metavar="NAME", help="The provider's name.")
    ],
) -> None:
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
