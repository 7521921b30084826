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

PREVIEW = f"{LIST}/preview"
WARNING_OF = "The provider {} does not know these parameters, and would not be given them: {}."
WARNING = (
    "Some characters were replaced so that the text needs fewer segments; "
    "`replacements` lists them."
)


async def test_a_message_is_accepted_and_can_be_read_at_its_location(api: Api) -> None:
    response = await api.post(SEND, json=ORDER | {"metadata": {"order": "8812"}})
    accepted = response.json()
    assert response.status_code == 202
    assert accepted | {"message_id": ""} == {
        "message_id": "",
        "status": "queued",
        "encoding": "gsm7",
        "segments": 1,
        "replacements": [],
        "warnings": [],
    }
    assert "Idempotency-Replayed" not in response.headers
    message = (await api.get(response.headers["Location"])).json()
    assert message["message_id"] == accepted["message_id"]
    shown = {name: message[name] for name in ("to", "from", "body", "mode", "priority", "status")}
    assert shown == ORDER | {"mode": "transactional", "priority": "normal", "status": "queued"}
    assert message["metadata"] == {"order": "8812"}
    assert (message["provider"], message["attempts"]) == (None, 0)
    assert message["cancel_requested"] is False
    assert message["accepted_at"].endswith("Z")


async def test_replaced_characters_are_listed_with_a_warning(api: Api) -> None:
    response = (await api.post(SEND, json=ORDER | {"body": "It\u2019s \u2019ere"})).json()
    assert response["encoding"] == "gsm7"
    assert response["replacements"] == [{"character": "\u2019", "replacement": "'", "count": 2}]
    assert len(response["warnings"]) == 1
    plain = await api.post(SEND, json=ORDER | {"body": "It\u2019s", "smart_encoding": False})
    assert plain.json()["encoding"] == "ucs2"


async def test_a_preview_says_what_would_be_sent_and_stores_nothing(api: Api) -> None:
    before = await api.rows()
    order = ORDER | {"body": "It\u2019s here", "mode": "alert", "validity_period": 600}
    response = await api.post(PREVIEW, json=order)
    assert response.status_code == 200
    assert response.json() == {
        "encoding": "gsm7",
        "segments": 1,
        "body": "It's here",
        "replacements": [{"character": "\u2019", "replacement": "'", "count": 1}],
        "warnings": [WARNING],
        "country": "GB",
        "priority": "critical",
        "validity_period": 600,
        "route": 0,
        "providers": [
            {"provider": "primary", "up": False, "ignored_parameters": []},
            {"provider": "backup", "up": False, "ignored_parameters": []},
        ],
    }
    assert await api.rows() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"body": "\u20ac" * 200},
        {"body": "x" * 161},
        {"body": "Hi \U0001f389", "smart_encoding": False},
        {"body": "It\u2019s \u2019ere"},
        {"to": "+33639980001", "from": "+12015550100", "mode": "two_way"},
    ],
)
async def test_a_preview_agrees_with_what_is_accepted(api: Api, changes: dict[str, object]) -> None:
    previewed = (await api.post(PREVIEW, json=ORDER | changes)).json()
    sent = await api.post(SEND, json=ORDER | changes)
    message = (await api.get(sent.headers["Location"])).json()
    for name in ("encoding", "segments", "replacements", "warnings"):
        assert previewed[name] == sent.json()[name]
    for name in ("body", "country", "priority"):
        assert previewed[name] == message[name]


async def test_a_preview_refuses_what_sending_would_refuse(api: Api) -> None:
    for changes in ({"to": "+4477"}, {"from": ""}, {"body": ""}, {"prority": "high"}):
        refused = await api.post(PREVIEW, json=ORDER | changes)
        assert refused.status_code == 422
        assert (
            refused.json()["errors"]
            == ((await api.post(SEND, json=ORDER | changes)).json()["errors"])
        )


