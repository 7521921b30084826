"""Which part a delivery receipt is for.

A receipt is matched by all that it carries. The provider's message id alone proves nothing: SMSCs
use an id again within a day, give one id to several parts, or leave it out. A receipt that is
matched to the wrong part is worse than one that is not matched, so nothing is guessed here.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from domain.receipts import ReceiptState
from domain.states import PartStatus
from domain.values import value

ID_LIFE: Final = timedelta(days=14)
"""How long after a part's submit a receipt with its id can still be for it: ids are used again."""
UNKNOWN_LIFE: Final = timedelta(days=3)
"""The same for a part whose id is not known."""
CLOCK_SKEW: Final = timedelta(minutes=1)
"""How far the clocks of two of our machines may be apart."""
_AFTER_END: Final = timedelta(hours=1)

AttemptKey = tuple[UUID, int]
PartKey = tuple[UUID, int, int]
Said = tuple[ReceiptState, str, datetime | None]
"""State and code of a receipt; and when, if it is not final: news may be repeated."""


def said(state: ReceiptState, code: str, done_at: datetime | None) -> Said:
    """What makes two receipts for one part copies of each other."""
    return state, code, None if state.is_final else done_at


_Key = TypeVar("_Key", bound=Hashable)


@value
class ReceiptEvidence(Generic[_Key]):
    """The fields of a receipt that identify its part; None and "" are missing values.

    `recipient` and `other` are the keyed hashes of its source and destination numbers: a few SMSCs
    exchange the two. `key` identifies the receipt.
    """

    key: _Key
    provider_message_id: str
    state: ReceiptState
    code: str
    received_at: datetime
    done_at: datetime | None
    recipient: bytes | None
    other: bytes | None
    sender: str | None
    reference: int | None
    provider: str = ""

    @property
    def said(self) -> Said:
        return said(self.state, self.code, self.done_at)


@value
class CandidatePart:
    """A part that a receipt may be for.

    `receipt_state` is the state of the receipt that counts for it, and `receipts` are all its receipts.
    `trusted` is whether the provider that sent it is the receipt's provider, or in the same receipt
    group; for any other provider the recipient has to be known and equal. `awaited` is whether its
    message is open and the deadline for its receipt has not passed.
    """

    message_id: UUID
    attempt: int
    number: int
    provider_message_id: str | None
    status: PartStatus
    recipient: bytes
    sender: str
    reference: int
    submitted_at: datetime
    valid_until: datetime
    receipt_state: ReceiptState | None
    receipts: frozenset[Said]
    trusted: bool = True
    provider: str = ""
    awaited: bool = True

    @property
    def key(self) -> PartKey:
        return self.message_id, self.attempt, self.number

    @property
    def its_attempt(self) -> AttemptKey:
        return self.message_id, self.attempt


@value
class Match:
    """A receipt's part; a copy changes nothing and is only counted."""

    part: CandidatePart
    is_copy: bool = False


