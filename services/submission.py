"""What is asked for, and whether it can be done: the same for one message, a group, and a batch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

from domain.callbacks.urls import InvalidCallbackUrl, check_url, origin_of
from domain.configuration import Environment
from domain.encoding import NotEncodable
from domain.ids import IdPrefix, public_id
from domain.modes import MissingReceiptPolicy, Mode, Priority
from domain.numbers import InvalidNumber, Number, parse_number
from domain.segments import Segmented, TooManyParts, UnsendableText, segment
from domain.senders import InvalidSender, Sender, parse_sender
from domain.states import MessageStatus
from domain.substitutions import Replacement
from domain.values import value
from services.configuration import Configurations
from store import callbacks as callback_store
from store import idempotency
from store.bulk_messages import NewKind
from store.bulks import IdRange
from store.database import Connection
from store.idempotency import Key
from telemetry.tracing import current_traceparent

SHORTEST_VALIDITY = timedelta(seconds=5)
LONGEST_VALIDITY = timedelta(days=3)
SHORTEST_RECEIPT_DEADLINE = timedelta(seconds=5)
KEY_LIFE = timedelta(hours=24)
"""How long an idempotency key is remembered."""


API_NAMESPACE: Final = "api"
"""Of the idempotency keys that accounts give with their requests."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: an account in one environment, by one of its keys or by a part of the gateway.

    Attributes:
        key_id: names the caller in events and logs; for a part of the gateway its name.
        namespace: of the idempotency keys that this caller gives.
    """

    account_id: str
    environment: Environment
    key_id: str
    scopes: frozenset[str] = frozenset()
    is_suspended: bool = False
    namespace: str = API_NAMESPACE

    @classmethod
    def internal(cls, name: str, account_id: str, environment: Environment) -> Self:
        """A part of the gateway that sends for an account, such as a workflow.

        Its idempotency keys are its own: they never collide with those of the account's requests, or
        of another part.

        Raises:
            ValueError: the name is that of the API's callers, or is empty.
        """
        if name in {"", API_NAMESPACE}:
            raise ValueError(f"a part of the gateway is not called {name!r}: give it its own name")
        return cls(account_id, environment, key_id=name, namespace=name)

    def idempotency_key(self, key: str) -> Key:
        """A key that this caller gives, as it is kept."""
        return Key(self.account_id, self.environment.value, self.namespace, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedOptions:
    """What may be asked for many recipients alike; None where the mode or the account decides."""

    sender: str
    mode: Mode = Mode.TRANSACTIONAL
    priority: Priority | None = None
    callback_url: str | None = None
    validity: timedelta | None = None
    receipt_deadline: timedelta | None = None
    missing_receipt: MissingReceiptPolicy | None = None
    scheduled_at: datetime | None = None
    smart_encoding: bool = True
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCommand(RequestedOptions):
    """A message as it is asked for.

    `listener` is the id of a workflow that is signalled each final status (`workflows.ports.listener`).
    `only_provider` sends it through this provider and no other, without a look at routes, and without
    the account's callbacks: an operator's test (`services.provider_tests`). Only internal callers give
    either; sending by the API has no field for them.
    """

    to: str
    body: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    listener: str | None = None
    only_provider: str | None = None

    def digest(self) -> bytes:
        """What makes two requests the same request."""
        content = {
            "to": self.to,
            "from": self.sender,
            "body": self.body,
            "mode": self.mode,
            "priority": self.priority,
            "callback_url": self.callback_url,
            "validity": self.validity.total_seconds() if self.validity else None,
            "scheduled_at": self.scheduled_at.isoformat() if self.scheduled_at else None,
            "metadata": dict(self.metadata),
            "smart_encoding": self.smart_encoding,
            "receipt_deadline": (
                self.receipt_deadline.total_seconds() if self.receipt_deadline else None
            ),
            "missing_receipt": self.missing_receipt,
            "listener": self.listener,
            "only_provider": self.only_provider,
            "parameters": dict(self.parameters),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that was accepted; `replayed` if by an earlier request with the same key."""

    message_id: str
    status: MessageStatus
    encoding: str
    segments: int
    replacements: tuple[Replacement, ...]
    warnings: tuple[str, ...]
    replayed: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it is kept for a repeated request."""
        return {
            "message_id": self.message_id,
            "status": self.status.value,
            "encoding": self.encoding,
            "segments": self.segments,
            "replacements": [[r.character, r.replacement, r.count] for r in self.replacements],
            "warnings": list(self.warnings),
        }

    @classmethod
    def again(cls, stored: Mapping[str, Any]) -> Self:
        """What was answered before."""
        return cls(
            message_id=stored["message_id"],
            status=MessageStatus(stored["status"]),
            encoding=stored["encoding"],
            segments=stored["segments"],
            replacements=tuple(Replacement(*parts) for parts in stored["replacements"]),
            warnings=tuple(stored["warnings"]),
            replayed=True,
        )


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request, in a sentence that never repeats its value."""

    field: str
    reason: str
    sentence: str


