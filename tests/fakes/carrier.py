"""Carriers that the contract of adapters is tested against: what each can be made to do, and what it counts.

A fake obeys its vendor's documented protocol. `received` is what it would have sent to phones: its own count of
SMS, which the tests compare with the outcomes that the adapter reports.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit
from uuid import UUID

import h11

from domain.configuration.providers.types import BUILT_IN_TYPES
from domain.error_classes import ErrorClass
from domain.receipt_tokens import ReceiptTokens
from domain.receipts import ReceiptState
from providers.base import Provider, ProviderSinks, ReceivedReceipt
from providers.registry import ProviderTypes
from providers.webhooks import ProviderWebhooks, WebhookRequest

PUBLIC_URL = "https://sms.example.com"
TOKENS = ReceiptTokens(b"secret of the tests")


@dataclass(frozen=True)
class Accept:
    """The message is accepted, as usual."""


@dataclass(frozen=True)
class LoseResponse:
    """The message is accepted, and the connection breaks before the response."""


@dataclass(frozen=True)
class Hang:
    """The message is accepted, and no response comes."""


@dataclass(frozen=True)
class Throttle:
    """The message is not accepted: too many requests."""

    seconds: int = 7


@dataclass(frozen=True)
class Refuse:
    """The message is not accepted, with one of the vendor's codes."""

    code: str


@dataclass(frozen=True)
class Raw:
    """The message is not accepted, and the response is this one."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Behaviour = Accept | LoseResponse | Hang | Throttle | Refuse | Raw


@dataclass(frozen=True)
class Sent:
    """A message that the carrier has accepted."""

    id: str
    to: str
    sender: str
    text: str
    receipt_url: str | None
    key: str | None = None
    """By which the carrier recognizes a repeat: an idempotency key or an id of ours."""


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A request that the carrier got; the names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class WrongCredentials(Exception):
    """The request is not one of the account."""


@dataclass(frozen=True)
class Refusal:
    """A code that a carrier refuses with, or reports in a receipt, and what it is worth.

    A receipt's `error_class` is None where its state alone says what it means.
    """

    code: str
    error_class: ErrorClass | None


class Carrier(ABC):
    """A carrier of one type. `async with` starts and stops it."""

    type: ClassVar[str]
    refusal: ClassVar[Refusal]
    """In a response: the recipient's number is wrong."""
    failure: ClassVar[Refusal]
    """In a receipt of a message that was not delivered."""
    repeats_are_safe: ClassVar[bool] = False
    gives_retry_after: ClassVar[bool] = True
    signs: ClassVar[bool] = True
    """Whether an altered receipt can be told from a true one."""
    can_be_asked: ClassVar[bool] = True

    def __init__(self) -> None:
        self.received: list[Sent] = []
        self.receipts: list[ReceivedReceipt] = []
        self.behaviours: deque[Behaviour] = deque()
        self.states: dict[str, tuple[ReceiptState, str]] = {}
        """What the carrier says of messages when it is asked, by their ids."""
        self.number = 0

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(self, *_: object) -> None: ...

    @abstractmethod
    def section(self) -> dict[str, Any]:
        """The provider's section in the configuration."""

    @property
    @abstractmethod
    def secrets(self) -> Mapping[str, str]:
        """The secrets of the section, by their keys."""

    @property
    def wrong_secrets(self) -> Mapping[str, str]:
        """Other secrets of the same form, which the carrier refuses."""
        return {key: f"{value[:-1]}0" for key, value in self.secrets.items()}

    @abstractmethod
    async def report(self, sent: Sent, state: ReceiptState, code: str = "") -> None:
        """Send a receipt; it is then among `receipts`."""

    def provider(self, *, secrets: Mapping[str, str] | None = None, **more: Any) -> Provider:
        """The adapter, with its configuration changed by `more`; made within the event loop."""
        declared = BUILT_IN_TYPES[self.type].model_validate({**self.section(), **more})
        types = ProviderTypes.installed()
        return types.of(self.type).adapter(
            "primary",
            declared,
            secrets or self.secrets,
            ProviderSinks(
                on_receipt=self._take,
                read_receipt_token=TOKENS.read,
                receipt_url=lambda name, token: (
                    f"{PUBLIC_URL}/webhooks/providers/{name}/receipts/{token}"
                ),
            ),
        )

    async def _take(self, receipt: ReceivedReceipt) -> None:
        self.receipts.append(receipt)

    def next_id(self) -> str:
        """An id of the vendor's form."""
        self.number += 1
        return str(UUID(int=self.number))


