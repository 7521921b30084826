"""Dead letters over HTTP: listed, replayed, and why one was not."""

import asyncio

import pytest

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
    answer = await api.post(f"{DEAD}/{message_id}/replay")
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["reason"]) == ("queued", None)
    again = await api.post(f"{DEAD}/{message_id}/replay")
    assert (again.status_code, slug_of(again)) == (409, "not-a-dead-letter")
    summary = (await api.get(f"{LIST}/{message_id}/explain")).json()["summary"]
    assert "Replayed 1 time(s) from the dead letters." in summary


async def test_replaying_several_says_which_were_none(api: Api) -> None:
    dead, alive = await api.sent(), await api.sent()
    await api.set_aside(dead)
    answer = await api.post(f"{DEAD}/replay", json={"message_ids": [dead, alive, "msg_1"]})
    assert answer.status_code == 200
    assert answer.json()["replayed"] == [dead]
    assert [skipped["message_id"] for skipped in answer.json()["skipped"]] == [alive, "msg_1"]


async def test_all_that_are_named_are_replayed_however_many(api: Api) -> None:
    dead = [await api.sent() for _ in range(3)]
    for message_id in dead:
        await api.set_aside(message_id)
    answer = await api.post(f"{DEAD}/replay", json={"message_ids": dead, "limit": 1})
    assert answer.json() == {"replayed": dead, "skipped": []}


async def test_of_two_replays_at_once_one_takes_a_dead_letter(api: Api) -> None:
    message_id = await api.sent()
    await api.set_aside(message_id)
    answers = await asyncio.gather(*(api.post(f"{DEAD}/{message_id}/replay") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409, 409]


async def test_a_late_receipt_leaves_nothing_to_replay(api: Api) -> None:
    message_id = await api.sent()
    await api.submitted(message_id, "7f3a")
    await api.set_aside(message_id)
    await send_receipt(api, message_id="7f3a", to=NUMBER, status="DELIVERED")
    answer = await api.post(f"{DEAD}/{message_id}/replay")
    assert (answer.status_code, slug_of(answer)) == (409, "not-a-dead-letter")
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
        answer = await api.post(f"{DEAD}/replay", json=wanted)
        assert list(errors_of(answer)) == [field]
