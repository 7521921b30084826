"""A gateway of which only the REST contract is real: it keeps messages in memory and sends nothing.

It refuses as the contract refuses (problem documents, scopes, environments, idempotency, cursors),
and lives behind a real HTTP server, so that clients meet real connections. What becomes of a
message is decided by the last two digits of its number (see `FATES`).
"""

import base64
import binascii
import operator
import re
import secrets
import socket
import threading
import tomllib
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

import uvicorn
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SCOPES = (
    "messages:send",
    "messages:read",
    "dead_letters:replay",
    "providers:read",
    "keys:manage",
    "callbacks:read",
    "callbacks:replay",
    "admin",
)
OPERATOR_SCOPES = ("accounts:manage", "config:manage", "operator_keys:manage")
FINAL = {"delivered", "failed", "dead_letter", "expired", "canceled"}
LONGEST_PAGE = 200
MOST_RECIPIENTS = 10_000
MOST_BATCH_BYTES = 8 * 1024 * 1024
NUMBER = r"^\+[1-9][0-9]{6,14}$"
PROBLEMS = {
    400: ("malformed-request", "The request cannot be read"),
    401: ("unauthorized", "The key is not valid"),
    403: ("missing-scope", "The key may not do this"),
    404: ("not-found", "There is no such thing"),
    405: ("method-not-allowed", "This cannot be done here"),
    409: ("conflict", "Not in its present state"),
    413: ("body-too-large", "The body is too large"),
    422: ("invalid-request", "The request is not acceptable"),
    429: ("too-many-requests", "Too many requests"),
    503: ("unavailable", "The gateway cannot answer now"),
}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True)
class Step:
    """What happens to a message `after` seconds."""

    after: float
    kind: str
    status: str
    reason: str | None = None
    provider: str | None = None
    code: str | None = None


_GONE = (
    Step(0, "accepted", "queued"),
    Step(0.02, "submitting", "sending", provider="primary"),
    Step(0.04, "accepted_by_provider", "sent", provider="primary"),
)
# Long enough to be seen while it waits.
_SLOW = (*_GONE, Step(3, "receipt", "delivered", reason="delivered", provider="primary"))
FATES: Mapping[str, tuple[Step, ...]] = {
    "99": (
        Step(0, "accepted", "queued"),
        Step(0.05, "gave_up", "dead_letter", reason="no_provider_up"),
    ),
    "98": _GONE,
    "97": (
        *_GONE[:2],
        Step(0.05, "refused", "retried", provider="primary", code="0x0000000B"),
        Step(0.06, "gave_up", "failed", reason="invalid_recipient"),
    ),
    "95": _SLOW,
    "96": (
        *_GONE[:2],
        Step(0.05, "ended", "sent", reason="provider_gives_no_receipts", provider="primary"),
    ),
}
DELIVERED = (*_GONE, Step(0.08, "receipt", "delivered", reason="delivered", provider="primary"))


class Refusal(Exception):
    def __init__(
        self, status: int, detail: str, errors: list[dict[str, Any]] | None = None, **headers: str
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


Number = Annotated[str, Field(pattern=NUMBER)]
Limit = Annotated[int, Field(ge=1, le=1000)]
Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=64)],
        Annotated[str, Field(max_length=256, strict=True)],
    ],
    Field(max_length=20),
]


class Options(Strict):
    sender: Annotated[str, Field(alias="from", min_length=1, max_length=16)]
    priority: Literal["low", "normal", "high", "critical"] | None = None
    callback_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    mode: Literal["transactional", "promotional", "alert", "two_way", "verification"] = (
        "transactional"
    )
    validity_period: Annotated[int, Field(strict=True, ge=5, le=259200)] | None = None
    receipt_deadline: Annotated[int, Field(strict=True, ge=5, le=259200)] | None = None
    missing_receipt: Literal["next_route", "expire"] | None = None
    scheduled_at: AwareDatetime | None = None
    smart_encoding: Annotated[bool, Field(strict=True)] = True

    parameters: Metadata = {}


class SendBody(Options):
    to: Number
    body: Annotated[str, Field(min_length=1, max_length=1530)]
    metadata: Metadata = {}


class RecipientBody(Strict):
    to: Annotated[str, Field(max_length=64)]
    variables: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=64)],
            Annotated[str, Field(max_length=1000, strict=True)],
        ],
        Field(max_length=50),
    ] = {}
    body: str | None = None
    metadata: Metadata = {}


class BatchBody(Options):
    body: str | None = None
    recipients: Annotated[list[RecipientBody], Field(min_length=1, max_length=MOST_RECIPIENTS)]


class ReplayBody(Strict):
    message_ids: list[str] | None = None
    provider: str | None = None
    limit: Limit = 100


class KeyBody(Strict):
    name: Annotated[str, Field(min_length=1)]
    environment: Literal["live", "test"]
    scopes: Annotated[list[Literal[SCOPES]], Field(min_length=1)]
    expires_at: AwareDatetime | None = None


class ProviderTestBody(Strict):
    to: Number
    sender: Annotated[str, Field(max_length=64)] | None = Field(None, alias="from")
    body: Annotated[str, Field(min_length=1, max_length=1530)] = "This is a test."
    account_id: str | None = None


class CallbackReplayBody(Strict):
    state: Literal["failed"] = "failed"
    limit: Limit = 100


@dataclass
class StoredKey:
    id: str
    key: str
    name: str
    environment: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    parent_id: str | None = None

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "account_id": "default",
            "parent_id": self.parent_id,
            "name": self.name,
            "environment": self.environment,
            "scopes": list(self.scopes),
            "created_at": stamp(self.created_at),
            "expires_at": stamp(self.expires_at),
            "revoked_at": stamp(self.revoked_at),
            "last_used_at": None,
        }


@dataclass
class StoredAccount:
    id: str
    name: str
    created_at: datetime
    suspended_at: datetime | None = None

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "created_at": stamp(self.created_at),
            "suspended_at": stamp(self.suspended_at),
        }