class HttpCarrier(Carrier):
    """A carrier with an HTTP API on loopback. Subclasses read its requests and write its responses."""

    on_sent: Callable[[Sent], Awaitable[None]] | None = None
    """Awaited for each SMS before its response, such as for a receipt that is quicker than that."""

    async def __aenter__(self) -> Self:
        self.asked: list[Request] = []
        """All requests that came."""
        self._tasks: set[asyncio.Task[None]] = set()
        await self.listen()
        return self

    async def listen(self, port: int = 0) -> None:
        """Take connections, on a port of its own or on a given one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def hang_up(self) -> None:
        """Take no connections, and end those that there are."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # What a vendor says

    @abstractmethod
    def read(self, request: Request) -> Sent:
        """The message in a request.

        Raises:
            WrongCredentials: it is not one of the account.
        """

    @abstractmethod
    def accepted(self, sent: Sent) -> Response:
        """The response to a message that was accepted."""

    @abstractmethod
    def refused(self, code: str) -> Response:
        """The response to a message that was not, with one of the vendor's codes."""

    @abstractmethod
    def throttled(self, seconds: int) -> Response:
        """The response to a request too many."""

    @abstractmethod
    def unauthorized(self) -> Response:
        """The response to a request with wrong credentials."""

    def status_of(self, request: Request) -> Response | None:
        """The response to a question about a message; None if the request is no such question."""
        return None

    @abstractmethod
    def receipt(self, sent: Sent, state: ReceiptState, code: str) -> Request:
        """The signed request that reports on a message; `target` is the URL that is called."""

    def webhooks(self) -> ProviderWebhooks[Any]:
        """What reads this carrier's receipts in the gateway."""
        declared = BUILT_IN_TYPES[self.type].model_validate(self.section())
        make = ProviderTypes.installed().of(self.type).webhooks
        assert make is not None
        return make("primary", declared, self.secrets)

    async def report(self, sent: Sent, state: ReceiptState, code: str = "") -> None:
        request = as_came(self.receipt(sent, state, code))
        webhooks = self.webhooks()
        webhooks.verify(request)
        token = urlsplit(request.url).path.rpartition("/")[2]
        for receipt in webhooks.receipts(request, TOKENS.read(token)):
            await self._take(receipt)

    # Connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = h11.Connection(h11.SERVER)
        try:
            with suppress(ConnectionError):
                while (request := await _next_request(connection, reader)) is not None:
                    self.asked.append(request)
                    response = await self._respond(request)
                    if response is None:
                        return
                    given = {**response.headers, "content-length": str(len(response.body))}
                    headers = [(name, value.encode("latin-1")) for name, value in given.items()]
                    for event in (
                        h11.Response(status_code=response.status, headers=headers),
                        h11.Data(data=response.body),
                        h11.EndOfMessage(),
                    ):
                        writer.write(connection.send(event) or b"")
                    await writer.drain()
                    connection.start_next_cycle()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _respond(self, request: Request) -> Response | None:
        """The response to a request; None to close the connection without one."""
        asked = self.status_of(request)
        if asked is not None:
            return asked
        try:
            sent = self.read(request)
        except WrongCredentials:
            return self.unauthorized()
        behaviour = self.behaviours.popleft() if self.behaviours else Accept()
        match behaviour:
            case Throttle(seconds):
                return self.throttled(seconds)
            case Refuse(code):
                return self.refused(code)
            case Raw(status, headers, body):
                return Response(status, body, headers)
        known = len(self.received)
        response = self._take_message(sent)
        if self.on_sent is not None and len(self.received) > known:
            await self.on_sent(sent)
        match behaviour:
            case LoseResponse():
                return None
            case Hang():
                await asyncio.sleep(3600)
        return response

    def _take_message(self, sent: Sent) -> Response:
        """Send the SMS, unless the request is a repeat that the vendor recognizes."""
        if sent.key is not None:
            for earlier in self.received:
                if earlier.key == sent.key:
                    return self.repeated(earlier)
        self.received.append(sent)
        return self.accepted(sent)

    def repeated(self, earlier: Sent) -> Response:
        """The response to a repeat of a message."""
        return self.accepted(earlier)


def as_came(request: Request) -> WebhookRequest:
    """A carrier's request as the gateway gets it: without the fragment of its address."""
    return WebhookRequest(
        method=request.method,
        url=request.target.partition("#")[0],
        headers=request.headers,
        body=request.body,
        at=datetime.now(UTC),
    )


async def _next_request(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    """The next request on a connection; None when it has ended."""
    head: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        match event:
            case h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            case h11.Request():
                head = event
            case h11.Data():
                body += bytes(event.data)
            case h11.EndOfMessage():
                assert head is not None
                headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
                return Request(head.method.decode(), head.target.decode(), headers, body)
            case _:
                return None


def matching(states: Mapping[str, ReceiptState], state: ReceiptState) -> str:
    """The vendor's word for a state of ours, by its own table."""
    words: Sequence[str] = [word for word, each in states.items() if each is state]
    return words[0]


def number_of(code: str) -> int | str:
    """A code as a vendor writes it that has numbers; anything else as it is."""
    return int(code) if code.isdigit() else code