async def test_a_preview_says_that_no_route_takes_a_message(api: Api) -> None:
    content = (await api.get("/api/v1/config")).json()["content"]
    narrow = content.replace("[[routes]]", '[[routes]]\nmatch = { countries = ["US"] }')
    headers = {"content-type": "application/toml"}
    applied = await api.post("/api/v1/config/apply", content=narrow, headers=headers)
    assert applied.status_code == 200
    response = (await api.post(PREVIEW, json=ORDER)).json()
    assert (response["route"], response["providers"]) == (None, [])


async def test_a_preview_says_which_parameters_a_provider_does_not_know(api: Api) -> None:
    content = (await api.get("/api/v1/config")).json()["content"]
    tlv = '[[providers.backup.tlvs]]\ntag = 0x1401\nparameter = "template_id"\n\n[[routes]]'
    headers = {"content-type": "application/toml"}
    applied = await api.post(
        "/api/v1/config/apply", content=content.replace("[[routes]]", tlv, 1), headers=headers
    )
    assert applied.status_code == 200, applied.text
    order = ORDER | {"parameters": {"template_id": "1107", "entity_id": "1101"}}
    previewed = (await api.post(PREVIEW, json=order)).json()
    ignored = {each["provider"]: each["ignored_parameters"] for each in previewed["providers"]}
    assert ignored == {"primary": ["entity_id", "template_id"], "backup": ["entity_id"]}
    assert previewed["warnings"] == [
        WARNING_OF.format("primary", "entity_id, template_id"),
        WARNING_OF.format("backup", "entity_id"),
    ]


async def test_parameters_are_stored_with_the_message_and_are_part_of_its_key(api: Api) -> None:
    parameters = {"template_id": "1107", "Entity.Id-2": "é"}
    order, headers = ORDER | {"parameters": parameters}, {"Idempotency-Key": "k1"}
    sent = await api.post(SEND, json=order, headers=headers)
    assert (await api.get(sent.headers["Location"])).json()["parameters"] == parameters
    assert (await api.post(SEND, json=order, headers=headers)).headers["Idempotency-Replayed"]
    other = await api.post(SEND, json=ORDER, headers=headers)
    assert other.status_code == 422
    plain = await api.sent()
    assert (await api.get(f"{LIST}/{plain}")).json()["parameters"] == {}


@pytest.mark.parametrize("path", [SEND, f"{LIST}/batches"])
@pytest.mark.parametrize(
    ("parameters", "field", "detail"),
    [
        (
            {f"name_{n}": "x" for n in range(21)},
            "parameters",
            "It has too many entries: at most 20.",
        ),
        (
            {"entity_id": "x" * 256},
            "parameters.entity_id",
            "It is too long: it has at most 255 characters.",
        ),
        (
            {"entity_id": ""},
            "parameters.entity_id",
            "It is too short: it has at least 1 characters.",
        ),
        ({"entity_id": 1101}, "parameters.entity_id", "It is a text, in quotes."),
        ([], "parameters", "It is an object, in { }."),
        (
            {"entity id": "1101"},
            "parameters.?",
            "Its name has a letter first, and then up to 63 letters, digits, _, . and -.",
        ),
        (
            {"n" * 65: "1101"},
            "parameters.?",
            "Its name has a letter first, and then up to 63 letters, digits, _, . and -.",
        ),
    ],
)
async def test_parameters_that_cannot_be_taken_are_refused_in_one_sentence(
    api: Api, path: str, parameters: object, field: str, detail: str
) -> None:
    order = dict(ORDER)
    if path != SEND:
        order = {"from": ORDER["from"], "body": "x", "recipients": [{"to": ORDER["to"]}]}
    refused = await api.post(path, json=order | {"parameters": parameters})
    assert refused.status_code == 422
    assert [(e["field"], e["detail"]) for e in refused.json()["errors"]] == [(field, detail)]


