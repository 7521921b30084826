"""Batches over REST: what is accepted, what is refused, and how far they are."""

import asyncio
import json
import time
from typing import Any

import pytest

from api.batches import PATH
from services.keys import Scope
from tests.api.conftest import NUMBER, Api, errors_of, slug_of

pytestmark = pytest.mark.stack


def batch(*numbers: str, **changes: Any) -> dict[str, Any]:
    recipients = [{"to": number, "variables": {"name": "Ann"}} for number in numbers]
    return {"from": "ACME", "body": "Hello {name}.", "recipients": recipients} | changes


async def accepted(api: Api, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    response = await api.post(PATH, json=body, headers=headers)
    assert response.status_code == 202, response.text
    content: dict[str, Any] = response.json()
    return content


async def nothing_is_stored(api: Api) -> bool:
    batches = await api.fetch("SELECT count(*) AS n FROM batches")
    return not any((await api.rows()).values()) and batches[0]["n"] == 0


async def test_every_recipient_gets_a_message_of_their_own(api: Api) -> None:
    body = batch("+447700900123", "+33639980001")
    body["recipients"][1]["variables"]["name"] = "Zoé"
    body["recipients"].append({"to": "+12015550123", "body": "As {it} is", "metadata": {"a": "b"}})
    content = await accepted(api, body)
    assert (content["status"], content["accepted"], content["refused"]) == ("running", 3, 0)
    assert content["counts"] == [{"status": "queued", "reason": None, "messages": 3}]
    assert [result["index"] for result in content["results"]] == [0, 1, 2]
    texts = []
    for result in content["results"]:
        message = (await api.get(f"/api/v1/sms/{result['message_id']}")).json()
        texts.append((message["to"], message["body"], message["country"], message["metadata"]))
    assert texts == [
        ("+447700900123", "Hello Ann.", "GB", {}),
        ("+33639980001", "Hello Zoé.", "FR", {}),
        ("+12015550123", "As {it} is", "US", {"a": "b"}),
    ]


async def test_valid_recipients_go_on_and_the_others_have_a_reason(api: Api) -> None:
    body = batch("+447700900123", "4477", "+447700900123", "+447700900124")
    body["recipients"][3]["variables"] = {"nome": "Ann"}
    body["recipients"].append({"to": "+447700900125", "variables": {"name": "x" * 1000}})
    body["recipients"].append({"to": "+447700900126", "body": ""})
    content = await accepted(api, body, **{"Idempotency-Key": "mixed"})
    assert (content["recipients"], content["accepted"], content["refused"]) == (6, 1, 5)
    errors = [result["error"] and result["error"]["reason"] for result in content["results"]]
    assert errors == [
        None,
        "invalid_number",
        "duplicate_recipient",
        "missing_variable",
        "body_too_long",
        "invalid_body",
    ]
    assert "{name}" in content["results"][3]["error"]["detail"]
    again = await api.get(f"{PATH}/{content['batch_id']}/results")
    assert again.json() == content


async def test_a_batch_of_which_nothing_is_left_is_refused_as_a_whole(api: Api) -> None:
    response = await api.post(PATH, json=batch("4477", "+44"))
    assert response.status_code == 422
    assert set(errors_of(response)) == {"recipients.0.to", "recipients.1.to"}
    assert await nothing_is_stored(api)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"body": "Hello {name"}, "body", "character 7"),
        ({"from": "a sender that is too long"}, "from", "11"),
        ({"mode": "advert"}, "mode", "promotional"),
        ({"recipients": []}, "recipients", "at least 1"),
        ({"recipients": [{"to": NUMBER}] * 10_001}, "recipients", "10000"),
        ({"recipients": [{"to": 447700900123}]}, "recipients.0.to", "text"),
        ({"recipients": [{"number": NUMBER}]}, "recipients.0.to", "missing"),
        ({"recipients": [{"to": NUMBER, "variabels": {}}]}, "recipients.0.variabels", "variables?"),
        ({"recipients": [{"to": NUMBER, "body": "x", "x": 1}]}, "recipients.0.x", "metadata, to"),
        ({"scheduled_at": "2026-01-05T09:00:00+01:00"}, "scheduled_at", "past"),
        ({"callback_url": "http://10.0.0.7/sms"}, "callback_url", "private"),
    ],
)
async def test_an_error_common_to_all_recipients_is_reported_once(
    api: Api, changes: dict[str, Any], field: str, words: str
) -> None:
    response = await api.post(PATH, json=batch(NUMBER) | changes)
    assert response.status_code == 422, response.text
    assert words in errors_of(response).get(field, ""), response.text
    assert await nothing_is_stored(api)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (json.dumps(batch(NUMBER)).encode()[:-20], "malformed-request"),
        (json.dumps(batch(NUMBER)).replace("Ann", "Zoé").encode("latin-1", "replace")[:40], None),
        ('{"from": "ACME", "body": "Zoé"'.encode("utf-16"), None),
        (b'{"recipients": [' + b" " * (9 << 20), "body-too-large"),
    ],
    ids=["cut off", "latin-1", "utf-16", "too large"],
)
async def test_a_body_that_cannot_be_read_leaves_nothing_behind(
    api: Api, content: bytes, kind: str | None
) -> None:
    headers = {"content-type": "application/json"}
    response = await api.ask("POST", PATH, content=content, headers=headers)
    assert 400 <= response.status_code < 500
    assert kind in {None, slug_of(response)}
    assert response.json()["detail"]
    assert await nothing_is_stored(api)


