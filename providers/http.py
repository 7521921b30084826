"""What all carriers are that take messages by HTTP requests; each has an adapter of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from abc import abstractmethod
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import httpx
import structlog

from domain import deadlines
from domain.binds import CONNECTION, BindError, BindFailure
from domain.configuration.providers.http import HttpConfiguration
from domain.error_classes import RETRIES, ErrorClass
from domain.http_statuses import class_of_status, is_success
from domain.outcomes import OutcomeKind, PartOutcome
from domain.provider_codes import as_code
from domain.receipts import LONGEST_ID, storable
from domain.segments import UnsendableText
from domain.values import value
from providers.base import Exchange, Outbound, PartSender, ProviderSinks, not_sent
from providers.connections import connect_failure
from providers.http_transport import AddressRefused, ProviderTransport
from providers.queued import QueuedProvider
from telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.base import ReceivedReceipt

_log = structlog.get_logger(logger_name=__name__)
_Configuration = TypeVar("_Configuration", bound=HttpConfiguration)

MOST_OF_A_RESPONSE: Final = 1024 * 1024
"""Octets of a response that are read; one that is longer has an unknown outcome."""

_PROBE_FIRST: Final = 1.0
_PROBE_LAST: Final = 30.0
"""Seconds between two tries to connect to a host that could not be reached."""

_CONNECT_SHARE: Final = 0.8
"""The part of a request's time that its connection may take, at most."""

_PARTING: Final = 3.0
"""Seconds for the responses on connections that are given to another process."""

_MOST_PIECES: Final = 20_000
_PIECES_IN_A_ROW: Final = 200
"""Pieces of a body that are read before others have their turn."""

_LONGEST_WAIT: Final = timedelta(hours=1)
"""That a `Retry-After` is obeyed for; after that the provider is tried again."""


@value
class HttpResponse:
    """A response of a carrier; `body` is whole."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return is_success(self.status)

    def json(self) -> Any:
        """The body as JSON; None if it is something else."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def json_object(self) -> Mapping[str, Any]:
        """The body as an object of JSON; empty if it is something else."""
        body = self.json()
        return body if isinstance(body, dict) else {}

    def retry_after(self, now: datetime) -> timedelta | None:
        """`Retry-After` (RFC 9110, 10.2.3), as seconds or as a date; None if there is none."""
        written = self.headers.get("retry-after", "").strip()
        if written.isascii() and written.isdigit():
            return min(timedelta(seconds=int(written[:9])), _LONGEST_WAIT)
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            after = parsedate_to_datetime(written).replace(tzinfo=UTC) - now
            return max(timedelta(), min(after, _LONGEST_WAIT))
        return None