class Matcher:
    """Matches the receipts of one provider to parts; what is matched counts for those that follow.

    However the receipts are divided among several matchers, one after the other, the same parts are
    delivered in the end. `crowded` are ids that so many parts have that not all of them are known:
    a receipt with one of them is matched only if it names its recipient. `crowded_recipients` got so
    many messages lately that not all parts to them are known: a receipt is matched to a part without
    its id only by a reference.
    """

    def __init__(
        self,
        parts: Iterable[CandidatePart],
        crowded: Collection[str] = (),
        crowded_recipients: Collection[bytes] = (),
    ) -> None:
        self._crowded = crowded
        self._crowded_recipients = crowded_recipients
        self._by_id: dict[str, dict[PartKey, CandidatePart]] = defaultdict(dict)
        self._by_both: dict[tuple[str, bytes], dict[PartKey, CandidatePart]] = defaultdict(dict)
        self._by_recipient: dict[bytes, dict[PartKey, CandidatePart]] = defaultdict(dict)
        self._without_ids: dict[bytes, dict[PartKey, CandidatePart]] = defaultdict(dict)
        self._ids: dict[PartKey, str | None] = {}
        self._receipts: dict[PartKey, set[Said]] = {}
        self._states: dict[PartKey, ReceiptState | None] = {}
        for part in parts:
            self._by_recipient[part.recipient][part.key] = part
            self._ids[part.key] = part.provider_message_id
            self._receipts[part.key] = set(part.receipts)
            self._states[part.key] = part.receipt_state
            if part.provider_message_id:
                self._index(part.provider_message_id, part)
            else:
                self._without_ids[part.recipient][part.key] = part

    def _index(self, its_id: str, part: CandidatePart) -> None:
        self._by_id[its_id][part.key] = part
        self._by_both[its_id, part.recipient][part.key] = part

    def match(self, receipts: Iterable[ReceiptEvidence[_Key]]) -> dict[_Key, Match]:
        """The part of each receipt by the receipt's key; a receipt without a match is absent."""
        matches: dict[_Key, Match] = {}
        left = sorted(receipts, key=lambda receipt: receipt.received_at)
        while left:  # each match may make others unambiguous
            found = self._match_each(left) or self._match_together(left)
            if not found:
                break
            matches.update(found)
            left = [receipt for receipt in left if receipt.key not in found]
        return matches

    def _match_each(self, receipts: Sequence[ReceiptEvidence[_Key]]) -> dict[_Key, Match]:
        matches: dict[_Key, Match] = {}
        for receipt in receipts:
            match = self._match(receipt)
            if match is not None:
                matches[receipt.key] = match
                self._note(receipt, match)
        return matches

    def _match_together(self, receipts: Sequence[ReceiptEvidence[_Key]]) -> dict[_Key, Match]:
        """As many receipts as parts that await them, all saying the same: each part gets one."""
        matches: dict[_Key, Match] = {}
        alike: dict[tuple[Said, frozenset[PartKey]], list[ReceiptEvidence[_Key]]] = defaultdict(
            list
        )
        for receipt in receipts:
            awaiting = [part for part in self._fitting(receipt) if self._awaits(part, receipt)]
            if not awaiting or self._may_be_for_another(receipt, awaiting):
                continue
            those = alike[receipt.said, frozenset(part.key for part in awaiting)]
            those.append(receipt)
            if len(those) == len(awaiting):
                for each, part in zip(those, sorted(awaiting, key=_newest), strict=True):
                    matches[each.key] = Match(part)
                    self._note(each, matches[each.key])
        return matches

    def _note(self, receipt: ReceiptEvidence[Any], match: Match) -> None:
        if match.is_copy:
            return
        key = match.part.key
        self._receipts[key].add(receipt.said)
        known = self._states[key]
        if known is None or rank(receipt.state) >= rank(known):
            self._states[key] = receipt.state
        if receipt.provider_message_id and not self._ids[key]:
            self._ids[key] = receipt.provider_message_id
            self._index(receipt.provider_message_id, match.part)
            self._without_ids[match.part.recipient].pop(key, None)

    def _match(self, receipt: ReceiptEvidence[Any]) -> Match | None:
        fitting = self._fitting(receipt)
        if not fitting:
            return _match_to(self._by_evidence(receipt))
        awaiting = [part for part in fitting if self._awaits(part, receipt)]
        copied = [part for part in fitting if receipt.said in self._receipts[part.key]]
        if copied and not awaiting:
            # An id that is used again may be that of a part whose id is not known yet.
            uncertain = self._without_id(receipt)
            return None if uncertain else Match(max(copied, key=_newest), is_copy=True)
        # An earlier receipt has another final state: DELIVERED overrides a failure, never the reverse.
        failed = [p for p in fitting if self._states[p.key] is not ReceiptState.DELIVERED]
        possible = awaiting or failed or fitting
        if self._may_be_for_another(receipt, possible):
            return None
        return _match_to(_first_of_attempt(possible))

    def _may_be_for_another(
        self, receipt: ReceiptEvidence[Any], parts: Sequence[CandidatePart]
    ) -> bool:
        """Whether it may be for a part whose id is not known, instead of one of these with its id.

        An id may be used again, and the receipt may come before the response with the id. Parts in
        flight count: their responses come soon. If the wait for these parts is over, later parts whose
        responses were lost count, too. Other attempts of one message do not count: whichever is
        delivered, the message is.
        """
        messages = {part.message_id for part in parts}
        first = min(part.submitted_at for part in parts)
        over = not any(part.awaited and self._awaits(part, receipt) for part in parts)
        others = [
            part
            for part in self._without_id(receipt)
            if part.message_id not in messages
            and (part.status is PartStatus.SUBMITTING or (over and part.submitted_at > first))
        ]
        return any(part in others for part in _narrowed(receipt, [*parts, *others]))

    def _awaits(self, part: CandidatePart, receipt: ReceiptEvidence[Any]) -> bool:
        state = self._states[part.key]
        if state is None:
            return True
        return not state.is_final and receipt.said not in self._receipts[part.key]

    def _fitting(self, receipt: ReceiptEvidence[Any]) -> list[CandidatePart]:
        """The parts with its id that nothing speaks against; of several those that most speaks for."""
        its_id = receipt.provider_message_id
        if not its_id or (its_id in self._crowded and receipt.recipient is None):
            return []
        if receipt.recipient is None:
            having = [*self._by_id.get(its_id, {}).values()]
        else:
            numbers = {receipt.recipient, receipt.other} - {None}
            having = [
                part for n in numbers for part in self._by_both.get((its_id, n or b""), {}).values()
            ]
        fitting = _narrowed(receipt, [part for part in having if _fits(receipt, part, ID_LIFE)])
        if len({part.message_id for part in fitting}) > 1:
            return fitting
        # Two hosts of one account may give one id to two attempts of a message.
        return [part for part in fitting if part.provider == receipt.provider] or fitting

    def _by_evidence(self, receipt: ReceiptEvidence[Any]) -> CandidatePart | None:
        """The part of a receipt that has no id, or an id that no part has.

        A lost response also loses the id, and some SMSCs give none. The part is then found by the
        reference that the SMSC echoes, or as the only one with this sender and recipient. Without a
        reference nothing matches while such a part is in flight, because the receipt may have come
        before the response with its id, nor while parts to the recipient are unknown.
        """
        possible = self._without_id(receipt)
        if not receipt.provider_message_id:
            of_recipient = self._of_recipient(receipt, self._by_recipient)
            having = (part for part in of_recipient if self._ids[part.key])
            possible += [part for part in having if self._awaits(part, receipt)]
        if receipt.reference is not None:
            return possible[0] if len(possible) == 1 else None
        if any(
            part.status is PartStatus.SUBMITTING or part.recipient in self._crowded_recipients
            for part in possible
        ):
            return None
        return _first_of_attempt([part for part in possible if part.sender == receipt.sender])

    def _without_id(self, receipt: ReceiptEvidence[Any]) -> list[CandidatePart]:
        """Parts to its recipient that have neither an id nor a receipt, and may be delivered."""
        return [
            part
            for part in self._of_recipient(receipt, self._without_ids)
            if self._states[part.key] is None and part.status in _MAY_BE_DELIVERED
        ]

    def _of_recipient(
        self,
        receipt: ReceiptEvidence[Any],
        by_recipient: Mapping[bytes, Mapping[PartKey, CandidatePart]],
    ) -> list[CandidatePart]:
        if receipt.recipient is None:
            return []
        numbers = {receipt.recipient, receipt.other} - {None}
        found = [part for n in numbers for part in by_recipient.get(n or b"", {}).values()]
        return [part for part in found if _fits(receipt, part, UNKNOWN_LIFE)]