async def test_two_identical_batches_at_once_with_one_key_are_one_batch(api: Api) -> None:
    body = batch("+447700900123", "+447700900124")
    responses = await asyncio.gather(
        *(api.post(PATH, json=body, headers={"Idempotency-Key": "k"}) for _ in range(2))
    )
    if any(response.status_code == 409 for response in responses):
        responses.append(await api.post(PATH, json=body, headers={"Idempotency-Key": "k"}))
    done = [response for response in responses if response.status_code == 202]
    assert len(done) == 2
    assert done[0].json()["batch_id"] == done[1].json()["batch_id"]
    assert {response.headers.get("Idempotency-Replayed") for response in done} == {None, "true"}
    assert (await api.rows())["messages"] == 2
    other = await api.post(PATH, json=batch("+447700900123"), headers={"Idempotency-Key": "k"})
    assert slug_of(other) == "idempotency-key-reused"


async def test_a_paused_batch_says_so_and_a_cancelled_one_ends(api: Api) -> None:
    content = await accepted(api, batch("+447700900123", "+447700900124"))
    address = f"{PATH}/{content['batch_id']}"
    assert (await api.post(f"{address}/pause")).json()["status"] == "paused"
    assert (await api.post(f"{address}/resume")).json()["status"] == "running"
    canceled = (await api.post(f"{address}/cancel")).json()
    assert (canceled["status"], canceled["open"]) == ("canceled", 0)
    assert canceled["counts"] == [{"status": "canceled", "reason": "canceled", "messages": 2}]
    assert slug_of(await api.post(f"{address}/resume")) == "batch-canceled"
    message = content["results"][0]["message_id"]
    events = (await api.get(f"/api/v1/sms/{message}/events")).json()["items"]
    assert [event["kind"] for event in events] == ["accepted", "moved"]
    assert events[1]["actor"].startswith("key_")


async def test_nobody_sees_or_stops_the_batch_of_another_account(api: Api) -> None:
    content = await accepted(api, batch(NUMBER))
    other = await api.key_of(Scope.ADMIN, account="bank")
    address = f"{PATH}/{content['batch_id']}"
    for method, path in (("GET", address), ("POST", f"{address}/cancel")):
        assert slug_of(await api.ask(method, path, key=other)) == "not-found"
    assert (await api.get(PATH, key=other)).json()["items"] == []
    assert [each["batch_id"] for each in (await api.get(PATH)).json()["items"]] == [
        content["batch_id"]
    ]


async def _longest_stall(over: asyncio.Event) -> float:
    """The longest time in which the event loop did nothing else, in seconds."""
    longest = 0.0
    while not over.is_set():
        began = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - began)
    return longest


@pytest.mark.parametrize("member", ["parameters", "metadata"])
async def test_texts_beyond_ascii_for_many_recipients_do_not_block_the_event_loop(
    api: Api, member: str
) -> None:
    """It was blocked for nine seconds when each text was escaped for each recipient."""
    texts = {f"name{n}": "🎉" * 255 for n in range(7)}
    numbers = [f"+44770090{n:04}" for n in range(2000 if member == "parameters" else 900)]
    body = batch(*numbers, body="Hello.")
    for where in [body] if member == "parameters" else body["recipients"]:
        where[member] = texts
    over = asyncio.Event()
    stall = asyncio.create_task(_longest_stall(over))
    await accepted(api, body)
    over.set()
    assert await stall < 3
    rows = await api.fetch(f"SELECT DISTINCT {member} AS texts FROM messages")
    assert [row["texts"] for row in rows] == [texts]
