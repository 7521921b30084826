"""What happens to which message: a default, numbers with a behaviour of their own, and a throttle.

Carriers of every kind are steered by the same methods.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Final, Generic

from simulator.behaviour import (
    AnyBehaviour,
    CarrierBehaviour,
    NumberMeaning,
    Response,
    digits_of,
    meaning_of,
)

_MAX_NUMBERS: Final = 10_000


class Steered(Generic[AnyBehaviour]):
    """The part of a carrier that selects the behaviour of a message."""

    def __init__(
        self,
        *,
        default: AnyBehaviour,
        numbers: Mapping[str, AnyBehaviour],
        test_numbers: Mapping[str, NumberMeaning[AnyBehaviour]],
        throttle_above: int | None,
    ) -> None:
        self.default = default
        self._usual = type(default)()
        self._test_numbers = test_numbers
        self._numbers: OrderedDict[str, AnyBehaviour] = OrderedDict()
        self._troubled: OrderedDict[Hashable, int] = OrderedDict()
        self._throttle_above = throttle_above
        self._throttle_next = 0
        self._second = 0.0
        self._in_second = 0
        for number, behaviour in numbers.items():
            self.set_number(number, behaviour)

    def set_default(self, behaviour: AnyBehaviour | None = None) -> None:
        """What happens to messages to numbers that are not steered; without one, delivered."""
        self.default = self._usual if behaviour is None else behaviour
        self._troubled.clear()

    def set_number(self, number: str, behaviour: AnyBehaviour | None) -> None:
        """What happens to messages to one number, whatever its digits; None for the usual again.

        The last 10,000 numbers are remembered.
        """
        digits = digits_of(number)
        self._numbers.pop(digits, None)
        if behaviour is not None:
            self._numbers[digits] = behaviour
            if len(self._numbers) > _MAX_NUMBERS:
                self._numbers.popitem(last=False)
        self._troubled.clear()

    @property
    def numbers(self) -> Mapping[str, AnyBehaviour]:
        """The numbers that were given a behaviour, without plus signs."""
        return self._numbers

    def behaviour_for(self, number: str) -> AnyBehaviour:
        """What would happen to a message to this number."""
        own = self._numbers.get(digits_of(number)) if self._numbers else None
        if own is not None:
            return own
        meaning = meaning_of(number, self._test_numbers) if self._test_numbers else None
        return self.default if meaning is None else meaning.behaviour

    def throttle(self, *, above: int | None = None, next_submits: int = 0) -> None:
        """Throttle submits `above` so many within a second, and the next ones.

        Without arguments it throttles no more.
        """
        self._throttle_above = above
        self._throttle_next = next_submits

    @property
    def throttling(self) -> tuple[int | None, int]:
        """Submits a second beyond which it throttles, and how many next ones it will."""
        return self._throttle_above, self._throttle_next

    def _throttles(self) -> bool:
        """Whether this submit is one too many; counts it."""
        if self._throttle_next > 0:
            self._throttle_next -= 1
            return True
        if self._throttle_above is None:
            return False
        now = time.monotonic()
        if now - self._second >= 1:
            self._second = now
            self._in_second = 0
        self._in_second += 1
        return self._in_second > self._throttle_above

    def _next_response(self, key: Hashable, behaviour: CarrierBehaviour) -> Response:
        """What the next submit gets; `key` is what `times` counts by."""
        if behaviour.response is Response.ACCEPT or behaviour.times is None:
            return behaviour.response
        so_far = self._troubled.pop(key, 0)
        if so_far >= behaviour.times:
            return Response.ACCEPT
        self._troubled[key] = so_far + 1
        if len(self._troubled) > _MAX_NUMBERS:
            self._troubled.popitem(last=False)
        return behaviour.response
