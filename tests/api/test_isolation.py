"""Nothing is visible, and nothing can be done, across accounts or environments.

Walks every operation of the OpenAPI document, so that an endpoint that is added is tested here.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from domain.configuration import Environment
from domain.ids import IdPrefix, public_id
from tests.api.conftest import NUMBER, ORDER, Api, document, send_receipt

pytestmark = pytest.mark.stack

OWNER = "shop"
NEEDS_NO_KEY = {"get_health", "get_readiness", "receive_receipt"}
# What belongs to the installation, and not to an account.
OF_ALL_ACCOUNTS = {
    "list_providers",
    "get_provider",
    "get_configuration",
    "check_configuration",
    "apply_configuration",
}
# What answers with something of the caller's own, and not of the owner's.
MAKES_ITS_OWN = {"send_message": 202, "create_key": 201}

OWNED = """
SELECT string_agg(row, chr(10) ORDER BY row) AS everything FROM (
    SELECT m::text AS row FROM messages m WHERE m.id = ANY(:ids)
    UNION ALL SELECT e::text FROM events e WHERE e.message_id = ANY(:ids)
    UNION ALL SELECT a::text FROM attempts a WHERE a.message_id = ANY(:ids)
    UNION ALL SELECT p::text FROM all_parts p WHERE p.message_id = ANY(:ids)
    UNION ALL SELECT c::text FROM callback_events c WHERE c.message_id = ANY(:ids)
    UNION ALL SELECT concat(id, revoked_at) FROM api_keys WHERE id = ANY(:keys)
) AS owned
"""


class World:
    """What one account has in the live environment."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.ids: list[Any] = []
        self.keys: list[Any] = []
        self.values: dict[str, str] = {}

    async def fill(self) -> None:
        """A message that is on its way, a dead letter, callbacks of both, and a key."""
        api = self.api
        message = await api.sent(callback_url="https://shop.example.com/sms")
        dead = await api.sent(callback_url="https://shop.example.com/sms")
        await api.submitted(message, "7f3a")
        await send_receipt(api, message_id="7f3a", to=NUMBER, status="ACCEPTED")
        await api.set_aside(dead)
        batch = await api.post(
            "/api/v1/sms/batches",
            json={"from": "ACME", "body": ORDER["body"], "recipients": [{"to": NUMBER}]},
        )
        await api.execute("UPDATE callback_events SET state = 'failed'")
        rows = await api.fetch("SELECT id FROM messages ORDER BY id")
        self.ids = [row["id"] for row in rows]
        (key,) = await api.fetch("SELECT id FROM api_keys WHERE account_id = :a", a=OWNER)
        self.keys = [key["id"]]
        (callback, *_) = await api.fetch("SELECT id FROM callback_events ORDER BY id")
        self.values = {
            "message_id": message,
            "batch_id": batch.json()["batch_id"],
            "dead_letter": dead,
            "callback_id": public_id(IdPrefix.CALLBACK, callback["id"]),
            "key_id": public_id(IdPrefix.KEY, key["id"]),
            "name": "primary",
        }

    @property
    def marks(self) -> list[str]:
        """What must never be in the answer to a stranger."""
        named = (value for name, value in self.values.items() if name != "name")
        return [*named, str(ORDER["body"]), NUMBER, "shop.example.com"]

    async def everything(self) -> str:
        """All the owner's rows, as text."""
        (found,) = await self.api.fetch(OWNED, ids=self.ids, keys=self.keys)
        return str(found["everything"])

    def requests(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        """Each operation, asked for with the owner's ids."""
        bodies: dict[str, Any] = {
            "send_message": ORDER | {"to": "+447700900999", "body": "Mine"},
            "send_batch": {
                "from": "ACME",
                "body": "Mine",
                "recipients": [{"to": "+447700900999"}],
            },
            "replay_dead_letters": {"message_ids": [self.values["dead_letter"]]},
            "replay_callbacks": {},
            "create_key": {"name": "mine", "environment": "test", "scopes": ["admin"]},
        }
        for path, item in document()["paths"].items():
            for method, operation in item.items():
                name = operation["operationId"]
                if name in NEEDS_NO_KEY:
                    continue
                values = dict(self.values)
                if name == "replay_dead_letter":
                    values["message_id"] = values["dead_letter"]
                request: dict[str, Any] = {"json": bodies[name]} if name in bodies else {}
                yield name, method.upper(), path.format(**values), request


@pytest.fixture
async def world(api: Api) -> World:
    world = World(api)
    await world.fill()
    return world


@pytest.mark.parametrize(
    ("account", "environment"),
    [("depot", Environment.LIVE), (OWNER, Environment.TEST)],
    ids=["another account", "another environment"],
)
async def test_a_stranger_sees_and_changes_nothing(
    api: Api, world: World, account: str, environment: Environment
) -> None:
    stranger = await api.key_of(account=account, environment=environment)
    before = await world.everything()
    asked = set()
    for name, method, path, request in world.requests():
        if name in OF_ALL_ACCOUNTS and account != OWNER:
            continue
        answer = await api.ask(method, path, key=stranger, **request)
        asked.add(name)
        for mark in world.marks:
            assert mark not in answer.text.replace(path, "") or (
                name == "replay_dead_letters" and mark == world.values["dead_letter"]
            ), f"{name} shows {mark}"
        if "{" in document_path(name):
            assert answer.status_code in {403, 404}, name
        if name in MAKES_ITS_OWN:
            assert answer.status_code == MAKES_ITS_OWN[name]
        assert await world.everything() == before, f"{name} changed something"
    assert asked >= {"list_messages", "explain_message", "cancel_message", "revoke_key"}


async def test_replays_of_a_stranger_find_nothing(api: Api, world: World) -> None:
    stranger = await api.key_of(account="depot")
    for wanted in ({"message_ids": [world.values["dead_letter"]]}, {"limit": 1000}):
        answer = await api.post("/api/v1/dead-letters/replay", json=wanted, key=stranger)
        assert answer.json()["replayed"] == []
    answer = await api.post("/api/v1/callbacks/replay", json={"limit": 1000}, key=stranger)
    assert answer.json() == {"replayed": 0}


async def test_the_owner_sees_it_all(api: Api, world: World) -> None:
    """That the walk above would notice what it looks for."""
    shows: dict[str, set[str]] = {}
    for name, method, path, _ in world.requests():
        if method == "GET" and name not in OF_ALL_ACCOUNTS:
            answer = await api.ask(method, path)
            assert answer.status_code == 200, name
            shows[name] = {mark for mark in world.marks if mark in answer.text}
    assert {name for name, marks in shows.items() if not marks} == {"get_callback_secret"}


def document_path(name: str) -> str:
    for path, item in document()["paths"].items():
        if any(operation["operationId"] == name for operation in item.values()):
            return str(path)
    raise LookupError(name)