@dataclass
class StoredMessage:
    id: str
    asked: SendBody
    environment: str
    accepted_at: datetime
    fate: tuple[Step, ...]
    canceled_at: datetime | None = None
    stopped_at: datetime | None = None
    began_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.began_at = self.accepted_at

    def past(self) -> list[tuple[datetime, Step]]:
        """What has happened by now."""
        now = datetime.now(UTC)
        until = min(now, self.canceled_at or now, self.stopped_at or now)
        steps = [(self.began_at + timedelta(seconds=step.after), step) for step in self.fate]
        past = [(at, step) for at, step in steps if at <= until]
        if self.canceled_at:
            past.append((self.canceled_at, Step(0, "canceled", "canceled", reason="canceled")))
        return past

    @property
    def last(self) -> Step:
        return self.past()[-1][1]

    @property
    def has_left(self) -> bool:
        return self.last.status not in {"queued", "scheduled"}

    @property
    def is_open(self) -> bool:
        return self.last.status not in FINAL and self.last.kind != "ended"

    def stop(self) -> None:
        """Stays where it is, unless a provider has it."""
        if not self.has_left:
            self.stopped_at = self.stopped_at or datetime.now(UTC)

    def go_on(self) -> None:
        if self.stopped_at:
            self.began_at += datetime.now(UTC) - self.stopped_at
            self.stopped_at = None

    def shown(self) -> dict[str, Any]:
        past = self.past()
        provider = next((step.provider for _, step in reversed(past) if step.provider), None)
        asked = self.asked
        ucs2 = not asked.body.isascii()
        return {
            "message_id": self.id,
            "status": past[-1][1].status,
            "reason": past[-1][1].reason,
            "to": asked.to,
            "from": asked.sender,
            "body": asked.body,
            "mode": asked.mode,
            "priority": asked.priority or "normal",
            "encoding": "ucs2" if ucs2 else "gsm7",
            "segments": -(-len(asked.body) // (67 if ucs2 else 153)),
            "country": "GB",
            "network": "unknown",
            "provider": provider,
            "attempts": 1 if provider else 0,
            "environment": self.environment,
            "accepted_at": stamp(self.accepted_at),
            "scheduled_at": stamp(asked.scheduled_at),
            "valid_until": stamp(self.accepted_at + timedelta(days=1)),
            "updated_at": stamp(past[-1][0]),
            "metadata": asked.metadata,
            "parameters": asked.parameters,
            "callback_url": asked.callback_url,
            "cancel_requested": self.canceled_at is not None,
        }

    def events(self) -> list[dict[str, Any]]:
        shown = []
        previous = None
        for seq, (at, step) in enumerate(self.past(), 1):
            shown.append(
                {
                    "seq": seq,
                    "at": stamp(at),
                    "kind": step.kind,
                    "actor": "api" if seq == 1 else "workflow",
                    "previous": previous,
                    "status": step.status,
                    "attempt": 1 if step.provider else None,
                    "provider": step.provider,
                    "network": "unknown" if step.provider else None,
                    "code": step.code,
                    "reason": step.reason,
                    "detail": {},
                }
            )
            previous = step.status
        return shown


@dataclass
class StoredBatch:
    id: str
    asked: BatchBody
    environment: str
    created_at: datetime
    results: list[dict[str, Any]]
    messages: list[StoredMessage]
    paused: bool = False
    canceled: bool = False

    @property
    def status(self) -> str:
        if self.canceled:
            return "canceled"
        if not any(message.is_open for message in self.messages):
            return "finished"
        return "paused" if self.paused else "running"

    def shown(self) -> dict[str, Any]:
        counted = Counter((m.last.status, m.last.reason) for m in self.messages)
        return {
            "batch_id": self.id,
            "status": self.status,
            "recipients": len(self.results),
            "accepted": len(self.messages),
            "refused": len(self.results) - len(self.messages),
            "open": sum(message.is_open for message in self.messages),
            "counts": [
                {"status": status, "reason": reason, "messages": messages}
                for (status, reason), messages in counted.items()
            ],
            "from": self.asked.sender,
            "mode": self.asked.mode,
            "environment": self.environment,
            "created_at": stamp(self.created_at),
        }


@dataclass(frozen=True)
class Exchange:
    """A request that came and the response that was given."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes
    status: int
    response_headers: Mapping[str, str]
    response: bytes


@dataclass(frozen=True)
class InjectedFault:
    """A response in place of the right one; with `carried_out`, the request is carried out first."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    carried_out: bool = False


def stamp(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


Endpoint = Callable[["FakeGateway", Request], Awaitable[Response]]
ROUTES: list[tuple[str, str, str | None, Endpoint]] = []


def route(method: str, path: str, scope: str | None) -> Callable[[Endpoint], Endpoint]:
    def add(endpoint: Endpoint) -> Endpoint:
        ROUTES.append((method, path, scope, endpoint))
        return endpoint

    return add


class FakeGateway:
    def __init__(self) -> None:
        self.url = ""
        self.forget()

    def forget(self) -> None:
        """Becomes as new, at the same address."""
        self.key = "sg_live_0123456789abcdef_" + secrets.token_urlsafe(32)
        self.keys = [
            StoredKey("key_1", self.key, "admin", "live", ("admin",), datetime.now(UTC)),
        ]
        self.operator_key = "sg_operator_0123456789abcdef_" + secrets.token_urlsafe(32)
        self.operator_keys = [
            StoredKey(
                "key_0", self.operator_key, "operator", "", OPERATOR_SCOPES, datetime.now(UTC)
            )
        ]
        self.accounts = {"default": StoredAccount("default", "default", datetime.now(UTC))}
        self.messages: dict[str, StoredMessage] = {}
        self.batches: dict[str, StoredBatch] = {}
        self.tests: set[str] = set()
        self.most_batch_bytes = MOST_BATCH_BYTES
        self.idempotent: dict[str, tuple[bytes, dict[str, Any]]] = {}
        self.in_flight: set[str] = set()
        self.callbacks: list[dict[str, Any]] = []
        self.configuration = "[providers.primary]\ntype = 'smpp'\n"
        self.summary: list[str] = []
        self.version = 1
        self.faults: list[InjectedFault] = []
        self.exchanges: list[Exchange] = []
        self.now_down = False
        self.has_route = True

    def key_with(self, *scopes: str, environment: str = "live") -> str:
        text = f"sg_{environment}_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
        name = f"key_{len(self.keys) + 1}"
        self.keys.append(StoredKey(name, text, name, environment, tuple(scopes), datetime.now(UTC)))
        return text

    def add_callback(self, message_id: str, state: str = "failed") -> str:
        """Add a callback to the list; its id."""
        callback_id = f"cb_{len(self.callbacks) + 1:032x}"
        self.callbacks.append(
            {
                "id": callback_id,
                "message_id": message_id,
                "url": "https://shop.example.com/sms",
                "status": "delivered",
                "provider_code": "000",
                "occurred_at": stamp(datetime.now(UTC)),
                "state": state,
                "tries": 10,
                "next_at": None,
                "responded_at": None,
                "last_status": 500,
                "last_error": "answered 500",
            }
        )
        return callback_id

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/{path:path}", self._serve, methods=["GET", "POST", "DELETE", "PUT", "HEAD"])
            ]
        )

    async def _serve(self, request: Request) -> Response:
        body = await request.body()
        fault = self.faults.pop(0) if self.faults else None
        if fault is None or fault.carried_out:
            response = await self._answered(request)
        if fault is not None:
            response = Response(fault.content or b"", fault.status, dict(fault.headers))
        else:
            self.exchanges.append(
                Exchange(
                    request.method,
                    request.url.path,
                    tuple(request.query_params.multi_items()),
                    dict(request.headers),
                    body,
                    response.status_code,
                    dict(response.headers),
                    bytes(response.body),
                )
            )
        return response

    async def _answered(self, request: Request) -> Response:
        try:
            endpoint, scope, values = self._find(request)
            if scope is not None:
                request.state.key = self._authorised(request, scope)
            request.state.values = values
            return await endpoint(self, request)
        except Refusal as refusal:
            slug, title = PROBLEMS[refusal.status]
            content = {
                "type": f"urn:smsgateway:problem:{slug}",
                "title": title,
                "status": refusal.status,
                "detail": refusal.detail,
                "instance": request.url.path,
            }
            if refusal.errors:
                content["errors"] = refusal.errors
            return JSONResponse(
                content, refusal.status, refusal.headers, media_type="application/problem+json"
            )

    def _find(self, request: Request) -> tuple[Endpoint, str | None, dict[str, str]]:
        other_method = False
        for method, path, scope, endpoint in ROUTES:
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
            found = re.fullmatch(pattern, request.url.path)
            if found and method == request.method:
                return endpoint, scope, found.groupdict()
            other_method = other_method or found is not None
        if other_method:
            raise Refusal(405, "This address does not take that method.")
        raise Refusal(404, "There is nothing at this address.")

    def _authorised(self, request: Request, scope: str) -> StoredKey:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        now = datetime.now(UTC)
        for key in (*self.keys, *self.operator_keys):
            if kind == "Bearer" and secrets.compare_digest(key.key, given):
                if key.revoked_at or (key.expires_at and key.expires_at <= now):
                    break
                if (scope in OPERATOR_SCOPES) != (key in self.operator_keys):
                    raise Refusal(403, "The key is of the other kind.")
                if scope not in key.scopes and "admin" not in key.scopes:
                    raise Refusal(403, f"The key lacks the scope {scope}.")
                return key
        raise Refusal(401, "The key is missing, wrong or revoked.", WWW_Authenticate="Bearer")

    def visible(self, request: Request) -> list[StoredMessage]:
        """The messages of the key's environment, the newest first."""
        environment = request.state.key.environment
        return [m for m in reversed(self.messages.values()) if m.environment == environment]

    def named(self, request: Request) -> StoredMessage:
        message_id = request.state.values["message_id"]
        for message in self.visible(request):
            if message.id == message_id:
                return message
        raise Refusal(404, "There is no such message for this key.")

    @contextmanager
    def running(self) -> Iterator["FakeGateway"]:
        """Serves on a free port of the loopback address, in a thread of its own."""
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            self.app(), loop="asyncio", ws="none", lifespan="off", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.start()
        try:
            yield self
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join(10)
            listener.close()


