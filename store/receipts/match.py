"""Matches receipts to their parts, whichever came first, and assigns them.

A receipt and the submit response with the provider's id race each other, and neither transaction sees
what the other has not committed yet. So both match twice: in the transaction that writes, and again
after its commit. The later one sees both. If both find the pair, the receipt's row decides which of
them applies it.

`domain.receipt_matching` decides which part a receipt is for. `store.receipts.ingest` stores a receipt
together with its part where only one part fits; what is left is read, matched here, and assigned.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from domain.receipt_matching import Match
from domain.receipts import ReceiptState
from store.database import Connection, PendingResult
from store.receipts.apply import Effects, Met, PartReceipt, apply
from store.receipts.candidates import Candidates, ReceiptKey, WaitingReceipts
from store.receipts.unmatched import STILL_WAITS
from store.transitions import SizedQuery, Transition, lock


@dataclass(frozen=True, slots=True)
class Matched:
    """What matching receipts to parts did.

    `alone` are the ids among those asked for of which no receipt was matched, and `waiting` the rows
    among those asked for that were not.
    """

    met: tuple[Met, ...] = ()
    transitions: tuple[Transition, ...] = ()
    copies: tuple[ReceiptState, ...] = ()
    alone: tuple[str, ...] = ()
    waiting: tuple[int, ...] = ()


_ASSIGN = SizedQuery.of(
    int,
    f"""
UPDATE receipts r
SET message_id = p.message_id, attempt = p.attempt, part = p.part, match_at = NULL
FROM unnest(CAST(:days AS date[]), CAST(:keys AS bigint[]), CAST(:message_ids AS uuid[]),
            CAST(:attempts AS smallint[]), CAST(:parts AS smallint[]))
     AS p (day, id, message_id, attempt, part)
WHERE {STILL_WAITS}
RETURNING r.id
""",
)

# A copy is counted in the row of the first.
_COUNT_COPIES = SizedQuery.of(
    int,
    f"""
WITH gone AS (
    DELETE FROM receipts r
    USING unnest(CAST(:days AS date[]), CAST(:keys AS bigint[]), CAST(:first_days AS date[]),
                 CAST(:first_keys AS bigint[])) AS p (day, id, first_day, first_id)
    WHERE {STILL_WAITS}
    RETURNING p.first_day, p.first_id, r.copies
)
UPDATE receipts r SET copies = r.copies + g.copies
FROM (SELECT first_day, first_id, sum(copies)::integer AS copies FROM gone GROUP BY 1, 2) g
WHERE r.day = g.first_day AND r.id = g.first_id
  AND r.day = ANY(CAST(:first_days AS date[])) AND r.id = ANY(CAST(:first_keys AS bigint[]))
RETURNING r.id
""",
)


async def match(
    connection: Connection,
    providers: Sequence[str],
    ids: Collection[str],
    effects: Effects,
    *,
    at: datetime,
    within: Collection[UUID] | None = None,
    former: Sequence[str] = (),
    came: Sequence[int] | None = None,
    fresh: Sequence[PartReceipt] = (),
) -> Matched:
    """Match receipts with these ids to parts, as far as they are not matched yet.

    For both sides of the race, whose second look is a transaction of its own. With `within` only parts
    of these messages count, whose rows are locked. `former` are providers that are declared no more:
    their parts count for a receipt that names its recipient. With `came` only the receipts of these
    rows are matched, and those that may be for the same recipients. `fresh` are receipts that were
    stored with their parts, and are not applied yet.
    """
    matching = Candidates(connection, providers, ids, at, former, came)
    matches = await matching.read() if ids else {}
    locked = {receipt.message_id for receipt in fresh}
    if within is not None:
        locked.update(within)
    else:
        locked.update(match.part.message_id for match in matches.values())
        if locked:
            lock(connection, sorted(locked))
        if matches:  # what was read before the lock may have changed
            matches = await matching.read()
    mine = {key: match for key, match in matches.items() if match.part.message_id in locked}
    found = {matching.receipts[key].provider_message_id for key in mine}
    matched = await assign(connection, matching, mine, effects, at=at, fresh=fresh, came=came)
    return replace(matched, alone=tuple(dict.fromkeys(each for each in ids if each not in found)))


async def assign(
    connection: Connection,
    matching: WaitingReceipts,
    matches: Mapping[ReceiptKey, Match],
    effects: Effects,
    *,
    at: datetime,
    came: Sequence[int] | None = None,
    fresh: Sequence[PartReceipt] = (),
) -> Matched:
    """Assign receipts to the parts that they match, and apply them.

    The rows of the parts' messages are locked, and `matches` was read after that. `fresh` and `came` as
    for `match`.
    """
    assigned = await _assigned(connection, matching, matches)
    in_order = sorted([*fresh, *assigned], key=lambda receipt: receipt.received_at)
    met, transitions = await apply(connection, in_order, effects, at=at)
    matched_rows = {row for _, row in matches}
    return Matched(
        met=tuple(met),
        transitions=tuple(transitions),
        copies=tuple(
            matching.receipts[key].state for key, match in matches.items() if match.is_copy
        ),
        waiting=tuple(each for each in came or () if each not in matched_rows),
    )


async def _assigned(
    connection: Connection, matching: WaitingReceipts, matches: Mapping[ReceiptKey, Match]
) -> list[PartReceipt]:
    """Assign receipts to their parts, and count copies; those that are to be applied."""
    firsts = matching.firsts()
    direct: list[ReceiptKey] = []
    counted: list[tuple[ReceiptKey, ReceiptKey]] = []
    rows_of_their_own: list[ReceiptKey] = []
    for key, match in matches.items():
        its = match.part.key, matching.said(key)
        if not match.is_copy:
            direct.append(key)
            firsts.setdefault(its, key)
        elif its in firsts:
            counted.append((key, firsts[its]))
        else:  # the first stands in the attempt
            rows_of_their_own.append(key)
    assigned = _assign(connection, direct, matches)
    if counted:
        values = {
            "days": [day for (day, _), _ in counted],
            "keys": [each for (_, each), _ in counted],
            "first_days": [day for _, (day, _) in counted],
            "first_keys": [each for _, (_, each) in counted],
        }
        _COUNT_COPIES.rows(connection, values, count=len(counted))
    _assign(connection, rows_of_their_own, matches)
    if assigned is None:
        return []
    mine = set(await assigned)
    return [matching.part_receipt(key, matches[key]) for key in direct if key[1] in mine]


def _assign(
    connection: Connection, keys: Sequence[ReceiptKey], matches: Mapping[ReceiptKey, Match]
) -> PendingResult[Sequence[int]] | None:
    if not keys:
        return None
    parts = [matches[key].part for key in keys]
    values = {
        "days": [day for day, _ in keys],
        "keys": [each for _, each in keys],
        "message_ids": [part.message_id for part in parts],
        "attempts": [part.attempt for part in parts],
        "parts": [part.number for part in parts],
    }
    return _ASSIGN.rows(connection, values, count=len(keys))
