"""What is asked for, and whether it can be done: the same for one message, a group, and a batch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from domain.callbacks import InvalidCallbackUrl, check_url
from domain.configuration import Environment
from domain.encoding import NotEncodable
from domain.ids import IdPrefix, public_id
from domain.modes import Mode, Priority
from domain.numbers import InvalidNumber, Number, parse_number
from domain.segments import Segmented, TooManyParts, UnsendableText, segment
from domain.senders import InvalidSender, Sender, parse_sender
from domain.states import MessageStatus
from domain.substitutions import Replacement
from domain.values import value
from services.configuration import Configurations
from store import idempotency
from store.database import Connection
from store.idempotency import Key
from telemetry.tracing import current_traceparent

SHORTEST_VALIDITY = timedelta(seconds=5)
LONGEST_VALIDITY = timedelta(days=3)
KEY_LIFE = timedelta(hours=24)
"""How long an idempotency key is remembered."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: an account in one environment, by one of its keys."""

    account_id: str
    environment: Environment
    key_id: str
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCommand:
    """What may be asked for many recipients alike; None where the mode or the account decides."""

    sender: str
    mode: Mode = Mode.TRANSACTIONAL
    priority: Priority | None = None
    callback_url: str | None = None
    validity: timedelta | None = None
    scheduled_at: datetime | None = None
    smart_encoding: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCommand(SharedCommand):
    """A message as it is asked for."""

    to: str
    body: str
    metadata: Mapping[str, str] = field(default_factory=dict)

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
class Fault:
    """What is wrong with one field of a request, in a sentence that never repeats its value."""

    field: str
    reason: str
    sentence: str


class Refused(Exception):
    """A request that cannot become a message; every fault is named at once."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(fault.sentence for fault in faults))
        self.faults = faults


class KeyInFlight(Exception):
    """Another request with the same idempotency key is being accepted at this moment."""


class KeyReused(Exception):
    """The idempotency key was used before, for another request."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What was found good of a command and holds for all its recipients alike."""

    sender: Sender
    mode: Mode
    priority: Priority
    callback_url: str | None
    callback_final_only: bool
    validity: timedelta
    scheduled_at: datetime | None
    max_segments: int


