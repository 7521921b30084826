"""The OpenAPI document: valid, complete, and true: all its examples are sent."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from api.problems import KINDS
from domain.callbacks.events import CALLBACK_STATUSES, MOST_EVENTS, CallbackEvent, body_of_many
from domain.callbacks.signatures import signed_headers
from domain.ids import IdPrefix, parse_id
from domain.states import MessageStatus
from services.keys import OperatorScope, Scope
from store import accounts
from store.providers import Heartbeat, record_heartbeat
from tests.api.conftest import (
    NUMBER,
    RECEIPT_SECRET,
    SEND,
    Api,
    document,
    mismatches,
)

MESSAGE = "msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"
DEAD_LETTER = "msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e1f"
BATCH = "bat_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"
CALLBACK = "cb_019aa5c0d1e27b3c8f4e5a6b7c8d9e10"
BATCHES = "/api/v1/sms/batches"
ACCOUNT = "acc_019aa5c0d1e27b3c8f4e5a6b7c8d9e30"
KEY = "key_019aa5c0d1e27b3c8f4e5a6b7c8d9e20"
OPERATOR_KEY = "key_019aa5c0d1e27b3c8f4e5a6b7c8d9e21"
PAGES = Path(__file__).parent.parent.parent / "docs"

Operation = dict[str, Any]


def operations() -> Iterator[tuple[str, str, Operation]]:
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


# The document itself


def test_the_document_is_valid_openapi() -> None:
    validate(document(), cls=OpenAPIV31SpecValidator)
    assert document()["openapi"].startswith("3.1")


def test_every_operation_is_named_described_and_tagged() -> None:
    tags = {tag["name"] for tag in document()["tags"]}
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    for _, path, operation in operations():
        assert set(operation["tags"]) <= tags, path
        assert operation["summary"], path
        assert operation["description"], path


def test_keys_are_asked_for_with_the_scope_that_is_needed() -> None:
    (scheme,) = document()["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for _, path, operation in operations():
        if path.startswith("/api/"):
            (asked,) = operation["security"]
            (scopes,) = asked.values()
            assert len(scopes) == 1
            assert scopes[0] in {*Scope, *OperatorScope} - {Scope.ADMIN}
        else:
            assert "security" not in operation


def test_problems_are_documented_as_such_and_nothing_else() -> None:
    text = json.dumps(document())
    assert "HTTPValidationError" not in text
    documented: set[str] = set()
    for _, path, operation in operations():
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and path != "/readyz":
                (media,) = response["content"]
                assert media == "application/problem+json", path
                documented |= {
                    example["value"]["type"].rpartition(":")[2]
                    for example in response["content"][media]["examples"].values()
                }
    of_no_operation = {"method-not-allowed", "headers-too-large", "too-many-connections"}
    assert documented == {kind.slug for kind in KINDS} - of_no_operation


def test_every_example_of_an_answer_fits_its_schema() -> None:
    for _, path, operation in operations():
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                for name, example in content.get("examples", {}).items():
                    assert not mismatches(content["schema"], example["value"]), (path, name)


def test_the_callback_that_is_described_is_the_one_that_is_sent() -> None:
    operation = document()["webhooks"]["message-moved"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    uuid = UUID(int=7)
    for status in CALLBACK_STATUSES:
        for number in (NUMBER, None):
            event = CallbackEvent(uuid, uuid, number, status, "000", datetime.now(UTC)).as_body()
            assert not mismatches(schema, json.loads(event.alone()))
            assert not mismatches(schema, json.loads(body_of_many([event] * MOST_EVENTS)))
    queued = CallbackEvent(uuid, uuid, NUMBER, MessageStatus.QUEUED, "", datetime.now(UTC))
    unknown = queued.as_body()
    assert mismatches(schema, json.loads(unknown.alone()))
    assert mismatches(schema, json.loads(body_of_many([unknown])))
    assert mismatches(schema, json.loads(body_of_many([])))
    headers = {p["name"] for p in operation["parameters"] if p["in"] == "header"}
    assert headers == set(signed_headers(RECEIPT_SECRET, "cb_1", datetime.now(UTC), b""))
    for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
        assert not mismatches(schema, example["value"])


def test_the_page_of_problems_explains_every_kind() -> None:
    page = (PAGES / "problems.md").read_text()
    for kind in KINDS:
        assert f"| `{kind.slug}` | {kind.status} |" in page
    assert len(re.findall(r"^\| `[a-z-]+` \| \d{3} \|", page, re.MULTILINE)) == len(KINDS)


def test_the_page_of_the_api_names_every_operation_and_scope() -> None:
    page = (PAGES / "api.md").read_text()
    for method, path, _ in operations():
        assert f"`{method.upper()} {path}`" in page
    for scope in (*Scope, *OperatorScope):
        assert f"`{scope}`" in page


# Its examples, sent


async def prepare(api: Api, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    """What the examples name is there."""
    for public in (MESSAGE, DEAD_LETTER):
        uuid = parse_id(IdPrefix.MESSAGE, public)
        monkeypatch.setattr("services.accept.uuid7", lambda uuid=uuid: uuid)
        # However slow the query, the message gets a workflow of its own, and so this id.
        monkeypatch.setattr("services.workflow_starts._LONGEST_QUERY", 60)
        assert await api.sent(callback_url="https://shop.example.com/sms") == public
    monkeypatch.undo()
    monkeypatch.setenv("SMSGATEWAY_SECRET_PRIMARY_RECEIPTS", RECEIPT_SECRET)
    sent = await api.post(
        BATCHES, json={"from": "ACME", "body": "Hello.", "recipients": [{"to": NUMBER}]}
    )
    batch = parse_id(IdPrefix.BATCH, sent.json()["batch_id"])
    known = parse_id(IdPrefix.BATCH, BATCH)
    assert batch is not None
    assert known is not None
    await api.execute(
        "INSERT INTO bulks SELECT :known, first_id, last_id, messages, created_at FROM bulks"
        " WHERE id = :batch",
        known=known,
        batch=batch,
    )
    await api.execute("UPDATE batches SET id = :known WHERE id = :batch", known=known, batch=batch)
    await api.execute(
        "UPDATE messages SET bulk_id = :known, owner = :owner WHERE bulk_id = :batch",
        known=known,
        batch=batch,
        owner=f"bulk/{BATCH}",
    )
    await api.set_aside(DEAD_LETTER)
    if operation == "replay_dead_letter":
        await api.set_aside(MESSAGE)
    else:
        await api.submitted(MESSAGE, "7f3a9c")
    await api.execute("DELETE FROM outbox WHERE status <> 'dead_letter'")
    await api.execute(
        "UPDATE outbox SET id = :id, state = 'failed' "
        "WHERE id = (SELECT min(id::text)::uuid FROM outbox)",
        id=parse_id(IdPrefix.CALLBACK, CALLBACK),
    )
    await api.execute(
        "INSERT INTO accounts (id, name, callback_secret) VALUES (:id, 'Example', 'whsec_x')",
        id=ACCOUNT,
    )
    await api.execute(
        "UPDATE messages SET only_provider = 'primary' WHERE id = :id",
        id=parse_id(IdPrefix.MESSAGE, MESSAGE),
    )
    async with api.services.database.begin() as connection:
        polls = ["providers", "chunks"]
        record_heartbeat(connection, Heartbeat("primary", "worker/1", polls, 2, 2, "up", polls))
        for key, account, environment in ((KEY, "shop", "live"), (OPERATOR_KEY, None, None)):
            uuid = parse_id(IdPrefix.KEY, key)
            assert uuid is not None
            await accounts.add_key(
                connection,
                key_id=uuid,
                parent_id=None,
                account_id=account,
                environment=environment,
                name="old",
                scopes=["admin"] if account else ["config:manage"],
                secret_hash=b"",
                expires_at=None,
            )


def requests_of(path: str, operation: Operation) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """A name, an address and the rest of a request, for each example of an operation."""
    parameters = operation.get("parameters", [])
    for parameter in parameters:
        if parameter["in"] == "path":
            (example,) = parameter["schema"]["examples"]
            path = path.replace(f"{{{parameter['name']}}}", example)
    yield from (
        (f"{parameter['name']}={example}", path, {"params": {parameter["name"]: example}})
        for parameter in parameters
        if parameter["in"] == "query"
        for example in parameter["schema"]["examples"]
    )
    headers = {
        parameter["name"]: parameter["schema"]["examples"][0]
        for parameter in parameters
        if parameter["in"] == "header" and not parameter["name"].startswith("webhook-")
    }
    bodies = operation.get("requestBody", {}).get("content", {})
    for media, content in bodies.items():
        for name, example in content["examples"].items():
            value = example["value"]
            body = value if isinstance(value, str) else json.dumps(value)
            yield name, path, {"content": body.encode(), "headers": {"content-type": media}}
    if not bodies:
        yield "as it is", path, {}
    elif headers:
        body = json.dumps(next(iter(content["examples"].values()))["value"]).encode()
        yield "headers", path, {"content": body, "headers": headers | {"content-type": media}}


def expected(operation: Operation, name: str) -> tuple[int, Mapping[str, Any] | None]:
    """The status that is documented for an example, and the response, if there is one."""
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            if name in content.get("examples", {}):
                return int(status), content["examples"][name]["value"]
    return min(int(status) for status in operation["responses"]), None


def _but_instance(problem: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in problem.items() if name != "instance"}


Requests = list[tuple[str, str, Operation]]


def apart() -> dict[str, Requests]:
    """Operations that change something, each alone, and all others together."""
    found: dict[str, Requests] = {"reads": []}
    for method, path, operation in operations():
        name = "reads" if method == "get" else operation["operationId"]
        found.setdefault(name, []).append((method, path, operation))
    return found


@pytest.mark.stack
@pytest.mark.parametrize("name", apart())
async def test_every_example_is_answered_as_documented(
    api: Api, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    await prepare(api, monkeypatch, name)
    for method, path, operation in apart()[name]:
        requests = list(requests_of(path, operation))
        assert requests
        for example, address, request in requests:
            headers = request.pop("headers", {})
            if path.startswith("/webhooks/"):
                body = request["content"]
                headers |= signed_headers(RECEIPT_SECRET, "rcpt_1", datetime.now(UTC), body)
            response = await api.ask(method.upper(), address, headers=headers, **request)
            status, problem = expected(operation, example)
            assert response.status_code == status, (path, example, response.text)
            if problem is not None:
                assert _but_instance(response.json()) == _but_instance(problem)


def test_the_first_request_of_the_documentation_is_an_example() -> None:
    operation = document()["paths"][SEND]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    page = (PAGES / "api.md").read_text()
    assert json.dumps(content["examples"]["plain"]["value"]) in page
