"""The API on a real Postgres, as a client sees it: every response must be as the OpenAPI says.

Temporal is away, unless a test brings it.
"""

import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
import structlog
from fastapi import FastAPI
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from temporalio.client import Client

from api.app import create_app
from domain.callbacks.signatures import signed_headers
from domain.configuration import Environment
from domain.delivery import Reason
from domain.ids import IdPrefix, parse_id
from domain.states import Verdict
from services.assembly import Services, assemble
from services.keys import OperatorScope, Scope
from settings.settings import LogLevel, Settings
from store import attempts, messages
from store.attempts import AttemptChange, Claim, PartRecord
from store.database import Connection, sql
from store.transitions import refresh_status
from telemetry.logs import configure_logging
from tests.rows import rows_of

NUMBER = "+447700900123"
ORDER = {"to": NUMBER, "from": "ACME", "body": "Your order 8812 is on its way."}
SEND = "/api/v1/sms/send"
LIST = "/api/v1/sms"
MOST_BYTES = 8192
RECEIPT_SECRET = "whsec_c2lnbnMgcmVjZWlwdHMgb2YgcHJpbWFyeSE="
CALLBACK_SECRET = "whsec_c2lnbnMgY2FsbGJhY2tzIG9mIHRoaXMgb25l"
CONFIGURATION = """
[providers.primary]
type = "simulator"
receipt_secret = "env:SMSGATEWAY_SECRET_PRIMARY_RECEIPTS"

[providers.backup]
type = "simulator"
port = 2776

[providers.sandbox]
type = "simulator"
port = 2777
environment = "test"

[[routes]]
providers = ["primary", "backup", "sandbox"]

[accounts.shop]
max_segments = 3

[accounts.bank]
senders = ["BANK"]
"""


async def temporal_is_away() -> Client:
    raise RuntimeError("there is no Temporal here")


async def send_receipt(api: "Api", **members: Any) -> httpx.Response:
    """Send the gateway a receipt over HTTP, signed as the primary provider signs."""
    body = json.dumps(members).encode()
    return await api.ask(
        "POST",
        "/webhooks/sms-delivery",
        key=None,
        content=body,
        headers={
            **signed_headers(RECEIPT_SECRET, "rcpt_1", datetime.now(UTC), body),
            "content-type": "application/json",
        },
    )


