"""Accepting a message: the one path for every way in."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.callbacks import InvalidCallbackUrl, check_url, origin_of
from domain.configuration import Environment
from domain.encoding import NotEncodable
from domain.ids import IdPrefix, public_id
from domain.modes import Mode, Priority
from domain.numbers import InvalidNumber, Number, parse_number
from domain.segments import Segmented, TooManyParts, UnsendableText, segment
from domain.senders import InvalidSender, Sender, parse_sender
from domain.states import MessageStatus
from domain.substitutions import Replacement
from services.configuration import Configurations
from services.delivery import Delivery
from services.money import Purse
from services.orchestration import Orchestration
from services.recipients import RecipientHash
from store import callbacks as callback_store
from store import events, idempotency, messages
from store.database import DATABASE_ERRORS, Connection, Database
from store.messages import NewMessage
from telemetry import metrics
from telemetry.logs import get_logger
from telemetry.tracing import current_traceparent
from workflows.ports.send import send_workflow_id

_log = get_logger(__name__)

SHORTEST_VALIDITY = timedelta(seconds=5)
LONGEST_VALIDITY = timedelta(days=3)
KEY_LIFE = timedelta(hours=24)
"""How long an idempotency key is remembered."""

START_GRACE = timedelta(seconds=15)
"""How long a runner may take to start before the reconciler starts it."""


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
    validity: timedelta
    scheduled_at: datetime | None
    max_segments: int


@dataclass(frozen=True, slots=True)
class Addressed:
    """One recipient and what it is sent, found good."""

    number: Number
    text: Segmented
    warnings: tuple[str, ...]


class Accept:
    """Validates, commits, starts the runner: in that order, so that a 202 is never taken back."""

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        orchestration: Orchestration,
        delivery: Delivery,
        recipient_hash: RecipientHash,
        purse: Purse,
        *,
        allow_private_callbacks: bool,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._orchestration = orchestration
        self._delivery = delivery
        self._recipient_hash = recipient_hash
        self._purse = purse
        self._allow_private_callbacks = allow_private_callbacks

    async def __call__(
        self, caller: Caller, command: SendCommand, *, idempotency_key: str | None = None
    ) -> Accepted:
        """Accept a message.

        Raises:
            Refused: with every fault of the command; nothing was stored.
            KeyInFlight, KeyReused: about the idempotency key; nothing was stored.
        """
        now = datetime.now(UTC)
        request_hash = _hash_of(command)
        shared, faults = self.check_shared(caller, command, now)
        max_segments = self._configurations.current.account(caller.account_id).max_segments
        addressed, more = check_recipient(
            command.to, command.body, smart=command.smart_encoding, max_segments=max_segments
        )
        faults = [*more, *faults]
        message_id = uuid7()
        async with self._database.begin() as connection:
            key = (caller.account_id, caller.environment.value, idempotency_key or "")
            if idempotency_key is not None:
                known = await answered_before(connection, key, request_hash, now)
                if known is not None:
                    return _from_json(known)
            if shared is None or addressed is None:
                raise Refused(faults)
            accepted = Accepted(
                message_id=public_id(IdPrefix.MESSAGE, message_id),
                status=MessageStatus.SCHEDULED if command.scheduled_at else MessageStatus.QUEUED,
                encoding=addressed.text.encoding.value,
                segments=addressed.text.segments,
                replacements=addressed.text.replacements,
                warnings=addressed.warnings,
            )
            message = await self._to_store(
                connection, caller, command, shared, addressed, message_id, now
            )
            await self._purse.reserve(
                connection, caller.account_id, message_id, addressed.text.segments
            )
            messages.insert(connection, message)
            events.append(
                connection,
                message_id,
                "accepted",
                actor=caller.key_id,
                at=now,
                status=accepted.status.value,
                detail={
                    "encoding": accepted.encoding,
                    "segments": accepted.segments,
                    "configuration": self._configurations.version,
                },
            )
            first = await self._delivery.first_step(connection, message, now)
            if idempotency_key is not None:
                idempotency.keep(
                    connection,
                    *key,
                    request_hash=request_hash,
                    response=_to_json(accepted),
                    at=now,
                    expires_at=now + KEY_LIFE,
                )
        metrics.message_accepted(
            mode=command.mode,
            environment=caller.environment.value,
            country=addressed.number.country,
        )
        _log.info("message_accepted", message_id=accepted.message_id, mode=command.mode)
        started = await self._orchestration.start_send(
            message_id,
            1,
            mode=command.mode.value,
            country=addressed.number.country,
            account=caller.account_id,
            first=first,
        )
        if not started:
            await self.leave_to_the_reconciler(message_id, now)
        return accepted

    async def leave_to_the_reconciler(self, message_id: UUID, now: datetime) -> None:
        """Have a message's runner started as soon as Temporal is back, not when its grace is over."""
        try:
            async with self._database.begin() as connection:
                messages.push_check(connection, [message_id], now)
        except DATABASE_ERRORS as error:
            _log.warning("check_not_brought_forward", error_type=type(error).__name__)

    def check_shared(
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
                validity=validity,
                scheduled_at=command.scheduled_at,
                max_segments=policy.max_segments,
            ),
            [],
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

    async def _to_store(
        self,
        connection: Connection,
        caller: Caller,
        command: SendCommand,
        shared: Shared,
        addressed: Addressed,
        message_id: UUID,
        now: datetime,
    ) -> NewMessage:
        number = addressed.number
        recipient_id = await messages.recipient(
            connection,
            caller.account_id,
            number.e164,
            self._recipient_hash.of(number.e164),
            self._recipient_hash.version,
            number.country,
        )
        lane = None
        if shared.callback_url is not None:
            lane = await callback_store.lane(
                connection, caller.account_id, origin_of(shared.callback_url)
            )
        starts_at = command.scheduled_at or now
        return NewMessage(
            id=message_id,
            account_id=caller.account_id,
            environment=caller.environment.value,
            mode=command.mode.value,
            priority=shared.priority.value,
            sender=shared.sender.value,
            recipient_id=recipient_id,
            country=number.country,
            network="unknown",
            body=addressed.text.text,
            encoding=addressed.text.encoding.value,
            segments=addressed.text.segments,
            accepted_at=now,
            scheduled_at=command.scheduled_at,
            validity=shared.validity,
            valid_until=starts_at + shared.validity,
            owner=send_workflow_id(public_id(IdPrefix.MESSAGE, message_id)),
            check_by=now + START_GRACE,
            config_version=self._configurations.version,
            callback_url=shared.callback_url,
            callback_lane_id=lane,
            traceparent=current_traceparent(),
            metadata=command.metadata,
        )


