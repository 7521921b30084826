"""Bad input: every refusal names the field and what to do, repeats nothing, and leaves nothing."""

import io
import json
import string
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from api.problems import KINDS, Kind
from domain.configuration import Environment
from local.processes import free_port
from services.assembly import assemble
from services.keys import Scope
from tests.api.conftest import (
    LIST,
    MOST_BYTES,
    ORDER,
    SEND,
    Api,
    document,
    errors_of,
    serving,
    slug_of,
    temporal_is_away,
)

pytestmark = pytest.mark.stack

JSON = {"content-type": "application/json"}


def from_now(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


# Each with the field that is named, and a part of the advice.
BAD_FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an impossible number": ({"to": "+4477"}, "to", "too few digits"),
    "a national number": ({"to": "07700900123"}, "to", "begin with +"),
    "a number that is none": ({"to": 447700900123}, "to", "in quotes"),
    "an empty number": ({"to": ""}, "to", "missing"),
    "an empty body": ({"body": ""}, "body", "empty"),
    "a body of too many segments": ({"body": "a" * 460}, "body", "at most 3 are allowed"),
    "a body with a NUL": ({"body": "a\0b"}, "body", "take it out"),
    "a body of half a pair": ({"body": "\ud83c"}, "body", "take it out"),
    "a sender that is too long": ({"from": "ACME LOGISTICS"}, "from", "at most 11 characters"),
    "a name that takes no replies": ({"mode": "two_way"}, "from", "takes replies"),
    "an unknown mode": (
        {"mode": "loud"},
        "mode",
        "one of: transactional, promotional, alert, two_way, verification",
    ),
    "an unknown priority": ({"priority": "top"}, "priority", "one of: low, normal, high, critical"),
    "a callback into a private network": (
        {"callback_url": "http://10.0.0.7/sms"},
        "callback_url",
        "public addresses only",
    ),
    "a callback to this machine": ({"callback_url": "http://localhost/"}, "callback_url", "public"),
    "a callback with a password": (
        {"callback_url": "https://me:secret@shop.example.com/"},
        "callback_url",
        "no user name or password",
    ),
    "a callback that is no address": ({"callback_url": "shop"}, "callback_url", "https://"),
    "a time in the past": ({"scheduled_at": from_now(hours=-1)}, "scheduled_at", "in the past"),
    "a time too far ahead": ({"scheduled_at": from_now(days=36)}, "scheduled_at", "35 days"),
    "a time without an offset": (
        {"scheduled_at": "2126-01-01T00:00:00"},
        "scheduled_at",
        "with its offset",
    ),
    "a time as a number": ({"scheduled_at": 1795000000}, "scheduled_at", "with its offset"),
    "a day that does not exist": (
        {"scheduled_at": "2126-02-30T00:00:00Z"},
        "scheduled_at",
        "RFC 3339",
    ),
    "a validity that is too short": ({"validity_period": 4}, "validity_period", "at least 5"),
    "a validity that is too long": ({"validity_period": 259_201}, "validity_period", "259200"),
    "a validity as a text": ({"validity_period": "60"}, "validity_period", "without quotes"),
    "half a second of validity": ({"validity_period": 60.5}, "validity_period", "whole number"),
    "a switch as a text": ({"smart_encoding": "yes"}, "smart_encoding", "true or false"),
    "metadata that is no object": ({"metadata": ["a"]}, "metadata", "object"),
    "too many metadata": ({"metadata": {f"k{n}": "" for n in range(21)}}, "metadata", "at most 20"),
    "metadata with a long key": ({"metadata": {"k" * 65: ""}}, "metadata.?", "at most 64"),
    "metadata with a long value": ({"metadata": {"k": "v" * 257}}, "metadata.k", "at most 256"),
    "metadata with a number": ({"metadata": {"k": 1}}, "metadata.k", "in quotes"),
    "metadata with a NUL": ({"metadata": {"k": "\0"}}, "metadata.k", "take it out"),
    "a slip in a name": ({"prority": "high"}, "prority", "did you mean priority?"),
    "a field that nobody knows": ({"colour": "red"}, "colour", "Known are: body, callback_url"),
}


