"""A carrier to reach over HTTP: Twilio's Messages API (2010-04-01), with the faults of the SMSC.

Messages are taken, and asked about by their SID; signed status callbacks go to StatusCallback. The account
and its token are written here, and are no secrets.
"""

import asyncio
import json
import random
import re
import time
import uuid
from base64 import b64decode
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final, Self, assert_never
from urllib.parse import parse_qsl

from domain.configuration.providers.twilio import SIMULATED_ACCOUNT, SIMULATED_TOKEN
from domain.segments import segment
from simulator.behaviour import Response, digits_of
from simulator.http_server import HttpRequest, HttpResponse, HttpServer, NoResponse
from simulator.status_callbacks import Callback, CallbackSender, is_callable
from simulator.steering import Steered
from simulator.twilio_behaviour import (
    EXPIRED_IN_QUEUE,
    TWILIO_NUMBERS,
    CallbackStep,
    MessageStatus,
    TwilioBehaviour,
    refusal_of,
)
from telemetry.logs import get_logger

_log = get_logger(__name__)

_PATH: Final = f"/2010-04-01/Accounts/{SIMULATED_ACCOUNT}/Messages"
_MESSAGE: Final = re.compile(re.escape(_PATH) + r"/(SM[0-9a-f]{32})\.json", re.ASCII)
_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_LONGEST_BODY: Final = 1600
_LONGEST_VALIDITY: Final = 36_000
_PRICE_OF_A_SEGMENT: Final = 0.0079
_GLANCE: Final = 0.01
_EARLY_HEAD_START: Final = 0.5
"""Seconds for which the response to a request waits for an early callback."""
_NOTHING_TOLD: Final = (CallbackStep(),)
"""What becomes of a message whose behaviour has no callbacks."""


@dataclass(slots=True)
class TwilioCounts:
    """What happened since the start."""

    requests: int = 0
    """Requests to send a message that were read, whatever came of them."""
    taken: int = 0
    """Messages that were taken for delivery, answered or not."""
    refused: Counter[str] = field(default_factory=Counter)
    """By code; throttled and unauthorized ones are among them."""
    without_response: int = 0
    resets: int = 0
    """Connections cut, by a message's behaviour or by hand."""
    queries: int = 0
    callbacks_sent: int = 0
    """Status callbacks, each time that one was tried."""
    callbacks_resent: int = 0
    callbacks_acknowledged: int = 0
    callbacks_failed: int = 0
    """Status callbacks that were given up."""


@dataclass(slots=True, eq=False)
class TwilioMessage:
    """A message that was taken."""

    sid: str
    to: str
    sender: str
    """As the request has it: a number, a name, or empty."""
    service: str | None
    """MessagingServiceSid."""
    body: str
    segments: int
    callback_url: str | None
    validity: float
    """Seconds."""
    accepted_at: datetime
    status: MessageStatus
    error: int | None = None
    changed_at: datetime | None = None
    callbacks: list[Callback] = field(default_factory=list)
    """Those that were sent."""
    timers: set[asyncio.TimerHandle] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.changed_at = self.accepted_at

    @property
    def price(self) -> str | None:
        """As Twilio shows it: negative, and only once the message was sent."""
        if self.status in {MessageStatus.ACCEPTED, MessageStatus.QUEUED, MessageStatus.SENDING}:
            return None
        return f"{-_PRICE_OF_A_SEGMENT * self.segments:.5f}"


class _Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


