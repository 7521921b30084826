"""`smsctl provider …`."""

from typing import Annotated

import typer
from smsgateway import Page, Provider

from smsctl.command import Session, command
from smsctl.commands.arguments import show_page
from smsctl.tables import PROVIDER_COLUMNS

app = typer.Typer(no_args_is_help=True, help="Look at providers.")


@command(app, "status")
def status(
    session: Session,
    provider: Annotated[
        str, typer.Option(help="Only this one; by default, and if empty, all of them.")
    ] = "",
) -> None:
    """Show the health of providers, and what they did in the last 60 minutes."""
    gateway = session.gateway
    found = (gateway.provider(provider),) if provider else gateway.providers()
    show_page(session.screen, Page[Provider](items=found), PROVIDER_COLUMNS)
