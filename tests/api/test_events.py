"""The events of all messages of an account, as programs follow them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.keys import Scope
from store import events
from tests.api.conftest import NUMBER, Api, slug_of

pytestmark = pytest.mark.stack

EVENTS = "/api/v1/events"


async def batch_of(api: Api, count: int) -> None:
    recipients = [{"to": f"+4477009001{n:02}"} for n in range(count)]
    batch = {"from": "ACME", "body": "Hello.", "recipients": recipients}
    assert (await api.post("/api/v1/sms/batches", json=batch)).status_code == 202


async def pages(api: Api, **query: Any) -> list[dict[str, Any]]:
    """All events, by pages of three."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get(EVENTS, params={**query, **cursor, "limit": 3})).json()
        assert len(page["items"]) <= 3
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def test_events_of_single_messages_and_of_batches_come_once_each_and_in_order(
    api: Api,
) -> None:
    first = await api.sent(to=NUMBER)
    await batch_of(api, 8)
    last = await api.sent(to=NUMBER)
    await api.submitted(last, "7f3a")
    found = await pages(api)
    assert len({(event["seq"], event["message_id"]) for event in found}) == len(found)
    order = [(event["at"], event["seq"]) for event in found]
    assert order == sorted(order)
    assert len({event["message_id"] for event in found}) == 10
    for message in (first, last):
        alone = (await api.get(f"/api/v1/sms/{message}/events")).json()["items"]
        assert [
            {name: value for name, value in event.items() if name != "message_id"}
            for event in found
            if event["message_id"] == message
        ] == alone


async def test_events_are_listed_by_status_and_since_a_time(api: Api) -> None:
    await api.sent(to=NUMBER)
    last = await api.sent(to=NUMBER)
    await api.submitted(last, "7f3a")
    sent = await pages(api, status="sent")
    assert [(event["message_id"], event["status"]) for event in sent] == [(last, "sent")]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert await pages(api, since=later) == []


async def test_a_cursor_that_was_changed_is_refused(api: Api) -> None:
    response = await api.get(EVENTS, params={"cursor": "AAAA"})
    assert (response.status_code, slug_of(response)) == (422, "invalid-request")


async def test_a_plus_that_came_as_a_blank_is_refused_with_how_to_write_it(api: Api) -> None:
    for address in (EVENTS, "/api/v1/sms"):
        response = await api.get(f"{address}?since=2026-11-30T09:30:00+00:00")
        assert response.status_code == 422
        (error,) = response.json()["errors"]
        assert (error["field"], "%2B" in error["detail"]) == ("since", True)
    assert (await api.get(f"{EVENTS}?since=2026-11-30T09:30:00%2B00:00")).status_code == 200


async def test_pages_that_read_few_events_find_all_of_an_account_among_those_of_others(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await api.key_of(Scope.SEND, account="bank")
    for _ in range(3):
        await api.sent(to=NUMBER)
        await batch_of(api, 7)
        for _ in range(3):
            await api.sent(to=NUMBER, key=other, **{"from": "BANK"})
    since = (datetime.now(UTC) - timedelta(days=30)).isoformat()
    in_one = await pages(api, since=since)
    assert len({event["message_id"] for event in in_one}) == 24
    for most in range(1, 9):
        monkeypatch.setattr(events, "_MOST_READ", most)
        assert await pages(api, since=since) == in_one
        assert len(await pages(api, since=since, status="queued")) == 24
