"""Dead letters over HTTP: listed, replayed, and why one was not."""

import asyncio
from uuid import UUID

import pytest

from domain.ids import IdPrefix, public_id
from domain.modes import Priority
from tests.api.conftest import LIST, NUMBER, Api, errors_of, send_receipt, slug_of

pytestmark = pytest.mark.stack

DEAD = "/api/v1/dead-letters"


async def test_dead_letters_are_listed_by_page_and_provider(api: Api) -> None:
    dead = [await api.sent() for _ in range(3)]
    await api.sent()
    await api.submitted(dead[0], None, provider="backup")
    for message_id in dead:
        await api.set_aside(message_id)
    page = (await api.get(DEAD, params={"limit": 2})).json()
    assert [item["message_id"] for item in page["items"]] == [dead[2], dead[1]]
    rest = (await api.get(DEAD, params={"cursor": page["next_cursor"]})).json()
    assert [item["message_id"] for item in rest["items"]] == [dead[0]]
    assert rest["next_cursor"] is None
    of_backup = (await api.get(DEAD, params={"provider": "backup"})).json()["items"]
    assert [item["message_id"] for item in of_backup] == [dead[0]]


async def test_a_replayed_dead_letter_is_queued_again(api: Api) -> None:
    message_id = await api.sent()
    await api.set_aside(message_id)
    response = await api.post(f"{DEAD}/{message_id}/replay")
    assert response.status_code == 202
    assert (response.json()["status"], response.json()["reason"]) == ("queued", None)
    again = await api.post(f"{DEAD}/{message_id}/replay")
    assert (again.status_code, slug_of(again)) == (409, "not-a-dead-letter")
    summary = (await api.get(f"{LIST}/{message_id}/explain")).json()["summary"]
    assert "Replayed 1 time from the dead letters." in summary


async def test_replaying_several_says_which_were_none(api: Api) -> None:
    dead, alive = await api.sent(), await api.sent()
    await api.set_aside(dead)
    response = await api.post(f"{DEAD}/replay", json={"message_ids": [dead, alive, "msg_1"]})
    assert response.status_code == 200
    assert response.json()["replayed"] == [dead]
    assert [skipped["message_id"] for skipped in response.json()["skipped"]] == [alive, "msg_1"]


async def test_all_that_are_named_are_replayed_however_many(api: Api) -> None:
    dead = [await api.sent() for _ in range(3)]
    for message_id in dead:
        await api.set_aside(message_id)
    response = await api.post(f"{DEAD}/replay", json={"message_ids": dead, "limit": 1})
    assert response.json() == {"replayed": dead, "skipped": [], "remaining": []}


async def test_a_replay_is_answered_before_runners_start_which_do_by_priority_and_bounded(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = ["promotional", "alert", "transactional"] * 10
    dead = [await api.sent(mode=mode) for mode in modes]
    for message_id in dead:
        await api.set_aside(message_id)
    may_start = asyncio.Event()
    at_once, most, order = 0, 0, []

    async def start_send(message_id: UUID, _: int, *, priority: Priority, **__: object) -> bool:
        nonlocal at_once, most
        order.append((priority.rank, public_id(IdPrefix.MESSAGE, message_id)))
        at_once += 1
        most = max(most, at_once)
        await may_start.wait()
        at_once -= 1
        return True

    monkeypatch.setattr(api.services.workflow_client, "start_send", start_send)
    async with asyncio.timeout(60):
        response = await api.post(f"{DEAD}/replay", json={"provider": None, "limit": 100})
    assert len(response.json()["replayed"]) == len(dead)
    closing = asyncio.create_task(api.services.dead_letters.drained())
    await asyncio.sleep(0.1)
    assert not closing.done()
    assert 1 < most < len(dead)
    may_start.set()
    async with asyncio.timeout(60):
        await closing
    assert [message_id for _, message_id in sorted(order)] == [each for _, each in order]
    assert sorted(message_id for _, message_id in order) == sorted(dead)
    assert most < len(dead)


async def test_a_provider_that_nobody_knows_is_refused_and_the_known_ones_are_named(
    api: Api,
) -> None:
    for response in (
        await api.post(f"{DEAD}/replay", json={"provider": "twilio"}),
        await api.get(DEAD, params={"provider": "twilio"}),
    ):
        assert response.status_code == 422
        assert "primary" in errors_of(response)["provider"]


async def test_a_replay_that_takes_nothing_says_what_would_have_matched(api: Api) -> None:
    tried, offered, unroutable = [await api.sent() for _ in range(3)]
    await api.submitted(tried, None, provider="backup")
    await api.set_aside(tried)
    await api.set_aside(offered, offered=["backup"])
    await api.set_aside(unroutable)
    response = (await api.post(f"{DEAD}/replay", json={"provider": "primary"})).json()
    assert response["replayed"] == []
    assert response["remaining"] == [
        {"provider": "backup", "messages": 2},
        {"provider": None, "messages": 1},
    ]
    replayed = (await api.post(f"{DEAD}/replay", json={"provider": "backup"})).json()["replayed"]
    assert sorted(replayed) == sorted([tried, offered])


async def test_a_removed_provider_is_known_while_it_has_dead_letters(api: Api) -> None:
    message_id = await api.sent()
    await api.submitted(message_id, None, provider="former")
    await api.set_aside(message_id)
    response = await api.post(f"{DEAD}/replay", json={"provider": "former"})
    assert response.json()["replayed"] == [message_id]


async def test_of_two_replays_at_once_one_takes_a_dead_letter(api: Api) -> None:
    message_id = await api.sent()
    await api.set_aside(message_id)
    responses = await asyncio.gather(*(api.post(f"{DEAD}/{message_id}/replay") for _ in range(5)))
    assert sorted(response.status_code for response in responses) == [202, 409, 409, 409, 409]


async def test_a_late_receipt_leaves_nothing_to_replay(api: Api) -> None:
    message_id = await api.sent()
    await api.submitted(message_id, "7f3a")
    await api.set_aside(message_id)
    await send_receipt(api, message_id="7f3a", to=NUMBER, status="DELIVERED")
    response = await api.post(f"{DEAD}/{message_id}/replay")
    assert (response.status_code, slug_of(response)) == (409, "not-a-dead-letter")
    assert (await api.get(f"{LIST}/{message_id}")).json()["status"] == "delivered"


async def test_what_cannot_be_replayed_is_refused_by_field(api: Api) -> None:
    for wanted, field in [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"message_ids": []}, "message_ids"),
        ({"message_ids": ["x"] * 1001}, "message_ids"),
        ({"message_ids": "msg_1"}, "message_ids"),
        ({"providers": "primary"}, "providers"),
    ]:
        response = await api.post(f"{DEAD}/replay", json=wanted)
        assert list(errors_of(response)) == [field]