M = TypeVar("M", bound=Strict)


async def read(model: type[M], request: Request) -> M:
    try:
        return model.model_validate_json(await request.body() or b"{}")
    except ValidationError as error:
        if any(problem["type"] == "json_invalid" for problem in error.errors()):
            raise Refusal(400, "The body is not JSON.") from None
        errors = [
            {"field": ".".join(map(str, problem["loc"])), "detail": "It is not acceptable."}
            for problem in error.errors()
        ]
        raise Refusal(422, "The request is not acceptable.", errors) from None


def page_of(request: Request, shown: list[dict[str, Any]]) -> Response:
    query = request.query_params
    limit = query.get("limit", "50")
    if not limit.isdigit() or not 1 <= int(limit) <= LONGEST_PAGE:
        raise Refusal(
            422, "The request is not acceptable.", [{"field": "limit", "detail": "1 to 200"}]
        )
    try:
        start = int(base64.urlsafe_b64decode(query.get("cursor", "MA==")))
    except (ValueError, binascii.Error):
        raise Refusal(
            422, "The request is not acceptable.", [{"field": "cursor", "detail": "not one"}]
        ) from None
    end = start + int(limit)
    cursor = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(shown) else None
    return JSONResponse({"items": shown[start:end], "next_cursor": cursor})


def only_known(request: Request, *names: str) -> None:
    unknown = set(request.query_params) - {*names, "limit", "cursor"}
    if unknown:
        raise Refusal(422, f"Unknown parameters: {sorted(unknown)}.")


async def remembered(gateway: FakeGateway, request: Request) -> dict[str, Any] | None:
    """What was kept of the request with the same key, if there was one."""
    key = request.headers.get("idempotency-key")
    if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise Refusal(
            400, "The Idempotency-Key is not usable.", [{"field": "Idempotency-Key", "detail": ""}]
        )
    if key in gateway.in_flight:
        gateway.in_flight.discard(key)
        raise Refusal(409, "A request with this Idempotency-Key is being carried out.")
    if key in gateway.idempotent:
        first, kept = gateway.idempotent[key]
        if first != await request.body():
            raise Refusal(422, "The Idempotency-Key was used with another body.")
        return kept
    return None


