"""`smsctl operator-key …`."""

from typing import Annotated

import typer
from rich.text import Text
from smsgateway import OperatorKey, Page

from smsctl.columns import OPERATOR_KEY_COLUMNS
from smsctl.command import Session, command
from smsctl.commands.arguments import show_page
from smsctl.commands.key import ExpiresAt, KeyId, Name, show_new
from smsctl.screen import visible

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys of operators.")

SCOPES = ("accounts:manage", "config:manage", "operator_keys:manage")


def _scopes(incomplete: str) -> list[str]:
    return [scope for scope in SCOPES if scope.startswith(incomplete)]


@command(app, "create", operator=True)
def create(
    session: Session,
    name: Name,
    scope: Annotated[
        list[str],
        typer.Option(
            help=f"What it may do; repeatable: {', '.join(SCOPES)}.", autocompletion=_scopes
        ),
    ],
    expires_at: ExpiresAt = None,
) -> None:
    """Make a key for an operator. It is shown once, and kept nowhere."""
    show_new(
        session,
        session.gateway.create_operator_key(name=name, scopes=scope, expires_at=expires_at),
    )


@command(app, "list", columns=OPERATOR_KEY_COLUMNS, operator=True)
def list_(session: Session) -> None:
    """List the keys of operators, without their secrets."""
    page = Page[OperatorKey](items=session.gateway.operator_keys())
    show_page(session, page, OPERATOR_KEY_COLUMNS, "operator's keys")


@command(app, "revoke", operator=True)
def revoke(session: Session, key_id: KeyId) -> None:
    """Make an operator's key worthless, at once and for good, and every key that it created."""
    session.gateway.revoke_operator_key(key_id)
    session.screen.show({"revoked": key_id}, Text(visible(f"{key_id} is revoked.")))
