"""Nothing is visible, and nothing can be done, across accounts or environments.

Walks every operation of the OpenAPI document. `OPERATIONS` says of each what protects it, and whether
it sends, so an endpoint that is added fails here until it is classified, and is tested from then on:
against other accounts, other environments, operators, and suspended accounts.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from domain.configuration import Environment
from domain.ids import IdPrefix, public_id
from services.keys import OperatorScope, Scope
from services.submission import Caller, SendCommand
from tests.api.conftest import NUMBER, ORDER, Api, document, send_receipt, slug_of

pytestmark = pytest.mark.stack

OWNER = "shop"


class Protection(Enum):
    """What keeps a stranger from what an operation shows or changes."""

    NO_KEY = "needs no key, and shows nothing of anybody"
    SIGNATURE = "is signed by a provider"
    OPERATOR = "concerns the installation: needs an operator's key"
    BY_ENVIRONMENT = "shows what all accounts share, by the key's environment"
    BY_ID = "names one thing of one account and environment by its id"
    OF_CALLER = "works on what the caller's account has in the key's environment"


@dataclass(frozen=True)
class Operation:
    """How an operation is called by a stranger, and what it may respond.

    `sends` says whether a suspended account is refused.
    """

    protection: Protection
    body: dict[str, Any] | None = None
    stranger_gets: frozenset[int] = field(default=frozenset({200}))
    sends: bool = False


def _by_id(body: dict[str, Any] | None = None, *, sends: bool = False) -> Operation:
    return Operation(Protection.BY_ID, body, frozenset({404}), sends)


def _of_caller(
    *, status: int = 200, body: dict[str, Any] | None = None, sends: bool = False
) -> Operation:
    return Operation(Protection.OF_CALLER, body, frozenset({status}), sends)


def _of_operator(body: dict[str, Any] | None = None) -> Operation:
    return Operation(Protection.OPERATOR, body, frozenset({403}))


_OPERATOR = _of_operator()
_RECIPIENT = "+447700900999"

OPERATIONS: dict[str, Operation] = {
    "get_health": Operation(Protection.NO_KEY),
    "get_readiness": Operation(Protection.NO_KEY),
    "receive_receipt": Operation(Protection.SIGNATURE),
    "get_configuration": _OPERATOR,
    "check_configuration": _OPERATOR,
    "apply_configuration": _OPERATOR,
    "list_providers": Operation(Protection.BY_ENVIRONMENT),
    "get_provider": Operation(Protection.BY_ENVIRONMENT, None, frozenset({200, 404})),
    "get_provider_addresses": _OPERATOR,
    "send_provider_test": _of_operator({"to": _RECIPIENT, "from": "ACME"}),
    "explain_provider_test": _OPERATOR,
    "reparse_receipts": _OPERATOR,
    "create_account": _of_operator({"name": "Mine"}),
    "list_accounts": _OPERATOR,
    "get_account": _OPERATOR,
    "suspend_account": _OPERATOR,
    "resume_account": _OPERATOR,
    "create_account_key": _of_operator(
        {"name": "mine", "environment": "test", "scopes": ["admin"]}
    ),
    "list_operator_keys": _OPERATOR,
    "create_operator_key": _of_operator({"name": "mine", "scopes": ["config:manage"]}),
    "revoke_operator_key": _OPERATOR,
    "send_message": _of_caller(
        status=202, body=ORDER | {"to": _RECIPIENT, "body": "Mine"}, sends=True
    ),
    "preview_message": _of_caller(body=ORDER | {"to": _RECIPIENT, "body": "Mine"}),
    "list_messages": _of_caller(),
    "get_message": _by_id(),
    "list_events": _by_id(),
    "list_account_events": _of_caller(),
    "explain_message": _by_id(),
    "cancel_message": _by_id(),
    "send_batch": _of_caller(
        status=202,
        body={"from": "ACME", "body": "Mine", "recipients": [{"to": _RECIPIENT}]},
        sends=True,
    ),
    "list_batches": _of_caller(),
    "get_batch": _by_id(),
    "get_batch_results": _by_id(),
    "pause_batch": _by_id(),
    "resume_batch": _by_id(sends=True),
    "cancel_batch": _by_id(),
    "list_dead_letters": _of_caller(),
    "replay_dead_letters": _of_caller(body={"limit": 1000}, sends=True),
    "replay_dead_letter": _by_id(sends=True),
    "list_callbacks": _of_caller(),
    "replay_callbacks": _of_caller(body={}),
    "replay_callback": _by_id(),
    "get_callback_secret": _of_caller(),
    "list_keys": _of_caller(),
    "create_key": _of_caller(
        status=201, body={"name": "mine", "environment": "test", "scopes": ["admin"]}
    ),
    "revoke_key": _by_id(),
}
SHARED = {Protection.NO_KEY, Protection.SIGNATURE, Protection.OPERATOR, Protection.BY_ENVIRONMENT}

OWNED = """
SELECT string_agg(row, chr(10) ORDER BY row) AS everything FROM (
    SELECT m::text AS row FROM messages m WHERE m.id = ANY(:ids)
    UNION ALL SELECT e::text FROM events e WHERE e.message_id = ANY(:ids)
    UNION ALL SELECT a::text FROM attempts a WHERE a.message_id = ANY(:ids)
    UNION ALL SELECT p::text FROM all_parts p WHERE p.message_id = ANY(:ids)
    UNION ALL SELECT c::text FROM outbox c WHERE c.subject_id = ANY(:ids)
    UNION ALL SELECT b::text FROM batches b WHERE b.account_id = :owner AND b.environment = 'live'
    UNION ALL SELECT concat(id, revoked_at) FROM api_keys WHERE id = ANY(:keys)
    UNION ALL SELECT a::text FROM accounts a WHERE a.id = :owner
) AS owned
"""


class World:
    """What one account has in the live environment."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.ids: list[Any] = []
        self.keys: list[Any] = []
        self.values: dict[str, str] = {}
        self.secret = ""

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
        await api.execute("UPDATE outbox SET state = 'failed'")
        rows = await api.fetch("SELECT id FROM messages ORDER BY id")
        self.ids = [row["id"] for row in rows]
        (key,) = await api.fetch("SELECT id FROM api_keys WHERE account_id = :a", a=OWNER)
        self.keys = [key["id"]]
        (callback, *_) = await api.fetch("SELECT id FROM outbox ORDER BY id")
        (account,) = await api.fetch("SELECT callback_secret FROM accounts WHERE id = :a", a=OWNER)
        self.secret = account["callback_secret"]
        self.values = {
            "message_id": message,
            "batch_id": batch.json()["batch_id"],
            "dead_letter": dead,
            "callback_id": public_id(IdPrefix.CALLBACK, callback["id"]),
            "key_id": public_id(IdPrefix.KEY, key["id"]),
            "name": "primary",
            "account_id": OWNER,
        }

    @property
    def marks(self) -> list[str]:
        """What must never be in the response to a stranger."""
        shared = {"name", "account_id"}
        named = (value for name, value in self.values.items() if name not in shared)
        return [*named, str(ORDER["body"]), NUMBER, "shop.example.com", self.secret]

    async def everything(self) -> str:
        """All the owner's rows, as text."""
        (found,) = await self.api.fetch(OWNED, ids=self.ids, keys=self.keys, owner=OWNER)
        return str(found["everything"])

    def requests(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        """Each operation that needs a key, asked for with the owner's ids."""
        for name, method, path, operation in operations():
            if "security" not in operation:
                continue
            values = dict(self.values)
            if name == "replay_dead_letter":
                values["message_id"] = values["dead_letter"]
            body = OPERATIONS[name].body
            request: dict[str, Any] = {} if body is None else {"json": body}
            yield name, method, path.format(**values), request


def operations() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Name, method, path and description of every operation of the document."""
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield operation["operationId"], method.upper(), path, operation


@pytest.fixture
async def world(api: Api) -> World:
    world = World(api)
    await world.fill()
    return world


def test_every_operation_is_classified_and_protected_as_it_says() -> None:
    described = {name: (path, operation) for name, _, path, operation in operations()}
    assert set(described) == set(OPERATIONS), "classify the new operation in OPERATIONS"
    for name, (path, operation) in described.items():
        protection = OPERATIONS[name].protection
        scopes = {
            scope
            for requirement in operation.get("security", ())
            for names in requirement.values()
            for scope in names
        }
        needs_no_key = protection in {Protection.NO_KEY, Protection.SIGNATURE}
        assert bool(scopes) != needs_no_key, name
        assert scopes <= {*Scope, *OperatorScope}, name
        assert bool(scopes & {*OperatorScope}) == (protection is Protection.OPERATOR), name
        if protection is Protection.BY_ID:
            assert "{" in path, name
        if protection is Protection.OF_CALLER:
            assert "{" not in path, name


@pytest.mark.parametrize(
    ("account", "environment"),
    [("depot", Environment.LIVE), (OWNER, Environment.TEST), ("depot", Environment.TEST)],
    ids=["another account", "another environment", "another account and environment"],
)
@pytest.mark.parametrize("scopes", [(Scope.ADMIN,), tuple(sorted(set(Scope) - {Scope.ADMIN}))])
async def test_a_stranger_sees_and_changes_nothing(
    api: Api, world: World, account: str, environment: Environment, scopes: tuple[Scope, ...]
) -> None:
    stranger = await api.key_of(*scopes, account=account, environment=environment)
    before = await world.everything()
    for name, method, path, request in world.requests():
        classified = OPERATIONS[name]
        if name == "create_key" and Scope.ADMIN not in scopes:
            request = {"json": request["json"] | {"scopes": ["messages:read"]}}  # noqa: PLW2901
        response = await api.ask(method, path, key=stranger, **request)
        assert response.status_code in classified.stranger_gets, f"{name}: {response.text}"
        for mark in world.marks:
            assert mark not in response.text.replace(path, ""), f"{name} shows {mark}"
        if name == "get_provider":
            expected = 404 if environment is Environment.TEST else 200
            assert response.status_code == expected
        if name == "list_providers":
            shown = {provider["environment"] for provider in response.json()["items"]}
            assert shown == {environment}
        assert await world.everything() == before, f"{name} changed something"


async def test_replays_of_a_stranger_find_nothing(api: Api, world: World) -> None:
    stranger = await api.key_of(account="depot")
    for wanted in ({"message_ids": [world.values["dead_letter"]]}, {"limit": 1000}):
        response = await api.post("/api/v1/dead-letters/replay", json=wanted, key=stranger)
        assert response.json()["replayed"] == []
    response = await api.post("/api/v1/callbacks/replay", json={"limit": 1000}, key=stranger)
    assert response.json() == {"replayed": 0}


async def test_filters_by_the_owners_ids_find_nothing_for_a_stranger(
    api: Api, world: World
) -> None:
    for account, environment in (("depot", Environment.LIVE), (OWNER, Environment.TEST)):
        stranger = await api.key_of(account=account, environment=environment)
        for path in (
            f"/api/v1/callbacks?message_id={world.values['message_id']}",
            "/api/v1/sms?to=%2B447700900123",
            "/api/v1/sms?provider=primary",
        ):
            response = await api.get(path, key=stranger)
            assert (response.status_code, response.json()["items"]) == (200, []), path


async def test_a_provider_of_one_environment_reports_nothing_of_another(
    api: Api, world: World
) -> None:
    """By neither the other provider's id of a message nor ours."""
    await api.services.configurations.apply(SANDBOX_THAT_REPORTS, applied_by="key_test")
    before = await world.everything()
    for message_id in ("7f3a", world.values["message_id"]):
        await send_receipt(api, message_id=message_id, to=NUMBER, status="DELIVERED")
    assert await world.everything() == before


SANDBOX_THAT_REPORTS = """
[providers.primary]
type = "simulator"

[providers.sandbox]
type = "simulator"
port = 2777
environment = "test"
receipt_secret = "env:SMSGATEWAY_SECRET_PRIMARY_RECEIPTS"

[[routes]]
providers = ["primary", "sandbox"]
"""


async def test_the_owner_sees_it_all(api: Api, world: World) -> None:
    """That the walk above would notice what it looks for."""
    shows: dict[str, set[str]] = {}
    for name, method, path, _ in world.requests():
        if method == "GET" and OPERATIONS[name].protection not in SHARED:
            response = await api.ask(method, path)
            assert response.status_code == 200, name
            shows[name] = {mark for mark in world.marks if mark in response.text}
    assert {name for name, marks in shows.items() if not marks} == set()


async def test_an_operation_of_operators_refuses_every_key_of_an_account(
    api: Api, world: World
) -> None:
    admin = await api.key_of(Scope.ADMIN)
    # As no code stores it: even a scope of operators makes no operator of an account.
    await api.execute(
        "UPDATE api_keys SET scopes = scopes || CAST(:scopes AS text[]) WHERE id = :id",
        scopes=list(OperatorScope),
        id=UUID(hex=admin.split("_")[2]),
    )
    for name, method, path, request in world.requests():
        if OPERATIONS[name].protection is Protection.OPERATOR:
            response = await api.ask(method, path, key=admin, **request)
            assert (response.status_code, slug_of(response)) == (403, "operator-key-needed"), name


async def test_an_operator_does_and_sees_nothing_that_belongs_to_an_account(
    api: Api, world: World
) -> None:
    before = await world.everything()
    for name, method, path, request in world.requests():
        if OPERATIONS[name].protection is not Protection.OPERATOR:
            response = await api.ask(method, path, key=api.operator, **request)
            assert (response.status_code, slug_of(response)) == (403, "account-key-needed"), name
            assert await world.everything() == before, f"{name} changed something"


async def test_what_an_operator_reads_shows_nothing_of_an_accounts_messages(
    api: Api, world: World
) -> None:
    for name, method, path, _ in world.requests():
        if OPERATIONS[name].protection is Protection.OPERATOR and method == "GET":
            response = await api.ask(method, path, key=api.operator)
            # What accounts have sent is no test of a provider, so an operator does not find it.
            expected = 404 if name == "explain_provider_test" else 200
            assert response.status_code == expected, name
            for mark in world.marks:
                assert mark not in response.text, f"{name} shows {mark}"


@pytest.mark.parametrize("wanted", OperatorScope)
async def test_an_operators_key_does_only_what_its_scope_says(
    api: Api, world: World, wanted: OperatorScope
) -> None:
    made = await api.post("/api/v1/operator-keys", json={"name": "narrow", "scopes": [wanted]})
    key = made.json()["key"]
    described = {name: operation for name, _, _, operation in operations()}
    for name, method, path, request in world.requests():
        if OPERATIONS[name].protection is Protection.OPERATOR:
            (scopes,) = described[name]["security"][0].values()
            response = await api.ask(method, path, key=key, **request)
            refused = response.status_code == 403 and slug_of(response) == "missing-scope"
            assert refused == (scopes != [wanted]), f"{name}: {response.text}"


async def test_a_suspended_account_reads_and_stops_but_sends_nothing(
    api: Api, world: World
) -> None:
    neighbour = await api.key_of(account="depot")
    suspended = await api.post(f"/api/v1/accounts/{OWNER}/suspend")
    assert suspended.status_code == 200
    sent = (await api.rows())["messages"]
    for name, method, path, request in world.requests():
        classified = OPERATIONS[name]
        if classified.protection is Protection.OPERATOR or name == "revoke_key":
            continue  # of the account's own key, on which this walk depends
        response = await api.ask(method, path, **request)
        refused = response.status_code == 403 and slug_of(response) == "account-suspended"
        assert refused == classified.sends, f"{name}: {response.status_code} {response.text}"
        assert refused or response.status_code < 300, f"{name}: {response.text}"
    assert (await api.rows())["messages"] == sent
    await api.sent(key=neighbour)


async def test_idempotency_keys_of_accounts_are_their_own(api: Api) -> None:
    neighbour = await api.key_of(account="depot")
    batch = {"from": "ACME", "recipients": [{"to": NUMBER}]}
    for path, body in (("/api/v1/sms/send", ORDER), ("/api/v1/sms/batches", batch)):
        found = set()
        for key in (api.key, neighbour):
            for _ in range(2):  # the second is the same request, not the other account's
                response = await api.post(
                    path,
                    json=body | {"body": f"Text {key[-6:]}"},
                    key=key,
                    headers={"Idempotency-Key": f"x{path}"},
                )
                assert response.status_code == 202, response.text
                found.add(response.json().get("message_id") or response.json()["batch_id"])
        assert len(found) == 2, path


async def test_idempotency_keys_of_parts_of_the_gateway_are_their_own(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they send for the account that uses the same key, singly or in a group."""
    incidents = Caller.internal("incidents", "shop", Environment.LIVE)
    other = Caller.internal("campaigns", "shop", Environment.LIVE)
    command = SendCommand(to=NUMBER, sender="ACME", body="Disk full on db-1")
    headers = {"Idempotency-Key": "x"}
    ids = {(await api.post("/api/v1/sms/send", json=ORDER, headers=headers)).json()["message_id"]}
    for caller in (incidents, other):
        for _ in range(2):
            accepted = await api.services.accept(caller, command, idempotency_key="x")
            ids.add(accepted.message_id)
    assert len(ids) == 3
    monkeypatch.setattr("services.workflow_starts._LONGEST_QUERY", 0)  # in groups
    repeated = await asyncio.gather(
        *(
            api.services.accept(caller, command, idempotency_key="x")
            for caller in (incidents, other)
        )
    )
    assert {accepted.message_id for accepted in repeated} < ids
    fresh = await asyncio.gather(
        *(
            api.services.accept(caller, command, idempotency_key="y")
            for caller in (incidents, other)
        )
    )
    assert len({accepted.message_id for accepted in fresh} - ids) == 2
    actors = await api.fetch("SELECT DISTINCT actor FROM events WHERE kind = 'accepted'")
    assert {row["actor"] for row in actors} >= {"incidents", "campaigns"}


@pytest.mark.parametrize("name", ["", "api"])
def test_no_part_of_the_gateway_has_the_namespace_of_the_api(name: str) -> None:
    with pytest.raises(ValueError, match="its own name"):
        Caller.internal(name, "shop", Environment.LIVE)


async def test_figures_and_limits_of_accounts_are_their_own(api: Api, world: World) -> None:
    """Of a provider's recent attempts an account sees its own, and its limits are its own."""
    neighbour = await api.key_of(account="depot")
    recent = {
        key: (await api.get("/api/v1/providers/primary", key=key)).json()["recent"]["attempts"]
        for key in (api.key, neighbour)
    }
    assert recent == {api.key: 1, neighbour: 0}
    long = ORDER | {"body": "a" * 460}  # four segments; the account "shop" may use three
    own = await api.post("/api/v1/sms/send", json=long)
    other = await api.post("/api/v1/sms/send", json=long, key=neighbour)
    assert (own.status_code, other.status_code) == (422, 202)
