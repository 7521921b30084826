"""Tests of providers: an operator sends one message through one provider, and sees each step."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Response
from pydantic import Field

from api.dependencies import Configurer, Gateway
from api.fields import Line, RequestModel, Text
from api.messages import Accepted, Explanation, IdempotencyKey, MessageId
from api.problems import NOT_FOUND, Problem, raises, refusal
from api.providers import no_such_provider
from api.routing import Endpoint
from services.configuration import NoConfiguration
from services.messages import UnknownMessage
from services.provider_tests import ProviderDown, ProviderTest, TestedAccountSuspended
from services.submission import KeyInFlight, KeyReused, Refused
from services.unparsed_receipts import UnknownProvider

router = APIRouter(prefix="/api/v1/providers", tags=["providers"], route_class=Endpoint)

ProviderName = Annotated[str, Path(examples=["primary"])]

_TEXT = "This is a test of the SMS gateway."


class ProviderTestRequest(RequestModel):
    """A message that tests a provider."""

    to: Line = Field(description="The recipient's number, E.164.", examples=["+447700900123"])
    sender: Line | None = Field(
        None,
        alias="from",
        description="The sender ID. By default the first that the configuration names for the account.",
        examples=["Acme"],
    )
    body: Text = Field(_TEXT, description="The text.", examples=[_TEXT])
    account_id: Line | None = Field(
        None,
        description="The account that the message belongs to. By default the only one there is.",
        examples=["acc_019aa5c0d1e27b3c8f4e5a6b7c8d9e30"],
    )

    def to_test(self) -> ProviderTest:
        """What the service is asked."""
        return ProviderTest(
            to=self.to, body=self.body, sender=self.sender, account_id=self.account_id
        )


_TEST = {
    "to": "+447700900123",
    "from": "Acme",
    "account_id": "acc_019aa5c0d1e27b3c8f4e5a6b7c8d9e30",
}
EXAMPLES: dict[str, Any] = {
    "test": {"summary": "A test", "value": _TEST},
    "impossible-number": {
        "summary": "Refused: a number that no country has",
        "value": _TEST | {"to": "+4477"},
    },
}
REFUSALS = {
    "impossible-number": refusal(
        "to",
        "invalid_number",
        "The number has too few digits for its country: check that none is missing.",
    )
}


@router.post(
    "/{name}/tests",
    operation_id="send_provider_test",
    status_code=202,
    summary="Test a provider",
    response_description="The message is committed, and will be sent through this provider.",
    responses=raises(
        NOT_FOUND,
        ProviderDown,
        TestedAccountSuspended,
        Refused,
        KeyInFlight,
        KeyReused,
        NoConfiguration,
        examples=REFUSALS,
    ),
)
async def send(
    name: ProviderName,
    request: Annotated[ProviderTestRequest, Body(openapi_examples=EXAMPLES)],
    operator: Configurer,
    gateway: Gateway,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Send one message through this provider and no other, whatever the routes say.

    It belongs to an account, whose limits, senders and money apply, and whose keys can read it. It has
    the environment of the provider, is valid for 10 minutes, and sends the account no callbacks.
    """
    try:
        accepted = await gateway.provider_tests.send(
            operator, name, request.to_test(), idempotency_key=idempotency_key
        )
    except UnknownProvider:
        raise no_such_provider(gateway) from None
    response.headers["Location"] = f"{router.prefix}/{name}/tests/{accepted.message_id}"
    if accepted.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return Accepted.of(accepted)


@router.get(
    "/{name}/tests/{message_id}",
    operation_id="explain_provider_test",
    summary="Explain a test of a provider",
    responses=raises(NOT_FOUND),
)
async def explain(
    name: ProviderName, message_id: MessageId, _: Configurer, gateway: Gateway
) -> Explanation:
    """All that is known of a test: the provider's response, its receipts, its price, and each step."""
    try:
        return Explanation.of(await gateway.provider_tests.explain(name, message_id))
    except UnknownMessage:
        raise Problem(NOT_FOUND, "This provider has no test with this id.") from None
