"""Receipts of HTTP providers: the address and the signature decide, and only what is committed is answered."""

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from domain.receipts import ReceiptState
from providers.webhooks import UnreadableWebhook
from services.assembly import Services, assemble
from settings.settings import Settings
from tests.api.conftest import (
    CONFIGURATION,
    LIST,
    NUMBER,
    Api,
    serving,
    slug_of,
    temporal_is_away,
    uuid_of,
)
from tests.fakes.carrier import Request, Sent
from tests.fakes.twilio_carrier import ACCOUNT, TOKEN, TwilioCarrier

pytestmark = pytest.mark.stack

TWILIO = f"""
[providers.twilio]
type = "twilio"
account_sid = "{ACCOUNT}"
auth_token = "env:SMSGATEWAY_SECRET_TWILIO"
"""
PUBLIC = "https://sms.example.com/gateway"
SID = "SM75729fae923d5a4fd12aabfe228f219e"
REPARSE = "/api/v1/providers/twilio/receipts/reparse"


@pytest.fixture
async def services(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Services]:
    monkeypatch.setenv("SMSGATEWAY_SECRET_TWILIO", TOKEN)
    public = settings.model_copy(update={"public_url": PUBLIC})
    services = assemble(public, connect=temporal_is_away)
    yield services
    await services.close()


@pytest.fixture
async def api(unconfigured: Api) -> Api:
    await unconfigured.services.configurations.apply(CONFIGURATION + TWILIO, applied_by="key_test")
    return unconfigured


async def accepted(api: Api, sid: str | None = SID) -> str:
    """A message that Twilio has accepted, or whose response was lost."""
    message_id = await api.sent()
    await api.submitted(message_id, sid, provider="twilio")
    return message_id


def signed(
    api: Api, message_id: str, state: ReceiptState, *, code: str = "", sid: str = SID
) -> Request:
    """The receipt of the message's first attempt, as Twilio sends it."""
    token = api.services.receipt_tokens.token(uuid_of(message_id), 1)
    url = api.services.provider_reports.receipt_url("twilio", token)
    return TwilioCarrier().receipt(Sent(sid, NUMBER, "ACME", "", url), state, code)


async def posted(api: Api, request: Request) -> httpx.Response:
    """A request as the proxy hands it on: another scheme and host, and without its own prefix."""
    target = urlsplit(request.target)
    path = target.path.removeprefix(urlsplit(PUBLIC).path)
    return await api.http.request(
        request.method,
        path + (f"?{target.query}" if target.query else ""),
        content=request.body,
        headers=dict(request.headers),
    )


async def status(api: Api, message_id: str) -> str:
    return str((await api.get(f"{LIST}/{message_id}")).json()["status"])


async def test_a_signed_receipt_delivers_the_message(api: Api) -> None:
    message_id = await accepted(api)
    response = await posted(api, signed(api, message_id, ReceiptState.DELIVERED))
    assert (response.status_code, response.content) == (204, b"")
    assert await status(api, message_id) == "delivered"


async def test_a_receipt_of_a_lost_response_resolves_the_unknown_outcome(api: Api) -> None:
    message_id = await accepted(api, None)
    assert await status(api, message_id) == "unknown"
    response = await posted(api, signed(api, message_id, ReceiptState.DELIVERED))
    assert response.status_code == 204
    assert await status(api, message_id) == "delivered"


async def test_the_code_of_a_receipt_is_explained_in_words(api: Api) -> None:
    message_id = await accepted(api)
    await posted(api, signed(api, message_id, ReceiptState.UNDELIVERABLE, code="30006"))
    (part,) = await api.fetch("SELECT error_class FROM receipts")
    assert part["error_class"] == "landline"
    explained = (await api.get(f"{LIST}/{message_id}/explain")).json()
    assert "the number is a landline, or its carrier cannot be reached" in str(explained)


async def test_duplicates_and_disorder_do_no_harm(api: Api) -> None:
    message_id = await accepted(api)
    states = [ReceiptState.DELIVERED, ReceiptState.ENROUTE, ReceiptState.ACCEPTED]
    requests = [signed(api, message_id, state) for state in states * 3]
    responses = await asyncio.gather(*(posted(api, request) for request in requests))
    assert {response.status_code for response in responses} == {204}
    assert await status(api, message_id) == "delivered"
    transitions = await api.fetch("SELECT status FROM events WHERE kind = 'moved' ORDER BY seq")
    assert [each["status"] for each in transitions].count("delivered") == 1


async def test_a_forged_receipt_is_refused_and_logged_without_its_content(
    api: Api, logged: io.StringIO
) -> None:
    message_id = await accepted(api)
    request = signed(api, message_id, ReceiptState.UNDELIVERABLE)
    forged = replace(request, body=request.body.replace(b"undelivered", b"delivered"))
    response = await posted(api, forged)
    assert (response.status_code, slug_of(response)) == (401, "signature-refused")
    assert await status(api, message_id) == "sent"
    assert "webhook_forged" in logged.getvalue()
    assert "bad_signature" in logged.getvalue()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_signed_request_by_another_method_changes_nothing(api: Api, method: str) -> None:
    message_id = await accepted(api)
    request = signed(api, message_id, ReceiptState.UNDELIVERABLE)
    assert (await posted(api, replace(request, method=method))).status_code == 404
    assert await status(api, message_id) == "sent"


