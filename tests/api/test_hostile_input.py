"""Whatever is sent, no endpoint fails, and what was taken can be read again."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.batches import PATH as BATCHES
from domain.callbacks.signatures import signed_headers
from domain.times import EARLIEST, LATEST
from tests.api.conftest import (
    CONFIGURATION,
    LIST,
    NUMBER,
    ORDER,
    RECEIPT_SECRET,
    SEND,
    Api,
    document,
    is_operators,
    send_receipt,
)

pytestmark = pytest.mark.stack

# Times at the ends of what anybody can write, each with offsets that lead beyond them.
TIMES = st.builds(
    "{}T{}{}".format,
    st.sampled_from(
        ["0000-01-01", "0001-01-01", "1999-12-31", "2000-01-01", "2030-02-30", "2099-12-31"]
        + ["2100-01-01", "9999-12-31", "10000-01-01", "2030-06-01"]
    ),
    st.sampled_from(
        ["00:00:00", "23:59:59", "23:59:60", "24:00:00", "12:30", "23:59:59.999999999"]
    ),
    st.sampled_from(["Z", "z", "+23:59", "-23:59", "+00:00", "+24:00", "-16:00", ""]),
)
NUMBERS = st.sampled_from(
    ["0", "-1", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1" * 4301, "-" + "9" * 5000]
    + [str(2**31), str(2**63), str(2**64), "1.5", "0.1e-9999", "1_000", "٣", "+5", "", " 5 "]
)
STRINGS = st.one_of(
    st.sampled_from(
        ["", "\0", "a\0b", "\ud83c", "\udfff\ud83c", "\x1b[2J", "😀" * 300, "x" * 5000, "{a}", "{"]
        + ["%00", "../..", "' OR 1=1 --", "\r\nSet-Cookie: a=b", "\u202e", "\ufeff", "null"]
    ),
    st.text(max_size=20),
    TIMES,
    NUMBERS,
)
KNOWN_IDS = st.sampled_from(
    [f"{prefix}_{digits}" for prefix in ("msg", "bat", "cb", "key") for digits in
     ("0" * 32, "f" * 32, "g" * 32, "0" * 33, "{" + "0" * 30 + "}", "٣" * 32, "\0" * 32)]
)  # fmt: skip
FIELD_NAMES = st.sampled_from(
    [*ORDER, "recipients", "variables", "metadata", "mode", "priority", "validity_period"]
    + ["scheduled_at", "expires_at", "name", "environment", "scopes", "message_ids", "provider"]
    + ["limit", "message_id", "status", "timestamp", "provider_code", "callback_url", "\ud83c"]
)


class Raw(str):
    """A number as it is written."""

    __slots__ = ()


VALUES = st.recursive(
    st.none() | st.booleans() | STRINGS | NUMBERS.map(Raw) | KNOWN_IDS | st.just(NUMBER),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD_NAMES, inner, max_size=3),
    max_leaves=8,
)


def written(value: Any) -> str:
    """JSON in which numbers stand as they are, also those that no program reads."""
    match value:
        case Raw():
            return str(value) or "0"
        case dict():
            members = (f"{json.dumps(name)}: {written(each)}" for name, each in value.items())
            return "{" + ", ".join(members) + "}"
        case list():
            return "[" + ", ".join(map(written, value)) + "]"
        case _:
            return json.dumps(value)


def examples_of(operation: dict[str, Any]) -> list[Any]:
    content = operation.get("requestBody", {}).get("content", {})
    return [
        example["value"]
        for media in content.values()
        for example in media.get("examples", {}).values()
        if isinstance(example["value"], dict)
    ]


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """An example of a request with something hostile in one place."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        name = draw(st.sampled_from(sorted(value)))
        if name in {"timestamp", "scheduled_at", "expires_at"} and draw(st.booleans()):
            return value | {name: draw(TIMES)}
        return value | {name: draw(changed(value[name]))}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(changed(value[place])), *value[place + 1 :]]
    if isinstance(value, dict):
        return value | draw(st.dictionaries(FIELD_NAMES, VALUES, min_size=1, max_size=2))
    return draw(VALUES)