class TwilioCarrier(Steered[TwilioBehaviour]):
    """A simulated Twilio in this process's event loop, steered by its methods, or by a `ControlServer`.

    It is an asynchronous context manager: started within, stopped behind.
    """

    def __init__(
        self,
        name: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        behaviour: TwilioBehaviour | None = None,
        numbers: Mapping[str, TwilioBehaviour] | None = None,
        throttle_above: int | None = None,
        test_numbers: bool = True,
        keep: int = 10_000,
    ) -> None:
        """A carrier that listens once it is started; its arguments are those of `Smsc`."""
        super().__init__(
            default=behaviour or TwilioBehaviour(),
            numbers=numbers or {},
            test_numbers=TWILIO_NUMBERS if test_numbers else {},
            throttle_above=throttle_above,
        )
        self.name = name
        self.counts = TwilioCounts()
        self._host = host
        self._keep = keep
        self._server = HttpServer(host, port, self._respond)
        self._sender = CallbackSender(name, SIMULATED_TOKEN)
        self._messages: OrderedDict[str, TwilioMessage] = OrderedDict()
        self._held: deque[tuple[TwilioMessage, CallbackStep]] = deque()
        self._down = False
        self._switching = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        # Jitter only has to be different each time, and the same in each run of a test.
        self._chance = random.Random(0)  # noqa: S311

    # Life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen for requests.

        Raises:
            OSError: the port is taken.
        """
        await self._server.start()
        await self._sender.start()

    async def stop(self) -> None:
        """End every connection, and forget what was still to be sent."""
        await self._server.close()
        for message in self._messages.values():
            _cancel_timers(message)
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._sender.stop()

    @property
    def port(self) -> int:
        """Where it listens, once it was started; the same during and after an outage."""
        return self._server.port

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return self._server.connections

    # Steering, beside what `Steered` has

    async def outage(self, *, on: bool = True) -> None:
        """Refuse connections, cutting those that there are, or come back on the same port."""
        async with self._switching:
            if on is self._down:
                return
            _log.info("outage_switched", provider=self.name, state="not_listening" if on else "up")
            if on:
                self.counts.resets += self.connections
                await self._server.stop()
            else:
                await self._server.start()
            self._down = on

    async def reset_connections(self) -> int:
        """Cut every connection with a TCP reset, and return how many there were."""
        cut = await self._server.reset_connections()
        self.counts.resets += cut
        return cut

    def release_receipts(self, *, newest_first: bool = False) -> int:
        """Send the callbacks that were held, and return how many."""
        held = list(reversed(self._held)) if newest_first else list(self._held)
        self._held.clear()
        for message, step in held:
            self._call(message, step)
        return len(held)

    # What it got

    @property
    def messages(self) -> list[TwilioMessage]:
        """The last messages that it took, oldest first."""
        return list(self._messages.values())

    @property
    def held(self) -> int:
        """Callbacks that wait for `release_receipts`."""
        return len(self._held)

    @property
    def down(self) -> bool:
        return self._down

    def duplicates(self) -> int:
        """How many kept messages came more than once: equal sender, recipient and text."""
        seen = Counter((each.sender, each.to, each.body) for each in self._messages.values())
        return sum(seen.values()) - len(seen)

    def forget(self) -> None:
        """Empty the list of messages. Counts go on, and callbacks still come."""
        self._messages.clear()

    async def until(self, condition: Callable[[], bool], *, within: float = 10) -> None:
        """Wait until something is so.

        Raises:
            TimeoutError: it was not so `within` so many seconds; says what was counted.
        """
        end = time.monotonic() + within
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"not so after {within:g} s; counted: {self.counts}")
            await asyncio.sleep(_GLANCE)

    # Requests

    async def _respond(self, request: HttpRequest) -> HttpResponse | NoResponse:
        try:
            return await self._do(request)
        except _Refused as refused:
            self.counts.refused[str(refused.code)] += 1
            return _problem(refused.code)

    async def _do(self, request: HttpRequest) -> HttpResponse | NoResponse:
        if not _is_authorized(request):
            raise _Refused(20003)
        path = request.target.partition("?")[0]
        if request.method == "POST" and path == f"{_PATH}.json":
            return await self._create(request)
        found = _MESSAGE.fullmatch(path)
        if request.method == "GET" and found:
            return self._show(found[1])
        raise _Refused(20404)

    def _show(self, sid: str) -> HttpResponse:
        self.counts.queries += 1
        message = self._messages.get(sid)
        if message is None:
            raise _Refused(20404)
        return _json(200, _resource(message))

    async def _create(self, request: HttpRequest) -> HttpResponse | NoResponse:
        self.counts.requests += 1
        if self._throttles():
            raise _Refused(20429)
        message = _read(request)
        behaviour = self.behaviour_for(message.to)
        response = self._next_response(digits_of(message.to), behaviour)
        taken = response is Response.ACCEPT or (behaviour.taken and response is not Response.REFUSE)
        accepted = _json(201, _resource(message))
        if taken:
            self._take(message)
            await self._call_early(message, behaviour)
        if behaviour.latency:
            await asyncio.sleep(behaviour.latency)
        if taken:
            self._schedule(message, behaviour)
        match response:
            case Response.ACCEPT:
                return accepted
            case Response.REFUSE:
                raise _Refused(behaviour.code)
            case Response.SILENCE:
                self.counts.without_response += 1
                return NoResponse.SILENCE
            case Response.RESET:
                self.counts.without_response += 1
                self.counts.resets += 1
                return NoResponse.RESET
            case never:
                assert_never(never)

    def _take(self, message: TwilioMessage) -> None:
        self.counts.taken += 1
        self._messages[message.sid] = message
        if len(self._messages) > self._keep:
            self._messages.popitem(last=False)

    # What becomes of a message

    async def _call_early(self, message: TwilioMessage, behaviour: TwilioBehaviour) -> None:
        for step in behaviour.callbacks:
            if step.early:
                self._reach(message, step)
                for callback in self._call_or_hold(message, step, behaviour):
                    try:
                        await asyncio.wait_for(callback.done.wait(), _EARLY_HEAD_START)
                    except TimeoutError:
                        break

    def _schedule(self, message: TwilioMessage, behaviour: TwilioBehaviour) -> None:
        """Do what is not early, none of it after the validity: a message without an end then expires."""
        steps = behaviour.callbacks or _NOTHING_TOLD
        ended = any(step.early and step.status.is_final for step in steps)
        for step in steps:
            if step.early:
                continue
            after = step.after + self._chance.uniform(0, behaviour.receipt_jitter)
            if after <= message.validity:
                ended = ended or step.status.is_final
                self._later(message, after, step, behaviour)
        if not ended:
            expired = CallbackStep(status=MessageStatus.FAILED, error=EXPIRED_IN_QUEUE)
            self._later(message, message.validity, expired, behaviour)

    def _later(
        self, message: TwilioMessage, after: float, step: CallbackStep, behaviour: TwilioBehaviour
    ) -> None:
        def due() -> None:
            message.timers.discard(timer)
            self._reach(message, step)
            if behaviour.callbacks:
                self._call_or_hold(message, step, behaviour)

        timer = asyncio.get_running_loop().call_later(after, due)
        message.timers.add(timer)

    def _reach(self, message: TwilioMessage, step: CallbackStep) -> None:
        if not message.status.is_final:
            message.status = step.status
            message.error = step.error
            message.changed_at = datetime.now(UTC)

    def _call_or_hold(
        self, message: TwilioMessage, step: CallbackStep, behaviour: TwilioBehaviour
    ) -> list[Callback]:
        if message.callback_url is None:
            return []
        if behaviour.hold:
            self._held.extend((message, step) for _ in range(step.copies))
            return []
        return [self._call(message, step) for _ in range(step.copies)]

    def _call(self, message: TwilioMessage, step: CallbackStep) -> Callback:
        callback = Callback(step.status)
        message.callbacks.append(callback)
        task = asyncio.create_task(self._send(message, step, callback))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return callback

    async def _send(self, message: TwilioMessage, step: CallbackStep, callback: Callback) -> None:
        fields = {
            "MessageSid": message.sid,
            "SmsSid": message.sid,
            "MessageStatus": step.status.value,
            "SmsStatus": step.status.value,
            "To": message.to,
            "From": message.sender,
            "AccountSid": SIMULATED_ACCOUNT,
            "ApiVersion": "2010-04-01",
        }
        if message.service is not None:
            fields["MessagingServiceSid"] = message.service
        if step.error is not None:
            fields["ErrorCode"] = str(step.error)
        if step.status.is_final:
            fields["RawDlrDoneDate"] = f"{datetime.now(UTC):%y%m%d%H%M}"
        assert message.callback_url is not None  # noqa: S101 - see _call_or_hold
        await self._sender.send(callback, message.callback_url, fields)
        self.counts.callbacks_sent += callback.tries
        self.counts.callbacks_resent += max(0, callback.tries - 1)
        self.counts.callbacks_acknowledged += callback.acknowledged
        self.counts.callbacks_failed += not callback.acknowledged


def _cancel_timers(message: TwilioMessage) -> None:
    for timer in message.timers:
        timer.cancel()
    message.timers.clear()


def _is_authorized(request: HttpRequest) -> bool:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        return b64decode(given, validate=True).decode() == f"{SIMULATED_ACCOUNT}:{SIMULATED_TOKEN}"
    except ValueError:
        return False


def _read(request: HttpRequest) -> TwilioMessage:
    try:
        fields = dict(parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        fields = {}
    code = _mistake(fields)
    if code is not None:
        raise _Refused(code)
    service = fields.get("MessagingServiceSid") or None
    return TwilioMessage(
        sid=f"SM{uuid.uuid4().hex}",
        to=fields["To"],
        sender=fields.get("From", ""),
        service=service,
        body=fields["Body"],
        segments=segment(fields["Body"], smart=fields.get("SmartEncoded") == "true").segments,
        callback_url=fields.get("StatusCallback") or None,
        validity=float(fields.get("ValidityPeriod", _LONGEST_VALIDITY)),
        accepted_at=datetime.now(UTC),
        status=MessageStatus.ACCEPTED if service else MessageStatus.QUEUED,
    )


def _mistake(fields: Mapping[str, str]) -> int | None:
    """The code for the first mistake in a request to send a message."""
    to, body, callback = fields.get("To"), fields.get("Body"), fields.get("StatusCallback")
    validity = fields.get("ValidityPeriod", "1")
    if not to:
        return 21604
    if not _NUMBER.fullmatch(to):
        return 21211
    if not (fields.get("From") or fields.get("MessagingServiceSid")):
        return 21603
    if not body:
        return 21602
    if len(body) > _LONGEST_BODY:
        return 21617
    if callback and not is_callable(callback):
        return 21609
    if not (
        validity.isascii() and validity.isdecimal() and 1 <= int(validity) <= _LONGEST_VALIDITY
    ):
        return 21624
    return None


def _resource(message: TwilioMessage) -> dict[str, Any]:
    """The Message resource; figures are texts, as at Twilio."""
    chosen = message.status is not MessageStatus.ACCEPTED
    sent = message.price is not None
    changed = message.changed_at or message.accepted_at
    return {
        "sid": message.sid,
        "account_sid": SIMULATED_ACCOUNT,
        "api_version": "2010-04-01",
        "messaging_service_sid": message.service,
        "to": message.to,
        "from": (message.sender or None) if chosen else None,
        "body": message.body,
        "status": message.status.value,
        "direction": "outbound-api",
        "num_segments": str(message.segments if chosen else 0),
        "num_media": "0",
        "price": message.price,
        "price_unit": "USD",
        "error_code": message.error,
        "error_message": None,
        "date_created": format_datetime(message.accepted_at),
        "date_updated": format_datetime(changed),
        "date_sent": format_datetime(changed) if sent else None,
        "uri": f"{_PATH}/{message.sid}.json",
    }


def _problem(code: int) -> HttpResponse:
    refusal = refusal_of(code)
    body = {
        "code": code,
        "message": refusal.message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": refusal.status,
    }
    return _json(refusal.status, body)


def _json(status: int, body: Mapping[str, Any]) -> HttpResponse:
    return HttpResponse(status, json.dumps(body).encode(), {"content-type": "application/json"})
