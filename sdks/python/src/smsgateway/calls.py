"""Every request that the API understands, described once, for both clients.

Each function says what to ask and how to read the response, and does nothing: a `Call` is a value.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from http import HTTPStatus
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError

from smsgateway.errors import UnexpectedResponse
from smsgateway.models import (
    Accepted,
    AcceptedBatch,
    Account,
    AccountEvent,
    AppliedConfiguration,
    Batch,
    Callback,
    CallbackSecret,
    CallbackState,
    Configuration,
    ConfigurationCheck,
    CreatedKey,
    CreatedOperatorKey,
    Environment,
    Event,
    Explanation,
    Key,
    Message,
    MessageStatus,
    MissingReceipt,
    Mode,
    OperatorKey,
    Page,
    Preview,
    Priority,
    Provider,
    ProviderAddresses,
    Readiness,
    ReparsedReceipts,
    Replayed,
    ReplayedCallbacks,
)

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_MESSAGES = "/api/v1/sms"
_BATCHES = f"{_MESSAGES}/batches"
_DEAD_LETTERS = "/api/v1/dead-letters"
_PROVIDERS = "/api/v1/providers"
_KEYS = "/api/v1/keys"
_ACCOUNTS = "/api/v1/accounts"
_OPERATOR_KEYS = "/api/v1/operator-keys"
_CONFIGURATION = "/api/v1/config"
_EVENTS = "/api/v1/events"
_CALLBACKS = "/api/v1/callbacks"
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_JSON = TypeAdapter(dict[str, Any])


class FreshKey(Enum):
    """Asks for an idempotency key that nobody has used."""

    KEY = "a fresh key"


FRESH_KEY = FreshKey.KEY


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response; the names of the headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> dict[str, Any]:
        """The members of the JSON object in the body; raises ValidationError if it is none."""
        return _JSON.validate_json(self.body)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and how its response is read.

    Attributes:
        repeatable: doing it twice does no more than doing it once, so that it may be sent again
            when the response to it was lost.
        in_flight: 409 says that an earlier try of this very request is still at work.
        answers: statuses beside 2xx that are answers and not refusals.
    """

    method: str
    path: str
    read: Callable[[Response], T]
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    repeatable: bool = False
    in_flight: bool = False
    responses: frozenset[int] = frozenset()

    def at(self, cursor: str) -> "Call[T]":
        """The same call for the page that begins at `cursor`."""
        return replace(self, query={**self.query, "cursor": cursor})


def send(
    *,
    to: str,
    sender: str,
    body: str,
    mode: Mode | str | None = None,
    priority: Priority | str | None = None,
    callback_url: str | None = None,
    validity_period: int | None = None,
    receipt_deadline: int | None = None,
    missing_receipt: MissingReceipt | str | None = None,
    scheduled_at: datetime | None = None,
    metadata: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    smart_encoding: bool | None = None,
    idempotency_key: str | FreshKey | None = FRESH_KEY,
) -> Call[Accepted]:
    """Hand over a message; once this returns, the gateway does not lose it.

    What is not given is decided by the gateway.

    Args:
        to: the recipient's number, E.164.
        sender: the sender ID.
        body: the text.
        mode: what the message is for; `transactional` if not given.
        priority: by default the mode's.
        callback_url: receives the message's status callbacks.
        validity_period: seconds after which it is not to be delivered any more.
        receipt_deadline: seconds after which a provider that sent no receipt is given up. By
            default the mode's.
        missing_receipt: what happens then: the next provider gets it, or it expires. By default
            the mode's: alerts and verifications go to the next provider.
        scheduled_at: when to send it, with its offset; at most 35 days ahead.
        metadata: up to 20 pairs of your own, given back with the message.
        parameters: what the provider is given beside the text, by name, such as the ids of a registered
            template.
        smart_encoding: whether characters that would make the message longer may be replaced by
            ones that look alike.
        idempotency_key: 1 to 255 visible ASCII characters; two requests with the same key are one
            message. Made afresh unless given, which makes it safe to send again when a response
            is lost; with None that is not done.
    """
    content = _given(
        to=to,
        body=body,
        mode=mode,
        priority=priority,
        callback_url=callback_url,
        validity_period=validity_period,
        receipt_deadline=receipt_deadline,
        missing_receipt=missing_receipt,
        scheduled_at=_moment(scheduled_at),
        metadata=None if metadata is None else dict(metadata),
        parameters=None if parameters is None else dict(parameters),
        smart_encoding=smart_encoding,
    )
    call = _post(f"{_MESSAGES}/send", _kept(Accepted), {**content, "from": sender})
    return _keyed(call, idempotency_key)