class HttpProvider(QueuedProvider, Generic[_Configuration]):
    """An account at a carrier with an HTTP API; made within a running event loop.

    An adapter builds the request of a message (`_request`) and reads its response (`_outcome`). That
    requests have one deadline, that a connection that cannot be made is `unreachable` and a lost
    response `unknown`, and that all of it is counted, is said here once.

    Raises:
        TlsFileUnusable: a file of `configuration.tls` cannot be read or used.
    """

    repeats_are_safe: ClassVar[bool] = False
    """Whether the very same request, sent again, sends no second SMS. Its response is then asked for
    twice, each time for half of `response_timeout`."""

    def __init__(
        self,
        name: str,
        configuration: _Configuration,
        secrets: Mapping[str, str],
        sinks: ProviderSinks,
    ) -> None:
        self._configuration = configuration
        self._secrets = secrets
        self._sinks = sinks
        self._held = 0
        self._reachable = False
        self._error: BindError | None = None
        self._probing: asyncio.Task[None] | None = None
        super().__init__(name, configuration.rate, lambda: self.binds_up)
        self._transport = ProviderTransport(configuration)
        self._client = httpx.AsyncClient(
            base_url=configuration.url,
            transport=self._transport,
            follow_redirects=False,
            trust_env=False,
            headers={
                "user-agent": "smsgateway",
                "accept": "application/json",
                "accept-encoding": "identity",
            },
        )
        """Builds requests. They go to the transport itself: no cookies are kept, and no redirect is read."""

    # What an adapter says

    @abstractmethod
    def _request(self, outbound: Outbound) -> httpx.Request:
        """The request that sends the message; it is made once, and may be sent twice.

        Raises:
            UnsendableText: the text is too long for the carrier.
            UnusableParameter: a parameter cannot be written as the carrier wants it.
        """

    @abstractmethod
    def _outcome(self, number: int, response: HttpResponse) -> PartOutcome:
        """What a response means; it never raises, whatever the carrier has sent."""

    # Up and down

    @property
    def binds_up(self) -> int:
        return self._held if self._reachable and not self._stopping else 0

    @property
    def last_bind_error(self) -> BindError | None:
        return self._error

    @property
    def held(self) -> int:
        return self._held

    async def hold(self, binds: int) -> None:
        self._held = binds
        if not binds:
            await self._end_probe()
        elif not self._reachable:
            self._probe()
        self._changed()
        # Others may hold these connections as soon as this returns.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PARTING):
                await self._queue.until_held(binds)

    async def stop(self, grace: timedelta) -> None:
        await self._end_submits(asyncio.get_running_loop().time() + grace.total_seconds())
        await self._end_probe()
        await self._client.aclose()

    def _changed(self) -> None:
        up = self.binds_up
        metrics.binds_counted(self.name, {"up": up, "down": self._held - up})
        current = self._error is not None and self._error.is_current
        metrics.bind_errors_counted(
            self.name, {self._error.reason: 1} if self._error is not None and current else {}
        )
        self._connectivity_changed()

    async def _end_probe(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    def _probe(self) -> None:
        """Try to connect until it works, in the background."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().create_task(self._until_reachable())

    async def _until_reachable(self) -> None:
        pause = _PROBE_FIRST
        while not self._stopping:
            try:
                await self._transport.probe()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
                self._transport.try_next_address()
                self._failed(_reason(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PROBE_LAST)
            else:
                self._reachable = True
                self._recovered()
                self._changed()
                return

    def _failed(self, reason: tuple[BindFailure, str]) -> None:
        error = BindError(*reason, session=CONNECTION, at=datetime.now(UTC))
        if error != self._error:
            _log.warning("provider_unreachable", provider=self.name, reason=error.reason)
        self._error = error
        self._changed()

    def _recovered(self) -> None:
        if self._error is not None and self._error.is_current:
            self._error = replace(self._error, ended_at=datetime.now(UTC))

    # Sending

    def count_parts(self, outbound: Outbound) -> int:
        del outbound
        return 1

    def receipt_url(self, outbound: Outbound) -> str | None:
        """Where the carrier is to report on this attempt; None where no public address is known."""
        return self._sinks.receipt_url(self.name, outbound.receipt_token)

    def validity(self, outbound: Outbound) -> timedelta | None:
        """How long the carrier may try to deliver it from now on; None leaves that to the carrier."""
        until = outbound.valid_until
        if until is None:
            return None
        now = datetime.now(UTC)
        return deadlines.part_valid_until(now, until, outbound.receipt_wait) - now

    def _part_sender(self, outbound: Outbound, start_by: float | None) -> PartSender:
        del start_by  # looked at by `submit` before each part
        try:
            request = self._request(outbound)
        except UnicodeError:
            raise UnsendableText("The text has half of a surrogate pair.") from None

        async def send(number: int) -> Exchange:
            seconds = self._configuration.response_timeout.total_seconds()
            if self.repeats_are_safe:
                seconds /= 2
            exchange = await self._exchange(request, number, seconds)
            is_unknown = exchange.outcome.kind is OutcomeKind.UNKNOWN
            if is_unknown and self.repeats_are_safe and not self._stopping:
                metrics.request_repeated(provider=self.name)
                repeated = await self._exchange(request, number, seconds)
                settled = self._settled(exchange.outcome, repeated.outcome)
                if settled is not exchange.outcome:
                    exchange = Exchange(settled, repeated.seconds)
            self._count(exchange.outcome)
            return exchange

        return send

    def _settled(self, first: PartOutcome, repeated: PartOutcome) -> PartOutcome:
        """The outcome of a request that was sent twice, since the first outcome is unknown.

        Only an acceptance of the repeat counts: any other response says nothing of the first request.
        An adapter overrides this for a carrier whose refusal of a repeat proves that it has the message.
        """
        return repeated if repeated.kind is OutcomeKind.ACCEPTED else first

    async def _exchange(self, request: httpx.Request, number: int, seconds: float) -> Exchange:
        """Send a request once, and read its response within so many seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            response = await self._response(request, seconds)
        except _NotSent as error:
            self._connect_failed(error.__cause__)
            return Exchange(not_sent(number))
        except ResponseLost:
            return Exchange(
                PartOutcome(number, OutcomeKind.UNKNOWN, error_class=ErrorClass.UNKNOWN)
            )
        outcome = self._kept(self._outcome(number, response))
        self._count_response(outcome.error_class)
        return Exchange(outcome, loop.time() - began)

    def _kept(self, outcome: PartOutcome) -> PartOutcome:
        """The outcome with an id that can be stored and a code that can be shown, whatever the carrier wrote."""
        given = outcome.provider_message_id
        return replace(
            outcome,
            provider_message_id=None if given is None else storable(given, LONGEST_ID),
            code=self._shown(outcome.code),
        )

    def _shown(self, code: str) -> str:
        """A code that is known, or that looks like one; empty for anything else that the carrier wrote."""
        declared = self._configuration
        return code if code in declared.codes() or code in declared.errors else as_code(code)

    async def _response(self, request: httpx.Request, seconds: float) -> HttpResponse:
        """The response to a request.

        Raises:
            _NotSent: nothing of the request has left.
            ResponseLost: it may have left.
        """
        has_left = False

        async def trace(event: str, _info: object) -> None:
            nonlocal has_left
            has_left = has_left or event.endswith("send_request_headers.started")

        # The connection phase ends by timeouts of its own, each of its two steps: a cancellation in its
        # midst would leave the pool a connection that nobody uses or closes.
        connect = min(self._configuration.connect_timeout.total_seconds(), _CONNECT_SHARE * seconds)
        request.extensions = {
            "timeout": httpx.Timeout(seconds, connect=connect / 2).as_dict(),
            "trace": trace,
        }
        try:
            async with asyncio.timeout(seconds):
                response = await self._transport.handle_async_request(request)
                try:
                    body = await _read(response)
                finally:
                    await response.aclose()
        except Exception as error:  # of TLS, of HTTP, or of whatever the carrier has sent
            raise (ResponseLost if has_left else _NotSent) from error
        return HttpResponse(response.status_code, response.headers, body)

    def _connect_failed(self, error: BaseException | None) -> None:
        """No connection could be made: the provider is down until one can be."""
        self._transport.try_next_address()
        self._reachable = False
        self._failed(_reason(error))
        self._probe()

    def _count(self, outcome: PartOutcome) -> None:
        """Keep the reason while the provider refuses the account, for whoever asks for its state."""
        if outcome.error_class is ErrorClass.ACCOUNT:
            self._failed((BindFailure.ACCOUNT_REFUSED, outcome.code))
        elif outcome.kind is OutcomeKind.ACCEPTED and self._error is not None:
            self._recovered()
            self._changed()

    # What adapters share

    def _build_request(self, method: str, path: str, **content: Any) -> httpx.Request:
        """A request of the account; `content` is as httpx takes it (`json`, `data`, `params`)."""
        request = self._client.build_request(method, path, **content)
        request.headers.update(self._authorization())
        return request

    @abstractmethod
    def _authorization(self) -> Mapping[str, str]:
        """The headers with which a request is made in the account's name."""

    def _refused(
        self,
        number: int,
        code: str,
        response: HttpResponse,
        *,
        otherwise: ErrorClass | None = None,
    ) -> PartOutcome:
        """The outcome of a message that was not accepted, or whose outcome `code` leaves unknown.

        The class is that of the configuration's `errors`, else of the provider's table, else
        `otherwise`, else of the HTTP status.
        """
        declared = self._configuration
        known = declared.codes().get(code)
        found = (
            declared.errors.get(code)
            or (None if known is None else known.error_class)
            or otherwise
            or class_of_status(response.status)
        )
        kind = OutcomeKind.REFUSED
        if found is ErrorClass.UNKNOWN:
            kind = OutcomeKind.UNKNOWN
        elif RETRIES[found].waits:
            kind = OutcomeKind.THROTTLED
        is_throttled = kind is OutcomeKind.THROTTLED
        return PartOutcome(
            number,
            kind,
            code=self._shown(code) or f"http_{response.status}",
            error_class=found,
            after=response.retry_after(datetime.now(UTC)) if is_throttled else None,
        )

    async def _ask(self, request: httpx.Request) -> HttpResponse | None:
        """The response to a question about a message; None if there is none in time.

        It takes a slot of the window, as all requests do.
        """
        seconds = self._configuration.response_timeout.total_seconds()
        async with self._operation(seconds) as has_slot:
            if not has_slot:
                return None
            try:
                return await self._response(request, seconds)
            except (_NotSent, ResponseLost):
                return None

    async def cancel_at_provider(
        self, provider_message_id: str, *, sender: str, recipient: str
    ) -> bool:
        del provider_message_id, sender, recipient
        return False

    async def query(self, provider_message_id: str, *, sender: str) -> ReceivedReceipt | None:
        del provider_message_id, sender
        return None


class ResponseTooLong(Exception):
    """A response has more than `MOST_OF_A_RESPONSE` octets."""


class ResponseLost(Exception):
    """A request may have left, and its response cannot be had; the cause is why."""


class _NotSent(Exception):
    """Nothing of a request has left; the cause is why."""


def basic(user: str, password: str) -> Mapping[str, str]:
    """The header of basic authentication (RFC 7617)."""
    token = b64encode(f"{user}:{password}".encode()).decode()
    return {"authorization": f"Basic {token}"}


async def _read(response: httpx.Response) -> bytes:
    """The body as it came: no encoding was accepted, so that a small body cannot become a large one."""
    body = bytearray()
    pieces = 0
    async for piece in response.aiter_raw():
        body += piece
        pieces += 1
        if len(body) > MOST_OF_A_RESPONSE or pieces > _MOST_PIECES:
            raise ResponseTooLong
        if pieces % _PIECES_IN_A_ROW == 0:
            await asyncio.sleep(0)
    return bytes(body)


def _reason(error: BaseException | None) -> tuple[BindFailure, str]:
    """The kind of a connection's failure, and its code: the first cause that has a kind of its own."""
    cause = error
    while cause is not None:
        if isinstance(cause, AddressRefused):
            return BindFailure.ADDRESS_REFUSED, type(cause).__name__
        reason, code = connect_failure(cause)
        if reason is not BindFailure.CONNECT_FAILED:
            return reason, code
        if isinstance(cause, httpx.TimeoutException):
            return BindFailure.TIMEOUT, code
        cause = cause.__cause__ or cause.__context__
    return BindFailure.CONNECT_FAILED, type(error).__name__
