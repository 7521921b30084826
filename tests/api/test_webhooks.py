"""Receipts over HTTP: signed, committed before they are answered, harmless when repeated."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest

import services.receipts
from api import webhooks
from api.webhooks import STATES, ReceiptStatus
from domain.callbacks.events import CallbackEvent
from domain.callbacks.signatures import signed_headers
from domain.states import MessageStatus
from tests.api.conftest import (
    CALLBACK_SECRET,
    CONFIGURATION,
    LIST,
    NUMBER,
    RECEIPT_SECRET,
    Api,
    errors_of,
    send_receipt,
    slug_of,
    uuid_of,
)

pytestmark = pytest.mark.stack

PATH = "/webhooks/sms-delivery"
DELIVERED = {"message_id": "7f3a", "to": NUMBER, "status": "DELIVERED", "provider_code": "000"}


async def status(api: Api, message_id: str) -> str:
    return str((await api.get(f"{LIST}/{message_id}")).json()["status"])


async def posted(api: Api, body: bytes, headers: dict[str, str]) -> httpx.Response:
    json_type = {"content-type": "application/json"}
    return await api.ask("POST", PATH, key=None, content=body, headers=headers | json_type)


async def test_a_signed_receipt_moves_the_message(api: Api) -> None:
    message_id = await api.sent()
    await api.submitted(message_id, "7f3a")
    response = await send_receipt(api, **DELIVERED, timestamp="2026-11-30T09:30:00Z")
    assert response.status_code == 204
    assert await status(api, message_id) == "delivered"
    (receipt,) = await api.fetch("SELECT provider, code, done_at FROM receipts")
    assert (receipt["provider"], receipt["code"]) == ("primary", "000")
    assert receipt["done_at"] == datetime(2026, 11, 30, 9, 30, tzinfo=UTC)


async def test_a_receipt_that_comes_again_does_no_harm(api: Api) -> None:
    message_id = await api.sent()
    await api.submitted(message_id, "7f3a")
    body = json.dumps(DELIVERED).encode()
    headers = dict(signed_headers(RECEIPT_SECRET, "rcpt_1", datetime.now(UTC), body))
    responses = await asyncio.gather(*(posted(api, body, headers) for _ in range(5)))
    assert {response.status_code for response in responses} == {204}
    (receipt,) = await api.fetch("SELECT copies FROM receipts")
    assert receipt["copies"] >= 1
    transitions = await api.fetch("SELECT status FROM events WHERE kind = 'moved' ORDER BY seq")
    assert [transition["status"] for transition in transitions] == ["sent", "delivered"]


async def test_a_receipt_that_comes_before_its_part_is_kept(api: Api) -> None:
    message_id = await api.sent()
    assert (await send_receipt(api, **DELIVERED)).status_code == 204
    (receipt,) = await api.fetch("SELECT message_id FROM receipts")
    assert receipt["message_id"] is None
    assert await status(api, message_id) == "queued"


async def test_a_carrier_may_name_the_message_by_our_id(api: Api) -> None:
    message_id = await api.sent(body="a" * 200)
    await api.submitted(message_id, "7f3a", "7f3b")
    response = await send_receipt(api, **DELIVERED | {"message_id": message_id})
    assert response.status_code == 204
    assert await status(api, message_id) == "delivered"


async def test_our_id_also_settles_a_message_of_which_nobody_knew(api: Api) -> None:
    message_id = await api.sent(body="a" * 200)
    await api.submitted(message_id, None, None)
    assert await status(api, message_id) == "unknown"
    await send_receipt(api, **DELIVERED | {"message_id": message_id})
    assert await status(api, message_id) == "delivered"


async def test_a_message_of_another_provider_is_left_alone(api: Api) -> None:
    message_id = await api.sent()
    await api.submitted(message_id, "7f3a", provider="backup")
    for named in ("7f3a", message_id):
        await send_receipt(api, **DELIVERED | {"message_id": named})
    assert await status(api, message_id) == "sent"


async def test_the_callback_of_one_gateway_is_a_receipt_for_another(api: Api) -> None:
    message_id = await api.sent()
    theirs = uuid_of("msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f")
    await api.submitted(message_id, f"msg_{theirs.hex}")
    event = CallbackEvent(
        theirs, theirs, NUMBER, MessageStatus.DELIVERED, "0x00000000", datetime.now(UTC)
    ).as_body()
    body = event.alone()
    headers = dict(signed_headers(RECEIPT_SECRET, event.webhook_id, datetime.now(UTC), body))
    assert (await posted(api, body, headers)).status_code == 204
    assert await status(api, message_id) == "delivered"


async def test_every_status_of_our_callbacks_is_known(api: Api) -> None:
    sent = {"SENT", "DELIVERED", "FAILED", "EXPIRED", "DEAD_LETTER", "CANCELED"}
    assert sent <= set(ReceiptStatus)
    assert set(STATES) == set(ReceiptStatus)
    message_id = await api.sent()
    await api.submitted(message_id, "7f3a")
    await send_receipt(api, **DELIVERED | {"status": "expired"})
    attempts = (await api.get(f"{LIST}/{message_id}/explain")).json()["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["undelivered"]


async def test_an_unknown_status_is_refused_with_those_that_are_known(api: Api) -> None:
    response = await send_receipt(api, **DELIVERED | {"status": "VANISHED"})
    assert (response.status_code, slug_of(response)) == (422, "invalid-request")
    assert "UNDELIVERED" in errors_of(response)["status"]
    assert "VANISHED" not in response.text
    assert not await api.fetch("SELECT FROM receipts")


async def test_ids_and_codes_have_a_longest_length(api: Api) -> None:
    for field in ("message_id", "provider_code"):
        response = await send_receipt(api, **DELIVERED | {field: "1" * 255})
        assert response.status_code == 204
        response = await send_receipt(api, **DELIVERED | {field: "1" * 256})
        assert (response.status_code, slug_of(response)) == (422, "invalid-request")
        assert list(errors_of(response)) == [field]


async def test_a_receipt_that_the_database_refuses_is_not_to_be_sent_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refusing(*_: object, **__: object) -> None:
        raise psycopg.DataError

    monkeypatch.setattr(services.receipts, "ingest", refusing)
    response = await send_receipt(api, **DELIVERED)
    assert (response.status_code, slug_of(response)) == (422, "invalid-request")
    assert "do not send it again" in response.json()["detail"]


async def test_a_receipt_of_a_time_that_cannot_be_read_again_is_stored_without_it(
    api: Api,
) -> None:
    message_id = await api.sent()
    await api.submitted(message_id, "7f3a")
    response = await send_receipt(api, **DELIVERED, timestamp="9999-12-31T23:59:59-23:59")
    if response.status_code == 204:
        explained = await api.get(f"{LIST}/{message_id}/explain")
        assert explained.status_code == 200
        assert explained.json()["receipts"][0]["done_at"] is None


def signed(secret: str = RECEIPT_SECRET, **late: float) -> dict[str, str]:
    body = json.dumps(DELIVERED).encode()
    at = datetime.now(UTC) - timedelta(**late)
    return dict(signed_headers(secret, "rcpt_1", at, body))


async def test_a_receipt_that_the_provider_did_not_sign_is_refused(api: Api) -> None:
    fits, required, fresh = "fits the body", "are required", "more than 300 s"
    good = json.dumps(DELIVERED).encode()
    changed = good.replace(b"DELIVERED", b"FAILED")
    forgeries: dict[str, tuple[bytes, dict[str, str], str]] = {
        "another secret": (good, signed(CALLBACK_SECRET), fits),
        "another body": (changed, signed(), fits),
        "another id": (good, signed() | {"webhook-id": "rcpt_2"}, fits),
        "too old": (good, signed(seconds=302), fresh),
        "from the future": (good, signed(seconds=-302), fresh),
        "no signature": (good, signed() | {"webhook-signature": ""}, required),
        "no header": (good, {}, required),
        "no time": (good, signed() | {"webhook-timestamp": "now"}, "seconds since 1970"),
    }
    for forgery, (body, headers, advice) in forgeries.items():
        response = await posted(api, body, headers)
        assert (response.status_code, slug_of(response)) == (401, "signature-refused"), forgery
        assert advice in response.json()["detail"], forgery
    assert not await api.fetch("SELECT FROM receipts")
    assert (await posted(api, good, signed())).status_code == 204


async def test_an_unreadable_secret_signs_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for secret in ("whsec_short", "", None):
        if secret is None:
            monkeypatch.delenv("SMSGATEWAY_SECRET_PRIMARY_RECEIPTS")
        else:
            monkeypatch.setenv("SMSGATEWAY_SECRET_PRIMARY_RECEIPTS", secret)
        response = await send_receipt(api, **DELIVERED)
        assert (response.status_code, slug_of(response)) == (401, "signature-refused")


@pytest.mark.parametrize("bad", ["abc", "", "whsec_\udcff"])
async def test_an_unusable_secret_of_one_provider_refuses_no_receipt_of_another(
    api: Api, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    name = "SMSGATEWAY_SECRET_BACKUP_RECEIPTS"
    monkeypatch.setenv(name, RECEIPT_SECRET)
    text = CONFIGURATION.replace("port = 2776", f'port = 2776\nreceipt_secret = "env:{name}"')
    # Of the two providers, the one whose secret holds comes last.
    text = text.replace("primary", "zone")
    await api.services.configurations.apply(text, applied_by="key_test")
    monkeypatch.setenv(name, bad)
    assert (await send_receipt(api, **DELIVERED)).status_code == 204


async def test_no_secret_is_read_for_a_receipt_whose_headers_cannot_hold(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        pytest.fail("a secret was read")

    monkeypatch.setattr(webhooks, "resolve_secret", read)
    old = signed_headers(RECEIPT_SECRET, "r", datetime.now(UTC) - timedelta(hours=1), b"{}")
    for headers in ({}, dict(old)):
        assert (await posted(api, b"{}", headers)).status_code == 401


async def test_a_receipt_that_is_not_stored_is_to_be_sent_again(api: Api) -> None:
    await api.execute("ALTER TABLE receipts RENAME TO receipts_of_another_schema")
    response = await send_receipt(api, **DELIVERED)
    assert (response.status_code, slug_of(response)) == (503, "database-unavailable")
    assert response.headers["Retry-After"] == "2"