def preview(
    *,
    to: str,
    sender: str,
    body: str,
    mode: Mode | str | None = None,
    priority: Priority | str | None = None,
    callback_url: str | None = None,
    validity_period: int | None = None,
    receipt_deadline: int | None = None,
    missing_receipt: MissingReceipt | str | None = None,
    scheduled_at: datetime | None = None,
    metadata: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    smart_encoding: bool | None = None,
) -> Call[Preview]:
    """Validate a message as `send` would, without sending it: its encoding, segments and route.

    The arguments are those of `send`; what `send` would refuse is ValidationFailed.
    """
    sending = send(
        to=to,
        sender=sender,
        body=body,
        mode=mode,
        priority=priority,
        callback_url=callback_url,
        validity_period=validity_period,
        receipt_deadline=receipt_deadline,
        missing_receipt=missing_receipt,
        scheduled_at=scheduled_at,
        metadata=metadata,
        parameters=parameters,
        smart_encoding=smart_encoding,
        idempotency_key=None,
    )
    return Call(
        sending.method,
        f"{_MESSAGES}/preview",
        _model(Preview),
        headers=sending.headers,
        body=sending.body,
        repeatable=True,
    )


def message(message_id: str) -> Call[Message]:
    """A message as it stands."""
    return _get(f"{_MESSAGES}/{_segment(message_id)}", _model(Message))


