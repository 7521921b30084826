"""Tests of providers over HTTP: only operators choose a provider, and refusals say what to do."""

from typing import Any

import pytest

from store import providers as store
from store.providers import Heartbeat
from tests.api.conftest import LIST, NUMBER, ORDER, SEND, Api, errors_of, slug_of

pytestmark = pytest.mark.stack

PROVIDERS = "/api/v1/providers"
TEST = {"to": NUMBER, "from": "ACME"}


async def up(api: Api, name: str, *roles: str) -> None:
    async with api.services.database.begin() as connection:
        polls = list(roles or ("providers", "chunks"))
        store.record_heartbeat(connection, Heartbeat(name, "worker/1", polls, 2, 2, "up", polls))


async def sent_test(api: Api, name: str = "backup", **body: Any) -> str:
    """Test a provider; the message's id."""
    response = await api.post(f"{PROVIDERS}/{name}/tests", json=TEST | body)
    assert response.status_code == 202, response.text
    message_id = str(response.json()["message_id"])
    assert response.headers["Location"] == f"{PROVIDERS}/{name}/tests/{message_id}"
    return message_id


async def test_the_message_goes_to_the_provider_although_the_route_prefers_another(
    api: Api,
) -> None:
    await up(api, "primary")
    await up(api, "backup")
    message_id = await sent_test(api)
    explained = (await api.get(f"{PROVIDERS}/backup/tests/{message_id}")).json()
    decided = next(each for each in explained["events"] if each["kind"] == "decided")
    assert (decided["provider"], decided["detail"]["only_provider"]) == ("backup", "backup")
    assert (decided["detail"]["route"], len(decided["detail"]["ranking"])) == (None, 1)
    assert (
        "It tests backup, which was given with it: no route was looked up."
        in (explained["summary"])
    )
    assert explained["message"]["body"] == "This is a test of the SMS gateway."


async def test_the_account_that_it_belongs_to_can_read_it_and_gets_no_callback(api: Api) -> None:
    text = (await api.get("/api/v1/config")).json()["content"]
    url = 'default_callback_url = "https://shop.example.com/sms"'
    with_url = text.replace("[accounts.shop]", f"[accounts.shop]\n{url}")
    await api.services.configurations.apply(with_url, applied_by="key_test")
    await up(api, "backup")
    message = (await api.get(f"{LIST}/{await sent_test(api)}")).json()
    assert (message["environment"], message["callback_url"]) == ("live", None)
    assert message["to"] == NUMBER


async def test_it_has_the_environment_of_its_provider(api: Api) -> None:
    await up(api, "sandbox")
    message_id = await sent_test(api, "sandbox")
    shown = (await api.get(f"{PROVIDERS}/sandbox/tests/{message_id}")).json()["message"]
    assert shown["environment"] == "test"
    assert (await api.get(f"{LIST}/{message_id}")).status_code == 404


async def test_no_key_of_an_account_can_choose_a_provider(api: Api) -> None:
    await up(api, "backup")
    for field in ("provider", "only_provider"):
        response = await api.post(SEND, json=ORDER | {field: "backup"})
        assert (response.status_code, list(errors_of(response))) == (422, [field])
    response = await api.post(f"{PROVIDERS}/backup/tests", json=TEST, key=api.key)
    assert (response.status_code, slug_of(response)) == (403, "operator-key-needed")
    assert (await api.rows())["messages"] == 0


async def test_an_operator_reads_nothing_but_tests_and_by_their_provider(api: Api) -> None:
    await up(api, "backup")
    order, message_id = await api.sent(), await sent_test(api)
    for path in (f"backup/tests/{order}", f"primary/tests/{message_id}", "backup/tests/msg_1"):
        response = await api.get(f"{PROVIDERS}/{path}")
        assert (response.status_code, slug_of(response)) == (404, "not-found")


