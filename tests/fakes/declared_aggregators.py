"""The aggregators whose sections are in `tests/providers/declared`, with the adapters made of them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from domain.attempt_references import attempt_reference
from domain.configuration.providers.declared.section import DeclaredProviderConfiguration
from domain.modes import Priority
from providers.base import Outbound, ProviderSinks
from providers.declared import DeclaredProvider, DeclaredWebhooks
from providers.http import HttpResponse
from providers.webhooks import WebhookRequest
from settings.configuration_file import parse_configuration
from tests.fakes.carrier import PUBLIC_URL, TOKENS

FOLDER = Path(__file__).parents[1] / "providers/declared"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))

MESSAGE_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
ATTEMPT = 2
TOKEN = TOKENS.token(MESSAGE_ID, ATTEMPT)
REFERENCE = attempt_reference(MESSAGE_ID, ATTEMPT)
RECIPIENT = "+447700900123"
SENDER = "+12025550143"


def section(name: str) -> DeclaredProviderConfiguration:
    """The section of an aggregator."""
    configuration = parse_configuration((FOLDER / f"{name}.toml").read_text())
    (declared,) = configuration.providers.values()
    assert isinstance(declared, DeclaredProviderConfiguration)
    return declared


def secrets_of(declared: DeclaredProviderConfiguration) -> Mapping[str, str]:
    """Made-up secrets, with characters that have to be encoded."""
    return {name: f"made-up/{name}+&=%" for name in declared.secret_references}


async def _nowhere(_: object) -> None:
    pass


@asynccontextmanager
async def adapter(
    declared: DeclaredProviderConfiguration, *, public: bool = True
) -> AsyncIterator[DeclaredProvider]:
    """The adapter of a section; without a public address it asks for no receipts."""
    sinks = ProviderSinks(
        on_receipt=_nowhere,
        receipt_url=lambda name, token: (
            f"{PUBLIC_URL}/webhooks/providers/{name}/receipts/{token}" if public else None
        ),
    )
    provider = DeclaredProvider.build("x", declared, secrets_of(declared), sinks)
    try:
        yield provider
    finally:
        await provider.stop(timedelta())


def webhooks(declared: DeclaredProviderConfiguration) -> DeclaredWebhooks:
    """What reads the receipts of a section."""
    return DeclaredWebhooks("x", declared, secrets_of(declared))


def outbound(text: str = "Hello [ok]", **more: Any) -> Outbound:
    """A message."""
    fields: dict[str, Any] = {
        "message_id": MESSAGE_ID,
        "attempt": ATTEMPT,
        "sender": SENDER,
        "recipient": RECIPIENT,
        "text": text,
        "reference": 7,
        "valid_until": datetime.now(UTC) + timedelta(hours=2),
        "priority": Priority.NORMAL,
        "receipt_token": TOKEN,
    }
    return Outbound(**(fields | more))


def response(status: int, body: bytes | str, **headers: str) -> HttpResponse:
    """A response of the aggregator."""
    octets = body.encode() if isinstance(body, str) else body
    return HttpResponse(status, httpx.Headers(headers), octets)


def came(
    body: bytes | str = b"",
    *,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    at: datetime | None = None,
) -> WebhookRequest:
    """A request to the address of the message's attempt: GET if it has a query."""
    url = f"{PUBLIC_URL}/webhooks/providers/x/receipts/{TOKEN}"
    octets = body.encode() if isinstance(body, str) else body
    return WebhookRequest(
        method="GET" if query else "POST",
        url=f"{url}?{query}" if query else url,
        headers=headers or {},
        body=octets,
        at=at or datetime.now(UTC),
    )