@pytest.mark.parametrize("provider", ["twilio", "primary", "nobody"])
async def test_an_address_with_a_token_that_is_not_ours_is_unknown(api: Api, provider: str) -> None:
    message_id = await accepted(api)
    token = api.services.receipt_tokens.token(uuid_of(message_id), 1)
    wrong = ("A" if token[0] != "A" else "B") + token[1:]
    path = f"/webhooks/providers/{provider}/receipts/"
    for tried in (wrong, "x", api.services.receipt_tokens.token_of_provider("backup")):
        response = await api.http.request("POST", path + tried, content=b"a=1")
        assert (response.status_code, slug_of(response)) == (404, "not-found")


async def test_a_provider_of_another_type_reports_nothing_here(api: Api) -> None:
    message_id = await accepted(api)
    token = api.services.receipt_tokens.token(uuid_of(message_id), 1)
    response = await api.http.request(
        "POST", f"/webhooks/providers/primary/receipts/{token}", content=b"a=1"
    )
    assert response.status_code == 404


async def test_a_body_is_read_only_for_an_address_that_exists_and_only_up_to_its_limit(
    api: Api,
) -> None:
    reading = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal reading
        for _ in range(64):
            reading += 1
            yield b"x" * 65536

    path = "/webhooks/providers/twilio/receipts/"
    response = await api.http.request("POST", path + "x" * 46, content=endless())
    assert response.status_code == 404
    own = api.services.receipt_tokens.token_of_provider("twilio")
    response = await api.http.request("POST", path + own, content=endless())
    assert (response.status_code, slug_of(response)) == (413, "body-too-large")


async def test_a_request_that_cannot_be_read_is_kept_and_parsed_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = await accepted(api)
    request = signed(api, message_id, ReceiptState.DELIVERED)

    def unreadable(*_: Any) -> None:
        raise UnreadableWebhook

    with monkeypatch.context() as patched:
        patched.setattr("providers.twilio.TwilioWebhooks.receipts", unreadable)
        assert (await posted(api, request)).status_code == 204
        assert (await api.post(REPARSE)).json()["unparsed"] == 1
    assert await status(api, message_id) == "sent"
    assert (await api.post(REPARSE)).json() == {"parsed": 1, "unparsed": 0, "next_after": None}
    assert await status(api, message_id) == "delivered"


async def test_while_the_database_is_away_the_provider_keeps_the_receipt(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = await accepted(api)
    request = signed(api, message_id, ReceiptState.DELIVERED)

    async def away(*_: Any, **__: Any) -> None:
        raise psycopg.OperationalError("away")

    with monkeypatch.context() as patched:
        patched.setattr("services.receipts.ingest_named", away)
        response = await posted(api, request)
        assert (response.status_code, slug_of(response)) == (503, "database-unavailable")
    assert (await posted(api, request)).status_code == 204
    assert await status(api, message_id) == "delivered"


async def test_a_secret_that_is_missing_makes_the_provider_send_its_receipts_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = await accepted(api)
    request = signed(api, message_id, ReceiptState.DELIVERED)
    with monkeypatch.context() as patched:
        patched.delenv("SMSGATEWAY_SECRET_TWILIO")
        assert (await posted(api, request)).status_code == 503
    assert (await posted(api, request)).status_code == 204


async def test_without_a_public_address_no_provider_can_report(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMSGATEWAY_SECRET_TWILIO", TOKEN)
    services = assemble(settings, connect=temporal_is_away)
    async with serving(services) as api:
        assert services.provider_reports.receipt_url("twilio", "t") is None
        await services.configurations.apply(CONFIGURATION + TWILIO, applied_by="key_test")
        own = services.receipt_tokens.token_of_provider("twilio")
        path = f"/webhooks/providers/twilio/receipts/{own}"
        response = await api.http.request("POST", path, content=b"a=1")
        assert response.status_code == 404
    await services.close()


async def test_the_fixed_address_of_a_provider_is_shown_to_operators_and_takes_its_receipts(
    api: Api,
) -> None:
    message_id = await accepted(api)
    shown = (await api.get("/api/v1/providers/twilio/addresses")).json()
    assert shown["receipts"].startswith(f"{PUBLIC}/webhooks/providers/twilio/receipts/")
    sent = Sent(SID, NUMBER, "ACME", "", shown["receipts"])
    response = await posted(api, TwilioCarrier().receipt(sent, ReceiptState.DELIVERED, ""))
    assert response.status_code == 204
    assert await status(api, message_id) == "delivered"
    as_account = await api.get("/api/v1/providers/twilio/addresses", key=api.key)
    assert (as_account.status_code, slug_of(as_account)) == (403, "operator-key-needed")


async def test_without_a_public_address_there_is_none_to_show_and_a_configuration_is_warned_of(
    api: Api,
) -> None:
    private = assemble(
        api.services.settings.model_copy(update={"public_url": None}), connect=temporal_is_away
    )
    try:
        async with serving(private) as other:
            other.operator = api.operator
            await private.configurations.refresh()
            shown = (await other.get("/api/v1/providers/twilio/addresses")).json()
            assert shown["receipts"] is None
            assert "set SMSGATEWAY_PUBLIC_URL in every process" in shown["detail"]
            toml = {"content-type": "application/toml"}
            text = CONFIGURATION + TWILIO
            for what in ("check", "apply"):
                done = await other.post(f"/api/v1/config/{what}", content=text, headers=toml)
                found = [each["path"] for each in done.json()["warnings"]]
                assert "providers.twilio" in found
            silent = text + "receipts = false\n"
            done = await other.post("/api/v1/config/check", content=silent, headers=toml)
            assert "providers.twilio" not in [each["path"] for each in done.json()["warnings"]]
            done = await api.post("/api/v1/config/check", content=text, headers=toml)
            assert "providers.twilio" not in [each["path"] for each in done.json()["warnings"]]
    finally:
        await private.close()