OPERATIONS = [
    (method, path, operation)
    for path, item in document()["paths"].items()
    for method, operation in item.items()
]


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    """A request to any endpoint; paths and queries are as they go over the wire."""
    method, path, operation = draw(st.sampled_from(OPERATIONS))
    query: list[tuple[str, str]] = []
    headers: dict[str, bytes] = {}
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        text = draw(STRINGS | KNOWN_IDS)
        octets = text.encode("utf-8", "surrogatepass")
        match parameter["in"]:
            case "path":
                path = path.replace(f"{{{name}}}", quote(octets, safe="") or "-")
            case "query" if draw(st.booleans()):
                query.append((name, quote(octets, safe="")))
            case "header" if draw(st.booleans()):
                headers[name] = octets.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
            case _:
                pass
    request: dict[str, Any] = {"headers": headers}
    if examples := examples_of(operation):
        body = written(draw(changed(draw(st.sampled_from(examples)))))
        request["content"] = body.encode("utf-8", "surrogatepass")
        headers["content-type"] = b"application/json"
    elif "requestBody" in operation:
        request["content"] = draw(st.sampled_from([CONFIGURATION, ""]) | STRINGS).encode(
            "utf-8", "surrogatepass"
        )
        headers["content-type"] = b"application/toml"
    address = path + ("?" + "&".join(f"{name}={value}" for name, value in query) if query else "")
    return method.upper(), address, request


async def everything_can_be_read(api: Api) -> None:
    """All that is stored, as the API shows it."""
    paths = [
        "/api/v1/keys",
        "/api/v1/config",
        "/api/v1/accounts",
        "/api/v1/operator-keys",
        "/api/v1/providers",
        "/api/v1/callbacks?limit=200",
        "/api/v1/dead-letters?limit=200",
        f"{BATCHES}?limit=200",
        f"{LIST}?limit=200",
    ]
    for row in await api.fetch("SELECT id FROM messages"):
        paths += [f"{LIST}/msg_{row['id'].hex}", f"{LIST}/msg_{row['id'].hex}/explain"]
    for row in await api.fetch("SELECT id FROM batches"):
        paths += [f"{BATCHES}/bat_{row['id'].hex}", f"{BATCHES}/bat_{row['id'].hex}/results"]
    for path in paths:
        response = await api.get(path)
        assert response.status_code == 200, (path, response.text)
        json.dumps(response.json())


async def test_no_endpoint_fails_and_what_was_taken_can_be_read(api: Api) -> None:
    asked: list[tuple[str, str, dict[str, Any]]] = []

    @settings(max_examples=600, suppress_health_check=list(HealthCheck), deadline=None)
    @given(requests())
    def collect(request: tuple[str, str, dict[str, Any]]) -> None:
        asked.append(request)

    collect()
    # The one that the examples of receipts name.
    await api.submitted(await api.sent(), "7f3a9c")
    taken = 0
    for method, address, request in asked:
        operators = is_operators(method, address.partition("?")[0])
        key = api.operator if operators else api.key
        headers = {"Authorization": f"Bearer {key}".encode(), **request.pop("headers")}
        if address.startswith("/webhooks/"):
            body = request["content"]
            signed = signed_headers(RECEIPT_SECRET, "rcpt_1", datetime.now(UTC), body)
            headers |= {name: value.encode() for name, value in signed.items()}
        response = await api.http.request(method, address, headers=headers, **request)
        assert response.status_code < 500, (method, address, request, response.text)
        taken += response.status_code < 300
    assert taken > 20
    await everything_can_be_read(api)


async def test_times_are_taken_only_if_they_can_be_read_again(api: Api) -> None:
    times = [
        f"{year:04}-{day}T{time}{offset}"
        for year in (1, 1999, 2000, 2030, 2099, 2100, 9999)
        for day, time in (("01-01", "00:00:00"), ("12-31", "23:59:59"))
        for offset in ("Z", "+23:59", "-23:59")
    ]
    for number, moment in enumerate(times):
        good = EARLIEST <= datetime.fromisoformat(moment) < LATEST
        message_id = await api.sent(to=f"+447700900{100 + number}")
        await api.submitted(message_id, f"id-{number}")
        response = await send_receipt(
            api, message_id=f"id-{number}", status="DELIVERED", timestamp=moment
        )
        assert response.status_code == (204 if good else 422), moment
        assert (await api.get(f"{LIST}/{message_id}/explain")).status_code == 200, moment
        response = await api.get(f"{LIST}?{urlencode({'since': moment, 'until': moment})}")
        assert response.status_code == 200, moment
        key = {"name": "n", "environment": "live", "scopes": ["messages:send"]}
        for path, body in (
            ("/api/v1/keys", key | {"expires_at": moment}),
            (SEND, ORDER | {"scheduled_at": moment}),
        ):
            response = await api.post(path, json=body)
            assert response.status_code in ({201, 202, 422} if good else {422}), moment
    await everything_can_be_read(api)
