"""API keys over HTTP: made, shown once, listed without secrets, revoked."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.configuration import Environment
from services.keys import Scope, UnknownKey, has_scope
from services.submission import Caller
from tests.api.conftest import LIST, Api, errors_of, slug_of

pytestmark = pytest.mark.stack

KEYS = "/api/v1/keys"
WANTED = {"name": "shop", "environment": "live", "scopes": ["messages:read", "messages:send"]}
KEEPER = {"name": "team", "environment": "live", "scopes": ["messages:read", "keys:manage"]}


async def test_a_key_is_shown_once_and_opens_what_its_scopes_say(api: Api) -> None:
    made = await api.post(KEYS, json=WANTED)
    assert made.status_code == 201
    key = made.json()
    assert key["key"].startswith("sg_live_")
    assert (await api.get(LIST, key=key["key"])).status_code == 200
    assert (await api.get(KEYS, key=key["key"])).status_code == 403
    listed = await api.get(KEYS)
    assert key["key"] not in listed.text
    (shown,) = [item for item in listed.json()["items"] if item["id"] == key["id"]]
    assert shown["scopes"] == WANTED["scopes"]
    assert shown["last_used_at"] is not None
    assert shown["account_id"] == "shop"
    assert shown["revoked_at"] is None


async def test_only_a_hash_of_a_key_is_stored(api: Api) -> None:
    secret = (await api.post(KEYS, json=WANTED)).json()["key"].rpartition("_")[2]
    (stored,) = await api.fetch("SELECT api_keys::text AS t FROM api_keys WHERE name = 'shop'")
    assert secret not in stored["t"]


async def test_a_revoked_key_is_listed_as_such_and_opens_nothing(api: Api) -> None:
    key = (await api.post(KEYS, json=WANTED)).json()
    assert (await api.get(LIST, key=key["key"])).status_code == 200
    for _ in range(2):
        assert (await api.ask("DELETE", f"{KEYS}/{key['id']}")).status_code == 204
    assert (await api.get(LIST, key=key["key"])).status_code == 401
    (shown,) = [k for k in (await api.get(KEYS)).json()["items"] if k["id"] == key["id"]]
    assert shown["revoked_at"] is not None


async def test_a_key_gives_no_scope_that_it_has_not(api: Api) -> None:
    keeper = await api.key_of(Scope.MANAGE_KEYS, Scope.READ)
    lesser = WANTED | {"scopes": ["messages:read"]}
    assert (await api.post(KEYS, json=lesser, key=keeper)).status_code == 201
    for scopes in (["messages:send"], ["admin"], ["messages:read", "admin"]):
        response = await api.post(KEYS, json=WANTED | {"scopes": scopes}, key=keeper)
        assert (response.status_code, slug_of(response)) == (403, "key-exceeded")


async def test_a_key_of_the_test_environment_neither_makes_sees_nor_revokes_live_ones(
    api: Api,
) -> None:
    trial = await api.key_of(environment=Environment.TEST)
    live = (await api.post(KEYS, json=WANTED)).json()
    response = await api.post(KEYS, json=WANTED, key=trial)
    assert (response.status_code, slug_of(response)) == (403, "key-exceeded")
    listed = (await api.get(KEYS, key=trial)).json()["items"]
    assert {key["environment"] for key in listed} == {"test"}
    assert (await api.ask("DELETE", f"{KEYS}/{live['id']}", key=trial)).status_code == 404
    assert (await api.get(LIST, key=live["key"])).status_code == 200
    environments = {key["environment"] for key in (await api.get(KEYS)).json()["items"]}
    assert environments == {"live", "test"}


def key_id_of(key: str) -> str:
    return f"key_{key.split('_')[2]}"


def _forget(api: Api) -> None:
    """As after the two seconds for which a process remembers a key."""
    api.services.keys._known.clear()


async def _child(api: Api, key: str, **changes: Any) -> dict[str, Any]:
    response = await api.post(KEYS, json=KEEPER | changes, key=key)
    assert response.status_code == 201, response.text
    return response.json()


async def test_revoking_a_key_revokes_all_that_descend_from_it_and_no_others(api: Api) -> None:
    first = await _child(api, api.key)
    second = await _child(api, first["key"])
    third = await _child(api, second["key"], environment="test")
    sibling = await _child(api, first["key"])
    assert (first["parent_id"], third["parent_id"]) == (key_id_of(api.key), second["id"])
    assert (await api.ask("DELETE", f"{KEYS}/{second['id']}")).status_code == 204
    for key, status in ((first, 200), (second, 401), (third, 401), (sibling, 200)):
        assert (await api.get(LIST, key=key["key"])).status_code == status
    listed = {key["id"]: key for key in (await api.get(KEYS)).json()["items"]}
    ended = {key for key, shown in listed.items() if shown["revoked_at"] is not None}
    assert ended == {second["id"], third["id"]}


async def test_a_key_that_is_stored_while_its_parent_is_revoked_opens_nothing(api: Api) -> None:
    parent = await _child(api, api.key)
    child = await _child(api, parent["key"])
    # As if the child had been stored after the statement that revoked the family.
    await api.execute(
        "UPDATE api_keys SET revoked_at = now() WHERE id = :id",
        id=UUID(hex=parent["id"].partition("_")[2]),
    )
    _forget(api)
    assert (await api.get(LIST, key=child["key"])).status_code == 401
    assert (await api.post(KEYS, json=WANTED, key=parent["key"])).status_code == 401


async def test_a_revoked_key_creates_none_though_it_is_still_remembered(api: Api) -> None:
    parent = await _child(api, api.key)
    caller = await api.services.keys.authenticate(parent["key"])
    assert isinstance(caller, Caller)
    await api.execute(
        "UPDATE api_keys SET revoked_at = now() WHERE id = :id",
        id=UUID(hex=parent["id"].partition("_")[2]),
    )
    with pytest.raises(UnknownKey):
        await api.services.keys.create(
            caller, name="late", environment=Environment.LIVE, scopes=[Scope.READ]
        )


async def test_no_key_lasts_longer_than_the_one_that_created_it(api: Api) -> None:
    now = datetime.now(UTC)
    sooner, end, later = (now + timedelta(hours=hours) for hours in (1, 2, 3))
    parent = await _child(api, api.key, expires_at=end.isoformat())
    inherited = await _child(api, parent["key"])
    assert datetime.fromisoformat(inherited["expires_at"]) == end
    grandchild = await _child(api, inherited["key"])
    assert datetime.fromisoformat(grandchild["expires_at"]) == end
    shorter = await _child(api, parent["key"], expires_at=sooner.isoformat())
    assert datetime.fromisoformat(shorter["expires_at"]) == sooner
    for key in (parent, inherited, grandchild):
        response = await api.post(
            KEYS, json=KEEPER | {"expires_at": later.isoformat()}, key=key["key"]
        )
        assert (response.status_code, slug_of(response)) == (403, "key-exceeded")
        assert "last longer" in response.json()["detail"]
    response = await api.post(
        KEYS, json=KEEPER | {"expires_at": end.isoformat()}, key=shorter["key"]
    )
    assert slug_of(response) == "key-exceeded"


async def test_a_key_ends_when_an_ancestor_expires(api: Api) -> None:
    parent = await _child(api, api.key)
    child = await _child(api, parent["key"])
    grandchild = await _child(api, child["key"])
    past = datetime.now(UTC) - timedelta(seconds=1)
    await api.execute(
        "UPDATE api_keys SET expires_at = :past WHERE id = :id",
        past=past,
        id=UUID(hex=parent["id"].partition("_")[2]),
    )
    _forget(api)
    for key in (parent, child, grandchild):
        assert (await api.get(LIST, key=key["key"])).status_code == 401


async def test_every_key_of_a_random_family_has_at_most_the_rights_of_its_ancestors(
    api: Api,
) -> None:
    choose = random.Random(11)
    begin = datetime.now(UTC)
    family: dict[str, dict[str, Any]] = {}
    keys = [api.key]
    grants: dict[str, frozenset[Scope]] = {}
    for _ in range(100):
        key = choose.choice([api.key, *keys[-4:]])
        ends = choose.choice([None, begin + timedelta(hours=choose.randint(1, 9))])
        wanted = {
            "name": "any",
            "environment": choose.choice(["live", "test"]),
            "scopes": [*choose.sample(list(Scope), choose.randint(0, 2)), Scope.MANAGE_KEYS],
            **({"expires_at": ends.isoformat()} if ends else {}),
        }
        wanted["scopes"] = sorted(set(wanted["scopes"]))
        response = await api.post(KEYS, json=wanted, key=key)
        if response.status_code == 201:
            made = response.json()
            family[made["id"]] = made
            keys.append(made["key"])
        else:
            assert slug_of(response) == "key-exceeded"
    for made in family.values():
        grants[made["id"]] = frozenset(s for s in Scope if has_scope(made["scopes"], s))
    compared = 0
    for made in family.values():
        parent = family.get(made["parent_id"])
        if parent is None:
            assert made["parent_id"] == key_id_of(api.key)
            continue
        compared += 1
        assert grants[made["id"]] <= grants[parent["id"]]
        assert (parent["environment"], made["environment"]) != ("test", "live")
        if parent["expires_at"] is not None:
            assert made["expires_at"] is not None
            assert made["expires_at"] <= parent["expires_at"]
    assert compared > 10


async def test_a_key_does_not_revoke_its_ancestors(api: Api) -> None:
    """Else the least of all keys could end every key of the account."""
    parent = await _child(api, api.key)
    child = await _child(api, parent["key"])
    sibling = await _child(api, parent["key"])
    for target in (key_id_of(api.key), parent["id"]):
        response = await api.ask("DELETE", f"{KEYS}/{target}", key=child["key"])
        assert (response.status_code, slug_of(response)) == (403, "key-exceeded"), target
        assert "revoke" in response.json()["detail"]
    for key in (api.key, parent["key"], child["key"]):
        assert (await api.get(LIST, key=key)).status_code == 200
    for target, by in (
        (sibling["id"], child["key"]),
        (child["id"], child["key"]),
        (key_id_of(api.key), api.key),
    ):
        assert (await api.ask("DELETE", f"{KEYS}/{target}", key=by)).status_code == 204


async def test_bootstrap_replaces_a_key_and_keeps_the_keys_that_it_created(api: Api) -> None:
    keys = api.services.keys
    old = await keys.create_root("default", name="operator", scopes=[Scope.ADMIN])
    assert old.secret is not None
    child = await _child(api, old.secret)
    # Created over HTTP, so bootstrap neither replaces it nor keeps what it creates.
    namesake = await _child(api, old.secret, name="operator")
    below = await _child(api, namesake["key"])
    new = await keys.create_root("default", name="operator", scopes=[Scope.ADMIN])
    assert new.secret is not None
    assert (await api.get(LIST, key=old.secret)).status_code == 401
    for key in (new.secret, child["key"], namesake["key"], below["key"]):
        assert (await api.get(LIST, key=key)).status_code == 200
    parents = {
        key["id"]: key["parent_id"] for key in (await api.get(KEYS, key=new.secret)).json()["items"]
    }
    assert parents[child["id"]] == new.id
    assert parents[below["id"]] == namesake["id"]
    assert (await api.ask("DELETE", f"{KEYS}/{new.id}", key=new.secret)).status_code == 204
    for key in (new.secret, child["key"], namesake["key"], below["key"]):
        assert (await api.get(LIST, key=key)).status_code == 401


async def test_what_is_wrong_with_a_wanted_key_is_named(api: Api) -> None:
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for changes, field, advice in [
        ({"name": ""}, "name", "too short"),
        ({"name": "x" * 65}, "name", "too long"),
        ({"environment": "staging"}, "environment", "one of: live, test"),
        ({"scopes": []}, "scopes", "too few"),
        ({"scopes": ["messages:write"]}, "scopes.0", "one of: messages:send"),
        ({"scopes": "admin"}, "scopes", "list"),
        ({"expires_at": past}, "expires_at", "in the past"),
        ({"expires": past}, "expires", "did you mean expires_at?"),
    ]:
        response = await api.post(KEYS, json=WANTED | changes)
        assert response.status_code == 422
        assert advice in errors_of(response)[field]
    assert len((await api.get(KEYS)).json()["items"]) == 1