class Refused(Exception):
    """A request that cannot become a message; `more` faults than those of `errors` were found."""

    def __init__(self, errors: Sequence[FieldError], more: int = 0) -> None:
        super().__init__("; ".join(error.sentence for error in errors))
        self.errors = errors
        self.more = more


class KeyInFlight(Exception):
    """Another request with the same idempotency key is being accepted at this moment."""


class KeyReused(Exception):
    """The idempotency key was used before, for another request."""


@dataclass(frozen=True, slots=True)
class MessageOptions:
    """What was found good of a command and holds for all its recipients alike."""

    sender: Sender
    mode: Mode
    priority: Priority
    callback_url: str | None
    callback_final_only: bool
    validity: timedelta
    receipt_deadline: timedelta | None
    missing_receipt: MissingReceiptPolicy | None
    scheduled_at: datetime | None
    max_segments: int


async def callback_lane(
    connection: Connection, caller: Caller, options: MessageOptions
) -> UUID | None:
    """The lane of the callbacks of these messages, which may be new; None without a URL."""
    if options.callback_url is None:
        return None
    return await callback_store.lane(connection, caller.account_id, origin_of(options.callback_url))


def kind_in_bulk(
    id_range: IdRange,
    caller: Caller,
    options: MessageOptions,
    *,
    lane_id: UUID | None,
    config_version: int | None,
    at: datetime,
    parameters: Mapping[str, str] | None = None,
) -> NewKind:
    """What the messages of a bulk that were accepted at `at` with these options have in common."""
    return NewKind(
        id_range=id_range,
        account_id=caller.account_id,
        environment=caller.environment.value,
        mode=options.mode.value,
        priority=options.priority.value,
        sender=options.sender.value,
        callback_url=options.callback_url,
        callback_lane_id=lane_id,
        callback_final_only=options.callback_final_only,
        accepted_at=at,
        scheduled_at=options.scheduled_at,
        validity=options.validity,
        valid_until=(options.scheduled_at or at) + options.validity,
        config_version=config_version,
        actor=caller.key_id,
        receipt_deadline=options.receipt_deadline,
        missing_receipt=options.missing_receipt,
        parameters=parameters,
    )