async def test_an_unknown_provider_is_refused_with_the_names_of_all(api: Api) -> None:
    response = await api.post(f"{PROVIDERS}/nobody/tests", json=TEST)
    assert (response.status_code, slug_of(response)) == (404, "not-found")
    assert "Its providers are: backup, primary, sandbox." in response.json()["detail"]


async def test_a_provider_that_is_down_is_refused_with_the_reason(api: Api) -> None:
    await up(api, "primary", "chunks")
    for name, reason in (("backup", "No worker process serves it"), ("primary", "providers")):
        response = await api.post(f"{PROVIDERS}/{name}/tests", json=TEST)
        assert (response.status_code, slug_of(response)) == (409, "provider-down")
        assert response.json()["detail"].startswith(f"{name} is down. ")
        assert reason in response.json()["detail"]
    assert (await api.rows())["messages"] == 0


async def test_among_several_accounts_one_must_be_named(api: Api) -> None:
    await up(api, "backup")
    await api.key_of(account="depot")
    response = await api.post(f"{PROVIDERS}/backup/tests", json=TEST)
    assert "They are: " in errors_of(response)["account_id"]
    assert "depot" in errors_of(response)["account_id"]
    unknown = await api.post(f"{PROVIDERS}/backup/tests", json=TEST | {"account_id": "nobody"})
    assert "There is no account with this id" in errors_of(unknown)["account_id"]
    message_id = await sent_test(api, account_id="depot")
    (row,) = await api.fetch("SELECT account_id, only_provider FROM messages")
    assert (row["account_id"], row["only_provider"]) == ("depot", "backup")
    assert (await api.get(f"{PROVIDERS}/backup/tests/{message_id}")).status_code == 200


async def test_the_rules_of_the_account_hold(api: Api) -> None:
    await up(api, "backup")
    await api.key_of(account="bank")
    bank = {"to": NUMBER, "account_id": "bank"}
    refused = await api.post(f"{PROVIDERS}/backup/tests", json=bank | {"from": "ACME"})
    assert "may not send from this sender" in errors_of(refused)["from"]
    by_default = await api.post(f"{PROVIDERS}/backup/tests", json=bank)
    assert by_default.status_code == 202
    (row,) = await api.fetch("SELECT sender FROM messages")
    assert row["sender"] == "BANK"
    nameless = {"to": NUMBER, "account_id": "shop"}
    missing = await api.post(f"{PROVIDERS}/backup/tests", json=nameless)
    assert "names no sender of this account" in errors_of(missing)["from"]
    await api.post("/api/v1/accounts/bank/suspend")
    suspended = await api.post(f"{PROVIDERS}/backup/tests", json=bank)
    assert (suspended.status_code, slug_of(suspended)) == (403, "account-suspended")


async def test_a_repeated_request_with_the_same_key_is_one_test(api: Api) -> None:
    await up(api, "backup")
    headers = {"Idempotency-Key": "one"}
    first, again = [
        await api.post(f"{PROVIDERS}/backup/tests", json=TEST, headers=headers) for _ in range(2)
    ]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.json()["message_id"] == again.json()["message_id"]
    await up(api, "primary")
    other = await api.post(f"{PROVIDERS}/primary/tests", json=TEST, headers=headers)
    assert (other.status_code, slug_of(other)) == (422, "idempotency-key-reused")


async def test_before_the_first_configuration_no_provider_can_be_tested(unconfigured: Api) -> None:
    response = await unconfigured.post(f"{PROVIDERS}/backup/tests", json=TEST)
    assert (response.status_code, slug_of(response)) == (503, "no-configuration")


async def test_a_provider_that_reports_nothing_over_http_has_no_address(api: Api) -> None:
    shown = (await api.get(f"{PROVIDERS}/primary/addresses")).json()
    assert shown["receipts"] is None
    assert "report no receipts over HTTP" in shown["detail"]
    unknown = await api.get(f"{PROVIDERS}/nobody/addresses")
    assert (unknown.status_code, slug_of(unknown)) == (404, "not-found")
