"""Messages that are accepted many at a time: a batch, or a group of single ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from psycopg.types.json import Jsonb

from domain.modes import MissingReceiptPolicy
from domain.numbers import Number
from domain.segments import Segmented
from store.bulks import IdRange
from store.database import Connection, sql
from store.transitions import GENERATED_ID, fresh_ids

# Known recipients are only read; of new ones, two requests may add the same at the same moment, and
# take them in the same order. LIMIT, so that each is looked for in the index: made a join of, it
# would read all recipients of the account.
_ADD_RECIPIENTS = sql(f"""
INSERT INTO recipients (id, account_id, hash_version, number_hash, number, country)
SELECT {GENERATED_ID}, n.account_id, :hash_version, n.number_hash, n.number, n.country
FROM unnest(CAST(:accounts AS text[]), CAST(:hashes AS bytea[]), CAST(:numbers AS text[]),
            CAST(:countries AS text[]))
     AS n (account_id, number_hash, number, country)
WHERE (SELECT r.id FROM recipients r
       WHERE r.account_id = n.account_id AND r.hash_version = :hash_version
         AND r.number_hash = n.number_hash AND r.number IS NOT NULL LIMIT 1) IS NULL
ORDER BY n.account_id, n.number_hash
ON CONFLICT (account_id, hash_version, number_hash) DO UPDATE SET number = excluded.number
""")

_INSERT_MESSAGES = sql("""
INSERT INTO messages (id, account_id, environment, mode, priority, status, verdict, sender,
    recipient_id, country, body, encoding, segments, metadata, parameters, callback_url,
    callback_lane_id, callback_final_only, accepted_at, scheduled_at, validity, valid_until, since,
    transitioned_at, owner, config_version, traceparent, bulk_id, position, receipt_deadline,
    missing_receipt)
SELECT n.id, :account_id, :environment, :mode, :priority, :status, :verdict, :sender,
    r.id, n.country, n.body, n.encoding, n.segments, coalesce(n.metadata, '{}'),
    coalesce(n.parameters, CAST(:parameters_of_all AS jsonb)), :callback_url,
    :callback_lane_id, :callback_final_only, :at, :scheduled_at, :validity, :valid_until, :at, :at,
    :owner, :config_version, n.traceparent, :bulk_id, n.position, :receipt_deadline,
    :missing_receipt
FROM unnest(CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]), CAST(:countries AS text[]),
            CAST(:bodies AS text[]), CAST(:encodings AS text[]), CAST(:segments AS smallint[]),
            CAST(:metadata AS jsonb[]), CAST(:traceparents AS text[]),
            CAST(:positions AS integer[]), CAST(:parameters AS jsonb[]))
     AS n (id, number_hash, country, body, encoding, segments, metadata, traceparent, position,
           parameters)
LEFT JOIN LATERAL (
    -- One look into the index for each: the planner, who takes the arrays for short, would else
    -- compare all with all, or read all recipients of the account. LEFT, so that a message whose
    -- recipient is gone is refused (messages.recipient_id is NOT NULL), and not left out.
    SELECT id FROM recipients
    WHERE account_id = :account_id AND hash_version = :hash_version AND number_hash = n.number_hash
    LIMIT 1
) r ON true
""")

_EMIT_ACCEPTED = sql("""
INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, status, detail)
SELECT :bulk_id, array_agg(id), :at, 'accepted', :actor, :status,
       jsonb_build_object('encoding', encoding, 'segments', segments,
                          'configuration', CAST(:config_version AS integer))
FROM unnest(CAST(:ids AS uuid[]), CAST(:encodings AS text[]), CAST(:segments AS smallint[]))
     AS n (id, encoding, segments)
