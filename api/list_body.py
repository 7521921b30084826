"""A JSON object of which one member is a long list, read entry by entry.

Python's objects take some twenty times the memory of the JSON that they are made from, and nothing
else runs while they are made. So the list is found in the text first, and its entries are parsed in
slices. What is too large, too many, or nested too deeply is refused before it is parsed.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Generic, NoReturn, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, TypeAdapter, ValidationError

from api.problems import BODY_TOO_LARGE, MALFORMED, MOST_ERRORS, Problem, not_json
from services.yielding_slices import yield_fairly

_MOST_NESTED: Final = 16
_SLICE_BYTES: Final = 16 * 1024
"""Parsed in one go: a millisecond, or some where everything in it is wrong."""

# RFC 8259, 2 to 7. All repetitions are possessive: no octet is looked at twice.
_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_KEY: Final = re.compile(_STRING, re.DOTALL)
_SCALAR: Final = re.compile(_STRING + rb'|[^ \t\n\r,:{}\[\]"]++', re.DOTALL)
_FLAT: Final = rb'(?:[^"{}\[\]]++|' + _STRING + rb")*+"
_TO_BRACKET: Final = re.compile(_FLAT + rb"[{}\[\]]", re.DOTALL)
_SHALLOW: Final = re.compile(
    rb"\{" + _FLAT + rb"(?:\{" + _FLAT + rb"\}" + _FLAT + rb")*+\}", re.DOTALL
)
"""An object whose members are scalars and objects of scalars, as most entries are."""
_BLANKS: Final = b" \t\n\r"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_BODY: Final = "body"

Rest = TypeVar("Rest", bound=BaseModel)
Entry = TypeVar("Entry", bound=BaseModel)


class InvalidBody(RequestValidationError):
    """A body with errors, the first of which are kept; `more` counts the others."""

    def __init__(self, errors: Sequence[Mapping[str, Any]], more: int = 0) -> None:
        super().__init__(errors)
        self.more = more


class ListBody(Generic[Rest, Entry]):
    """Reads objects that have a long list.

    Args:
        rest: the model of all members but the list.
        member: the list's name.
        entry: the model of its entries.
        most_entries: how many it may have; one at least.
    """

    def __init__(
        self, rest: type[Rest], member: str, entry: type[Entry], *, most_entries: int
    ) -> None:
        self._rest = rest
        self._member = member
        self._entries: TypeAdapter[list[Entry]] = TypeAdapter(list[entry])  # type: ignore[valid-type]
        self._most_entries = most_entries

    async def read(self, body: bytes, most_bytes: int) -> tuple[Rest, list[Entry]]:
        """All members but the list, and the list's entries.

        Args:
            body: the whole of it.
            most_bytes: of each entry, and of everything else together.

        Raises:
            InvalidBody: there are errors in it.
            Problem: it is not JSON, or everything but the list is too large.
        """
        text = _Text(body.removeprefix(_BYTE_ORDER_MARK), self._member, most_bytes)
        entries: list[Entry] = []
        wrong = _Errors()
        has_list = text.find_list()
        if has_list:
            async for first, values in text.slices(self._most_entries):
                try:
                    entries += self._entries.validate_python(values)
                except ValidationError as error:
                    wrong.add(error, self._member, first)
            if not (entries or wrong.count):
                wrong.add_one("too_short", self._member, min_length=1)
        rest = self._read_rest(text.rest(), wrong, has_list=has_list)
        if rest is None or wrong.count:
            raise InvalidBody(wrong.first, wrong.count - len(wrong.first))
        return rest, entries

    def _read_rest(self, values: object, wrong: "_Errors", *, has_list: bool) -> Rest | None:
        if isinstance(values, dict):
            listed = values.pop(self._member, None) if has_list else values.get(self._member)
            if not has_list:
                kind = "list_type" if self._member in values else "missing"
                wrong.add_one(kind, self._member)
                values.pop(self._member, None)
            elif listed != []:
                wrong.add_one("twice", self._member)
        try:
            return self._rest.model_validate(values)
        except ValidationError as error:
            wrong.add(error)
        return None


class _Errors:
    """What is wrong: the first errors, and how many there are."""

    def __init__(self) -> None:
        self.first: list[Mapping[str, Any]] = []
        self.count = 0

    def add(self, error: ValidationError, member: str | None = None, first: int = 0) -> None:
        """Note the errors of a model, or of a slice of the list that begins with this entry."""
        self.count += error.error_count()
        if len(self.first) >= MOST_ERRORS:
            return
        for each in error.errors(include_url=False, include_input=False):
            place = each["loc"]
            if member is not None:
                place = (member, first + int(place[0]), *place[1:])
            self.first.append({**each, "loc": (_BODY, *place)})
        del self.first[MOST_ERRORS:]

    def add_one(self, kind: str, *place: str | int, **context: int) -> None:
        """Note an error that no model can find."""
        self.count += 1
        if len(self.first) < MOST_ERRORS:
            self.first.append({"type": kind, "loc": (_BODY, *place), "ctx": context})


class _Text:
    """The text of an object with a list, which is looked at from its beginning to its end."""

    def __init__(self, text: bytes, member: str, most_bytes: int) -> None:
        self._text = text
        self._member = member
        self._most_bytes = most_bytes
        # Of the list's entries, without its brackets.
        self._begin = self._end = 0

    def find_list(self) -> bool:
        """Whether the list is there. What is no object, or has no such list, is all rest."""
        wanted = json.dumps(self._member).encode()
        at = self._space(0)
        if self._at(at) != b"{":
            return False
        at = self._space(at + 1)
        while self._at(at) != b"}":
            key = _KEY.match(self._text, at, at + self._most_bytes)
            if key is None:
                self._fail(at)
            colon = self._space(key.end())
            if self._at(colon) != b":":
                self._fail(colon)
            at = self._space(colon + 1)
            if key.group() == wanted:
                self._begin = self._end = at + 1
                return self._at(at) == b"["
            end = self._value(at)
            if end is None:
                raise _rest_too_large(self._member, self._most_bytes)
            at = self._space(end)
            if self._at(at) == b",":
                at = self._space(at + 1)
            elif self._at(at) != b"}":
                self._fail(at)
        return False

    async def slices(self, most_entries: int) -> AsyncIterator[tuple[int, list[Any]]]:
        """The list's entries, some at a time, each time with the place of the first; from 0.

        Raises:
            InvalidBody: there are too many, or one is too large; those behind it are not looked at.
            Problem: it is not JSON.
        """
        begin = at = self._space(self._begin)
        first = count = 0
        done = self._at(at) == b"]"
        while not done:
            if count == most_entries:
                raise self._refused("too_long", max_length=most_entries)
            end = self._value(at)
            if end is None:
                raise self._refused("too_many_bytes", count, max_bytes=self._most_bytes)
            count += 1
            at = self._space(end)
            done = self._at(at) == b"]"
            if not done:
                if self._at(at) != b",":
                    self._fail(at)
                at = self._space(at + 1)
            if done or end - begin >= _SLICE_BYTES:
                yield first, self._parsed(begin, end)
                await yield_fairly()
                begin, first = at, count
        self._end = at

    def rest(self) -> Any:
        """The whole without what is in the list.

        Raises:
            Problem: it is not JSON, or too large.
        """
        # Blanks at the end make no objects.
        after = self._text[self._end :].rstrip(_BLANKS).removesuffix(b"}").rstrip(_BLANKS)
        if self._begin + len(after) > self._most_bytes:
            raise _rest_too_large(self._member, self._most_bytes)
        try:
            return json.loads((self._text[: self._begin] + self._text[self._end :]).decode())
        except json.JSONDecodeError as error:
            at = self._characters(self._begin)
            inside = self._characters(self._end) - at
            raise not_json(error.pos + (inside if error.pos >= at else 0)) from None
        except (ValueError, RecursionError):
            raise Problem(MALFORMED) from None

    def _parsed(self, begin: int, end: int) -> list[Any]:
        try:
            values: list[Any] = json.loads(f"[{self._text[begin:end].decode()}]")
        except json.JSONDecodeError as error:
            raise not_json(self._characters(begin) + error.pos - 1) from None
        except (ValueError, RecursionError):
            raise Problem(MALFORMED) from None
        return values

    def _value(self, at: int) -> int | None:
        """Where the value ends that begins here; None if it is too large."""
        limit = at + self._most_bytes
        if self._at(at) not in {b"{", b"["}:
            found = _SCALAR.match(self._text, at, limit)
            if found is None and limit >= len(self._text):
                self._fail(at)
            return found.end() if found else None
        found = _SHALLOW.match(self._text, at, limit)
        if found is not None:
            return found.end()
        nested = 0
        end = at
        while found := _TO_BRACKET.match(self._text, end, limit):
            end = found.end()
            nested += 1 if self._at(end - 1) in {b"{", b"["} else -1
            if nested == 0:
                return end
            if nested > _MOST_NESTED:
                raise Problem(
                    MALFORMED,
                    f"The body is nested more than {_MOST_NESTED} times: no field is.",
                )
        if limit >= len(self._text):
            self._fail(len(self._text))
        return None

    def _space(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found else at

    def _at(self, at: int) -> bytes:
        return self._text[at : at + 1]

    def _characters(self, octets: int) -> int:
        return len(self._text[:octets].decode(errors="replace"))

    def _refused(self, kind: str, *place: int, **context: int) -> InvalidBody:
        wrong = _Errors()
        wrong.add_one(kind, self._member, *place, **context)
        return InvalidBody(wrong.first)

    def _fail(self, at: int) -> NoReturn:
        raise not_json(self._characters(at))


def _rest_too_large(member: str, most_bytes: int) -> Problem:
    return Problem(
        BODY_TOO_LARGE,
        f"Everything but `{member}` may have {most_bytes} bytes at most: send less.",
    )
