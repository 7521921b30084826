"""When an SMSC reports what became of a part: early, in time, held, or never."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from domain.receipts import ReceiptState
from simulator.behaviour import Behaviour
from simulator.delivery_queue import Delivery
from simulator.inbox import Part
from simulator.receipts import error_of, is_end

EARLY_HEAD_START: Final = 0.05
"""Seconds that an early receipt is ahead of the response to its submit, unless it is answered first."""

# registered_delivery, 3.4, 5.2.17: for which ends the ESME asks for a receipt.
_WANTED: Final = 0x03
_NOTHING_WANTED: Final = 0
_ONLY_FAILURES: Final = 2

_FAILURES: Final = frozenset(
    {
        ReceiptState.EXPIRED,
        ReceiptState.DELETED,
        ReceiptState.UNDELIVERABLE,
        ReceiptState.REJECTED,
    }
)

Send = Callable[[Part, ReceiptState, str, datetime], Delivery]
"""Sends a receipt: its part, state, error code and done date."""


class ReceiptSchedule:
    """The timers of parts whose end is still to come, and the receipts that are held."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: deque[tuple[Part, ReceiptState, str, datetime]] = deque()
        self._pending: dict[int, Part] = {}
        # Jitter only has to be different each time, and the same in each run of a test.
        self._chance = random.Random(0)  # noqa: S311

    @property
    def pending(self) -> Iterable[Part]:
        """Parts of which a receipt is still to come."""
        return self._pending.values()

    @property
    def held(self) -> int:
        """Receipts that wait for `release`."""
        return len(self._held)

    def release(self, *, newest_first: bool = False) -> int:
        """Send the receipts that were held, and return how many."""
        held = list(reversed(self._held)) if newest_first else list(self._held)
        self._held.clear()
        for part, state, error, done in held:
            self._send(part, state, error, done)
        return len(held)

    def clear(self) -> None:
        """Forget what is still to be reported."""
        for part in self._pending.values():
            part.cancel_timers()
        self._pending.clear()

    async def send_early(self, part: Part, behaviour: Behaviour) -> None:
        for step in behaviour.receipts_of(part.number):
            if step.early:
                for _ in range(step.copies):
                    delivery = self._report(part, step.state, step.error, hold=behaviour.hold)
                    if delivery is not None:
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(delivery.settled.wait(), EARLY_HEAD_START)

    def schedule(self, part: Part, behaviour: Behaviour) -> None:
        """Send those that are not early, none after the validity: a part not delivered then expires."""
        validity = part.validity.total_seconds()
        deferred = part.deferred.total_seconds()
        steps = behaviour.receipts_of(part.number)
        ended = False
        for step in steps:
            if step.early:
                ended = ended or is_end(step.state)
                continue
            state, error, after = step.state, step.error, deferred + step.after
            if behaviour.receipt_jitter:
                after += self._chance.uniform(0, behaviour.receipt_jitter)
            if after > validity:
                if ended or not is_end(state):
                    continue
                state, error, after = ReceiptState.EXPIRED, "", validity
            ended = ended or is_end(state)
            for _ in range(step.copies):
                self._report_later(part, after, state, error, hold=behaviour.hold)
        if steps and not ended:
            self._report_later(part, validity, ReceiptState.EXPIRED, "", hold=behaviour.hold)

    def cancel(self, part: Part) -> None:
        """The ESME cancelled the part: report that, unless none of its receipts ever comes."""
        reports = bool(part.timers)
        part.cancel_timers()
        self._pending.pop(part.id, None)
        if reports:
            self._report_later(part, 0, ReceiptState.DELETED, "", hold=False)

    def _report_later(
        self, part: Part, after: float, state: ReceiptState, error: str, *, hold: bool
    ) -> None:
        def due() -> None:
            part.timers.discard(timer)
            if not part.timers:
                self._pending.pop(part.id, None)
            self._report(part, state, error, hold=hold)

        timer = asyncio.get_running_loop().call_later(after, due)
        part.timers.add(timer)
        self._pending[part.id] = part

    def _report(
        self, part: Part, state: ReceiptState, error: str, *, hold: bool
    ) -> Delivery | None:
        """Store a part's state, and send or hold its receipt if the ESME requested one."""
        now = datetime.now(UTC)
        error = error_of(state, error)
        if part.final_at is None:
            part.state = state
            part.error = error
            part.final_at = now if is_end(state) else None
        wanted = part.pdu.number("registered_delivery") & _WANTED
        if wanted == _NOTHING_WANTED or (wanted == _ONLY_FAILURES and state not in _FAILURES):
            return None
        if hold:
            self._held.append((part, state, error, now))
            return None
        return self._send(part, state, error, now)
