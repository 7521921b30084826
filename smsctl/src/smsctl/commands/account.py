"""`smsctl account …`, for operators."""

from typing import Annotated

import typer
from smsgateway import Account, Page

from smsctl.columns import ACCOUNT_COLUMNS, Grid
from smsctl.command import Session, command
from smsctl.commands.arguments import not_empty, show_page
from smsctl.commands.key import ExpiresAt, KeyEnvironment, KeyScopes, Name, show_new

app = typer.Typer(
    no_args_is_help=True,
    help="Create, list, suspend and resume accounts, with an operator's key.",
)

AccountId = Annotated[
    str, typer.Argument(parser=not_empty, metavar="ACCOUNT_ID", help="acc_…, or `default`.")
]


@command(app, "create", operator=True)
def create(
    session: Session,
    name: Annotated[
        str, typer.Argument(parser=not_empty, help="Unique; 1 to 64 printable characters.")
    ],
) -> None:
    """Create an account. It has no key yet: `smsctl account create-key` makes its first one."""
    account = session.gateway.create_account(name)
    _show(session, account)
    session.screen.remark(
        f"It has no key yet: `smsctl account create-key {account.id} --name NAME --environment live "
        "--scope messages:send` creates one."
    )


@command(app, "list", columns=ACCOUNT_COLUMNS, operator=True)
def list_(session: Session) -> None:
    """List all accounts."""
    show_page(session, Page[Account](items=session.gateway.accounts()), ACCOUNT_COLUMNS, "accounts")


@command(app, "show", operator=True)
def show(session: Session, account_id: AccountId) -> None:
    """Show an account."""
    _show(session, session.gateway.account(account_id))


@command(app, "suspend", operator=True)
def suspend(session: Session, account_id: AccountId) -> None:
    """Refuse whatever would send for an account. Messages that were accepted before go on."""
    _show(session, session.gateway.suspend_account(account_id))


@command(app, "resume", operator=True)
def resume(session: Session, account_id: AccountId) -> None:
    """Let a suspended account send again."""
    _show(session, session.gateway.resume_account(account_id))


@command(app, "create-key", operator=True)
def create_key(
    session: Session,
    account_id: AccountId,
    name: Name,
    environment: KeyEnvironment,
    scope: KeyScopes,
    expires_at: ExpiresAt = None,
) -> None:
    """Make a key of an account, such as its first. It is shown once, and kept nowhere."""
    show_new(
        session,
        session.gateway.create_account_key(
            account_id, name=name, environment=environment, scopes=scope, expires_at=expires_at
        ),
    )


def _show(session: Session, account: Account) -> None:
    session.screen.show(account, Grid(ACCOUNT_COLUMNS, [account]))