async def test_a_preview_shows_the_providers_of_the_key_s_environment(api: Api) -> None:
    key = await api.key_of(environment=Environment.TEST)
    response = (await api.post(PREVIEW, key=key, json=ORDER)).json()
    assert [each["provider"] for each in response["providers"]] == ["sandbox"]


async def test_a_preview_needs_the_right_to_send(api: Api) -> None:
    key = await api.key_of(Scope.READ)
    assert (await api.post(PREVIEW, key=key, json=ORDER)).status_code == 403


async def test_a_scheduled_message_waits_for_its_time(api: Api) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    response = await api.post(SEND, json=ORDER | {"scheduled_at": at.isoformat()})
    assert response.json()["status"] == "scheduled"
    message = (await api.get(response.headers["Location"])).json()
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
        response = await api.post(SEND, json=ORDER, headers=key, key=bearer)
        assert "Idempotency-Replayed" not in response.headers
    assert (await api.rows())["messages"] == 3


async def test_an_unusable_idempotency_key_is_refused(api: Api) -> None:
    for key in ("", "with a blank", "x" * 256, "caf\u00e9"):
        headers = {"Idempotency-Key": key.encode()}
        response = await api.post(SEND, json=ORDER, headers=headers)
        assert response.status_code == 422
        assert "visible ASCII" in errors_of(response)["Idempotency-Key"]
    assert not any((await api.rows()).values())


async def test_of_twenty_requests_at_once_with_one_key_one_becomes_a_message(api: Api) -> None:
    key = {"Idempotency-Key": "order-8812"}
    responses = await asyncio.gather(*(api.post(SEND, json=ORDER, headers=key) for _ in range(20)))
    outcomes = Counter(
        (response.status_code, response.headers.get("Idempotency-Replayed"))
        for response in responses
    )
    assert outcomes[202, None] == 1
    assert set(outcomes) <= {(202, None), (202, "true"), (409, None)}
    assert len({a.json()["message_id"] for a in responses if a.status_code == 202}) == 1
    assert all(slug_of(a) == "idempotency-key-in-flight" for a in responses if a.status_code == 409)
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
        response = await api.get(LIST, params={field: value})
        assert response.status_code == 422, value
        assert list(errors_of(response)) == [field]


async def test_a_parameter_that_nobody_knows_is_refused_with_the_nearest_known(api: Api) -> None:
    response = await api.get(LIST, params={"satus": "queued"})
    assert "did you mean status?" in errors_of(response)["satus"]


async def test_every_change_to_a_cursor_is_noticed(api: Api) -> None:
    for _ in range(3):
        await api.sent()
    cursor = (await api.get(LIST, params={"limit": 1})).json()["next_cursor"]
    for position in range(len(cursor)):
        other = "A" if cursor[position] != "A" else "B"
        changed = cursor[:position] + other + cursor[position + 1 :]
        response = await api.get(LIST, params={"cursor": changed})
        assert response.status_code == 422, changed


# One message


async def test_there_is_no_message_with_another_id(api: Api) -> None:
    for message_id in ("msg_0", "msg_" + "0" * 32, "x" * 300, "cb_" + "0" * 32, "+44", "%00"):
        for what in ("", "/events", "/explain", "/cancel"):
            method = "POST" if what == "/cancel" else "GET"
            response = await api.ask(method, f"{LIST}/{message_id}{what}")
            assert (response.status_code, slug_of(response)) == (404, "not-found")


