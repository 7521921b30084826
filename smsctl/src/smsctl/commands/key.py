"""`smsctl key …`."""

from datetime import datetime
from typing import Annotated

import typer
from rich.text import Text
from smsgateway import CreatedKey, CreatedOperatorKey, Environment, Key, Page

from smsctl.columns import KEY_COLUMNS
from smsctl.command import Session, command
from smsctl.commands.arguments import moment, not_empty, show_page
from smsctl.screen import visible

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke keys.")

SCOPES = (
    "admin",
    "messages:send",
    "messages:read",
    "dead_letters:replay",
    "providers:read",
    "keys:manage",
    "callbacks:read",
    "callbacks:replay",
)


Name = Annotated[str, typer.Option(help="Whose key it is, or what for.")]
KeyId = Annotated[
    str, typer.Argument(parser=not_empty, metavar="KEY_ID", help="The id, not the key itself.")
]
KeyEnvironment = Annotated[Environment, typer.Option(help="Which providers it reaches.")]
ExpiresAt = Annotated[
    datetime | None,
    typer.Option(
        parser=moment,
        metavar="TIME",
        help="When it stops working, at the latest with the key that creates it.",
    ),
]


def _scopes(incomplete: str) -> list[str]:
    return [scope for scope in SCOPES if scope.startswith(incomplete)]


KeyScopes = Annotated[
    list[str],
    typer.Option(help=f"What it may do; repeatable: {', '.join(SCOPES)}.", autocompletion=_scopes),
]


@command(app, "create")
def create(
    session: Session,
    name: Name,
    environment: KeyEnvironment,
    scope: KeyScopes,
    expires_at: ExpiresAt = None,
) -> None:
    """Make a key. It is shown once, and kept nowhere."""
    show_new(
        session,
        session.gateway.create_key(
            name=name, environment=environment, scopes=scope, expires_at=expires_at
        ),
    )


def show_new(session: Session, made: CreatedKey | CreatedOperatorKey) -> None:
    """Show a new key, this once."""
    session.screen.remark(f"The key {made.id} is shown this once: keep it where secrets are kept.")
    session.screen.show(made, Text(visible(made.key)))


@command(app, "list", columns=KEY_COLUMNS)
def list_(session: Session) -> None:
    """List the keys of the account, without their secrets."""
    show_page(session, Page[Key](items=session.gateway.keys()), KEY_COLUMNS, "keys")


@command(app, "revoke")
def revoke(session: Session, key_id: KeyId) -> None:
    """Make a key worthless, at once and for good, and with it every key that it created."""
    session.gateway.revoke_key(key_id)
    session.screen.show({"revoked": key_id}, Text(visible(f"{key_id} is revoked.")))
