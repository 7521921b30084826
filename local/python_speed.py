"""How fast is this Python? Run by each that the Makefile finds: prints seconds and its path.

A worker is Python for half of what it does, and one that was built without optimisation (as pyenv
does by default) takes a third more time for the same. Nothing is printed by one that is too
old, or that cannot make virtual environments.
"""

import importlib.util
import sys
import time


class _Counter:
    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count

    def plus(self, more: int) -> int:
        return self.count + more


def _work() -> None:
    totals: dict[int, int] = {}
    for number in range(50_000):
        totals[number % 100] = _Counter(number).plus(len(totals))


def _seconds() -> float:
    began = time.perf_counter()
    _work()
    return time.perf_counter() - began


if sys.version_info >= (3, 11) and importlib.util.find_spec("ensurepip"):
    print(min(_seconds() for _ in range(7)), sys.executable)
