"""Accounts over HTTP: created, listed, shown, suspended, resumed, and given keys by operators."""

import io
import json
from typing import Any

import pytest

from services.assembly import assemble
from services.keys import OperatorScope, Scope
from settings.settings import Settings
from tests.api.conftest import LIST, ORDER, SEND, Api, errors_of, serving, slug_of, temporal_is_away

pytestmark = pytest.mark.stack

ACCOUNTS = "/api/v1/accounts"
OPERATOR_KEYS = "/api/v1/operator-keys"
FIRST_KEY = {"name": "admin", "environment": "live", "scopes": ["admin"]}


async def created(api: Api, name: str = "Acme Logistics") -> dict[str, Any]:
    response = await api.post(ACCOUNTS, json={"name": name})
    assert response.status_code == 201, response.text
    return dict(response.json())


async def test_an_operator_creates_an_account_and_its_first_key_which_sends(api: Api) -> None:
    account = await created(api)
    assert account["id"].startswith("acc_")
    assert (account["name"], account["suspended_at"]) == ("Acme Logistics", None)
    made = await api.post(f"{ACCOUNTS}/{account['id']}/keys", json=FIRST_KEY)
    assert made.status_code == 201
    key = made.json()
    assert (key["account_id"], key["parent_id"]) == (account["id"], None)
    await api.sent(key=key["key"])
    (listed,) = (await api.get(LIST, key=key["key"])).json()["items"]
    assert listed["to"] == ORDER["to"]
    assert (await api.get(f"{ACCOUNTS}/{account['id']}")).json() == account
    assert account in (await api.get(ACCOUNTS)).json()["items"]


async def test_the_callback_secrets_of_accounts_differ(api: Api) -> None:
    await created(api, "one")
    await created(api, "two")
    rows = await api.fetch("SELECT callback_secret, test_callback_secret FROM accounts")
    secrets = [secret for row in rows for secret in row.values()]
    assert len(set(secrets)) == 2 * len(rows) > 4


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("", "too short"),
        ("x" * 65, "too long"),
        (" Acme", "no blank at its beginning or end"),
        ("Acme\n", "printable characters only"),
        ("Ac\u200bme", "printable characters only"),
        ("\u3164", "printable characters only"),
        ("\u2800", "printable characters only"),
        ("\u115f", "printable characters only"),
        ("a\u034fb", "printable characters only"),
        ("a\ufe0f", "printable characters only"),
        ("a\u00a0b", "printable characters only"),
        ("acc_019aa5c0d1e27b3c8f4e5a6b7c8d9e30", "looks like the id"),
        ("\uff21CC_1", "looks like the id"),
        ("Ac\u0000me", "take it out"),
        (7, "a text, in quotes"),
    ],
)
async def test_a_name_that_cannot_be_one_is_refused_in_a_sentence(
    api: Api, name: object, advice: str
) -> None:
    response = await api.post(ACCOUNTS, json={"name": name})
    assert response.status_code == 422
    assert advice in errors_of(response)["name"]


@pytest.mark.parametrize("name", ["x", "x" * 64, "Café Zoë", "東京", "a/b?c#d"])
async def test_a_name_of_printable_characters_is_taken_as_it_is(api: Api, name: str) -> None:
    assert (await created(api, name))["name"] == name


async def test_a_name_belongs_to_one_account_however_it_is_composed(api: Api) -> None:
    await created(api, "Caf\u00e9")
    for name in ("Caf\u00e9", "Cafe\u0301", "CAF\u00c9", "\uff23af\u00e9", "shop", "Shop"):
        response = await api.post(ACCOUNTS, json={"name": name})
        assert (response.status_code, slug_of(response)) == (409, "account-name-taken")


async def test_an_unknown_account_is_not_found(api: Api) -> None:
    for method, path in (
        ("GET", ""),
        ("POST", "/suspend"),
        ("POST", "/resume"),
    ):
        for unknown in ("acc_none", "%00", "a%2Fb", "%F0%9F%8E%89"):
            response = await api.ask(method, f"{ACCOUNTS}/{unknown}{path}")
            assert (response.status_code, slug_of(response)) == (404, "not-found")
    response = await api.post(f"{ACCOUNTS}/acc_none/keys", json=FIRST_KEY)
    assert (response.status_code, slug_of(response)) == (404, "not-found")


async def test_suspending_and_resuming_twice_is_as_good_as_once(api: Api) -> None:
    account = await created(api)
    path = f"{ACCOUNTS}/{account['id']}"
    first = (await api.post(f"{path}/suspend")).json()
    assert first["suspended_at"] is not None
    assert (await api.post(f"{path}/suspend")).json() == first
    for _ in range(2):
        assert (await api.post(f"{path}/resume")).json()["suspended_at"] is None


async def test_a_suspended_account_sends_again_once_it_is_resumed(api: Api) -> None:
    await api.sent()
    await api.post(f"{ACCOUNTS}/shop/suspend")
    response = await api.post(SEND, json=ORDER)
    assert (response.status_code, slug_of(response)) == (403, "account-suspended")
    assert "ask the operator" in response.json()["detail"]
    await api.post(f"{ACCOUNTS}/shop/resume")
    await api.sent()


