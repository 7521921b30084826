"""API keys over HTTP: made, shown once, listed without secrets, revoked."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.configuration import Environment
from services.keys import Scope
from tests.api.conftest import LIST, Api, errors_of, slug_of

pytestmark = pytest.mark.stack

KEYS = "/api/v1/keys"
WANTED = {"name": "shop", "environment": "live", "scopes": ["messages:read", "messages:send"]}


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
        answer = await api.post(KEYS, json=WANTED | {"scopes": scopes}, key=keeper)
        assert (answer.status_code, slug_of(answer)) == (403, "key-exceeded")


async def test_a_key_of_the_test_environment_neither_makes_sees_nor_revokes_live_ones(
    api: Api,
) -> None:
    trial = await api.key_of(environment=Environment.TEST)
    live = (await api.post(KEYS, json=WANTED)).json()
    answer = await api.post(KEYS, json=WANTED, key=trial)
    assert (answer.status_code, slug_of(answer)) == (403, "key-exceeded")
    listed = (await api.get(KEYS, key=trial)).json()["items"]
    assert {key["environment"] for key in listed} == {"test"}
    assert (await api.ask("DELETE", f"{KEYS}/{live['id']}", key=trial)).status_code == 404
    assert (await api.get(LIST, key=live["key"])).status_code == 200
    environments = {key["environment"] for key in (await api.get(KEYS)).json()["items"]}
    assert environments == {"live", "test"}


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
        answer = await api.post(KEYS, json=WANTED | changes)
        assert answer.status_code == 422
        assert advice in errors_of(answer)[field]
    assert len((await api.get(KEYS)).json()["items"]) == 1