async def test_each_bad_field_is_named_with_what_to_do(api: Api) -> None:
    for situation, (changes, field, advice) in BAD_FIELDS.items():
        body = json.dumps(ORDER | changes)
        response = await api.post(SEND, content=body, headers=JSON)
        assert (response.status_code, slug_of(response)) == (422, "invalid-request"), situation
        errors = errors_of(response)
        assert list(errors) == [field], situation
        assert advice in errors[field], situation
    assert not any((await api.rows()).values())


async def test_all_bad_fields_are_named_at_once(api: Api) -> None:
    response = await api.post(SEND, json={"to": "+4477", "from": 7, "mode": "loud", "body": 7})
    assert set(errors_of(response)) == {"from", "mode", "body"}
    response = await api.post(SEND, json={"to": "+4477", "from": "ACME!$", "body": ""})
    assert set(errors_of(response)) == {"to", "from", "body"}
    response = await api.post(SEND, json={})
    assert set(errors_of(response)) == {"to", "from", "body"}
    assert not any((await api.rows()).values())


async def test_a_sender_that_the_account_may_not_use_is_refused(api: Api) -> None:
    bank = await api.key_of(account="bank")
    response = await api.post(SEND, json=ORDER, key=bank)
    assert "may not send from this sender" in errors_of(response)["from"]
    assert not any((await api.rows()).values())
    await api.sent(key=bank, **{"from": "BANK"})


# Bodies


async def test_a_body_that_is_not_json_is_refused_with_its_place(api: Api) -> None:
    response = await api.post(SEND, content='{"to": "+44"; }', headers=JSON)
    assert (response.status_code, slug_of(response)) == (400, "malformed-request")
    assert "from character 13 on" in response.json()["detail"]


async def test_a_body_that_cannot_be_read_is_refused(api: Api) -> None:
    for body in (b"\xff\xfe\xff", b"[" * 5000, b'{"to": ' + b"9" * 5000 + b"}", b"{'to': 1}"):
        response = await api.post(SEND, content=body, headers=JSON)
        assert (response.status_code, slug_of(response)) == (400, "malformed-request")


async def test_json_that_is_no_object_is_refused(api: Api) -> None:
    for body in ("[]", "7", '"+447700900123"', "null", "NaN"):
        response = await api.post(SEND, content=body, headers=JSON)
        assert (response.status_code, slug_of(response)) == (422, "invalid-request"), body
        assert "object" in errors_of(response)[""]


async def test_a_missing_body_is_asked_for(api: Api) -> None:
    response = await api.post(SEND)
    assert (response.status_code, slug_of(response)) == (422, "invalid-request")
    assert "missing" in errors_of(response)[""]


async def test_a_body_of_another_type_is_refused(api: Api) -> None:
    for media in ("text/plain", "application/x-www-form-urlencoded", "", "json"):
        response = await api.post(SEND, content=json.dumps(ORDER), headers={"content-type": media})
        assert (response.status_code, slug_of(response)) == (415, "unsupported-media-type")
    same = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await api.post(SEND, content=json.dumps(ORDER), headers=same)).status_code == 202


async def test_a_body_over_the_limit_is_refused_by_its_announced_length(api: Api) -> None:
    response = await api.post(SEND, content=b"{" + b" " * MOST_BYTES + b"}", headers=JSON)
    assert (response.status_code, slug_of(response)) == (413, "body-too-large")
    assert str(MOST_BYTES) in response.json()["detail"]


async def test_a_chunked_body_is_read_up_to_the_limit_and_no_further(api: Api) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1000
            yield b" " * 1000

    response = await api.post(SEND, content=endless(), headers=JSON)
    assert (response.status_code, slug_of(response)) == (413, "body-too-large")
    assert taken <= MOST_BYTES + 1000


async def test_a_body_of_just_the_limit_is_read(api: Api) -> None:
    body = json.dumps(ORDER).encode()
    padded = body[:-1] + b" " * (MOST_BYTES - len(body)) + b"}"
    assert (await api.post(SEND, content=padded, headers=JSON)).status_code == 202


# Keys