GROUP BY encoding, segments
""")


_AT_ONCE: Final = 1000
"""Messages that are written by one statement: others are not to wait for more."""


@dataclass(frozen=True, slots=True)
class NewKind:
    """What messages have in common; times are of the accepting process, in UTC.

    `actor` is the key that asked for them. `parameters` are those of the messages that have none of
    their own.
    """

    id_range: IdRange
    account_id: str
    environment: str
    mode: str
    priority: str
    sender: str
    callback_url: str | None
    callback_lane_id: UUID | None
    callback_final_only: bool
    accepted_at: datetime
    scheduled_at: datetime | None
    validity: timedelta
    valid_until: datetime
    config_version: int | None
    actor: str
    receipt_deadline: timedelta | None = None
    missing_receipt: MissingReceiptPolicy | None = None
    parameters: Mapping[str, str] | None = None


@dataclass(slots=True)
class NewMessages:
    """Messages of one kind, column by column, all of equal length.

    `positions` are those in the batch that the messages are of; None in a group.
    """

    ids: list[UUID] = field(default_factory=list)
    positions: list[int | None] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    countries: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    encodings: list[str] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    metadata: list[Jsonb | None] = field(default_factory=list)
    traceparents: list[str | None] = field(default_factory=list)
    parameters: list[Jsonb | None] = field(default_factory=list)

    def add(
        self,
        message_id: UUID,
        *,
        number: Number,
        number_hash: bytes,
        text: Segmented,
        metadata: Mapping[str, str],
        parameters: Mapping[str, str] | None = None,
        traceparent: str | None,
        position: int | None = None,
    ) -> None:
        """Add a message; their ids must rise."""
        self.ids.append(message_id)
        self.positions.append(position)
        self.numbers.append(number.e164)
        self.hashes.append(number_hash)
        self.countries.append(number.country)
        self.bodies.append(text.text)
        self.encodings.append(text.encoding.value)
        self.segments.append(text.segments)
        self.metadata.append(Jsonb(dict(metadata)) if metadata else None)
        self.traceparents.append(traceparent)
        self.parameters.append(Jsonb(dict(parameters)) if parameters else None)

    def part(self, first: int, count: int) -> "NewMessages":
        """So many of them, from the one at `first` on."""
        columns = (getattr(self, name) for name in self.__slots__)
        return NewMessages(*(column[first : first + count] for column in columns))


async def insert(
    connection: Connection,
    kinds: Sequence[tuple[NewKind, NewMessages]],
    *,
    hash_version: int,
) -> None:
    """Write the recipients that are new, the messages, and that they were accepted.

    Their bulk is written in the same transaction, see `store.bulks`.

    Raises:
        psycopg.errors.NotNullViolation: a recipient was deleted meanwhile; nothing is written.
    """
    await _add_recipients(connection, kinds, hash_version)
    for kind, new in kinds:
        for first in range(0, len(new.ids), _AT_ONCE):
            _insert_part(connection, kind, new.part(first, _AT_ONCE), hash_version)
            await connection.flush()


async def _add_recipients(
    connection: Connection, kinds: Sequence[tuple[NewKind, NewMessages]], hash_version: int
) -> None:
    """All of them in one order, so that two transactions never wait for each other."""
    once = {
        (kind.account_id, number_hash): (number, country)
        for kind, new in kinds
        for number_hash, number, country in zip(new.hashes, new.numbers, new.countries, strict=True)
    }
    in_order = sorted(once)
    for first in range(0, len(in_order), _AT_ONCE):
        some = in_order[first : first + _AT_ONCE]
        connection.send(
            _ADD_RECIPIENTS,
            {
                "hash_version": hash_version,
                "fresh": fresh_ids(),
                "accounts": [account_id for account_id, _ in some],
                "hashes": [number_hash for _, number_hash in some],
                "numbers": [once[each][0] for each in some],
                "countries": [once[each][1] for each in some],
            },
        )
        await connection.flush()


def _insert_part(
    connection: Connection, kind: NewKind, new: NewMessages, hash_version: int
) -> None:
    scheduled = kind.scheduled_at is not None
    options = {
        "bulk_id": kind.id_range.bulk_id,
        "at": kind.accepted_at,
        "config_version": kind.config_version,
        "status": "scheduled" if scheduled else "queued",
    }
    connection.send(
        _INSERT_MESSAGES,
        {
            **options,
            "account_id": kind.account_id,
            "environment": kind.environment,
            "mode": kind.mode,
            "priority": kind.priority,
            "verdict": "scheduled" if scheduled else None,
            "sender": kind.sender,
            "callback_url": kind.callback_url,
            "callback_lane_id": kind.callback_lane_id,
            "callback_final_only": kind.callback_final_only,
            "scheduled_at": kind.scheduled_at,
            "validity": kind.validity,
            "receipt_deadline": kind.receipt_deadline,
            "missing_receipt": kind.missing_receipt,
            "valid_until": kind.valid_until,
            "owner": kind.id_range.owner,
            "hash_version": hash_version,
            "ids": new.ids,
            "hashes": new.hashes,
            "countries": new.countries,
            "bodies": new.bodies,
            "encodings": new.encodings,
            "segments": new.segments,
            "metadata": new.metadata,
            "traceparents": new.traceparents,
            "positions": new.positions,
            "parameters": new.parameters,
            "parameters_of_all": Jsonb(dict(kind.parameters)) if kind.parameters else None,
        },
    )
    connection.send(
        _EMIT_ACCEPTED,
        {
            **options,
            "actor": kind.actor,
            "ids": new.ids,
            "encodings": new.encodings,
            "segments": new.segments,
        },
    )