def messages(
    *,
    status: MessageStatus | str | None = None,
    mode: Mode | str | None = None,
    to: str | None = None,
    sender: str | None = None,
    provider: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[Page[Message]]:
    """Messages, the newest first; `limit` is at most 200 a page."""
    query = {
        **_given(status=status, mode=mode, to=to, provider=provider, limit=limit, cursor=cursor),
        **_given(since=_moment(since), until=_moment(until)),
        **({} if sender is None else {"from": sender}),
    }
    return _get(_MESSAGES, _model(Page[Message]), query)


def events(message_id: str) -> Call[tuple[Event, ...]]:
    """All that happened to a message, in order."""
    return _get(f"{_MESSAGES}/{_segment(message_id)}/events", _items(Event))


def account_events(
    *,
    status: MessageStatus | str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[Page[AccountEvent]]:
    """The events of all messages since a time, the oldest first; by default of the last minute."""
    query = _given(status=status, since=_moment(since), limit=limit, cursor=cursor)
    return _get(_EVENTS, _model(Page[AccountEvent]), query)


def explain(message_id: str) -> Call[Explanation]:
    """All that is known of a message: attempts, parts, receipts, events, callbacks, and why."""
    return _get(f"{_MESSAGES}/{_segment(message_id)}/explain", _model(Explanation))


def cancel(message_id: str) -> Call[Message]:
    """Stop a message where that is still possible.

    The response says whether it is `canceled` already, or only `cancel_requested` because a provider
    has it. One that has ended is a Conflict.
    """
    return _post(f"{_MESSAGES}/{_segment(message_id)}/cancel", _model(Message))


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a batch.

    Attributes:
        to: the number, E.164.
        variables: what stands in the places of the batch's text, by name.
        body: a text of its own, taken as it is, in place of the batch's.
        metadata: up to 20 pairs of your own, given back with the message.
    """

    to: str
    variables: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As it stands in a request."""
        return {
            "to": self.to,
            **({"variables": dict(self.variables)} if self.variables else {}),
            **({} if self.body is None else {"body": self.body}),
            **({"metadata": dict(self.metadata)} if self.metadata else {}),
        }


def send_batch(
    *,
    sender: str,
    recipients: Iterable[Recipient],
    body: str | None = None,
    mode: Mode | str | None = None,
    priority: Priority | str | None = None,
    callback_url: str | None = None,
    validity_period: int | None = None,
    receipt_deadline: int | None = None,
    missing_receipt: MissingReceipt | str | None = None,
    scheduled_at: datetime | None = None,
    parameters: Mapping[str, str] | None = None,
    smart_encoding: bool | None = None,
    idempotency_key: str | FreshKey | None = FRESH_KEY,
) -> Call[AcceptedBatch]:
    """Hand over up to 10,000 messages; those that can be sent are accepted together.

    A recipient that cannot be sent to is refused with its reason (see `results`), and the others go
    on; if none is left, it is ValidationFailed. What is not given is decided by the gateway.

    Args:
        sender: the sender ID.
        recipients: 1 to 10,000.
        body: the text; `{name}` is a place for each recipient's variable of that name, `{{` and
            `}}` stand for braces. Not needed where each recipient has a text of its own.
        mode: what the messages are for; `transactional` if not given.
        priority: by default the mode's.
        callback_url: receives the status callbacks of each message.
        validity_period: seconds after which they are not to be delivered any more.
        receipt_deadline: seconds after which a provider that sent no receipt is given up. By
            default the mode's.
        missing_receipt: what happens then: the next provider gets it, or it expires. By default
            the mode's: alerts and verifications go to the next provider.
        scheduled_at: when to send them, with its offset; at most 35 days ahead.
        parameters: what the provider is given beside the text of each message, by name.
        smart_encoding: whether characters that would make a message longer may be replaced by ones
            that look alike.
        idempotency_key: 1 to 255 visible ASCII characters; two requests with the same key are one
            batch. Made afresh unless given, which makes it safe to send again when a response is
            lost; with None that is not done.
    """
    content = _given(
        body=body,
        mode=mode,
        priority=priority,
        callback_url=callback_url,
        validity_period=validity_period,
        receipt_deadline=receipt_deadline,
        missing_receipt=missing_receipt,
        scheduled_at=_moment(scheduled_at),
        parameters=None if parameters is None else dict(parameters),
        smart_encoding=smart_encoding,
    )
    content |= {"from": sender, "recipients": [each.as_json() for each in recipients]}
    return _keyed(_post(_BATCHES, _kept(AcceptedBatch), content), idempotency_key)


def batch(batch_id: str) -> Call[Batch]:
    """A batch as it stands, with exact counts of its messages."""
    return _get(f"{_BATCHES}/{_segment(batch_id)}", _model(Batch))


def batches(*, limit: int | None = None, cursor: str | None = None) -> Call[Page[Batch]]:
    """Batches, the newest first; `limit` is at most 200 a page."""
    return _get(_BATCHES, _model(Page[Batch]), _given(limit=limit, cursor=cursor))


def batch_results(batch_id: str) -> Call[AcceptedBatch]:
    """What `send_batch` answered, once more: a message or a refusal for each recipient."""
    return _get(f"{_BATCHES}/{_segment(batch_id)}/results", _model(AcceptedBatch))


def pause_batch(batch_id: str) -> Call[Batch]:
    """Let nothing more of a batch leave until it is resumed; a canceled one is a Conflict."""
    return _steering(batch_id, "pause")


def resume_batch(batch_id: str) -> Call[Batch]:
    """Let a paused batch go on where it was; a canceled one is a Conflict."""
    return _steering(batch_id, "resume")


def cancel_batch(batch_id: str) -> Call[Batch]:
    """End every message of a batch that no provider has; what was sent already cannot be taken back."""
    return _steering(batch_id, "cancel")


def dead_letters(
    *, provider: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Call[Page[Message]]:
    """Messages that were set aside because nothing was left to try."""
    query = _given(provider=provider, limit=limit, cursor=cursor)
    return _get(_DEAD_LETTERS, _model(Page[Message]), query)


def replay_dead_letters(
    *,
    message_ids: Iterable[str] | None = None,
    provider: str | None = None,
    limit: int | None = None,
) -> Call[Replayed]:
    """Send dead letters again: those named, or those of a provider, or as many as there are.

    `limit` bounds how many that are not named are taken, the oldest first: 100 if not given, 1000
    at most.
    """
    ids = None if message_ids is None else list(message_ids)
    return _post(
        f"{_DEAD_LETTERS}/replay",
        _model(Replayed),
        _given(message_ids=ids, provider=provider, limit=limit),
    )


def replay_dead_letter(message_id: str) -> Call[Message]:
    """Send one dead letter again; one that is none (any more) is a Conflict."""
    return _post(f"{_DEAD_LETTERS}/{_segment(message_id)}/replay", _model(Message))


def providers() -> Call[tuple[Provider, ...]]:
    """All providers and their health."""
    return _get(_PROVIDERS, _items(Provider))


def provider(name: str) -> Call[Provider]:
    """One provider and its health."""
    return _get(f"{_PROVIDERS}/{_segment(name)}", _model(Provider))


def provider_addresses(name: str) -> Call[ProviderAddresses]:
    """Where a provider reports to the gateway, for an operator. An address contains a secret."""
    return _get(f"{_PROVIDERS}/{_segment(name)}/addresses", _model(ProviderAddresses))


def send_provider_test(
    name: str,
    *,
    to: str,
    sender: str | None = None,
    body: str | None = None,
    account_id: str | None = None,
    idempotency_key: str | FreshKey | None = FRESH_KEY,
) -> Call[Accepted]:
    """Send one message through a provider, whatever the routes say; for an operator.

    Args:
        name: the provider.
        to: the recipient's number, E.164.
        sender: the sender ID. By default the first that the configuration names for the account.
        body: the text; by default one that says that it is a test.
        account_id: the account that the message belongs to. By default the only one there is.
        idempotency_key: as for `send`.
    """
    content = _given(to=to, body=body, account_id=account_id)
    if sender is not None:
        content["from"] = sender
    return _keyed(
        _post(f"{_PROVIDERS}/{_segment(name)}/tests", _kept(Accepted), content), idempotency_key
    )


def explain_provider_test(name: str, message_id: str) -> Call[Explanation]:
    """All that is known of a test of a provider, for an operator."""
    path = f"{_PROVIDERS}/{_segment(name)}/tests/{_segment(message_id)}"
    return _get(path, _model(Explanation))


def reparse_receipts(name: str, *, after: int | None = None) -> Call[ReparsedReceipts]:
    """Parse 500 receipts of a provider again that could not be parsed when they came.

    The configuration in force says how. `after` is the `next_after` of the call before.
    """
    call = _post(f"{_PROVIDERS}/{_segment(name)}/receipts/reparse", _model(ReparsedReceipts))
    query = {name: str(value) for name, value in _given(after=after).items()}
    return replace(call, query=query, repeatable=True)


def keys() -> Call[tuple[Key, ...]]:
    """The account's keys, without their secrets."""
    return _get(_KEYS, _items(Key))


def create_key(
    *,
    name: str,
    environment: Environment | str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
) -> Call[CreatedKey]:
    """Make a key; the response is the only place where its secret ever stands."""
    content = _new_key(name, environment, scopes, expires_at)
    return _post(_KEYS, _model(CreatedKey), content)


def revoke_key(key_id: str) -> Call[None]:
    """Make a key worthless, at once and for good."""
    return Call("DELETE", f"{_KEYS}/{_segment(key_id)}", _nothing)


def create_account(name: str) -> Call[Account]:
    """Create an account, which has no key yet; for operators, as all calls about accounts."""
    return _post(_ACCOUNTS, _model(Account), {"name": name})


def accounts() -> Call[tuple[Account, ...]]:
    """All accounts, the oldest first."""
    return _get(_ACCOUNTS, _items(Account))


def account(account_id: str) -> Call[Account]:
    """An account."""
    return _get(f"{_ACCOUNTS}/{_segment(account_id)}", _model(Account))


def suspend_account(account_id: str) -> Call[Account]:
    """Refuse whatever would send for an account; its keys still read and cancel."""
    call = _post(f"{_ACCOUNTS}/{_segment(account_id)}/suspend", _model(Account))
    return replace(call, repeatable=True)


def resume_account(account_id: str) -> Call[Account]:
    """Let a suspended account send again."""
    call = _post(f"{_ACCOUNTS}/{_segment(account_id)}/resume", _model(Account))
    return replace(call, repeatable=True)


def create_account_key(
    account_id: str,
    *,
    name: str,
    environment: Environment | str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
) -> Call[CreatedKey]:
    """Make a key of an account, such as its first; its secret stands in this response only."""
    content = _new_key(name, environment, scopes, expires_at)
    return _post(f"{_ACCOUNTS}/{_segment(account_id)}/keys", _model(CreatedKey), content)


def operator_keys() -> Call[tuple[OperatorKey, ...]]:
    """The keys of operators, without their secrets."""
    return _get(_OPERATOR_KEYS, _items(OperatorKey))


def create_operator_key(
    *, name: str, scopes: Iterable[str], expires_at: datetime | None = None
) -> Call[CreatedOperatorKey]:
    """Make a key for an operator; its secret stands in this response only."""
    content = _given(name=name, scopes=list(scopes), expires_at=_moment(expires_at))
    return _post(_OPERATOR_KEYS, _model(CreatedOperatorKey), content)


def revoke_operator_key(key_id: str) -> Call[None]:
    """Make an operator's key worthless, at once and for good."""
    return Call("DELETE", f"{_OPERATOR_KEYS}/{_segment(key_id)}", _nothing)


def configuration() -> Call[Configuration]:
    """The configuration in force."""
    return _get(_CONFIGURATION, _model(Configuration))


def check_configuration(content: str) -> Call[ConfigurationCheck]:
    """What is wrong with a configuration (TOML), if anything; it changes nothing."""
    call = _toml(f"{_CONFIGURATION}/check", _model(ConfigurationCheck), content)
    return replace(call, repeatable=True)


def apply_configuration(content: str) -> Call[AppliedConfiguration]:
    """Put a configuration (TOML) into force; one with mistakes is ValidationFailed."""
    return _toml(f"{_CONFIGURATION}/apply", _model(AppliedConfiguration), content)


def callbacks(
    *,
    state: CallbackState | str | None = None,
    message_id: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[Page[Callback]]:
    """The account's callbacks, delivered or not; the newest first."""
    query = _given(state=state, message_id=message_id, limit=limit, cursor=cursor)
    return _get(_CALLBACKS, _model(Page[Callback]), query)


def replay_callback(callback_id: str) -> Call[None]:
    """Replay a callback: deliver it once more, whatever its state."""
    return _post(f"{_CALLBACKS}/{_segment(callback_id)}/replay", _nothing)


def replay_callbacks(
    *, state: CallbackState | str | None = None, limit: int | None = None
) -> Call[ReplayedCallbacks]:
    """Replay the failed callbacks, the oldest first, at most `limit`."""
    return _post(
        f"{_CALLBACKS}/replay", _model(ReplayedCallbacks), _given(state=state, limit=limit)
    )


def callback_secret() -> Call[CallbackSecret]:
    """The secret that `verify_callback` needs."""
    return _get(f"{_CALLBACKS}/secret", _model(CallbackSecret))


def readiness() -> Call[Readiness]:
    """Whether the gateway can accept messages; needs no key. Not being ready is a response."""
    return replace(_get("/readyz", _ready), responses=frozenset({503}))


def _get(
    path: str, read: Callable[[Response], T], query: Mapping[str, Any] | None = None
) -> Call[T]:
    texts = {name: str(value) for name, value in (query or {}).items()}
    return Call("GET", path, read, query=texts, repeatable=True)


def _post(
    path: str, read: Callable[[Response], T], content: Mapping[str, Any] | None = None
) -> Call[T]:
    if content is None:
        return Call("POST", path, read)
    return Call(
        "POST",
        path,
        read,
        headers={"Content-Type": "application/json"},
        body=json.dumps(content, ensure_ascii=False).encode(),
    )


def _steering(batch_id: str, what: str) -> Call[Batch]:
    """Says where a batch is to be, and not what is to be changed: twice is as good as once."""
    call = _post(f"{_BATCHES}/{_segment(batch_id)}/{what}", _model(Batch))
    return replace(call, repeatable=True)


def _keyed(call: Call[T], idempotency_key: str | FreshKey | None) -> Call[T]:
    """The call with its idempotency key, which makes it repeatable; with None it is left alone."""
    if idempotency_key is None:
        return call
    key = uuid.uuid4().hex if isinstance(idempotency_key, FreshKey) else idempotency_key
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise ValueError("An idempotency key is 1 to 255 visible ASCII characters.")
    headers = {**call.headers, "Idempotency-Key": key}
    return replace(call, headers=headers, repeatable=True, in_flight=True)


def _toml(path: str, read: Callable[[Response], T], content: str) -> Call[T]:
    headers = {"Content-Type": "application/toml"}
    return Call("POST", path, read, headers=headers, body=content.encode())


def _new_key(
    name: str, environment: Environment | str, scopes: Iterable[str], expires_at: datetime | None
) -> dict[str, Any]:
    return _given(
        name=name,
        environment=environment,
        scopes=list(scopes),
        expires_at=_moment(expires_at),
    )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _moment(at: datetime | None) -> str | None:
    """RFC 3339; a time without its offset could be meant anywhere."""
    if at is None:
        return None
    if at.utcoffset() is None:
        raise ValueError("A time needs its offset from UTC: datetime(..., tzinfo=UTC).")
    return at.isoformat()


def _segment(text: str) -> str:
    """An id or name as one segment of a path; an empty one would ask for something else."""
    if text in {"", ".", ".."}:
        raise ValueError("An id or name must not be empty, nor consist of dots.")
    return quote(text, safe="")


def _parsed(response: Response, model: type[M], **more: Any) -> M:
    try:
        return model.model_validate({**response.json(), **more})
    except ValidationError as error:
        where = ", ".join(sorted({_place(problem["loc"]) for problem in error.errors()}))
        # The cause would quote the response, and with it numbers and bodies.
        raise UnexpectedResponse(
            f"The response ({response.status}) is not what the gateway's API promises, in: {where}. "
            "Either the address is not the API's, or this client is too old for it."
        ) from None


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(step) for step in location) or "the whole document"


def _model(model: type[M]) -> Callable[[Response], M]:
    return lambda response: _parsed(response, model)


def _items(model: type[M]) -> Callable[[Response], tuple[M, ...]]:
    page = Page[model]  # type: ignore[valid-type]  # made from a value, which types cannot say
    return lambda response: _parsed(response, page).items


def _nothing(_: Response) -> None:
    return None


def _kept(model: type[M]) -> Callable[[Response], M]:
    """Reads what stands in the body, and in a header whether it had been done before."""
    return lambda response: _parsed(
        response, model, replayed=response.headers.get("idempotency-replayed", "").lower() == "true"
    )


def _ready(response: Response) -> Readiness:
    return _parsed(response, Readiness, ready=response.status == HTTPStatus.OK)
