from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from temporalio.client import Client

from api.callbacks import router
from api.problems import explain
from domain.configuration import Environment
from domain.ids import IdPrefix, public_id
from domain.states import MessageStatus
from services.asked import Caller
from services.assembly import Services, assemble
from services.keys import Scope
from settings.settings import Settings
from tests.outbox import ACCOUNT, SECRET, Outbox, public

pytestmark = pytest.mark.stack

URL = "https://hooks.example.com/sms"
LIST = "/api/v1/callbacks"
SENT, DELIVERED, FAILED = MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.FAILED
CONFIGURATION = "providers = {}\nroutes = []\n"


async def temporal_is_away() -> Client:
    raise RuntimeError("no Temporal here")


@pytest.fixture
async def services(database_url: str) -> AsyncIterator[Services]:
    settings = Settings(database_url=database_url, recipient_hash_key="k" * 32)
    services = assemble(settings, connect=temporal_is_away)
    await services.configurations.apply(CONFIGURATION, applied_by="test")
    yield services
    await services.close()


@pytest.fixture
async def outbox(services: Services) -> Outbox:
    outbox = Outbox(services.database)
    await outbox.account()
    return outbox


@pytest.fixture
async def http(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    explain(app)
    app.include_router(router)
    app.state.services = services
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


@pytest.fixture
async def key(services: Services, outbox: Outbox):
    """Makes headers with a key of the given scopes."""

    async def make(*scopes: Scope, environment: Environment = Environment.LIVE) -> dict[str, str]:
        admin = Caller(ACCOUNT, Environment.LIVE, "key_1", frozenset({Scope.ADMIN.value}))
        made = await services.keys.create(
            admin, name="test", environment=environment, scopes=scopes
        )
        return {"Authorization": f"Bearer {made.secret}"}

    return make


def cb(callback_id) -> str:
    return public_id(IdPrefix.CALLBACK, callback_id)


async def test_callbacks_are_listed_page_by_page(http, outbox, key):
    message = await outbox.message(URL)
    ids = await outbox.tell(message, SENT, FAILED, DELIVERED)
    reader = await key(Scope.READ_CALLBACKS)
    first = (await http.get(LIST, params={"limit": 2}, headers=reader)).json()
    assert [item["id"] for item in first["items"]] == [cb(ids[2]), cb(ids[1])]
    rest = (await http.get(LIST, params={"cursor": first["next_cursor"]}, headers=reader)).json()
    assert [item["id"] for item in rest["items"]] == [cb(ids[0])]
    assert rest["next_cursor"] is None
    item = rest["items"][0]
    assert item["message_id"] == public(message)
    assert (item["url"], item["status"], item["state"]) == (URL, "sent", "pending")
    assert (item["tries"], item["last_status"], item["last_error"]) == (0, None, None)
    assert item["next_at"] is not None


async def test_callbacks_are_found_by_message_and_state(http, outbox, key):
    message = await outbox.message(URL)
    (callback,) = await outbox.tell(message, SENT)
    await outbox.tell(await outbox.message(URL), SENT)
    reader = await key(Scope.READ_CALLBACKS)
    found = await http.get(LIST, params={"message_id": public(message)}, headers=reader)
    assert [item["id"] for item in found.json()["items"]] == [cb(callback)]
    none = await http.get(LIST, params={"state": "failed"}, headers=reader)
    assert none.json() == {"items": [], "next_cursor": None}


async def test_what_cannot_be_listed_is_refused_by_field(http, key):
    reader = await key(Scope.READ_CALLBACKS)
    for field, value in {
        "state": "lost",
        "message_id": "msg_1",
        "limit": "201",
        "cursor": "page 2",
        "colour": "red",
    }.items():
        answer = await http.get(LIST, params={field: value}, headers=reader)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_replayed_callback_waits_for_its_delivery(http, outbox, key):
    (callback,) = await outbox.tell(await outbox.message(URL), SENT)
    replayer = await key(Scope.REPLAY_CALLBACKS)
    answer = await http.post(f"{LIST}/{cb(callback)}/replay", headers=replayer)
    assert answer.status_code == 202
    assert answer.json() == {"replayed": 1}
    assert await outbox.active(await outbox.lane(URL))


async def test_all_that_failed_is_replayed_by_one_request(http, outbox, key):
    given_up, _ = [(await outbox.tell(await outbox.message(URL), SENT))[0] for _ in range(2)]
    await outbox.give_up(given_up)
    replayer = await key(Scope.REPLAY_CALLBACKS)
    answer = await http.post(f"{LIST}/replay", json={}, headers=replayer)
    assert (answer.status_code, answer.json()) == (200, {"replayed": 1})
    assert (await outbox.callback(given_up))["state"] == "pending"
    answer = await http.post(f"{LIST}/replay", json={"state": "delivered"}, headers=replayer)
    assert answer.status_code == 422


async def test_callbacks_of_another_environment_are_neither_seen_nor_replayed(http, outbox, key):
    (callback,) = await outbox.tell(await outbox.message(URL), SENT)
    stranger = await key(Scope.READ_CALLBACKS, Scope.REPLAY_CALLBACKS, environment=Environment.TEST)
    assert (await http.get(LIST, headers=stranger)).json()["items"] == []
    for callback_id in (cb(callback), "cb_nonsense"):
        answer = await http.post(f"{LIST}/{callback_id}/replay", headers=stranger)
        assert answer.status_code == 404
        assert "no callback" in answer.json()["detail"]


async def test_each_endpoint_asks_for_its_scope(http, outbox, key):
    wrong = await key(Scope.SEND)
    reader = await key(Scope.READ_CALLBACKS)
    assert (await http.get(LIST)).status_code == 401
    assert (await http.get(LIST, headers=wrong)).status_code == 403
    assert (await http.post(f"{LIST}/replay", json={}, headers=reader)).status_code == 403
    assert (await http.post(f"{LIST}/cb_1/replay", headers=reader)).status_code == 403
    assert (await http.get(f"{LIST}/secret", headers=reader)).status_code == 403


async def test_the_signing_secret_is_shown_to_who_manages_keys(http, outbox, key):
    answer = await http.get(f"{LIST}/secret", headers=await key(Scope.MANAGE_KEYS))
    assert answer.json() == {"secret": SECRET}