async def remember(gateway: FakeGateway, request: Request, kept: dict[str, Any]) -> None:
    key = request.headers.get("idempotency-key")
    if key is not None:
        gateway.idempotent[key] = (await request.body(), kept)


def accepted(response: dict[str, Any], location: str, *, again: bool) -> Response:
    headers = {"Idempotency-Replayed": "true"} if again else {}
    return JSONResponse(response, 202, {"Location": location, **headers})


def not_too_far_ahead(asked: Options) -> None:
    if asked.scheduled_at and asked.scheduled_at > datetime.now(UTC) + timedelta(days=35):
        raise Refusal(
            422,
            "The request is not acceptable.",
            [{"field": "scheduled_at", "detail": "at most 35 days ahead"}],
        )


def store(gateway: FakeGateway, request: Request, asked: SendBody) -> StoredMessage:
    message_id = f"msg_{uuid.uuid4().hex}"
    fate = FATES.get(asked.to[-2:], DELIVERED)
    if asked.scheduled_at:
        fate = (Step(0, "accepted", "scheduled"),)
    environment = request.state.key.environment
    message = StoredMessage(message_id, asked, environment, datetime.now(UTC), fate)
    gateway.messages[message_id] = message
    return message


@route("POST", "/api/v1/sms/send", "messages:send")
async def send(gateway: FakeGateway, request: Request) -> Response:
    known = await remembered(gateway, request)
    if known is not None:
        return accepted(known, f"/api/v1/sms/{known['message_id']}", again=True)
    asked = await read(SendBody, request)
    not_too_far_ahead(asked)
    message = store(gateway, request, asked)
    shown = message.shown()
    quotes = asked.body.count("\u2019")
    response = {
        "message_id": message.id,
        "status": shown["status"],
        "encoding": shown["encoding"],
        "segments": shown["segments"],
        "replacements": (
            [{"character": "\u2019", "replacement": "'", "count": quotes}]
            if quotes and asked.smart_encoding
            else []
        ),
        "warnings": ["The number is one for tests."] if asked.to.startswith("+447700") else [],
    }
    await remember(gateway, request, response)
    return accepted(response, f"/api/v1/sms/{message.id}", again=False)


