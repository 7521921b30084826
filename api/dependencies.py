"""What endpoints ask for: the services of this process, and a caller who may do this.

An endpoint names the scope that it needs by the type of its caller, so that none can be written
without one: `caller: MessageReader`.
"""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from api.problems import LIVE_KEY_NEEDED, MISSING_SCOPE, UNAUTHORIZED, Problem
from domain.configuration import Environment
from services.asked import Caller
from services.assembly import Services
from services.keys import Scope

_bearer = HTTPBearer(
    scheme_name="api_key",
    bearerFormat="sg_live_… or sg_test_…",
    description="An API key. It belongs to one account and one environment, and has scopes; "
    "`admin` stands for all of them.",
    auto_error=False,
)

# The configuration is that of the whole installation: live messages take its routes, too.
_LIVE_ONLY = frozenset({Scope.MANAGE_CONFIG.value})


async def _services(request: Request) -> Services:
    # Not a plain function, which FastAPI would hand to a thread at every request.
    services: Services = request.app.state.services
    return services


Gateway = Annotated[Services, Depends(_services)]
"""The services of this process."""


async def _authorized(
    gateway: Gateway,
    wanted: SecurityScopes,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    if credentials is None:
        raise Problem(
            UNAUTHORIZED,
            "The key is missing: send it in the header `Authorization: Bearer KEY`.",
        )
    caller = await gateway.keys.authenticate(credentials.credentials)
    lacking = [scope for scope in wanted.scopes if scope not in caller.scopes]
    if lacking and Scope.ADMIN.value not in caller.scopes:
        raise Problem(
            MISSING_SCOPE,
            f"The key lacks the scope {lacking[0]}: use one that has it, or let one be made.",
        )
    if _LIVE_ONLY & set(wanted.scopes) and caller.environment is not Environment.LIVE:
        raise Problem(LIVE_KEY_NEEDED)
    return caller


def _with(scope: Scope) -> object:
    return Security(_authorized, scopes=[scope.value])


MessageSender = Annotated[Caller, _with(Scope.SEND)]
MessageReader = Annotated[Caller, _with(Scope.READ)]
DeadLetterReplayer = Annotated[Caller, _with(Scope.REPLAY_DEAD_LETTERS)]
ProviderReader = Annotated[Caller, _with(Scope.READ_PROVIDERS)]
KeyKeeper = Annotated[Caller, _with(Scope.MANAGE_KEYS)]
Configurer = Annotated[Caller, _with(Scope.MANAGE_CONFIG)]
CallbackReader = Annotated[Caller, _with(Scope.READ_CALLBACKS)]
CallbackReplayer = Annotated[Caller, _with(Scope.REPLAY_CALLBACKS)]
