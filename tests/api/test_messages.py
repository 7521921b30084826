"""Messages over HTTP: sent, replayed, read, listed, explained, cancelled."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import Client

from domain.configuration import Environment
from services.assembly import Services, assemble
from services.keys import Scope
from settings.settings import Settings
from telemetry.metrics import metric_value
from telemetry.tracing import recorded_spans
from tests.api.conftest import (
    LIST,
    NUMBER,
    ORDER,
    SEND,
    Api,
    errors_of,
    send_receipt,
    serving,
    slug_of,
    uuid_of,
)
from workflows.ports.send import send_workflow_id

pytestmark = pytest.mark.stack


async def test_a_message_is_accepted_and_can_be_read_at_its_location(api: Api) -> None:
    answer = await api.post(SEND, json=ORDER | {"metadata": {"order": "8812"}})
    accepted = answer.json()
    assert answer.status_code == 202
    assert accepted | {"message_id": ""} == {
        "message_id": "",
        "status": "queued",
        "encoding": "gsm7",
        "segments": 1,
        "replacements": [],
        "warnings": [],
    }
    assert "Idempotency-Replayed" not in answer.headers
    message = (await api.get(answer.headers["Location"])).json()
    assert message["message_id"] == accepted["message_id"]
    told = {name: message[name] for name in ("to", "from", "body", "mode", "priority", "status")}
    assert told == ORDER | {"mode": "transactional", "priority": "normal", "status": "queued"}
    assert message["metadata"] == {"order": "8812"}
    assert (message["provider"], message["attempts"]) == (None, 0)
    assert message["cancel_requested"] is False
    assert message["accepted_at"].endswith("Z")


async def test_replaced_characters_are_listed_and_told_of(api: Api) -> None:
    answer = (await api.post(SEND, json=ORDER | {"body": "It\u2019s \u2019ere"})).json()
    assert answer["encoding"] == "gsm7"
    assert answer["replacements"] == [{"character": "\u2019", "replacement": "'", "count": 2}]
    assert len(answer["warnings"]) == 1
    plain = await api.post(SEND, json=ORDER | {"body": "It\u2019s", "smart_encoding": False})
    assert plain.json()["encoding"] == "ucs2"


async def test_a_scheduled_message_waits_for_its_time(api: Api) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    answer = await api.post(SEND, json=ORDER | {"scheduled_at": at.isoformat()})
    assert answer.json()["status"] == "scheduled"
    message = (await api.get(answer.headers["Location"])).json()
    assert datetime.fromisoformat(message["scheduled_at"]) == at
    assert datetime.fromisoformat(message["valid_until"]) == at + timedelta(days=1)


async def test_mode_validity_and_priority_are_kept(api: Api) -> None:
    message_id = await api.sent(mode="alert", validity_period=1800, priority="low")
    message = (await api.get(f"{LIST}/{message_id}")).json()
    assert (message["mode"], message["priority"]) == ("alert", "low")
    accepted = datetime.fromisoformat(message["accepted_at"])
    assert datetime.fromisoformat(message["valid_until"]) == accepted + timedelta(minutes=30)


# Idempotency


async def test_a_request_that_is_sent_again_is_the_same_message(api: Api) -> None:
    key = {"Idempotency-Key": "order-8812"}
    first = await api.post(SEND, json=ORDER, headers=key)
    again = await api.post(SEND, json=ORDER, headers=key)
    assert again.status_code == 202
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert (await api.rows())["messages"] == 1


async def test_an_idempotency_key_is_for_one_body_only(api: Api) -> None:
    key = {"Idempotency-Key": "order-8812"}
    await api.post(SEND, json=ORDER, headers=key)
    other = await api.post(SEND, json=ORDER | {"body": "Something else"}, headers=key)
    assert (other.status_code, slug_of(other)) == (422, "idempotency-key-reused")
    assert (await api.rows())["messages"] == 1


async def test_accounts_and_environments_have_idempotency_keys_of_their_own(api: Api) -> None:
    key = {"Idempotency-Key": "order-8812"}
    others = (
        await api.key_of(account="depot"),
        await api.key_of(environment=Environment.TEST),
    )
    for bearer in ("", *others):
        answer = await api.post(SEND, json=ORDER, headers=key, key=bearer)
        assert "Idempotency-Replayed" not in answer.headers
    assert (await api.rows())["messages"] == 3


async def test_an_unusable_idempotency_key_is_refused(api: Api) -> None:
    for key in ("", "with a blank", "x" * 256, "caf\u00e9"):
        headers = {"Idempotency-Key": key.encode()}
        answer = await api.post(SEND, json=ORDER, headers=headers)
        assert answer.status_code == 422
        assert "visible ASCII" in errors_of(answer)["Idempotency-Key"]
    assert not any((await api.rows()).values())


async def test_of_twenty_requests_at_once_with_one_key_one_becomes_a_message(api: Api) -> None:
    key = {"Idempotency-Key": "order-8812"}
    answers = await asyncio.gather(*(api.post(SEND, json=ORDER, headers=key) for _ in range(20)))
    outcomes = Counter(
        (answer.status_code, answer.headers.get("Idempotency-Replayed")) for answer in answers
    )
    assert outcomes[202, None] == 1
    assert set(outcomes) <= {(202, None), (202, "true"), (409, None)}
    assert len({a.json()["message_id"] for a in answers if a.status_code == 202}) == 1
    assert all(slug_of(a) == "idempotency-key-in-flight" for a in answers if a.status_code == 409)
    rows = await api.rows()
    assert (rows["messages"], rows["idempotency_keys"]) == (1, 1)


async def test_refused_requests_do_not_use_up_their_idempotency_key(api: Api) -> None:
    key = {"Idempotency-Key": "order-8812"}
    assert (await api.post(SEND, json=ORDER | {"to": "+44"}, headers=key)).status_code == 422
    assert (await api.post(SEND, json=ORDER, headers=key)).status_code == 202


# Lists


async def test_the_list_goes_page_by_page_and_misses_nothing(api: Api) -> None:
    sent = [await api.sent() for _ in range(5)]
    seen: list[str] = []
    cursor = None
    for expected in (2, 2, 1):
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await api.get(LIST, params=query)).json()
        assert len(page["items"]) == expected
        seen += [message["message_id"] for message in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == sorted(sent, reverse=True)


async def test_the_list_can_be_narrowed(api: Api) -> None:
    at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    alert = await api.sent(to="+447700900124", mode="alert", **{"from": "DISK"})
    messages = {
        await api.sent(): "plain",
        alert: "alert",
        await api.sent(to="+447700900125", scheduled_at=at): "later",
    }
    await api.submitted(alert, "7f3a")
    narrowed: list[tuple[dict[str, str], set[str]]] = [
        ({"to": NUMBER}, {"plain"}),
        ({"to": "+44 7700 900 124"}, {"alert"}),
        ({"from": "ACME"}, {"plain", "later"}),
        ({"mode": "alert"}, {"alert"}),
        ({"status": "scheduled"}, {"later"}),
        ({"status": "sent", "provider": "primary"}, {"alert"}),
        ({"provider": "backup"}, set()),
        ({"since": "2126-01-01T00:00:00Z"}, set()),
        ({"until": "2126-01-01T00:00:00+01:00"}, {"plain", "alert", "later"}),
    ]
    for query, found in narrowed:
        page = (await api.get(LIST, params=query)).json()
        assert {messages[message["message_id"]] for message in page["items"]} == found, query


async def test_what_cannot_be_listed_is_refused_by_field(api: Api) -> None:
    for field, value in [
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "many"),
        ("status", "lost"),
        ("mode", "loud"),
        ("to", "+44"),
        ("since", "yesterday"),
        ("since", "2026-11-01T00:00:00"),
        ("until", "1795000000"),
        ("provider", "a\0b"),
        ("from", "x" * 65),
        ("cursor", "AZqlwNHiezyPTlprfI2eD2w1-_1"),
        ("cursor", "not a cursor"),
        ("cursor", ""),
    ]:
        answer = await api.get(LIST, params={field: value})
        assert answer.status_code == 422, value
        assert list(errors_of(answer)) == [field]


async def test_a_parameter_that_nobody_knows_is_refused_with_the_nearest_known(api: Api) -> None:
    answer = await api.get(LIST, params={"satus": "queued"})
    assert "did you mean status?" in errors_of(answer)["satus"]


async def test_every_change_to_a_cursor_is_noticed(api: Api) -> None:
    for _ in range(3):
        await api.sent()
    cursor = (await api.get(LIST, params={"limit": 1})).json()["next_cursor"]
    for position in range(len(cursor)):
        other = "A" if cursor[position] != "A" else "B"
        changed = cursor[:position] + other + cursor[position + 1 :]
        answer = await api.get(LIST, params={"cursor": changed})
        assert answer.status_code == 422, changed


# One message


async def test_there_is_no_message_with_another_id(api: Api) -> None:
    for message_id in ("msg_0", "msg_" + "0" * 32, "x" * 300, "cb_" + "0" * 32, "+44", "%00"):
        for what in ("", "/events", "/explain", "/cancel"):
            method = "POST" if what == "/cancel" else "GET"
            answer = await api.ask(method, f"{LIST}/{message_id}{what}")
            assert (answer.status_code, slug_of(answer)) == (404, "not-found")


async def test_a_message_is_explained_from_its_attempts_to_its_receipts(api: Api) -> None:
    message_id = await api.sent(body="a" * 200, callback_url="https://shop.example.com/sms")
    await api.submitted(message_id, "7f3a", "7f3b")
    for part in ("7f3a", "7f3b"):
        answer = await send_receipt(
            api, message_id=part, to=NUMBER, status="DELIVERED", provider_code="000"
        )
        assert answer.status_code == 204
    explained = (await api.get(f"{LIST}/{message_id}/explain")).json()
    assert explained["message"]["status"] == "delivered"
    (attempt,) = explained["attempts"]
    assert (attempt["provider"], attempt["status"]) == ("primary", "delivered")
    parts = [(p["number"], p["provider_message_id"], p["receipt_state"]) for p in attempt["parts"]]
    assert parts == [(1, "7f3a", "delivered"), (2, "7f3b", "delivered")]
    assert [receipt["state"] for receipt in explained["receipts"]] == ["delivered", "delivered"]
    assert [callback["status"] for callback in explained["callbacks"]] == ["sent", "delivered"]
    assert explained["summary"][0].startswith("Accepted at")
    events = (await api.get(f"{LIST}/{message_id}/events")).json()["items"]
    assert events == explained["events"]
    moves = [event["status"] for event in events if event["kind"] == "moved"]
    assert moves == ["sent", "delivered"]
    assert events[0]["actor"].startswith("key_")


async def test_a_message_that_no_provider_has_is_cancelled_at_once(api: Api) -> None:
    message_id = await api.sent()
    answer = await api.post(f"{LIST}/{message_id}/cancel")
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["cancel_requested"]) == ("canceled", True)
    again = await api.post(f"{LIST}/{message_id}/cancel")
    assert (again.status_code, slug_of(again)) == (409, "already-final")
    assert "canceled" in again.json()["detail"]


async def test_a_message_that_a_provider_has_is_asked_back(api: Api) -> None:
    message_id = await api.sent()
    await api.submitted(message_id, "7f3a")
    answer = (await api.post(f"{LIST}/{message_id}/cancel")).json()
    assert (answer["status"], answer["cancel_requested"]) == ("sent", True)


# Temporal


async def test_messages_are_accepted_while_temporal_is_away(api: Api) -> None:
    assert await api.services.orchestration.client() is None
    message_id = await api.sent()
    (row,) = await api.fetch("SELECT owner, check_by IS NOT NULL AS watched FROM messages")
    assert row == {"owner": send_workflow_id(message_id), "watched": True}


async def test_accepting_a_message_starts_its_workflow(
    settings: Settings, temporal_client: Client
) -> None:
    async def connect() -> Client:
        return temporal_client

    services: Services = assemble(settings, connect=connect)
    async with serving(services) as api:
        api.key = await api.key_of()
        await services.configurations.apply("providers = {}\nroutes = []\n", applied_by="test")
        message_id = await api.sent()
        handle = temporal_client.get_workflow_handle(send_workflow_id(message_id))
        described = await handle.describe()
        assert described.workflow_type == "SendWorkflow"
    await services.close()


# What is told of a request


async def test_the_trace_of_a_request_is_stored_with_its_message(api: Api) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    parent = f"00-{trace}-b7ad6b7169203331-01"
    with recorded_spans() as spans:
        answer = await api.post(SEND, json=ORDER, headers={"traceparent": parent})
    message_id = answer.json()["message_id"]
    (row,) = await api.fetch(
        "SELECT traceparent FROM messages WHERE id = :id", id=uuid_of(message_id)
    )
    (span,) = spans.get_finished_spans()
    assert row["traceparent"].split("-")[1] == trace
    assert row["traceparent"].split("-")[2] == f"{span.context.span_id:016x}"


async def test_accepted_and_refused_requests_are_counted(api: Api) -> None:
    refused = {"reason": "invalid-request"}
    accepted = {"mode": "alert", "environment": "live", "country": "GB", "runner": "single"}
    before = (
        metric_value("smsgateway_refused_requests_total", refused),
        metric_value("smsgateway_accepted_total", accepted),
    )
    await api.sent(mode="alert")
    await api.post(SEND, json=ORDER | {"to": "+44"})
    after = (
        metric_value("smsgateway_refused_requests_total", refused),
        metric_value("smsgateway_accepted_total", accepted),
    )
    assert after == (before[0] + 1, before[1] + 1)


async def test_sending_asks_for_no_more_than_its_scope(api: Api) -> None:
    sender = await api.key_of(Scope.SEND)
    message_id = await api.sent(key=sender)
    assert (await api.get(f"{LIST}/{message_id}", key=sender)).status_code == 403
