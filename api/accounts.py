"""Accounts: created, listed, suspended, resumed, and given keys, by operators."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Body, Path
from pydantic import AfterValidator, Field

from api.dependencies import AccountManager, Gateway
from api.fields import STORABLE, Items, RequestModel, ResponseModel
from api.keys import CreatedKey, NewKey
from api.problems import raises, refusal
from api.routing import Endpoint
from services import accounts as service
from services.accounts import LONGEST_NAME, AccountNameTaken, UnknownAccount, account_name

router = APIRouter(prefix="/api/v1/accounts", tags=["accounts"], route_class=Endpoint)

AccountId = Annotated[str, Path(examples=["acc_019aa5c0d1e27b3c8f4e5a6b7c8d9e30"])]


class NewAccount(RequestModel):
    """An account to be created."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=LONGEST_NAME),
        STORABLE,
        AfterValidator(account_name),
    ] = Field(description="Unique; printable characters.", examples=["Acme Logistics"])


class Account(ResponseModel):
    """An account; its messages are visible to its own keys only."""

    id: str = Field(
        description="As the configuration names it, too (`[accounts.ID]`).",
        examples=["acc_019aa5c0d1e27b3c8f4e5a6b7c8d9e30"],
    )
    name: str = Field(examples=["Acme Logistics"])
    created_at: datetime
    suspended_at: datetime | None = Field(
        description="Since when its keys send nothing; null if they may."
    )

    @classmethod
    def of(cls, account: service.Account) -> Self:
        """The service's account, as it is shown."""
        return cls(**{name: getattr(account, name) for name in cls.model_fields})


class AccountList(Items[Account]):
    """All accounts, the oldest first."""


EXAMPLES: dict[str, Any] = {
    "account": {"summary": "An account", "value": {"name": "Acme Logistics"}},
    "blank": {"summary": "Refused: a blank at the end", "value": {"name": "Acme "}},
}
KEY_EXAMPLES: dict[str, Any] = {
    "first": {
        "summary": "The first key of an account, which creates the others",
        "value": {"name": "admin", "environment": "live", "scopes": ["admin"]},
    },
}


@router.post(
    "",
    operation_id="create_account",
    status_code=201,
    summary="Create an account",
    responses=raises(
        AccountNameTaken,
        examples={
            "blank": refusal(
                "name",
                "invalid",
                "The name has printable characters only, and no blank at its beginning or end.",
            )
        },
    ),
)
async def create(
    wanted: Annotated[NewAccount, Body(openapi_examples=EXAMPLES)],
    operator: AccountManager,
    gateway: Gateway,
) -> Account:
    """Create an account. It has no key yet: create its first one next."""
    return Account.of(await gateway.accounts.create(operator, wanted.name))


@router.get("", operation_id="list_accounts", summary="List accounts")
async def listed(_: AccountManager, gateway: Gateway) -> AccountList:
    """All accounts of the installation."""
    return AccountList(items=[Account.of(each) for each in await gateway.accounts.listed()])


@router.get(
    "/{account_id}",
    operation_id="get_account",
    summary="Show an account",
    responses=raises(UnknownAccount),
)
async def one(account_id: AccountId, _: AccountManager, gateway: Gateway) -> Account:
    """An account by its id."""
    return Account.of(await gateway.accounts.one(account_id))


@router.post(
    "/{account_id}/suspend",
    operation_id="suspend_account",
    summary="Suspend an account",
    responses=raises(UnknownAccount),
)
async def suspend(account_id: AccountId, operator: AccountManager, gateway: Gateway) -> Account:
    """Refuse everything that would send for the account; its keys still read and cancel.

    Messages that were accepted before go on. Other processes of the gateway follow within 2 seconds.
    """
    return Account.of(await gateway.accounts.suspend(operator, account_id))


@router.post(
    "/{account_id}/resume",
    operation_id="resume_account",
    summary="Resume an account",
    responses=raises(UnknownAccount),
)
async def resume(account_id: AccountId, operator: AccountManager, gateway: Gateway) -> Account:
    """Let a suspended account send again."""
    return Account.of(await gateway.accounts.resume(operator, account_id))


@router.post(
    "/{account_id}/keys",
    operation_id="create_account_key",
    status_code=201,
    summary="Make a key of an account",
    responses=raises(UnknownAccount),
)
async def create_key(
    account_id: AccountId,
    wanted: Annotated[NewKey, Body(openapi_examples=KEY_EXAMPLES)],
    operator: AccountManager,
    gateway: Gateway,
) -> CreatedKey:
    """Make a key of an account, such as its first; its secret stands in this response only.

    It does not end with the operator's key.
    """
    made = await gateway.accounts.create_key(
        operator,
        account_id,
        name=wanted.name,
        environment=wanted.environment,
        scopes=wanted.scopes,
        expires_at=wanted.expires_at,
    )
    return CreatedKey.of(made)
