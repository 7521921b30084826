"""The two clients: the same calls, carried through by blocking or by awaiting.

A method stands here once for each client and says only which call it makes; its arguments, answer
and explanation are those of the function of `smsgateway.calls` that it names.
"""

import asyncio
import functools
import inspect
import platform
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, get_args

from smsgateway import calls
from smsgateway.calls import Call
from smsgateway.errors import GatewayError, UnexpectedResponse
from smsgateway.exchange import Outcome, Pause, Retries, converse
from smsgateway.models import Message, Page
from smsgateway.polling import DEFAULT_WAIT, OUTAGES, poll
from smsgateway.transport import AwaitingWire, BlockingWire
from smsgateway.version import __version__

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

DEFAULT_TIMEOUT = 30.0
"""Seconds that a try may wait for the gateway's bytes."""


def _presented(method: F, describe: Callable[..., Call[Any]]) -> F:
    """Shows `method` to `help()` and editors with the parameters of `describe` and its response."""
    described = inspect.signature(describe)
    client = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    signature = described.replace(
        parameters=[client, *described.parameters.values()],
        return_annotation=get_args(described.return_annotation)[0],
    )
    vars(method)["__signature__"] = signature
    return method


def _blocking(describe: Callable[P, Call[T]]) -> "Callable[Concatenate[Client, P], T]":
    @functools.wraps(describe)
    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.run(describe(*args, **kwargs))

    return _presented(method, describe)


def _blocking_each(
    describe: Callable[P, Call[Page[T]]],
) -> "Callable[Concatenate[Client, P], Iterator[T]]":
    @functools.wraps(describe)
    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        call: Call[Page[T]] | None = describe(*args, **kwargs)
        while call is not None:
            page = client.run(call)
            yield from page.items
            call = _following(call, page)

    return _presented(method, describe)


def _awaiting(
    describe: Callable[P, Call[T]],
) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]":
    @functools.wraps(describe)
    async def method(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client.run(describe(*args, **kwargs))

    return _presented(method, describe)


def _awaiting_each(
    describe: Callable[P, Call[Page[T]]],
) -> "Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]":
    @functools.wraps(describe)
    async def method(
        client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[T]:
        call: Call[Page[T]] | None = describe(*args, **kwargs)
        while call is not None:
            page = await client.run(call)
            for item in page.items:
                yield item
            call = _following(call, page)

    return _presented(method, describe)


class Client:
    """The gateway, asked by blocking. May be used by several threads; close it, or use `with`.

    Args:
        api: the address of the API, such as `https://sms.example.com`; `/api/v1` may follow.
        key: `sg_live_…` or `sg_test_…`, or `sg_operator_…` for accounts and configuration.
        timeout: seconds that each try may wait for the gateway's bytes.
        retries: how often and how patiently a call is tried again.
        user_agent: your program, named before this library's own name.

    Raises:
        ValueError: the address or the key cannot be one.
    """

    def __init__(
        self,
        api: str,
        key: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: Retries | None = None,
        user_agent: str | None = None,
    ) -> None:
        self._wire = BlockingWire(api, _headers(key, user_agent), timeout)
        self._retries = retries or Retries()

    @property
    def api(self) -> str:
        """The address of the API, without `/api/v1`."""
        return self._wire.address

    def run(self, call: Call[T]) -> T:
        """Carry a call through; raises a GatewayError."""
        conversation = converse(call, self.api, self._retries)
        outcome: Outcome | None = None
        while True:
            try:
                step = conversation.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                outcome = None
            else:
                outcome = self._wire.exchange(step)

    def wait(self, message_id: str, *, timeout: float = DEFAULT_WAIT) -> Message:
        """Wait until a message has ended, for at most `timeout` seconds; a look begun is finished.

        Outages of the gateway in between are outwaited.

        Raises:
            NotEnded: it has not ended in time, and goes on.
        """
        polling = poll(timeout)
        seen: Message | GatewayError | None = None
        while True:
            try:
                step = polling.send(seen)
            except StopIteration as end:
                message: Message = end.value
                return message
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                seen = None
                continue
            try:
                seen = self.message(message_id)
            except OUTAGES as error:
                seen = error

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.api!r})"

    send = _blocking(calls.send)
    preview = _blocking(calls.preview)
    message = _blocking(calls.message)
    messages = _blocking(calls.messages)
    each_message = _blocking_each(calls.messages)
    events = _blocking(calls.events)
    account_events = _blocking(calls.account_events)
    each_account_event = _blocking_each(calls.account_events)
    explain = _blocking(calls.explain)
    cancel = _blocking(calls.cancel)
    send_batch = _blocking(calls.send_batch)
    batch = _blocking(calls.batch)
    batches = _blocking(calls.batches)
    each_batch = _blocking_each(calls.batches)
    batch_results = _blocking(calls.batch_results)
    pause_batch = _blocking(calls.pause_batch)
    resume_batch = _blocking(calls.resume_batch)
    cancel_batch = _blocking(calls.cancel_batch)
    dead_letters = _blocking(calls.dead_letters)
    each_dead_letter = _blocking_each(calls.dead_letters)
    replay_dead_letters = _blocking(calls.replay_dead_letters)
    replay_dead_letter = _blocking(calls.replay_dead_letter)
    providers = _blocking(calls.providers)
    provider = _blocking(calls.provider)
    provider_addresses = _blocking(calls.provider_addresses)
    send_provider_test = _blocking(calls.send_provider_test)
    explain_provider_test = _blocking(calls.explain_provider_test)
    reparse_receipts = _blocking(calls.reparse_receipts)
    keys = _blocking(calls.keys)
    create_key = _blocking(calls.create_key)
    revoke_key = _blocking(calls.revoke_key)
    create_account = _blocking(calls.create_account)
    accounts = _blocking(calls.accounts)
    account = _blocking(calls.account)
    suspend_account = _blocking(calls.suspend_account)
    resume_account = _blocking(calls.resume_account)
    create_account_key = _blocking(calls.create_account_key)
    operator_keys = _blocking(calls.operator_keys)
    create_operator_key = _blocking(calls.create_operator_key)
    revoke_operator_key = _blocking(calls.revoke_operator_key)
    configuration = _blocking(calls.configuration)
    check_configuration = _blocking(calls.check_configuration)
    apply_configuration = _blocking(calls.apply_configuration)
    callbacks = _blocking(calls.callbacks)
    each_callback = _blocking_each(calls.callbacks)
    replay_callback = _blocking(calls.replay_callback)
    replay_callbacks = _blocking(calls.replay_callbacks)
    callback_secret = _blocking(calls.callback_secret)
    readiness = _blocking(calls.readiness)