async def test_another_process_follows_a_suspension_when_its_memory_of_the_key_ends(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.keys._REMEMBERED_FOR", 0.0)
    services = assemble(settings, connect=temporal_is_away)
    await services.configurations.refresh()
    async with serving(services) as other:
        await other.sent(key=api.key)
        await api.post(f"{ACCOUNTS}/shop/suspend")
        response = await other.post(SEND, json=ORDER, key=api.key)
        assert (response.status_code, slug_of(response)) == (403, "account-suspended")
        await api.post(f"{ACCOUNTS}/shop/resume")
        await other.sent(key=api.key)
    await services.close()


async def test_changes_of_accounts_are_logged_with_the_key_that_made_them(
    api: Api, logged: io.StringIO
) -> None:
    account = await created(api)
    path = f"{ACCOUNTS}/{account['id']}"
    await api.post(f"{path}/suspend")
    await api.post(f"{path}/resume")
    key = (await api.post(f"{path}/keys", json=FIRST_KEY)).json()
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    by = f"key_{api.operator.split('_')[2]}"
    found = {line["event"]: line for line in lines if line.get("account_id") == account["id"]}
    assert found.keys() >= {
        "account_created",
        "account_suspended",
        "account_resumed",
        "key_created",
    }
    assert {line["by_key_id"] for line in found.values()} == {by}
    assert found["key_created"]["key_id"] == key["id"]


# Operators' keys


async def test_an_operators_key_is_shown_once_and_makes_narrower_ones(api: Api) -> None:
    assert api.operator.startswith("sg_operator_")
    made = await api.post(OPERATOR_KEYS, json={"name": "ci", "scopes": ["config:manage"]})
    assert made.status_code == 201
    key = made.json()
    assert key["key"].startswith("sg_operator_")
    assert key["parent_id"] == f"key_{api.operator.split('_')[2]}"
    listed = await api.get(OPERATOR_KEYS)
    assert key["key"] not in listed.text
    assert {item["name"] for item in listed.json()["items"]} >= {"ci"}
    assert (await api.get("/api/v1/config", key=key["key"])).status_code == 200
    assert (await api.get(ACCOUNTS, key=key["key"])).status_code == 403


async def test_an_operator_gives_no_scope_that_it_has_not(api: Api) -> None:
    wanted = {"name": "keys", "scopes": [OperatorScope.MANAGE_OPERATOR_KEYS]}
    keeper = (await api.post(OPERATOR_KEYS, json=wanted)).json()["key"]
    response = await api.post(
        OPERATOR_KEYS, json={"name": "x", "scopes": ["config:manage"]}, key=keeper
    )
    assert (response.status_code, slug_of(response)) == (403, "key-exceeded")
    response = await api.post(OPERATOR_KEYS, json={"name": "x", "scopes": ["admin"]})
    assert response.status_code == 422


async def test_a_revoked_operators_key_ends_those_below_it_but_no_key_of_an_account(
    api: Api,
) -> None:
    wanted = {"name": "second", "scopes": list(OperatorScope)}
    second = (await api.post(OPERATOR_KEYS, json=wanted)).json()
    third = (await api.post(OPERATOR_KEYS, json=wanted, key=second["key"])).json()
    account = (await api.post(ACCOUNTS, json={"name": "x"}, key=second["key"])).json()
    path = f"{ACCOUNTS}/{account['id']}/keys"
    key = (await api.post(path, json=FIRST_KEY, key=second["key"])).json()["key"]
    above = await api.ask("DELETE", f"{OPERATOR_KEYS}/{second['id']}", key=third["key"])
    assert (above.status_code, slug_of(above)) == (403, "key-exceeded")
    revoked = await api.ask("DELETE", f"{OPERATOR_KEYS}/{second['id']}")
    assert revoked.status_code == 204
    for ended in (second, third):
        assert (await api.get(ACCOUNTS, key=ended["key"])).status_code == 401
    await api.sent(key=key)


async def test_operators_and_accounts_do_not_revoke_each_others_keys(api: Api) -> None:
    account_key = f"key_{api.key.split('_')[2]}"
    operator_key = f"key_{api.operator.split('_')[2]}"
    admin = await api.key_of(Scope.ADMIN)
    for path, key in (
        (f"{OPERATOR_KEYS}/{account_key}", api.operator),
        (f"/api/v1/keys/{operator_key}", admin),
    ):
        response = await api.ask("DELETE", path, key=key)
        assert (response.status_code, slug_of(response)) == (404, "not-found")
    listed = (await api.get("/api/v1/keys", key=admin)).json()["items"]
    assert operator_key not in {key["id"] for key in listed}


async def test_bootstrap_replaces_the_operators_key_of_its_name(api: Api) -> None:
    old = await api.services.keys.bootstrap(name="operator")
    assert old.secret is not None
    wanted = {"name": "below", "scopes": ["config:manage"]}
    below = (await api.post(OPERATOR_KEYS, json=wanted, key=old.secret)).json()
    new = await api.services.keys.bootstrap(name="operator")
    assert new.secret is not None
    assert (await api.get(ACCOUNTS, key=old.secret)).status_code == 401
    assert (await api.get(ACCOUNTS, key=new.secret)).status_code == 200
    assert (await api.get("/api/v1/config", key=below["key"])).status_code == 200
    parents = {
        key["id"]: key["parent_id"] for key in (await api.get(OPERATOR_KEYS)).json()["items"]
    }
    assert parents[below["id"]] == new.id


async def test_an_account_that_was_created_is_the_one_that_bootstrap_finds_by_its_name(
    api: Api,
) -> None:
    account = await created(api, "default")
    key = await api.services.keys.create_root("default", name="first", scopes=[Scope.ADMIN])
    assert key.account_id == account["id"]