@value
class ValidatedRecipient:
    """One recipient and what it is sent, found good."""

    number: Number
    text: Segmented
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A send request after validation; `options` or `recipient` is None if its validation failed.

    `key` is the idempotency key as it is stored, None without one. Two requests with one key are the
    same if their `digest` is equal.
    """

    caller: Caller
    command: SendCommand
    key: Key | None
    digest: bytes
    options: MessageOptions | None
    recipient: ValidatedRecipient | None
    errors: list[FieldError]
    traceparent: str | None

    def checked(self) -> tuple[MessageOptions, ValidatedRecipient]:
        """What was found good.

        Raises:
            Refused: not all of it was.
        """
        if self.options is None or self.recipient is None:
            raise Refused(self.errors)
        return self.options, self.recipient

    def accepted_as(self, message_id: UUID, recipient: ValidatedRecipient) -> Accepted:
        """What is answered for it as a message."""
        return Accepted(
            message_id=public_id(IdPrefix.MESSAGE, message_id),
            status=MessageStatus.SCHEDULED if self.command.scheduled_at else MessageStatus.QUEUED,
            encoding=recipient.text.encoding.value,
            segments=recipient.text.segments,
            replacements=recipient.text.replacements,
            warnings=recipient.warnings,
        )


class SubmissionValidator:
    """Looks at commands with the configuration in force."""

    def __init__(self, configurations: Configurations, *, allow_private_callbacks: bool) -> None:
        self._configurations = configurations
        self._allow_private_callbacks = allow_private_callbacks

    def options(
        self, caller: Caller, command: RequestedOptions, now: datetime
    ) -> tuple[MessageOptions | None, list[FieldError]]:
        """Look at everything that is the same for all recipients; None if there is a fault."""
        configuration = self._configurations.current
        policy = configuration.account(caller.account_id)
        mode_policy = configuration.mode_policy(command.mode)
        callback_url = command.callback_url or policy.default_callback_url
        validity = command.validity or mode_policy.validity
        sender, errors = self._sender(caller, command)
        errors += [
            *self._callback_errors(callback_url),
            *_validity_errors(validity),
            *_receipt_deadline_errors(command.receipt_deadline),
            *_schedule_errors(command.scheduled_at, policy.schedule_horizon, now),
        ]
        if errors or sender is None:
            return None, errors
        return (
            MessageOptions(
                sender=sender,
                mode=command.mode,
                priority=command.priority or mode_policy.priority,
                callback_url=callback_url,
                callback_final_only=policy.callback_final_only,
                validity=validity,
                receipt_deadline=command.receipt_deadline,
                missing_receipt=command.missing_receipt,
                scheduled_at=command.scheduled_at,
                max_segments=policy.max_segments,
            ),
            [],
        )

    def submission(
        self, caller: Caller, command: SendCommand, now: datetime, *, idempotency_key: str | None
    ) -> Submission:
        """Look at a whole command."""
        options, errors = self.options(caller, command, now)
        errors += _listener_errors(command)
        if options is not None and command.only_provider is not None:
            options = replace(options, callback_url=None)
        max_segments = self._configurations.current.account(caller.account_id).max_segments
        recipient, more = check_recipient(
            command.to, command.body, smart=command.smart_encoding, max_segments=max_segments
        )
        key = None
        if idempotency_key is not None:
            key = caller.idempotency_key(idempotency_key)
        return Submission(
            caller=caller,
            command=command,
            key=key,
            digest=command.digest() if key is not None else b"",
            options=None if errors else options,
            recipient=recipient,
            errors=[*more, *errors],
            traceparent=current_traceparent(),
        )

    def _callback_errors(self, url: str | None) -> list[FieldError]:
        if url is None:
            return []
        policy = self._configurations.current.callbacks
        allowed = self._allow_private_callbacks or policy.allow_private_addresses
        try:
            check_url(url, allow_private=allowed)
        except InvalidCallbackUrl as error:
            return [FieldError("callback_url", "invalid_callback_url", str(error))]
        return []

    def _sender(
        self, caller: Caller, command: RequestedOptions
    ) -> tuple[Sender | None, list[FieldError]]:
        try:
            sender = parse_sender(command.sender)
        except InvalidSender as error:
            return None, [FieldError("from", "invalid_sender", str(error))]
        return sender, self._sender_errors(caller, command.mode, sender)

    def _sender_errors(self, caller: Caller, mode: Mode, sender: Sender) -> list[FieldError]:
        if not self._configurations.current.allows_sender(caller.account_id, mode, sender.value):
            return [
                FieldError(
                    "from",
                    "sender_not_allowed",
                    "This account may not send from this sender: use one that the configuration "
                    "allows it, or ask the operator to add it.",
                )
            ]
        if mode is Mode.TWO_WAY and not sender.takes_replies:
            return [
                FieldError(
                    "from",
                    "sender_takes_no_replies",
                    "A two_way message needs a sender that takes replies: a short code or a "
                    "number, not a name.",
                )
            ]
        return []


async def earlier_responses(
    connection: Connection, keys: Mapping[Key, bytes], now: datetime
) -> dict[Key, Mapping[str, Any] | KeyInFlight | KeyReused]:
    """The stored response of each of these keys, or why there is none to return.

    A key that is not in the result is new, and locked until the transaction ends. The keys are those
    of different requests, each with the digest of its request (`SendCommand.digest`).
    """
    taken = idempotency.try_lock(connection, list(keys))
    known = idempotency.find(connection, list(keys), now)
    mine = await taken
    responses: dict[Key, Mapping[str, Any] | KeyInFlight | KeyReused] = {
        key: KeyInFlight() for key in keys if key not in mine
    }
    for key, stored in (await known).items():
        if key in mine:
            same = stored.request_hash == keys[key]
            responses[key] = stored.response if same else KeyReused()
    return responses


def repeat_response(response: Mapping[str, Any] | KeyInFlight | KeyReused) -> Mapping[str, Any]:
    """What is to be answered again.

    Raises:
        KeyInFlight, KeyReused: as they say.
    """
    if isinstance(response, KeyInFlight | KeyReused):
        raise response
    return response


def check_recipient(
    to: str, body: str, *, smart: bool, max_segments: int
) -> tuple[ValidatedRecipient | None, list[FieldError]]:
    """Look at a number and at the text for it; None if there is a fault."""
    number, errors = check_number(to)
    text, more = check_text(body, smart=smart, max_segments=max_segments)
    if number is None or text is None:
        return None, [*errors, *more]
    return validated_recipient(number, text), []


def check_number(to: str) -> tuple[Number | None, list[FieldError]]:
    """Look at a recipient's number; None if there is a fault."""
    try:
        return parse_number(to), []
    except InvalidNumber as error:
        return None, [FieldError("to", "invalid_number", str(error))]