@dataclass
class Api:
    """A client of the API, and what it left in the database."""

    app: FastAPI
    services: Services
    http: httpx.AsyncClient
    key: str = ""
    operator: str = ""

    async def ask(
        self, method: str, path: str, *, key: str | None = "", **request: Any
    ) -> httpx.Response:
        """The response, checked against the OpenAPI; with `key=None` without a key.

        Without `key` by an operator if the operation is an operator's, else by an admin.
        """
        headers = dict(request.pop("headers", {}))
        bearer = key
        if key == "":
            bearer = self.operator if is_operators(method, path.partition("?")[0]) else self.key
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        response = await self.http.request(method, path, headers=headers, **request)
        check_response(method, path.partition("?")[0], response)
        return response

    async def get(self, path: str, **request: Any) -> httpx.Response:
        return await self.ask("GET", path, **request)

    async def post(self, path: str, **request: Any) -> httpx.Response:
        return await self.ask("POST", path, **request)

    async def sent(self, *, key: str = "", **changes: Any) -> str:
        """Send a message; its id."""
        response = await self.post(SEND, json=ORDER | changes, key=key)
        assert response.status_code == 202, response.text
        return str(response.json()["message_id"])

    async def key_of(
        self,
        *scopes: Scope,
        account: str = "shop",
        environment: Environment = Environment.LIVE,
    ) -> str:
        """A new key of an account, which is made if need be; without scopes, with all of them."""
        made = await self.services.keys.create_root(
            account, name=uuid4().hex, environment=environment, scopes=scopes or tuple(Scope)
        )
        assert made.secret is not None
        return made.secret

    async def operator_key(self) -> str:
        """A new key of an operator, with all scopes."""
        made = await self.services.keys.bootstrap(name=uuid4().hex)
        assert made.secret is not None
        return made.secret

    async def fetch(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        async with self.services.database.begin() as connection:
            return list(await rows_of(connection, sql(statement), values))

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.services.database.begin() as connection:
            connection.send(sql(statement), values)

    async def rows(self) -> dict[str, int]:
        """How many rows there are of all that accepting a message writes."""
        tables = ("messages", "recipients", "events", "idempotency_keys", "endpoints")
        return {
            table: (await self.fetch(f"SELECT count(*) AS n FROM {table}"))[0]["n"]
            for table in tables
        }

    async def claimed(self, message_id: str) -> None:
        """A provider is about to be given the message."""
        async with self.services.database.begin() as connection:
            await claim(connection, message_id)
            await refresh_status(
                connection, [uuid_of(message_id)], actor="workflow", at=datetime.now(UTC)
            )

    async def submitted(
        self,
        message_id: str,
        *provider_ids: str | None,
        provider: str = "primary",
        number: int = 1,
    ) -> None:
        """A provider was given the message, one id for each part; None where it never answered."""
        uuid, now = uuid_of(message_id), datetime.now(UTC)
        async with self.services.database.begin() as connection:
            await claim(
                connection, message_id, parts=len(provider_ids), provider=provider, number=number
            )
            parts = [
                PartRecord(part, "accepted" if given else "unknown", given, None, "0x00000000")
                for part, given in enumerate(provider_ids, 1)
            ]
            attempts.record(
                connection,
                [AttemptChange(uuid, number, parts, code="0x00000000", bind="primary/1")],
                at=now,
                unknown_until=now + timedelta(minutes=5),
            )
            await refresh_status(connection, [uuid], actor="workflow", at=now)

    async def set_aside(self, message_id: str, offered: Sequence[str] = ()) -> None:
        """The message becomes a dead letter, of a route that offered these providers."""
        uuid, now = uuid_of(message_id), datetime.now(UTC)
        async with self.services.database.begin() as connection:
            messages.set_verdict(
                connection,
                uuid,
                1,
                Verdict.DEAD_LETTER,
                Reason.NO_PROVIDER_UP,
                offered=offered,
            )
            await refresh_status(connection, [uuid], actor="workflow", at=now)


async def claim(
    connection: Connection,
    message_id: str,
    *,
    parts: int = 1,
    provider: str = "primary",
    number: int = 1,
) -> None:
    """Write an attempt that is under way."""
    now = datetime.now(UTC)
    claimed = await attempts.claim(
        connection,
        Claim(
            message_id=uuid_of(message_id),
            epoch=1,
            number=number,
            provider=provider,
            parts=parts,
            part_method="udh8",
            reference=7,
            at=now,
            response_by=now + timedelta(seconds=10),
            receipt_by=now + timedelta(minutes=30),
            config_version=1,
        ),
    )
    assert claimed.parts


def uuid_of(message_id: str) -> UUID:
    found = parse_id(IdPrefix.MESSAGE, message_id)
    assert found is not None
    return found


def errors_of(response: httpx.Response) -> dict[str, str]:
    """The sentences of a refusal, by field."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    return {error["field"]: error["detail"] for error in response.json().get("errors", ())}


def slug_of(response: httpx.Response) -> str:
    """The kind of a refusal."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document = response.json()
    assert document["status"] == response.status_code
    return str(document["type"]).removeprefix("urn:smsgateway:problem:")


# The contract: answers against the OpenAPI


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document, which is the same for every application."""
    settings = SimpleNamespace(
        max_body_bytes=MOST_BYTES,
        max_batch_bytes=1 << 23,
        max_webhook_bytes=1 << 20,
        request_timeout=timedelta(minutes=1),
    )
    return create_app(cast("Services", SimpleNamespace(settings=settings))).openapi()


def check_response(method: str, path: str, response: httpx.Response) -> None:
    """Fails unless status, type, kind of problem and body of a response are documented."""
    operation = operation_at(method, path)
    if operation is None:
        assert slug_of(response) in {"not-found", "method-not-allowed"}
        return
    declared = operation["responses"].get(str(response.status_code))
    assert declared is not None, f"{method} {path} answers {response.status_code}: not documented"
    content = declared.get("content")
    if not content:
        assert not response.content
        return
    media = response.headers["content-type"].partition(";")[0]
    assert media in content, f"{method} {path} answers {media}: not documented"
    if media == "application/problem+json":
        assert slug_of(response) in content[media]["examples"], (
            f"{slug_of(response)} not documented"
        )
    assert not mismatches(content[media]["schema"], response.json())


OPERATOR_SCOPES = frozenset(scope.value for scope in OperatorScope)


def is_operators(method: str, path: str) -> bool:
    """Whether an operation needs an operator's key."""
    operation = operation_at(method, path) or {}
    scopes = [each for needed in operation.get("security", ()) for each in needed.values()]
    return any(OPERATOR_SCOPES.intersection(each) for each in scopes)


def operation_at(method: str, path: str) -> dict[str, Any] | None:
    """The operation that takes a request; a path without parameters stands before one with."""
    paths = document()["paths"]
    for template in sorted(paths, key=lambda each: each.count("{")):
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in paths[template]:
            operation: dict[str, Any] = paths[template][method.lower()]
            return operation
    return None


@cache
def _registry() -> Registry[Any]:
    contents = Resource.from_contents(document(), default_specification=DRAFT202012)
    return Registry().with_resource("urn:openapi", contents)


def mismatches(schema: dict[str, Any], value: Any) -> list[str]:
    """Where a value is not as a schema of the document says."""
    validator = Draft202012Validator(
        _anchored(schema), registry=_registry(), format_checker=FormatChecker()
    )
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def _anchored(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: f"urn:openapi{value}" if key == "$ref" else _anchored(value)
            for key, value in node.items()
        }
    return [_anchored(each) for each in node] if isinstance(node, list) else node


# The application


@pytest.fixture(autouse=True)
def logged() -> Iterator[io.StringIO]:
    """What is logged, as in production; there is never anybody's number or text in it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    configure_logging("api", level=LogLevel.DEBUG, out=out)
    yield out
    root.handlers, root.level = handlers, level
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    for secret in (NUMBER[3:], str(ORDER["body"]), "Bearer", "sg_live_", "sg_operator_"):
        assert secret not in out.getvalue()


@pytest.fixture
def settings(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    monkeypatch.setenv("SMSGATEWAY_SECRET_PRIMARY_RECEIPTS", RECEIPT_SECRET)
    return Settings(
        database_url=database_url,
        recipient_hash_key="the key of tests, long enough as it is",
        max_body_bytes=MOST_BYTES,
        allowed_secret_folders=(str(tmp_path),),
    )


@asynccontextmanager
async def serving(services: Services) -> AsyncIterator[Api]:
    """The API on top of these services."""
    app = create_app(services)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as http,
    ):
        yield Api(app, services, http)


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    services = assemble(settings, connect=temporal_is_away)
    yield services
    await services.close()


@pytest.fixture
async def unconfigured(services: Services) -> AsyncIterator[Api]:
    """The API before there is a configuration, with an admin key of "shop", and an operator's."""
    async with serving(services) as api:
        api.key = await api.key_of()
        api.operator = await api.operator_key()
        yield api


@pytest.fixture
async def api(unconfigured: Api) -> Api:
    """The API, with a configuration, an admin key of the account "shop", and an operator's."""
    await unconfigured.services.configurations.apply(CONFIGURATION, applied_by="key_test")
    return unconfigured