async def answered_before(
    connection: Connection, key: tuple[str, str, str], request_hash: bytes, now: datetime
) -> Mapping[str, Any] | None:
    """What was answered to this key before; None, and the key is held, if it is new.

    Raises:
        KeyInFlight, KeyReused: as they say.
    """
    if not await idempotency.try_lock(connection, *key):
        raise KeyInFlight
    known = await idempotency.find(connection, *key, now)
    if known is None:
        return None
    if known["request_hash"] != request_hash:
        raise KeyReused
    answer: Mapping[str, Any] = known["response"]
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


def _hash_of(command: SendCommand) -> bytes:
    """What makes two requests the same request."""
    content = {
        "to": command.to,
        "from": command.sender,
        "body": command.body,
        "mode": command.mode,
        "priority": command.priority,
        "callback_url": command.callback_url,
        "validity": command.validity.total_seconds() if command.validity else None,
        "scheduled_at": command.scheduled_at.isoformat() if command.scheduled_at else None,
        "metadata": dict(command.metadata),
        "smart_encoding": command.smart_encoding,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def _to_json(accepted: Accepted) -> dict[str, Any]:
    return {
        "message_id": accepted.message_id,
        "status": accepted.status.value,
        "encoding": accepted.encoding,
        "segments": accepted.segments,
        "replacements": [[r.character, r.replacement, r.count] for r in accepted.replacements],
        "warnings": list(accepted.warnings),
    }


def _from_json(stored: Mapping[str, Any]) -> Accepted:
    return Accepted(
        message_id=stored["message_id"],
        status=MessageStatus(stored["status"]),
        encoding=stored["encoding"],
        segments=stored["segments"],
        replacements=tuple(Replacement(*parts) for parts in stored["replacements"]),
        warnings=tuple(stored["warnings"]),
        replayed=True,
    )