def check_text(
    body: str, *, smart: bool, max_segments: int
) -> tuple[Segmented | None, list[FieldError]]:
    """Look at a text; None if there is a fault."""
    try:
        return segment(body, smart=smart, max_parts=max_segments), []
    except TooManyParts as error:
        return None, [FieldError("body", "body_too_long", str(error))]
    except (UnsendableText, NotEncodable) as error:
        return None, [FieldError("body", "invalid_body", str(error))]


def validated_recipient(number: Number, text: Segmented) -> ValidatedRecipient:
    """A recipient and a text that were found good."""
    warnings = [number.warning] if number.warning is not None else []
    if text.replacements:
        warnings.append(
            "Some characters were replaced so that the text needs fewer segments; "
            "`replacements` lists them."
        )
    return ValidatedRecipient(number, text, tuple(warnings))


def _validity_errors(validity: timedelta) -> list[FieldError]:
    if SHORTEST_VALIDITY <= validity <= LONGEST_VALIDITY:
        return []
    return [
        FieldError(
            "validity_period",
            "invalid_validity",
            f"The validity period is between {SHORTEST_VALIDITY.total_seconds():.0f} and "
            f"{LONGEST_VALIDITY.total_seconds():.0f} seconds.",
        )
    ]


def _receipt_deadline_errors(deadline: timedelta | None) -> list[FieldError]:
    if deadline is None or SHORTEST_RECEIPT_DEADLINE <= deadline <= LONGEST_VALIDITY:
        return []
    return [
        FieldError(
            "receipt_deadline",
            "invalid_receipt_deadline",
            "The receipt deadline is between "
            f"{SHORTEST_RECEIPT_DEADLINE.total_seconds():.0f} and "
            f"{LONGEST_VALIDITY.total_seconds():.0f} seconds.",
        )
    ]


def _listener_errors(command: SendCommand) -> list[FieldError]:
    needs_one = command.missing_receipt is MissingReceiptPolicy.TELL_LISTENER
    if not needs_one or command.listener is not None:
        return []
    return [
        FieldError(
            "missing_receipt",
            "listener_missing",
            "Nobody listens to this message: use next_route or expire.",
        )
    ]


def _schedule_errors(
    scheduled_at: datetime | None, horizon: timedelta, now: datetime
) -> list[FieldError]:
    if scheduled_at is None or now < scheduled_at <= now + horizon:
        return []
    sentence = (
        "The time lies in the past: give a later one, or leave it out to send at once."
        if scheduled_at <= now
        else f"The time is too far ahead: a message can be scheduled for the next {horizon.days} "
        "days."
    )
    return [FieldError("scheduled_at", "invalid_schedule", sentence)]