_MAY_BE_DELIVERED: Final = frozenset(
    {PartStatus.SUBMITTING, PartStatus.UNKNOWN, PartStatus.ACCEPTED}
)


def rank(state: ReceiptState) -> int:
    """Which of several receipts for one part counts: the highest, and of equals the last."""
    if state is ReceiptState.DELIVERED:
        return 2
    return 1 if state.is_final else 0


def _fits(receipt: ReceiptEvidence[Any], part: CandidatePart, life: timedelta) -> bool:
    """Whether no field of the receipt contradicts the part."""
    age = receipt.received_at - part.submitted_at
    if not -CLOCK_SKEW <= age < life:
        return False
    if receipt.reference is not None and receipt.reference != part.reference:
        return False
    if receipt.recipient is None:
        return part.trusted
    return part.recipient in {receipt.recipient, receipt.other}


def _narrowed(receipt: ReceiptEvidence[Any], parts: list[CandidatePart]) -> list[CandidatePart]:
    """The parts with the most evidence; a criterion that no part meets is skipped."""
    for speaks_for in _SPEAK_FOR:
        if len(parts) < 2:  # noqa: PLR2004 - nothing to narrow
            break
        parts = [part for part in parts if speaks_for(receipt, part)] or parts
    return parts


_SPEAK_FOR: Final[Sequence[Callable[[ReceiptEvidence[Any], CandidatePart], bool]]] = (
    lambda receipt, part: part.submitted_at <= receipt.received_at,
    lambda receipt, part: receipt.sender is not None and part.sender == receipt.sender,
    lambda receipt, part: receipt.received_at <= part.valid_until + _AFTER_END,
    lambda _, part: part.awaited,
)


def _newest(part: CandidatePart) -> tuple[datetime, PartKey]:
    return part.submitted_at, part.key


def _first_of_attempt(parts: Sequence[CandidatePart]) -> CandidatePart | None:
    """The first of parts that are worth the same; None if they are not.

    They are if they are of one attempt, or all the same part of one message in several attempts.
    """
    attempts = {part.its_attempt for part in parts}
    same_part = len({(part.message_id, part.number) for part in parts}) == 1
    if len(attempts) != 1 and not same_part:
        return None
    return min(parts, key=lambda part: (part.attempt, part.number))


def _match_to(part: CandidatePart | None) -> Match | None:
    return Match(part) if part is not None else None
