"""A provider of another type: JSON in lines over TCP, the adapter and its carrier.

A package of other people would have the adapter; `LINES` is what its entry point names. The adapter
sends `{"number", "to", "from", "text", "token", "callback", "country", "parameters"}`, and the carrier replies `{"number", "id"}`
or `{"number", "code"}`. With an id it may say what it bills: `"segments"`, `"price"` and `"currency"`. Later it sends `{"id", "state", "code"}` as a receipt; or, as carriers do that
call back an address of ours, `{"callback", "state", "code"}` with the attempt's receipt token.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Literal, Self

from domain.binds import BindError
from domain.configuration import ProviderConfiguration
from domain.configuration.providers.base import ProviderSecret
from domain.configuration.secret_references import SecretReference
from domain.error_classes import ErrorClass
from domain.modes import Priority
from domain.money import Price
from domain.outcomes import OutcomeKind, PartOutcome
from domain.rates import NO_DEMAND, RateDemand
from domain.receipts import ReceiptState
from providers.base import (
    Exchange,
    Outbound,
    PartSender,
    Provider,
    ProviderSinks,
    ReceivedReceipt,
    not_sent,
)
from providers.registry import ProviderType


class LineConfiguration(ProviderConfiguration):
    type: Literal["lines"]
    port: int
    token: SecretReference

    def secrets(self) -> Sequence[ProviderSecret]:
        return (ProviderSecret("token", self.token, is_literal=False, check=_check_token),)


def _check_token(token: str) -> None:
    if " " in token:
        raise ValueError("a token has no blanks")


class LineProvider(Provider):
    def __init__(
        self,
        name: str,
        configuration: LineConfiguration,
        secrets: Mapping[str, str],
        sinks: ProviderSinks,
    ) -> None:
        self.name = name
        self._configuration = configuration
        self._token = secrets["token"]
        self._sinks = sinks
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._storing: set[asyncio.Future[None]] = set()
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._down.set()
        self._slots = asyncio.Semaphore(configuration.window)

    @property
    def binds_up(self) -> int:
        return int(self._up.is_set())

    @property
    def last_bind_error(self) -> BindError | None:
        return None

    @property
    def capacity(self) -> int:
        return self._configuration.window * self.binds_up

    async def wait_until(self, *, up: bool) -> None:
        await (self._up if up else self._down).wait()

    @property
    def held(self) -> int:
        return 0 if self._writer is None else self._configuration.binds

    @property
    def rate(self) -> float | None:
        return self._configuration.rate

    def limit_rate(self, rate: float) -> None:
        pass  # the carrier takes whatever comes

    def demand(self) -> RateDemand:
        return NO_DEMAND

    async def hold(self, binds: int) -> None:
        if binds and self._writer is None:
            reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._configuration.port
            )
            self._reading = asyncio.create_task(self._read(reader))
            self._up.set()
            self._down.clear()
        elif not binds:
            await self.stop(timedelta())

    async def stop(self, grace: timedelta) -> None:
        self._up.clear()
        self._down.set()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _read(self, reader: asyncio.StreamReader) -> None:
        async for line in reader:
            read = json.loads(line)
            if "state" in read:
                receipt = self._receipt(read)
                if receipt is not None:  # what follows does not wait until it is stored
                    storing = asyncio.ensure_future(self._sinks.on_receipt(receipt))
                    self._storing.add(storing)
                    storing.add_done_callback(self._storing.discard)
            else:
                self._waiting.pop(read["number"]).set_result(read)

    def _receipt(self, read: Mapping[str, str]) -> ReceivedReceipt | None:
        """The receipt in a line; None where it names an attempt by a token that is not ours."""
        part = None
        if "callback" in read:
            part = self._sinks.read_receipt_token(read["callback"], 1)
            if part is None:
                return None
        code = read.get("code", "")
        return ReceivedReceipt(
            provider=self.name,
            provider_message_id=read.get("id", ""),
            state=ReceiptState(read["state"]),
            code=code,
            network=None,
            reference=None,
            sender=None,
            recipient=None,
            done_at=None,
            part=part,
            error_class=self._configuration.errors.get(code),
        )

    def count_parts(self, outbound: Outbound) -> int:
        return 1

    def acquire(self, priority: Priority) -> AbstractAsyncContextManager[None]:
        return self._slots

    def _part_sender(self, outbound: Outbound, start_by: float | None) -> PartSender:
        async def send(number: int) -> Exchange:
            if self._writer is None:
                return Exchange(not_sent(number))
            line = next(self._numbers)
            response = self._waiting[line] = asyncio.get_running_loop().create_future()
            wanted = {"to": outbound.recipient, "from": outbound.sender, "text": outbound.text}
            sent = {
                "number": line,
                "token": self._token,
                "callback": outbound.receipt_token,
                "country": outbound.country,
                "parameters": dict(outbound.parameters),
                **wanted,
            }
            self._writer.write(json.dumps(sent).encode() + b"\n")
            try:
                async with asyncio.timeout(self._configuration.response_timeout.total_seconds()):
                    return Exchange(self._outcome(number, await response))
            except TimeoutError:
                unknown = OutcomeKind.UNKNOWN
                return Exchange(PartOutcome(number, unknown, error_class=ErrorClass.UNKNOWN))

        return send

    def _outcome(self, number: int, response: Mapping[str, Any]) -> PartOutcome:
        if "id" in response:
            return PartOutcome(
                number,
                OutcomeKind.ACCEPTED,
                provider_message_id=response["id"],
                segments=response.get("segments"),
                price=Price.of(response["price"], response["currency"])
                if "price" in response
                else None,
            )
        code = response["code"]
        error = self._configuration.errors.get(code, ErrorClass.ROUTE)
        return PartOutcome(number, OutcomeKind.REFUSED, code=code, error_class=error)

    async def cancel_at_provider(
        self, provider_message_id: str, *, sender: str, recipient: str
    ) -> bool:
        return False

    async def query(self, provider_message_id: str, *, sender: str) -> ReceivedReceipt | None:
        return None


LINES = ProviderType(LineConfiguration, LineProvider)


class LineCarrier:
    """The carrier: it accepts each message that has its token, and delivers it at once.

    Attributes:
        received: the messages that it got.
        receipts: what it sends as receipts of each message, as functions of the message and its id.
        responds: whether it responds to messages; if not, their ids are never known.
        bill: what its responses say beside the id.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self.received: list[dict[str, Any]] = []
        self.receipts: list[Callable[[dict[str, Any], str], dict[str, str]]] = [_delivered]
        self.responds = True
        self.bill: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                sent = json.loads(line)
                self.received.append(sent)
                id_ = f"line-{len(self.received)}"
                accepted = sent["token"] == self._token
                reply = {"id": id_, **self.bill} if accepted else {"code": "bad_token"}
                lines = [{"number": sent["number"], **reply}] if self.responds else []
                if accepted:
                    lines += [receipt(sent, id_) for receipt in self.receipts]
                writer.writelines(json.dumps(each).encode() + b"\n" for each in lines)
        writer.close()


def _delivered(_message: dict[str, Any], id_: str) -> dict[str, str]:
    return {"id": id_, "state": "delivered"}


def names_attempt(state: str, code: str = "") -> Callable[[dict[str, Any], str], dict[str, str]]:
    """A receipt that names its attempt, and has no id."""
    return lambda message, _id: {"callback": message["callback"], "state": state, "code": code}