@route("POST", "/api/v1/sms/preview", "messages:send")
async def preview(gateway: FakeGateway, request: Request) -> Response:
    asked = await read(SendBody, request)
    not_too_far_ahead(asked)
    quotes = asked.body.count("\u2019") if asked.smart_encoding else 0
    body = asked.body.replace("\u2019", "'") if quotes else asked.body
    replaced = {"character": "\u2019", "replacement": "'", "count": quotes}
    ucs2 = not body.isascii()
    routed = gateway.has_route
    return JSONResponse(
        {
            "encoding": "ucs2" if ucs2 else "gsm7",
            "segments": -(-len(body) // (67 if ucs2 else 153)),
            "body": body,
            "replacements": [replaced] if quotes else [],
            "warnings": ["The number is one for tests."] if asked.to.startswith("+447700") else [],
            "country": "GB",
            "priority": asked.priority or "normal",
            "validity_period": asked.validity_period or 86_400,
            "route": 0 if routed else None,
            "providers": [
                {"provider": "primary", "up": True, "ignored_parameters": []},
                {
                    "provider": "backup",
                    "up": False,
                    "ignored_parameters": sorted(asked.parameters),
                },
            ]
            if routed
            else [],
        }
    )


PLACE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


def filled(text: str, variables: Mapping[str, str]) -> str:
    """The text with the variables in its places; KeyError where one is missing."""
    return PLACE.sub(lambda place: variables[place[1]] if place[1] else place[0][0], text)


def no_lone_braces(text: str) -> None:
    for place in PLACE.finditer(text):
        if place[0] in {"{", "}"}:
            detail = f"The brace at character {place.start() + 1} begins or ends no {{name}}."
            reason = "invalid_template"
            errors = [{"field": "body", "reason": reason, "detail": detail}]
            raise Refusal(422, "The request is not acceptable.", errors)


def fault_of(recipient: RecipientBody, text: str | None) -> dict[str, str] | None:
    """Why a recipient cannot be sent to."""
    found = None
    if recipient.body is None and text is None:
        found = ("body", "missing_body", "There is no text for this recipient: give it one.")
    elif recipient.body is None and any(
        place[1] and place[1] not in recipient.variables for place in PLACE.finditer(text or "")
    ):
        found = ("variables", "missing_variable", "The text has a place without a variable.")
    elif not re.match(NUMBER, recipient.to):
        found = ("to", "invalid_number", "This is no number: write it as +447700900123.")
    elif recipient.body == "":
        found = ("body", "invalid_body", "There is nothing to send.")
    return dict(zip(("field", "reason", "detail"), found, strict=True)) if found else None


def new_batch(gateway: FakeGateway, request: Request, asked: BatchBody) -> StoredBatch:
    results: list[dict[str, Any]] = []
    wanted: dict[tuple[str, str], RecipientBody] = {}
    for index, each in enumerate(asked.recipients):
        error = fault_of(each, asked.body)
        text = "" if error else each.body or filled(asked.body or "", each.variables)
        if error is None and (each.to, text) in wanted:
            first = asked.recipients.index(wanted[each.to, text])
            detail = (
                f"The recipient at index {first} of this request has the same number and the same "
                "text: nobody gets the same message twice from one batch."
            )
            error = {"field": "to", "reason": "duplicate_recipient", "detail": detail}
        if error is None:
            wanted[each.to, text] = each
        nothing = dict.fromkeys(("message_id", "encoding", "segments"))
        results.append({"index": index, **nothing, "error": error})
    if not wanted:
        errors = [
            {**result["error"], "field": f"recipients.{result['index']}.{result['error']['field']}"}
            for result in results[:20]
        ]
        raise Refusal(422, "The request is not acceptable.", errors)
    shared = {name: getattr(asked, name) for name in Options.model_fields if name != "sender"}
    messages = [
        store(
            gateway,
            request,
            SendBody(to=to, body=text, metadata=each.metadata, **{"from": asked.sender}, **shared),
        )
        for (to, text), each in wanted.items()
    ]
    without_error = [result for result in results if result["error"] is None]
    for result, message in zip(without_error, messages, strict=True):
        shown = message.shown()
        result |= {"message_id": message.id}
        result |= {name: shown[name] for name in ("encoding", "segments")}
    name = f"bat_{uuid.uuid4().hex}"
    environment = request.state.key.environment
    return StoredBatch(name, asked, environment, datetime.now(UTC), results, messages)


@route("POST", "/api/v1/sms/batches", "messages:send")
async def send_batch(gateway: FakeGateway, request: Request) -> Response:
    if len(await request.body()) > gateway.most_batch_bytes:
        raise Refusal(413, f"The gateway reads bodies of at most {gateway.most_batch_bytes} bytes.")
    known = await remembered(gateway, request)
    if known is not None:
        return accepted_batch(gateway.batches[known["batch_id"]], again=True)
    asked = await read(BatchBody, request)
    not_too_far_ahead(asked)
    no_lone_braces(asked.body or "")
    batch = new_batch(gateway, request, asked)
    gateway.batches[batch.id] = batch
    await remember(gateway, request, {"batch_id": batch.id})
    return accepted_batch(batch, again=False)


def accepted_batch(batch: StoredBatch, *, again: bool) -> Response:
    response = {**batch.shown(), "results": batch.results}
    return accepted(response, f"/api/v1/sms/batches/{batch.id}", again=again)


def batch_named(gateway: FakeGateway, request: Request) -> StoredBatch:
    batch = gateway.batches.get(request.state.values["batch_id"])
    if batch is None or batch.environment != request.state.key.environment:
        raise Refusal(404, "There is no such batch for this key.")
    return batch


@route("GET", "/api/v1/sms/batches", "messages:read")
async def batches(gateway: FakeGateway, request: Request) -> Response:
    only_known(request)
    environment = request.state.key.environment
    shown = [b.shown() for b in gateway.batches.values() if b.environment == environment]
    return page_of(request, shown[::-1])


@route("GET", "/api/v1/sms/batches/{batch_id}", "messages:read")
async def batch(gateway: FakeGateway, request: Request) -> Response:
    return JSONResponse(batch_named(gateway, request).shown())


@route("GET", "/api/v1/sms/batches/{batch_id}/results", "messages:read")
async def batch_results(gateway: FakeGateway, request: Request) -> Response:
    found = batch_named(gateway, request)
    return JSONResponse({**found.shown(), "results": found.results})


@route("POST", "/api/v1/sms/batches/{batch_id}/pause", "messages:send")
async def pause_batch(gateway: FakeGateway, request: Request) -> Response:
    return steered(batch_named(gateway, request), paused=True)


@route("POST", "/api/v1/sms/batches/{batch_id}/resume", "messages:send")
async def resume_batch(gateway: FakeGateway, request: Request) -> Response:
    return steered(batch_named(gateway, request), paused=False)


def steered(batch: StoredBatch, *, paused: bool) -> Response:
    if batch.canceled:
        raise Refusal(409, "The batch was cancelled: nothing is left of it to pause or resume.")
    batch.paused = paused
    for message in batch.messages:
        if paused:
            message.stop()
        else:
            message.go_on()
    return JSONResponse(batch.shown())


@route("POST", "/api/v1/sms/batches/{batch_id}/cancel", "messages:send")
async def cancel_batch(gateway: FakeGateway, request: Request) -> Response:
    batch = batch_named(gateway, request)
    batch.canceled = True
    for message in batch.messages:
        if not message.has_left:
            message.canceled_at = message.canceled_at or datetime.now(UTC)
    return JSONResponse(batch.shown())


@route("GET", "/api/v1/sms", "messages:read")
async def messages(gateway: FakeGateway, request: Request) -> Response:
    only_known(request, "status", "mode", "to", "from", "since", "until", "provider")
    query = request.query_params
    shown = [message.shown() for message in gateway.visible(request)]
    for name in ("status", "mode", "to", "from", "provider"):
        if name in query:
            shown = [message for message in shown if message[name] == query[name]]
    for name, keep in (("since", operator.ge), ("until", operator.lt)):
        if name in query:
            bound = datetime.fromisoformat(query[name])
            shown = [m for m in shown if keep(datetime.fromisoformat(m["accepted_at"]), bound)]
    return page_of(request, shown)


@route("GET", "/api/v1/sms/{message_id}", "messages:read")
async def message(gateway: FakeGateway, request: Request) -> Response:
    return JSONResponse(gateway.named(request).shown())


@route("GET", "/api/v1/sms/{message_id}/events", "messages:read")
async def events(gateway: FakeGateway, request: Request) -> Response:
    return JSONResponse({"items": gateway.named(request).events()})


@route("GET", "/api/v1/events", "messages:read")
async def account_events(gateway: FakeGateway, request: Request) -> Response:
    only_known(request, "status", "since")
    query = request.query_params
    happened = [
        {**event, "message_id": message.id}
        for message in gateway.visible(request)
        for event in message.events()
    ]
    if "status" in query:
        happened = [event for event in happened if event["status"] == query["status"]]
    if "since" in query:
        since = datetime.fromisoformat(query["since"])
        happened = [e for e in happened if datetime.fromisoformat(e["at"]) >= since]
    return page_of(request, sorted(happened, key=operator.itemgetter("at")))


@route("GET", "/api/v1/sms/{message_id}/explain", "messages:read")
async def explain(gateway: FakeGateway, request: Request) -> Response:
    return JSONResponse(explained(gateway, gateway.named(request)))


def explained(gateway: FakeGateway, message: StoredMessage) -> dict[str, Any]:
    shown = message.shown()
    began = stamp(message.accepted_at)
    attempts = []
    receipts = []
    if shown["provider"]:
        delivered = shown["status"] == "delivered"
        part = {
            "number": 1,
            "status": "delivered" if delivered else "accepted",
            "provider_message_id": "7f3a",
            "error_class": None,
            "code": "",
            "submitted_at": began,
            "responded_at": began,
            "receipt_state": "delivered" if delivered else None,
            "receipt_code": "000" if delivered else None,
            "billed_segments": 1,
            "price": PRICE,
            "receipt_at": began if delivered else None,
        }
        attempts.append(
            {
                "number": 1,
                "epoch": 1,
                "provider": shown["provider"],
                "status": part["status"],
                "error_class": None,
                "code": "",
                "tries": 1,
                "started_at": began,
                "response_by": began,
                "settled_at": began,
                "receipt_by": began,
                "cancelled_at_provider": None,
                "part_method": "udh8",
                "config_version": 1,
                "billed_segments": 1,
                "price": PRICE,
                "parts": [part],
            }
        )
        if delivered:
            receipts.append(
                {
                    "provider": shown["provider"],
                    "provider_message_id": "7f3a",
                    "state": "delivered",
                    "code": "000",
                    "error_class": None,
                    "network": "23415",
                    "attempt": 1,
                    "part": 1,
                    "copies": 1,
                    "received_at": began,
                    "done_at": began,
                }
            )
    of_message = [each for each in gateway.callbacks if each["message_id"] == message.id]
    return {
        "message": shown,
        "attempts": attempts,
        "steps": [
            {
                "at": began,
                "until": None,
                "kind": "accepted",
                "count": 1,
                "provider": None,
                "attempt": None,
                "code": None,
                "code_name": None,
                "meaning": None,
                "text": "Accepted.",
            }
        ],
        "receipts": receipts,
        "events": message.events(),
        "callbacks": of_message,
        "summary": gateway.summary
        or [f"The message is {shown['status']}.", "Attempt 1 went to primary."],
    }


@route("POST", "/api/v1/sms/{message_id}/cancel", "messages:send")
async def cancel(gateway: FakeGateway, request: Request) -> Response:
    message = gateway.named(request)
    if message.last.status in FINAL:
        raise Refusal(409, f"The message has ended: it is {message.last.status}.")
    message.canceled_at = datetime.now(UTC)
    return JSONResponse(message.shown(), 202)


@route("GET", "/api/v1/dead-letters", "messages:read")
async def dead_letters(gateway: FakeGateway, request: Request) -> Response:
    only_known(request, "provider")
    provider = request.query_params.get("provider")
    shown = [message.shown() for message in gateway.visible(request)]
    return page_of(
        request,
        [
            message
            for message in shown
            if message["status"] == "dead_letter" and provider in {None, message["provider"]}
        ],
    )


def sent_again(message: StoredMessage) -> None:
    message.fate = DELIVERED
    message.began_at = datetime.now(UTC)


@route("POST", "/api/v1/dead-letters/replay", "dead_letters:replay")
async def replay(gateway: FakeGateway, request: Request) -> Response:
    asked = await read(ReplayBody, request)
    if asked.provider not in {None, "primary", "backup"}:
        raise Refusal(
            422,
            "The request is not acceptable.",
            [{"field": "provider", "detail": "There is no such provider; known: backup, primary."}],
        )
    found = {message.id: message for message in gateway.visible(request)}
    named = list(found) if asked.message_ids is None else asked.message_ids
    replayed: list[str] = []
    skipped = []
    for message_id in named:
        message = found.get(message_id)
        wrong_provider = asked.provider is not None and (
            message is None or message.shown()["provider"] != asked.provider
        )
        if message is None or message.last.status != "dead_letter" or wrong_provider:
            if asked.message_ids is not None:
                detail = "It is not a dead letter." if message else "There is no such message."
                skipped.append({"message_id": message_id, "detail": detail})
        elif len(replayed) < asked.limit:
            sent_again(message)
            replayed.append(message_id)
    remaining: list[dict[str, object]] = []
    if not replayed:
        dead = Counter(
            message.shown()["provider"]
            for message in found.values()
            if message.last.status == "dead_letter"
        )
        remaining = [{"provider": name, "messages": count} for name, count in dead.most_common()]
    return JSONResponse({"replayed": replayed, "skipped": skipped, "remaining": remaining})


@route("POST", "/api/v1/dead-letters/{message_id}/replay", "dead_letters:replay")
async def replay_one(gateway: FakeGateway, request: Request) -> Response:
    message = gateway.named(request)
    if message.last.status != "dead_letter":
        raise Refusal(409, "It is not a dead letter.")
    sent_again(message)
    return JSONResponse(message.shown(), 202)


PRICE = {"amount": "0.00750", "currency": "USD"}
BIND_ERROR = {
    "reason": "bind_refused",
    "at": "2026-11-05T03:12:44Z",
    "is_current": True,
    "ended_at": None,
    "code": "ESME_RINVPASWD",
    "session": "transceiver",
    "detail": "The transceiver is not bound: the SMSC refused the bind (ESME_RINVPASWD).",
}


def provider_shown(name: str, state: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "smpp",
        "environment": "live",
        "state": state,
        "workers": 1 if state == "up" else 0,
        "binds_up": 2 if state == "up" else 0,
        "binds": 2,
        "last_heartbeat_at": stamp(datetime.now(UTC)),
        "up_for": ["providers", "chunks"] if state == "up" else [],
        "detail": None if state == "up" else BIND_ERROR["detail"],
        "last_bind_error": None if state == "up" else BIND_ERROR,
        "bind_errors": [] if state == "up" else [BIND_ERROR | {"workers": 2}],
        "receipts": True,
        "unmatched_receipts": 3,
        "rate": 200.0,
        "unparsed_receipts": 0 if state == "up" else 700,
        "rate_ratio": 1.0,
        "rate_shares": [
            {"roles": ["chunks"], "share": 195.0, "demand": 310.5, "critical_demand": 0.0},
            {"roles": ["providers"], "share": 5.0, "demand": 0.5, "critical_demand": 0.5},
        ]
        if state == "up"
        else [],
        "recent": {
            "attempts": 12,
            "accepted": 11,
            "refused": 1,
            "unreachable": 0,
            "unknown": 0,
            "delivered": 10,
            "undelivered": 1,
            "accept_p50_ms": 4.2,
        },
    }


@route("GET", "/api/v1/providers", "providers:read")
async def providers(_: FakeGateway, __: Request) -> Response:
    shown = [provider_shown("primary", "up"), provider_shown("backup", "down")]
    return JSONResponse({"items": shown})


@route("GET", "/api/v1/providers/{name}", "providers:read")
async def provider(_: FakeGateway, request: Request) -> Response:
    name = request.state.values["name"]
    if name not in {"primary", "backup"}:
        raise Refusal(404, "There is no such provider in the configuration.")
    return JSONResponse(provider_shown(name, "up" if name == "primary" else "down"))


ADDRESS = "https://sms.example.com/webhooks/providers/primary/receipts/Zm9vYmFyYmF6cXV4Cg"


@route("GET", "/api/v1/providers/{name}/addresses", "config:manage")
async def addresses(_: FakeGateway, request: Request) -> Response:
    """`backup` reports nothing over HTTP."""
    name = declared(request)
    why = None if name == "primary" else "Providers of this type report no receipts over HTTP."
    return JSONResponse({"receipts": ADDRESS if why is None else None, "detail": why})


@route("POST", "/api/v1/providers/{name}/tests", "config:manage")
async def send_test(gateway: FakeGateway, request: Request) -> Response:
    """`backup` is down."""
    name = declared(request)
    asked = await read(ProviderTestBody, request)
    if name == "backup":
        raise Refusal(409, "backup is down. No worker process serves it.")
    request.state.key = gateway.keys[0]  # of the account that it belongs to
    message = store(
        gateway,
        request,
        SendBody.model_validate(
            {"to": asked.to, "from": asked.sender or "Acme", "body": asked.body}
        ),
    )
    gateway.tests.add(message.id)
    shown = message.shown()
    response = {
        "message_id": message.id,
        "status": shown["status"],
        "encoding": shown["encoding"],
        "segments": shown["segments"],
        "replacements": [],
        "warnings": [],
    }
    return accepted(response, f"/api/v1/providers/{name}/tests/{message.id}", again=False)


@route("GET", "/api/v1/providers/{name}/tests/{message_id}", "config:manage")
async def explain_test(gateway: FakeGateway, request: Request) -> Response:
    message_id = request.state.values["message_id"]
    if declared(request) != "primary" or message_id not in gateway.tests:
        raise Refusal(404, "This provider has no test with this id.")
    return JSONResponse(explained(gateway, gateway.messages[message_id]))


def declared(request: Request) -> str:
    name: str = request.state.values["name"]
    if name not in {"primary", "backup"}:
        raise Refusal(404, "The configuration has no provider of this name.")
    return name


@route("POST", "/api/v1/providers/{name}/receipts/reparse", "config:manage")
async def reparse(_: FakeGateway, request: Request) -> Response:
    """`backup` has 700 receipts that could not be parsed, of which 3 still cannot be."""
    name = request.state.values["name"]
    if name not in {"primary", "backup"}:
        raise Refusal(404, "There is no such provider in the configuration.")
    if name == "primary":
        return JSONResponse({"parsed": 0, "unparsed": 0, "next_after": None})
    if request.query_params.get("after") is None:
        return JSONResponse({"parsed": 498, "unparsed": 2, "next_after": 500})
    return JSONResponse({"parsed": 199, "unparsed": 1, "next_after": None})


@route("GET", "/api/v1/keys", "keys:manage")
async def keys(gateway: FakeGateway, _: Request) -> Response:
    return JSONResponse({"items": [key.shown() for key in gateway.keys], "next_cursor": None})


@route("POST", "/api/v1/keys", "keys:manage")
async def create_key(gateway: FakeGateway, request: Request) -> Response:
    asked = await read(KeyBody, request)
    text = gateway.key_with(*asked.scopes, environment=asked.environment)
    stored = gateway.keys[-1]
    stored.name = asked.name
    stored.expires_at = asked.expires_at
    stored.parent_id = request.state.key.id
    return JSONResponse({**stored.shown(), "key": text}, 201)


@route("DELETE", "/api/v1/keys/{key_id}", "keys:manage")
async def revoke_key(gateway: FakeGateway, request: Request) -> Response:
    for key in gateway.keys:
        if key.id == request.state.values["key_id"]:
            key.revoked_at = datetime.now(UTC)
            return Response(status_code=204)
    raise Refusal(404, "There is no such key.")


class AccountBody(Strict):
    name: str = Field(min_length=1, max_length=64)


class OperatorKeyBody(Strict):
    name: str
    scopes: list[Literal[OPERATOR_SCOPES]] = Field(min_length=1)
    expires_at: AwareDatetime | None = None


def account_of(gateway: FakeGateway, request: Request) -> StoredAccount:
    account = gateway.accounts.get(request.state.values["account_id"])
    if account is None:
        raise Refusal(404, "There is no such account.")
    return account


@route("POST", "/api/v1/accounts", "accounts:manage")
async def create_account(gateway: FakeGateway, request: Request) -> Response:
    asked = await read(AccountBody, request)
    if asked.name in {account.name for account in gateway.accounts.values()}:
        raise Refusal(409, "Another account has this name: choose another one.")
    account = StoredAccount(f"acc_{len(gateway.accounts):032x}", asked.name, datetime.now(UTC))
    gateway.accounts[account.id] = account
    return JSONResponse(account.shown(), 201)


@route("GET", "/api/v1/accounts", "accounts:manage")
async def accounts(gateway: FakeGateway, _: Request) -> Response:
    return JSONResponse({"items": [account.shown() for account in gateway.accounts.values()]})


@route("GET", "/api/v1/accounts/{account_id}", "accounts:manage")
async def account(gateway: FakeGateway, request: Request) -> Response:
    return JSONResponse(account_of(gateway, request).shown())


@route("POST", "/api/v1/accounts/{account_id}/suspend", "accounts:manage")
async def suspend_account(gateway: FakeGateway, request: Request) -> Response:
    account = account_of(gateway, request)
    account.suspended_at = account.suspended_at or datetime.now(UTC)
    return JSONResponse(account.shown())


@route("POST", "/api/v1/accounts/{account_id}/resume", "accounts:manage")
async def resume_account(gateway: FakeGateway, request: Request) -> Response:
    account = account_of(gateway, request)
    account.suspended_at = None
    return JSONResponse(account.shown())


@route("POST", "/api/v1/accounts/{account_id}/keys", "accounts:manage")
async def create_account_key(gateway: FakeGateway, request: Request) -> Response:
    account = account_of(gateway, request)
    asked = await read(KeyBody, request)
    text = gateway.key_with(*asked.scopes, environment=asked.environment)
    stored = gateway.keys[-1]
    stored.name = asked.name
    stored.expires_at = asked.expires_at
    return JSONResponse({**stored.shown(), "account_id": account.id, "key": text}, 201)


def operator_key_shown(key: StoredKey) -> dict[str, Any]:
    return {k: v for k, v in key.shown().items() if k not in {"account_id", "environment"}}


@route("GET", "/api/v1/operator-keys", "operator_keys:manage")
async def operator_keys(gateway: FakeGateway, _: Request) -> Response:
    return JSONResponse({"items": [operator_key_shown(key) for key in gateway.operator_keys]})


@route("POST", "/api/v1/operator-keys", "operator_keys:manage")
async def create_operator_key(gateway: FakeGateway, request: Request) -> Response:
    asked = await read(OperatorKeyBody, request)
    made = StoredKey(
        f"key_0{len(gateway.operator_keys)}",
        f"sg_operator_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}",
        asked.name,
        "",
        tuple(asked.scopes),
        datetime.now(UTC),
        asked.expires_at,
        parent_id=request.state.key.id,
    )
    gateway.operator_keys.append(made)
    return JSONResponse({**operator_key_shown(made), "key": made.key}, 201)


@route("DELETE", "/api/v1/operator-keys/{key_id}", "operator_keys:manage")
async def revoke_operator_key(gateway: FakeGateway, request: Request) -> Response:
    for key in gateway.operator_keys:
        if key.id == request.state.values["key_id"]:
            key.revoked_at = datetime.now(UTC)
            return Response(status_code=204)
    raise Refusal(404, "There is no such key.")


def mistakes_in(content: str) -> list[dict[str, Any]]:
    """As much of a check as shows where mistakes are: TOML itself, and the types of providers."""
    try:
        providers = tomllib.loads(content).get("providers", {})
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line, column = (int(place[1]), int(place[2])) if place else (1, 1)
        return [{"line": line, "column": column, "path": "", "detail": "This is not TOML."}]
    found = []
    for name, declared in providers.items():
        if declared.get("type") != "smpp":
            line = content[: content.index(f"[providers.{name}]")].count("\n") + 2
            found.append(
                {
                    "line": line,
                    "column": 8,
                    "path": f"providers.{name}.type",
                    "detail": "is not a type of provider: use smpp.",
                }
            )
    return found


def warnings_in(content: str) -> list[dict[str, Any]]:
    """A secret that the API process cannot read."""
    return [
        {"line": number, "column": 12, "path": "providers.primary.password", "detail": "not there"}
        for number, line in enumerate(content.splitlines(), start=1)
        if "env:" in line
    ]


async def toml(request: Request) -> str:
    if request.headers.get("content-type") not in {"application/toml", "text/plain"}:
        raise Refusal(422, "Send the configuration as application/toml.")
    return (await request.body()).decode()


@route("POST", "/api/v1/config/check", "config:manage")
async def check(_: FakeGateway, request: Request) -> Response:
    mistakes = mistakes_in(await toml(request))
    return JSONResponse({"ok": not mistakes, "mistakes": mistakes, "warnings": []})


@route("POST", "/api/v1/config/apply", "config:manage")
async def apply(gateway: FakeGateway, request: Request) -> Response:
    content = await toml(request)
    mistakes = mistakes_in(content)
    if mistakes:
        errors = [{"field": m["path"], "detail": m["detail"], "line": m["line"]} for m in mistakes]
        raise Refusal(422, "The configuration has errors.", errors)
    changed = content != gateway.configuration
    gateway.version += changed
    gateway.configuration = content
    return JSONResponse(
        {"version": gateway.version, "changed": changed, "warnings": warnings_in(content)}
    )


@route("GET", "/api/v1/config", "config:manage")
async def configuration(gateway: FakeGateway, _: Request) -> Response:
    return JSONResponse(
        {
            "version": gateway.version,
            "applied_at": stamp(datetime.now(UTC)),
            "applied_by": "key_1",
            "content": gateway.configuration,
        }
    )


@route("GET", "/api/v1/callbacks/secret", "keys:manage")
async def secret(_: FakeGateway, __: Request) -> Response:
    return JSONResponse({"secret": SECRET})


@route("GET", "/api/v1/callbacks", "callbacks:read")
async def callbacks(gateway: FakeGateway, request: Request) -> Response:
    only_known(request, "state", "message_id")
    shown = list(reversed(gateway.callbacks))
    for name in ("state", "message_id"):
        if name in request.query_params:
            shown = [each for each in shown if each[name] == request.query_params[name]]
    return page_of(request, shown)


@route("POST", "/api/v1/callbacks/replay", "callbacks:replay")
async def replay_callbacks(gateway: FakeGateway, request: Request) -> Response:
    asked = await read(CallbackReplayBody, request)
    again = [each for each in gateway.callbacks if each["state"] == asked.state][: asked.limit]
    for callback in again:
        callback["state"] = "pending"
    return JSONResponse({"replayed": len(again)})


@route("POST", "/api/v1/callbacks/{callback_id}/replay", "callbacks:replay")
async def replay_callback(gateway: FakeGateway, request: Request) -> Response:
    for callback in gateway.callbacks:
        if callback["id"] == request.state.values["callback_id"]:
            callback["state"] = "pending"
            return JSONResponse({"replayed": 1}, 202)
    raise Refusal(404, "There is no such callback.")


@route("GET", "/readyz", None)
async def readyz(gateway: FakeGateway, _: Request) -> Response:
    down = gateway.now_down
    content = {
        "status": "unavailable" if down else "ok",
        "database": "down" if down else "up",
        "configuration": "loaded",
        "temporal": "up",
        "detail": "The database does not answer." if down else None,
    }
    return JSONResponse(content, 503 if down else 200)
