"""The references that tie the parts of a message together (docs/decisions/0019)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.values import value
from store.database import Connection, PendingResult
from store.rows import Query


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference for the parts of a message, 0 to 65535.

    Its low octet alone was not used for the recipient since the time that was asked for, unless
    `is_scarce`; all of it surely was not.
    """

    number: int
    is_scarce: bool


@value
class _TakenReference:
    id: UUID
    reference: int
    is_scarce: bool


# The numbers of a recipient go up. A number that is 256 lower than one in block b is at most from the
# moment at which block b - 1 began; nothing was used before number 0. References begin with any number,
# so that recipients have different ones.
_BLOCK = 128
_TAKE = Query.of(
    _TakenReference,
    f"""
WITH wanted AS (
    SELECT w.id, w.parts, m.recipient_id,
           sum(w.parts) OVER (PARTITION BY m.recipient_id) AS numbers,
           sum(w.parts) OVER (PARTITION BY m.recipient_id ORDER BY w.id) - w.parts AS before,
           CAST(CAST('x' || right(CAST(m.recipient_id AS text), 4) AS bit(16)) AS bigint) AS first
    FROM unnest(CAST(:ids AS uuid[]), CAST(:parts AS integer[])) AS w (id, parts)
    JOIN messages m ON m.id = w.id
), taken AS (
    INSERT INTO concatenation_references AS r
        (recipient_id, numbers_taken, block_began_at, block_before_began_at)
    SELECT DISTINCT recipient_id, numbers,
           CASE WHEN numbers < {_BLOCK} THEN '-infinity' ELSE CAST(:at AS timestamptz) END,
           CASE WHEN numbers < 2 * {_BLOCK} THEN '-infinity' ELSE CAST(:at AS timestamptz) END
    FROM wanted ORDER BY recipient_id
    ON CONFLICT (recipient_id) DO UPDATE
    SET (numbers_taken, block_began_at, block_before_began_at) = (
        SELECT r.numbers_taken + w.numbers,
               CASE WHEN passed.blocks = 0 THEN r.block_began_at ELSE :at END,
               CASE WHEN passed.blocks = 0 THEN r.block_before_began_at
                    WHEN passed.blocks = 1 THEN r.block_began_at ELSE :at END
        FROM wanted w CROSS JOIN LATERAL (
            SELECT (r.numbers_taken + w.numbers) / {_BLOCK} - r.numbers_taken / {_BLOCK} AS blocks
        ) passed
        WHERE w.recipient_id = r.recipient_id LIMIT 1
    )
    RETURNING recipient_id, numbers_taken, block_before_began_at
)
SELECT w.id,
       CAST((w.first + t.numbers_taken - w.numbers + w.before) % 65536 AS integer) AS reference,
       t.block_before_began_at > :since AS is_scarce
FROM wanted w JOIN taken t ON t.recipient_id = w.recipient_id
""",
)


def take(
    connection: Connection, parts: Mapping[UUID, int], *, at: datetime, since: datetime
) -> PendingResult[dict[UUID, Reference]]:
    """References for messages of so many parts each; locks a row for each recipient, in order."""
    return _TAKE.rows(
        connection,
        {"ids": list(parts), "parts": list(parts.values()), "at": at, "since": since},
    ).then(lambda rows: {r.id: Reference(r.reference, r.is_scarce) for r in rows})
