"""What endpoints ask for: the services of this process, and a caller who may do this.

An endpoint names the scope that it needs by the type of its caller, so that none can be written
without one: `caller: MessageReader`. The type also says whose key it takes, an account's or an
operator's, and whether it serves suspended accounts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.problems import (
    ACCOUNT_KEY_NEEDED,
    ACCOUNT_SUSPENDED,
    MISSING_SCOPE,
    OPERATOR_KEY_NEEDED,
    UNAUTHORIZED,
    Problem,
)
from services.assembly import Services
from services.keys import Bearer, Operator, OperatorScope, Scope, has_scope
from services.submission import Caller

_bearer = HTTPBearer(
    scheme_name="api_key",
    bearerFormat="sg_live_…, sg_test_… or sg_operator_…",
    description="An API key. `sg_live_…` and `sg_test_…` belong to one account and one environment, "
    "and have scopes; `admin` stands for all of an account's. `sg_operator_…` belong to no account "
    "and have scopes of their own.",
    auto_error=False,
)


async def _services(request: Request) -> Services:
    # Not a plain function, which FastAPI would hand to a thread at every request.
    services: Services = request.app.state.services
    return services


Gateway = Annotated[Services, Depends(_services)]
"""The services of this process."""


@dataclass(frozen=True, slots=True)
class Access:
    """What an endpoint needs of whoever calls it.

    Attributes:
        scope: of the key.
        sends: whether it sends messages, which suspended accounts may not.
    """

    scope: Scope | OperatorScope
    sends: bool = False


async def authorize(request: Request, access: Access) -> None:
    """Let a request through whose key may do this; its route calls this before it reads more.

    Raises:
        UnknownKey: the key is wrong, expired or revoked.
        Problem: it is missing, is of the other kind, has not the scope, or its account is suspended.
    """
    credentials = await _bearer(request)
    if credentials is None:
        raise Problem(
            UNAUTHORIZED,
            "The key is missing: send it in the header `Authorization: Bearer KEY`.",
        )
    gateway = await _services(request)
    bearer = await gateway.keys.authenticate(credentials.credentials)
    _check(bearer, access)
    request.state.bearer = bearer


def _check(bearer: Bearer, access: Access) -> None:
    if isinstance(access.scope, OperatorScope):
        if not isinstance(bearer, Operator):
            raise Problem(OPERATOR_KEY_NEEDED)
        allowed = access.scope in bearer.scopes
    else:
        if isinstance(bearer, Operator):
            raise Problem(ACCOUNT_KEY_NEEDED)
        allowed = has_scope(bearer.scopes, access.scope)
    if not allowed:
        raise Problem(
            MISSING_SCOPE,
            f"The key lacks the scope {access.scope}: use one that has it, or let one be made.",
        )
    if access.sends and isinstance(bearer, Caller) and bearer.is_suspended:
        raise Problem(ACCOUNT_SUSPENDED)


# FastAPI solves dependencies behind the body, so `authorize` looked at the key before.


async def _caller(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    caller: Caller = request.state.bearer
    return caller


async def _sender(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    caller: Caller = request.state.bearer
    return caller


async def _operator(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Operator:
    operator: Operator = request.state.bearer
    return operator


def access_of(dependant: Dependant) -> Access | None:
    """What an endpoint needs, by its dependencies; None if it needs no key."""
    for each in dependant.dependencies:
        scopes = each.own_oauth_scopes or []
        if each.call is _operator:
            return Access(OperatorScope(scopes[0]))
        if each.call in {_caller, _sender}:
            return Access(Scope(scopes[0]), sends=each.call is _sender)
    return None


def _needs(bearer: Callable[..., object], scope: Scope | OperatorScope) -> object:
    return Security(bearer, scopes=[scope.value])


MessageSender = Annotated[Caller, _needs(_sender, Scope.SEND)]
"""Whoever makes the gateway send; refused while the account is suspended."""
SendStopper = Annotated[Caller, _needs(_caller, Scope.SEND)]
"""Whoever previews, pauses or cancels, which is possible while the account is suspended."""
MessageReader = Annotated[Caller, _needs(_caller, Scope.READ)]
DeadLetterReplayer = Annotated[Caller, _needs(_sender, Scope.REPLAY_DEAD_LETTERS)]
ProviderReader = Annotated[Caller, _needs(_caller, Scope.READ_PROVIDERS)]
KeyKeeper = Annotated[Caller, _needs(_caller, Scope.MANAGE_KEYS)]
CallbackReader = Annotated[Caller, _needs(_caller, Scope.READ_CALLBACKS)]
CallbackReplayer = Annotated[Caller, _needs(_caller, Scope.REPLAY_CALLBACKS)]
Configurer = Annotated[Operator, _needs(_operator, OperatorScope.MANAGE_CONFIG)]
AccountManager = Annotated[Operator, _needs(_operator, OperatorScope.MANAGE_ACCOUNTS)]
OperatorKeyKeeper = Annotated[Operator, _needs(_operator, OperatorScope.MANAGE_OPERATOR_KEYS)]