async def test_a_message_is_explained_from_its_attempts_to_its_receipts(api: Api) -> None:
    message_id = await api.sent(body="a" * 200, callback_url="https://shop.example.com/sms")
    await api.submitted(message_id, "7f3a", "7f3b")
    for part in ("7f3a", "7f3b"):
        response = await send_receipt(
            api, message_id=part, to=NUMBER, status="DELIVERED", provider_code="000"
        )
        assert response.status_code == 204
    explained = (await api.get(f"{LIST}/{message_id}/explain")).json()
    assert explained["message"]["status"] == "delivered"
    (attempt,) = explained["attempts"]
    assert (attempt["provider"], attempt["status"]) == ("primary", "delivered")
    parts = [(p["number"], p["provider_message_id"], p["receipt_state"]) for p in attempt["parts"]]
    assert parts == [(1, "7f3a", "delivered"), (2, "7f3b", "delivered")]
    assert [receipt["state"] for receipt in explained["receipts"]] == ["delivered", "delivered"]
    assert [callback["status"] for callback in explained["callbacks"]] == ["sent", "delivered"]
    assert explained["summary"][0] == "Delivered by primary."
    assert explained["summary"][-1].startswith("Accepted at")
    assert [step["kind"] for step in explained["steps"]] == [
        "accepted",
        "attempt",
        "receipt",
        "ended",
    ]
    events = (await api.get(f"{LIST}/{message_id}/events")).json()["items"]
    assert events == explained["events"]
    transitions = [event["status"] for event in events if event["kind"] == "moved"]
    assert transitions == ["sent", "delivered"]
    assert events[0]["actor"].startswith("key_")


async def test_a_message_that_no_provider_has_is_cancelled_at_once(api: Api) -> None:
    message_id = await api.sent()
    response = await api.post(f"{LIST}/{message_id}/cancel")
    assert response.status_code == 202
    assert (response.json()["status"], response.json()["cancel_requested"]) == ("canceled", True)
    again = await api.post(f"{LIST}/{message_id}/cancel")
    assert (again.status_code, slug_of(again)) == (409, "already-final")
    assert "has already been cancelled" in again.json()["detail"]


async def test_a_message_that_a_provider_has_is_asked_back(api: Api) -> None:
    message_id = await api.sent()
    await api.submitted(message_id, "7f3a")
    response = (await api.post(f"{LIST}/{message_id}/cancel")).json()
    assert (response["status"], response["cancel_requested"]) == ("sent", True)


async def test_a_second_cancellation_changes_nothing(api: Api) -> None:
    message_id = await api.sent()
    await api.submitted(message_id, "7f3a")
    responses = [await api.post(f"{LIST}/{message_id}/cancel") for _ in range(4)]
    assert [response.status_code for response in responses] == [202] * 4
    assert all(response.json() == responses[0].json() for response in responses)
    events = (await api.get(f"{LIST}/{message_id}/events")).json()["items"]
    assert [event["kind"] for event in events].count("cancel_requested") == 1


# Temporal


async def test_messages_are_accepted_while_temporal_is_away(api: Api) -> None:
    assert await api.services.workflow_client.client() is None
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


# The trace of a request


async def test_the_trace_of_a_request_is_stored_with_its_message(api: Api) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    parent = f"00-{trace}-b7ad6b7169203331-01"
    with recorded_spans() as spans:
        response = await api.post(SEND, json=ORDER, headers={"traceparent": parent})
    message_id = response.json()["message_id"]
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


async def test_a_request_may_say_what_happens_when_no_receipt_comes(api: Api) -> None:
    for given in ("next_route", "expire", None):
        order = ORDER if given is None else ORDER | {"missing_receipt": given}
        assert (await api.post(SEND, json=order)).status_code == 202
    stored = await api.fetch("SELECT missing_receipt FROM messages ORDER BY id")
    assert [row["missing_receipt"] for row in stored] == ["next_route", "expire", None]


async def test_only_internal_callers_have_listeners(api: Api) -> None:
    refused = await api.post(SEND, json=ORDER | {"missing_receipt": "tell_listener"})
    assert refused.status_code == 422
    (sentence,) = errors_of(refused).values()
    assert "next_route" in sentence
    refused = await api.post(SEND, json=ORDER | {"listener": "escalation/7"})
    assert refused.status_code == 422
    assert "listener" in errors_of(refused)
