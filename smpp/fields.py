"""The types of mandatory fields (SMPP 3.4, 3.1 and 5.2), and how their octets are read and written."""

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from smpp.statuses import Status

Fields: TypeAlias = Mapping[str, int | bytes]

NO_FIELDS: Final[Fields] = MappingProxyType({})


class FieldError(ValueError):
    """A value that its field cannot carry: too long, out of range, or not of this command."""


class Unreadable(Exception):
    def __init__(self, status: Status, why: str) -> None:
        super().__init__(why)
        self.status = status


class Step(Protocol):
    """What is read and written at once: a field, or neighbouring integers."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def read(self, frame: bytes, position: int, fields: dict[str, int | bytes]) -> int:
        """Put what stands at `position` into `fields`; return the position behind it."""

    def write(self, fields: Fields, out: list[bytes]) -> None: ...


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer of one octet; those that stand side by side are read and written at once."""

    name: str
    default: int = 0


class CString:
    """A C-octet string: text and its NUL (3.4, 3.1).

    A longer text than the specification allows is refused when written. It is taken when read:
    SMSCs do send ids of more than 64 characters, and to refuse the response would lose the message.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.names = (name,)
        self._size = size

    def read(self, frame: bytes, position: int, fields: dict[str, int | bytes]) -> int:
        end = frame.find(b"\0", position)
        if end < 0:
            raise Unreadable(Status.ESME_RINVCMDLEN, f"{self.name} does not end")
        fields[self.name] = frame[position:end]
        return end + 1

    def write(self, fields: Fields, out: list[bytes]) -> None:
        value = fields.get(self.name, b"")
        if not isinstance(value, bytes):
            raise FieldError(f"{self.name} takes bytes")
        if len(value) >= self._size:
            raise FieldError(
                f"{self.name} takes at most {self._size - 1} octets, and {len(value)} were given"
            )
        if b"\0" in value:
            raise FieldError(f"{self.name} must not contain a NUL")
        out.append(value + b"\0")


class Integers:
    """Neighbouring one-octet integers, read and written at once."""

    def __init__(self, integers: Iterable[Integer]) -> None:
        self._defaults = [(integer.name, integer.default) for integer in integers]
        self.names = tuple(name for name, _ in self._defaults)
        self._run = struct.Struct(f"{len(self.names)}B")

    def read(self, frame: bytes, position: int, fields: dict[str, int | bytes]) -> int:
        try:
            fields.update(zip(self.names, self._run.unpack_from(frame, position), strict=True))
        except struct.error:
            raise Unreadable(Status.ESME_RINVCMDLEN, f"{self.names[0]} is cut off") from None
        return position + self._run.size

    def write(self, fields: Fields, out: list[bytes]) -> None:
        try:
            out.append(self._run.pack(*[fields.get(name, n) for name, n in self._defaults]))
        except struct.error:
            raise FieldError(f"{', '.join(self.names)} take integers from 0 to 255") from None


class ShortMessage:
    """sm_length and short_message: octets behind their count."""

    names = ("short_message",)
    _MAX_WRITTEN = 254  # 3.4, 5.2.22; the octet could count one more, and some SMSCs do

    def read(self, frame: bytes, position: int, fields: dict[str, int | bytes]) -> int:
        if position >= len(frame):
            raise Unreadable(Status.ESME_RINVCMDLEN, "sm_length is cut off")
        start = position + 1
        end = start + frame[position]
        if end > len(frame):
            raise Unreadable(Status.ESME_RINVMSGLEN, "short_message is cut off")
        fields["short_message"] = frame[start:end]
        return end

    def write(self, fields: Fields, out: list[bytes]) -> None:
        value = fields.get("short_message", b"")
        if not isinstance(value, bytes):
            raise FieldError("short_message takes bytes")
        if len(value) > self._MAX_WRITTEN:
            raise FieldError(
                f"short_message takes at most {self._MAX_WRITTEN} octets, and {len(value)} were"
                " given: split it, or use message_payload"
            )
        out.append(bytes((len(value),)))
        out.append(value)


class Records:
    """A count and as many records, kept as their octets: the lists of submit_multi (3.4, 4.5)."""

    _MAX_RECORDS = 255

    def __init__(self, name: str, skip_one: Callable[[bytes, int], int]) -> None:
        self.name = name
        self.names = (name,)
        self._skip_one = skip_one

    def read(self, frame: bytes, position: int, fields: dict[str, int | bytes]) -> int:
        if position >= len(frame):
            raise Unreadable(Status.ESME_RINVCMDLEN, f"the count of {self.name} is cut off")
        start = end = position + 1
        for _ in range(frame[position]):
            end = self._skip_one(frame, end)
        fields[self.name] = frame[start:end]
        return end

    def write(self, fields: Fields, out: list[bytes]) -> None:
        value = fields.get(self.name, b"")
        if not isinstance(value, bytes):
            raise FieldError(f"{self.name} takes bytes")
        count = position = 0
        try:
            while position < len(value):
                position = self._skip_one(value, position)
                count += 1
        except Unreadable as why:
            raise FieldError(f"{self.name}: {why}") from None
        if count > self._MAX_RECORDS:
            raise FieldError(
                f"{self.name} takes at most {self._MAX_RECORDS} records, and {count} were given"
            )
        out.append(bytes((count,)))
        out.append(value)


def skip(frame: bytes, position: int, *, octets: int = 0, text: bool = False) -> int:
    """The position behind so many octets, and behind a text and its NUL if there is one."""
    end = position + octets
    if text:
        end = frame.find(b"\0", end) + 1
        if end == 0:
            raise Unreadable(Status.ESME_RINVNUMDESTS, "a text does not end")
    if end > len(frame):
        raise Unreadable(Status.ESME_RINVNUMDESTS, "a record is cut off")
    return end


def steps_of(body: Iterable[Integer | Step]) -> tuple[Step, ...]:
    """The fields of a body, with neighbouring integers joined."""
    steps: list[Step] = []
    for are_integers, run in groupby(body, lambda each: isinstance(each, Integer)):
        if are_integers:
            steps.append(Integers(each for each in run if isinstance(each, Integer)))
        else:
            steps += [each for each in run if not isinstance(each, Integer)]
    return tuple(steps)