async def test_a_key_that_opens_nothing_is_refused(api: Api) -> None:
    wrong = api.key[:-1] + ("A" if api.key[-1] != "A" else "B")
    other_environment = api.key.replace("sg_live_", "sg_test_")
    for key in (None, wrong, other_environment, "x", "sg_live_", "\u00ff" * 30):
        response = await api.http.post(
            SEND,
            json=ORDER,
            headers={} if key is None else {"Authorization": f"Bearer {key}".encode("latin-1")},
        )
        assert (response.status_code, slug_of(response)) == (401, "unauthorized"), key
        assert response.headers["WWW-Authenticate"] == "Bearer"
    basic = await api.http.post(SEND, json=ORDER, headers={"Authorization": "Basic YTpi"})
    assert (basic.status_code, slug_of(basic)) == (401, "unauthorized")
    assert not any((await api.rows()).values())


async def test_a_revoked_and_an_expired_key_open_nothing(api: Api) -> None:
    made = [
        (await api.post("/api/v1/keys", json=wanted)).json()
        for wanted in (
            {"name": "a", "environment": "live", "scopes": ["admin"]},
            {
                "name": "b",
                "environment": "live",
                "scopes": ["admin"],
                "expires_at": from_now(hours=1),
            },
        )
    ]
    assert (await api.get(LIST, key=made[0]["key"])).status_code == 200
    assert (await api.ask("DELETE", f"/api/v1/keys/{made[0]['id']}")).status_code == 204
    await api.execute("UPDATE api_keys SET expires_at = now() WHERE name = 'b'")
    for key in made:
        response = await api.get(LIST, key=key["key"])
        assert (response.status_code, slug_of(response)) == (401, "unauthorized")


async def test_a_missing_scope_is_named(api: Api) -> None:
    reader = await api.key_of(Scope.READ, Scope.READ_PROVIDERS)
    response = await api.post(SEND, json=ORDER, key=reader)
    assert (response.status_code, slug_of(response)) == (403, "missing-scope")
    assert "messages:send" in response.json()["detail"]
    assert not any((await api.rows()).values())


async def test_every_endpoint_asks_for_a_key_and_for_a_scope(api: Api) -> None:
    """Walks all operations: what needs no key is listed here, and nowhere else."""
    powerless = await api.key_of(Scope.SEND)
    senders_own = {
        "send_message",
        "preview_message",
        "cancel_message",
        "send_batch",
        "pause_batch",
        "resume_batch",
        "cancel_batch",
    }
    open_to_all = {"get_health", "get_readiness", "receive_receipt"}
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            name = operation["operationId"]
            if name in open_to_all:
                continue
            address = path.replace("{", "").replace("}", "")
            for key, status in ((None, 401), (powerless, 403)):
                if key is not None and name in senders_own:
                    continue
                response = await api.ask(method.upper(), address, key=key, json={})
                assert response.status_code == status, name


# Addresses


async def test_an_unknown_address_is_a_problem(api: Api) -> None:
    for path in ("/", "/api/v1/mms", f"{LIST}/", "/api/v2/sms"):
        response = await api.get(path)
        assert (response.status_code, slug_of(response)) == (404, "not-found"), path