@value
class Addressed:
    """One recipient and what it is sent, found good."""

    number: Number
    text: Segmented
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A message that somebody wants sent, looked at; what is None has a fault.

    `key` is the idempotency key as it is kept, None without one; `digest` then tells whether two
    requests are the same one.
    """

    caller: Caller
    command: SendCommand
    key: Key | None
    digest: bytes
    shared: Shared | None
    addressed: Addressed | None
    faults: list[Fault]
    traceparent: str | None

    def checked(self) -> tuple[Shared, Addressed]:
        """What was found good.

        Raises:
            Refused: not all of it was.
        """
        if self.shared is None or self.addressed is None:
            raise Refused(self.faults)
        return self.shared, self.addressed

    def accepted_as(self, message_id: UUID, addressed: Addressed) -> Accepted:
        """What is answered for it as a message."""
        return Accepted(
            message_id=public_id(IdPrefix.MESSAGE, message_id),
            status=MessageStatus.SCHEDULED if self.command.scheduled_at else MessageStatus.QUEUED,
            encoding=addressed.text.encoding.value,
            segments=addressed.text.segments,
            replacements=addressed.text.replacements,
            warnings=addressed.warnings,
        )


class Checks:
    """Looks at commands with the configuration in force."""

    def __init__(self, configurations: Configurations, *, allow_private_callbacks: bool) -> None:
        self._configurations = configurations
        self._allow_private_callbacks = allow_private_callbacks

    def shared(
        self, caller: Caller, command: SharedCommand, now: datetime
    ) -> tuple[Shared | None, list[Fault]]:
        """Look at everything that is the same for all recipients; None if there is a fault."""
        configuration = self._configurations.current
        policy = configuration.account(caller.account_id)
        mode_policy = configuration.mode_policy(command.mode)
        callback_url = command.callback_url or policy.default_callback_url
        validity = command.validity or mode_policy.validity
        sender, faults = self._sender(caller, command)
        faults += [
            *self._callback_faults(callback_url),
            *_validity_faults(validity),
            *_schedule_faults(command.scheduled_at, policy.schedule_horizon, now),
        ]
        if faults or sender is None:
            return None, faults
        return (
            Shared(
                sender=sender,
                mode=command.mode,
                priority=command.priority or mode_policy.priority,
                callback_url=callback_url,
                callback_final_only=policy.callback_final_only,
                validity=validity,
                scheduled_at=command.scheduled_at,
                max_segments=policy.max_segments,
            ),
            [],
        )

    def asked(
        self, caller: Caller, command: SendCommand, now: datetime, *, idempotency_key: str | None
    ) -> Asked:
        """Look at a whole command."""
        shared, faults = self.shared(caller, command, now)
        max_segments = self._configurations.current.account(caller.account_id).max_segments
        addressed, more = check_recipient(
            command.to, command.body, smart=command.smart_encoding, max_segments=max_segments
        )
        key = None
        if idempotency_key is not None:
            key = Key(caller.account_id, caller.environment.value, idempotency_key)
        return Asked(
            caller=caller,
            command=command,
            key=key,
            digest=command.digest() if key is not None else b"",
            shared=shared,
            addressed=addressed,
            faults=[*more, *faults],
            traceparent=current_traceparent(),
        )

    def _callback_faults(self, url: str | None) -> list[Fault]:
        if url is None:
            return []
        policy = self._configurations.current.callbacks
        allowed = self._allow_private_callbacks or policy.allow_private_addresses
        try:
            check_url(url, allow_private=allowed)
        except InvalidCallbackUrl as error:
            return [Fault("callback_url", "invalid_callback_url", str(error))]
        return []

    def _sender(self, caller: Caller, command: SharedCommand) -> tuple[Sender | None, list[Fault]]:
        try:
            sender = parse_sender(command.sender)
        except InvalidSender as error:
            return None, [Fault("from", "invalid_sender", str(error))]
        return sender, self._sender_faults(caller, command.mode, sender)

    def _sender_faults(self, caller: Caller, mode: Mode, sender: Sender) -> list[Fault]:
        if not self._configurations.current.allows_sender(caller.account_id, mode, sender.value):
            return [
                Fault(
                    "from",
                    "sender_not_allowed",
                    "This account may not send from this sender: use one that the configuration "
                    "allows it, or ask the operator to add it.",
                )
            ]
        if mode is Mode.TWO_WAY and not sender.can_be_answered:
            return [
                Fault(
                    "from",
                    "sender_cannot_be_answered",
                    "A two_way message needs a sender that can be answered: a short code or a "
                    "number, not a name.",
                )
            ]
        return []


async def answered_before(
    connection: Connection, keys: Mapping[Key, bytes], now: datetime
) -> dict[Key, Mapping[str, Any] | KeyInFlight | KeyReused]:
    """What was answered to each of these keys before, or why it cannot be told.

    A key that is not in the answer is new, and held until the transaction ends. The keys are those
    of different requests, each with what makes two requests the same (`SendCommand.digest`).
    """
    taken = idempotency.try_lock(connection, list(keys))
    known = idempotency.find(connection, list(keys), now)
    mine = await taken
    answers: dict[Key, Mapping[str, Any] | KeyInFlight | KeyReused] = {
        key: KeyInFlight() for key in keys if key not in mine
    }
    for key, row in (await known).items():
        if key in mine:
            same = row["request_hash"] == keys[key]
            answers[key] = row["response"] if same else KeyReused()
    return answers


def answer_again(answer: Mapping[str, Any] | KeyInFlight | KeyReused) -> Mapping[str, Any]:
    """What is to be answered again.

    Raises:
        KeyInFlight, KeyReused: as they say.
    """
    if isinstance(answer, KeyInFlight | KeyReused):
        raise answer
    return answer


def check_recipient(
    to: str, body: str, *, smart: bool, max_segments: int
) -> tuple[Addressed | None, list[Fault]]:
    """Look at a number and at the text for it; None if there is a fault."""
    faults: list[Fault] = []
    number: Number | None = None
    text: Segmented | None = None
    try:
        number = parse_number(to)
    except InvalidNumber as error:
        faults.append(Fault("to", "invalid_number", str(error)))
    try:
        text = segment(body, smart=smart, max_parts=max_segments)
    except TooManyParts as error:
        faults.append(Fault("body", "body_too_long", str(error)))
    except (UnsendableText, NotEncodable) as error:
        faults.append(Fault("body", "invalid_body", str(error)))
    if number is None or text is None:
        return None, faults
    warnings = [number.warning] if number.warning is not None else []
    if text.replacements:
        warnings.append(
            "Some characters were replaced so that the text needs fewer segments; "
            "`replacements` lists them."
        )
    return Addressed(number, text, tuple(warnings)), []


def _validity_faults(validity: timedelta) -> list[Fault]:
    if SHORTEST_VALIDITY <= validity <= LONGEST_VALIDITY:
        return []
    return [
        Fault(
            "validity_period",
            "invalid_validity",
            f"The validity period is between {SHORTEST_VALIDITY.total_seconds():.0f} and "
            f"{LONGEST_VALIDITY.total_seconds():.0f} seconds.",
        )
    ]


def _schedule_faults(
    scheduled_at: datetime | None, horizon: timedelta, now: datetime
) -> list[Fault]:
    if scheduled_at is None or now < scheduled_at <= now + horizon:
        return []
    sentence = (
        "The time lies in the past: give a later one, or leave it out to send at once."
        if scheduled_at <= now
        else f"The time is too far ahead: a message can be scheduled for the next {horizon.days} "
        "days."
    )
    return [Fault("scheduled_at", "invalid_schedule", sentence)]