class AsyncClient:
    """The gateway, asked by awaiting. For one event loop; close it, or use `async with`.

    Args and errors are those of `Client`.
    """

    def __init__(
        self,
        api: str,
        key: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: Retries | None = None,
        user_agent: str | None = None,
    ) -> None:
        self._wire = AwaitingWire(api, _headers(key, user_agent), timeout)
        self._retries = retries or Retries()

    @property
    def api(self) -> str:
        """The address of the API, without `/api/v1`."""
        return self._wire.address

    async def run(self, call: Call[T]) -> T:
        """Carry a call through; raises a GatewayError."""
        conversation = converse(call, self.api, self._retries)
        outcome: Outcome | None = None
        while True:
            try:
                step = conversation.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._wire.exchange(step)

    async def wait(self, message_id: str, *, timeout: float = DEFAULT_WAIT) -> Message:  # noqa: ASYNC109
        """Wait until a message has ended, for at most `timeout` seconds; a look begun is finished.

        Outages of the gateway in between are outwaited.

        Raises:
            NotEnded: it has not ended in time, and goes on.
        """
        polling = poll(timeout)
        seen: Message | GatewayError | None = None
        while True:
            try:
                step = polling.send(seen)
            except StopIteration as end:
                message: Message = end.value
                return message
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                seen = None
                continue
            try:
                seen = await self.message(message_id)
            except OUTAGES as error:
                seen = error

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.api!r})"

    send = _awaiting(calls.send)
    preview = _awaiting(calls.preview)
    message = _awaiting(calls.message)
    messages = _awaiting(calls.messages)
    each_message = _awaiting_each(calls.messages)
    events = _awaiting(calls.events)
    account_events = _awaiting(calls.account_events)
    each_account_event = _awaiting_each(calls.account_events)
    explain = _awaiting(calls.explain)
    cancel = _awaiting(calls.cancel)
    send_batch = _awaiting(calls.send_batch)
    batch = _awaiting(calls.batch)
    batches = _awaiting(calls.batches)
    each_batch = _awaiting_each(calls.batches)
    batch_results = _awaiting(calls.batch_results)
    pause_batch = _awaiting(calls.pause_batch)
    resume_batch = _awaiting(calls.resume_batch)
    cancel_batch = _awaiting(calls.cancel_batch)
    dead_letters = _awaiting(calls.dead_letters)
    each_dead_letter = _awaiting_each(calls.dead_letters)
    replay_dead_letters = _awaiting(calls.replay_dead_letters)
    replay_dead_letter = _awaiting(calls.replay_dead_letter)
    providers = _awaiting(calls.providers)
    provider = _awaiting(calls.provider)
    provider_addresses = _awaiting(calls.provider_addresses)
    send_provider_test = _awaiting(calls.send_provider_test)
    explain_provider_test = _awaiting(calls.explain_provider_test)
    reparse_receipts = _awaiting(calls.reparse_receipts)
    keys = _awaiting(calls.keys)
    create_key = _awaiting(calls.create_key)
    revoke_key = _awaiting(calls.revoke_key)
    create_account = _awaiting(calls.create_account)
    accounts = _awaiting(calls.accounts)
    account = _awaiting(calls.account)
    suspend_account = _awaiting(calls.suspend_account)
    resume_account = _awaiting(calls.resume_account)
    create_account_key = _awaiting(calls.create_account_key)
    operator_keys = _awaiting(calls.operator_keys)
    create_operator_key = _awaiting(calls.create_operator_key)
    revoke_operator_key = _awaiting(calls.revoke_operator_key)
    configuration = _awaiting(calls.configuration)
    check_configuration = _awaiting(calls.check_configuration)
    apply_configuration = _awaiting(calls.apply_configuration)
    callbacks = _awaiting(calls.callbacks)
    each_callback = _awaiting_each(calls.callbacks)
    replay_callback = _awaiting(calls.replay_callback)
    replay_callbacks = _awaiting(calls.replay_callbacks)
    callback_secret = _awaiting(calls.callback_secret)
    readiness = _awaiting(calls.readiness)


def _headers(key: str, user_agent: str | None) -> Mapping[str, str]:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("A key is visible ASCII without spaces: give it as it was shown.")
    own = f"smsgateway-python/{__version__} python/{platform.python_version()}"
    return {
        "Authorization": f"Bearer {key}",
        "Accept": "application/json, application/problem+json",
        "User-Agent": f"{user_agent} {own}" if user_agent else own,
    }


def _following(call: Call[Page[T]], page: Page[T]) -> Call[Page[T]] | None:
    if page.next_cursor is None:
        return None
    if page.next_cursor == call.query.get("cursor"):
        raise UnexpectedResponse("The gateway gave the same page twice: the listing has no end.")
    return call.at(page.next_cursor)