async def test_a_method_that_an_address_does_not_take_is_a_problem(api: Api) -> None:
    for method, path, allowed in (
        ("PUT", SEND, "POST"),
        ("PATCH", "/api/v1/sms/batches", "GET, HEAD, POST"),
        ("DELETE", "/api/v1/sms/batches", "GET, HEAD, POST"),
        ("PUT", "/api/v1/keys", "GET, HEAD, POST"),
        ("GET", "/api/v1/keys/key_1", "DELETE"),
        ("HEAD", "/api/v1/keys/key_1", "DELETE"),
        ("POST", "/api/v1/sms/msg_1", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("OPTIONS", "/webhooks/sms-delivery", "POST"),
        ("TRACE", "/api/v1/config", "GET, HEAD"),
    ):
        response = await api.http.request(method, path)
        assert response.status_code == 405, (method, path)
        assert response.headers["Allow"] == allowed, (method, path)
        if method != "HEAD":
            assert slug_of(response) == "method-not-allowed"


async def test_no_cache_keeps_what_the_api_answers(api: Api) -> None:
    await api.sent()
    made = await api.post(
        "/api/v1/keys", json={"name": "a", "environment": "live", "scopes": ["admin"]}
    )
    for response in (
        made,
        await api.get("/api/v1/keys"),
        await api.get("/api/v1/callbacks/secret"),
        await api.get(LIST),
        await api.get("/api/v1/nowhere"),
        await api.get(LIST, key=None),
        await api.post(SEND, json={}),
    ):
        assert response.headers.get_list("cache-control") == ["no-store"]
    assert "cache-control" not in (await api.http.get("/openapi.json")).headers


# Bad luck


async def test_an_unexpected_fault_responds_with_nothing_but_its_instance(
    api: Api, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ValueError(f"cannot send to {ORDER['to']}")

    monkeypatch.setattr(type(api.services.messages), "one", fail)
    response = await api.get(f"{LIST}/msg_{'0' * 32}")
    assert (response.status_code, slug_of(response)) == (500, "internal-error")
    assert ORDER["to"] not in response.text
    occurrence = response.json()["instance"].removeprefix("urn:uuid:")
    (record,) = [r for r in map(json.loads, logged.getvalue().splitlines()) if "exception" in r]
    assert (record["event"], record["request_id"]) == ("request_failed", occurrence)
    assert record["exception"][0]["type"] == "builtins.ValueError"


async def test_while_the_database_is_down_requests_are_to_be_sent_again(api: Api) -> None:
    nowhere = api.services.settings.model_copy(
        update={"database_url": SecretStr(f"postgresql://me:pw@127.0.0.1:{free_port()}/none")}
    )
    services = assemble(nowhere, connect=temporal_is_away)
    async with serving(services) as down:
        response = await down.get(LIST, key=api.key)
        assert (response.status_code, slug_of(response)) == (503, "database-unavailable")
        assert response.headers["Retry-After"] == "2"
        assert "pw" not in response.text
    await services.close()


async def test_an_unprepared_database_has_a_problem_of_its_own(
    api: Api, empty_database_url: str
) -> None:
    empty = api.services.settings.model_copy(update={"database_url": SecretStr(empty_database_url)})
    services = assemble(empty, connect=temporal_is_away)
    async with serving(services) as unprepared:
        response = await unprepared.get(LIST, key=api.key)
        assert (response.status_code, slug_of(response)) == (503, "database-outdated")
        assert "bootstrap" in response.json()["detail"]
    await services.close()


async def test_before_there_is_a_configuration_nothing_can_be_sent(unconfigured: Api) -> None:
    response = await unconfigured.post(SEND, json=ORDER)
    assert (response.status_code, slug_of(response)) == (503, "no-configuration")
    assert response.headers["Retry-After"] == "2"
    assert not any((await unconfigured.rows()).values())


# Nothing is repeated

SECRET_MARK = "Zanzibar"
_texts = st.text(string.ascii_letters + string.digits + '+ "\\\u00e9\u20ac\0', max_size=12)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts.map(lambda t: t + SECRET_MARK),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)
_fields = st.sampled_from(
    [
        *ORDER,
        "mode",
        "priority",
        "callback_url",
        "validity_period",
        "scheduled_at",
        "metadata",
        "smart_encoding",
        "+447700900123",
        "4111 1111 1111 1111",
    ]
)


async def test_no_refusal_repeats_what_was_sent(api: Api) -> None:
    asked: list[dict[str, Any]] = []

    @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.dictionaries(_fields, _values, max_size=6))
    def collect(changes: dict[str, Any]) -> None:
        asked.append(changes)

    collect()
    for changes in asked:
        response = await api.post(SEND, content=json.dumps({"from": "!"} | changes), headers=JSON)
        assert response.status_code == 422, changes
        assert SECRET_MARK not in response.text
        # The occurrence's own id is random, and has any four digits now and then.
        text = response.text.replace(response.json()["instance"], "")
        assert "4477" not in text
        assert "4111" not in text
    assert not any((await api.rows()).values())


async def test_keys_of_accounts_cannot_touch_the_configuration(api: Api) -> None:
    for environment in Environment:
        key = await api.key_of(environment=environment)
        response = await api.get("/api/v1/config", key=key)
        assert (response.status_code, slug_of(response)) == (403, "operator-key-needed")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.slug)
def test_the_text_of_a_problem_says_what_happened_and_not_only_what_to_do(kind: Kind) -> None:
    first = kind.detail.partition(" ")[0]
    assert first not in {"Ask", "Change", "Check", "Correct", "Send", "Use"}
