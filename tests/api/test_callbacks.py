from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from temporalio.client import Client

from api.callbacks import router
from api.problems import explain
from domain.configuration import Environment
from domain.ids import IdPrefix, public_id
from domain.states import MessageStatus
from services.assembly import Services, assemble
from services.keys import Scope
from settings.settings import Settings
from store import configurations
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
        made = await services.keys.create_root(
            ACCOUNT, name=uuid4().hex, environment=environment, scopes=scopes
        )
        return {"Authorization": f"Bearer {made.secret}"}

    return make


def cb(callback_id) -> str:
    return public_id(IdPrefix.CALLBACK, callback_id)


async def test_callbacks_are_listed_page_by_page(http, outbox, key):
    message = await outbox.message(URL)
    ids = await outbox.emit(message, SENT, FAILED, DELIVERED)
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
    (callback,) = await outbox.emit(message, SENT)
    await outbox.emit(await outbox.message(URL), SENT)
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
        response = await http.get(LIST, params={field: value}, headers=reader)
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
        assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_a_replayed_callback_waits_for_its_delivery(http, outbox, key):
    (callback,) = await outbox.emit(await outbox.message(URL), SENT)
    replayer = await key(Scope.REPLAY_CALLBACKS)
    response = await http.post(f"{LIST}/{cb(callback)}/replay", headers=replayer)
    assert response.status_code == 202
    assert response.json() == {"replayed": 1}
    assert await outbox.active(await outbox.lane(URL))


async def test_all_that_failed_is_replayed_by_one_request(http, outbox, key):
    given_up, _ = [(await outbox.emit(await outbox.message(URL), SENT))[0] for _ in range(2)]
    await outbox.give_up(given_up)
    replayer = await key(Scope.REPLAY_CALLBACKS)
    response = await http.post(f"{LIST}/replay", json={}, headers=replayer)
    assert (response.status_code, response.json()) == (200, {"replayed": 1})
    assert (await outbox.callback(given_up))["state"] == "pending"
    response = await http.post(f"{LIST}/replay", json={"state": "delivered"}, headers=replayer)
    assert response.status_code == 422


async def test_callbacks_of_another_environment_are_neither_seen_nor_replayed(http, outbox, key):
    (callback,) = await outbox.emit(await outbox.message(URL), SENT)
    stranger = await key(Scope.READ_CALLBACKS, Scope.REPLAY_CALLBACKS, environment=Environment.TEST)
    assert (await http.get(LIST, headers=stranger)).json()["items"] == []
    for callback_id in (cb(callback), "cb_nonsense"):
        response = await http.post(f"{LIST}/{callback_id}/replay", headers=stranger)
        assert response.status_code == 404
        assert "no callback" in response.json()["detail"]


async def test_each_endpoint_asks_for_its_scope(http, outbox, key):
    wrong = await key(Scope.SEND)
    reader = await key(Scope.READ_CALLBACKS)
    assert (await http.get(LIST)).status_code == 401
    assert (await http.get(LIST, headers=wrong)).status_code == 403
    assert (await http.post(f"{LIST}/replay", json={}, headers=reader)).status_code == 403
    assert (await http.post(f"{LIST}/cb_1/replay", headers=reader)).status_code == 403
    assert (await http.get(f"{LIST}/secret", headers=reader)).status_code == 403


async def test_the_signing_secret_is_shown_to_who_manages_keys(http, outbox, key):
    response = await http.get(f"{LIST}/secret", headers=await key(Scope.MANAGE_KEYS))
    assert response.json() == {"secret": SECRET}


async def test_a_key_of_the_test_environment_sees_the_secret_of_that_environment(http, outbox, key):
    trial = await key(Scope.MANAGE_KEYS, environment=Environment.TEST)
    shown = (await http.get(f"{LIST}/secret", headers=trial)).json()["secret"]
    assert shown != SECRET
    again = (await http.get(f"{LIST}/secret", headers=trial)).json()["secret"]
    assert shown == again


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_secret_that_the_configuration_refers_to_is_not_shown(
    http, outbox, key, services, monkeypatch, allowed
):
    name = "SMSGATEWAY_SECRET_ACME" if allowed else "DATABASE_URL"
    monkeypatch.setenv(name, "whsec_c2lnbnMgY2FsbGJhY2tzIG9mIHRoaXMgb25l")
    # Stored by a version of the gateway that allowed every reference.
    async with services.database.begin() as connection:
        text = f'{CONFIGURATION}\n[accounts.{ACCOUNT}]\ncallback_secret = "env:{name}"\n'
        await configurations.add(connection, text, source="api", applied_by="test")
    await services.configurations.refresh()
    response = await http.get(f"{LIST}/secret", headers=await key(Scope.MANAGE_KEYS))
    assert response.status_code == 409
    assert response.json()["type"] == "urn:smsgateway:problem:secret-configured"
    assert "whsec_" not in response.text
