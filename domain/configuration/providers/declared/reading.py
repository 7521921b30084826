"""What is read from the provider's responses and receipts: where each value is, and what it means."""

import re
from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, StrictBool, StringConstraints, model_validator
from pydantic_core import InitErrorDetails

from domain.configuration.declared import Declared, mistake_at, refuse
from domain.configuration.providers.declared.documents import Format, Source, parse_source
from domain.receipts import ReceiptState
from domain.times import TimeOutOfRange, in_range

Where = Annotated[str, StringConstraints(min_length=1, max_length=500)]
"""Where a value is: a path, a pattern, or both (`parse_source`)."""


class Test(Declared):
    """Whether a value is as it must be; exactly one of `is` and `exists` is given."""

    __test__ = False  # for pytest

    value: Where = Field(description="where the value is")
    one_of: tuple[str, ...] | None = Field(
        None,
        alias="is",
        description="texts of which it is one; capitals and small letters are the same",
    )
    exists: StrictBool | None = Field(
        None, description="whether it must be there: null and an empty text are not"
    )

    @model_validator(mode="after")
    def _has_one_condition(self) -> Self:
        if (self.one_of is None) == (self.exists is None) or self.one_of == ():
            raise ValueError("give either is, with at least one text, or exists")
        return self

    def passes(self, document: Any, written_in: Format) -> bool | None:
        """Whether the value is as it must be; None where it is missing, so that `is` shows nothing."""
        source = parse_source(self.value, written_in)
        if self.one_of is None:
            return source.is_in(document) is self.exists
        found = source.text_in(document)
        if found is None:
            return None
        return found.casefold() in {text.casefold() for text in self.one_of}


class Reading(Declared):
    """A table with places of values in documents of one format."""

    @abstractmethod
    def _format_of(self) -> Format:
        """The format of the documents; each kind of table has a key of its own for it."""

    def _unusable_places(self, **places: str | None) -> list[InitErrorDetails]:
        """The mistakes of places, by the keys of the table; `a__b` is the key b of the table a."""
        mistakes = []
        for key, place in places.items():
            if place is None:
                continue
            try:
                parse_source(place, self._format_of())
            except ValueError as error:
                mistakes.append(mistake_at(*key.split("__"), sentence=str(error)))
        return mistakes

    def _source(self, place: str | None) -> Source | None:
        return None if place is None else parse_source(place, self._format_of())

    def _text(self, place: str | None, document: Any) -> str:
        source = self._source(place)
        return "" if source is None else source.text_in(document) or ""


class TimeFormat(StrEnum):
    """How a time is written."""

    ISO8601 = "iso8601"
    UNIX = "unix"
    UNIX_MS = "unix_ms"
    SMPP = "smpp"
    """YYMMDDhhmm, with seconds or without (SMPP 3.4, appendix B)."""


def _checked_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError('a time zone is named as in "Europe/Berlin" or "UTC"') from None
    return name


class StateReading(Reading):
    """Where a message's state is, and what its words mean."""

    state: Where = Field(description="where the state is")
    states: dict[str, ReceiptState] = Field(
        description="states of the provider's words and numbers; capitals and small letters are the "
        "same. Any other word is `enroute`"
    )
    code: Where | None = Field(None, description="where the provider's error code is")
    code_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{0,16}$")] = Field(
        "",
        description="what is put before codes, if the same codes mean something else in responses",
    )
    time: Where | None = Field(None, description="where the time is at which the state was reached")
    time_format: TimeFormat = Field(TimeFormat.ISO8601, description="how that time is written")
    time_zone: Annotated[str, AfterValidator(_checked_zone)] = Field(
        "UTC", description="zone of times that are written without one"
    )

    @model_validator(mode="after")
    def _words_differ(self) -> Self:
        words = [word.casefold() for word in self.states]
        refuse(
            type(self).__name__,
            [
                mistake_at(
                    "states", word, sentence="this word is there twice, but for its capitals"
                )
                for place, word in enumerate(self.states)
                if word.casefold() in words[:place]
            ],
        )
        return self

    def prefixed(self, code: str) -> str:
        """A code as the section's `codes` have it; empty without one."""
        return f"{self.code_prefix}{code}" if code else ""

    def state_of(self, word: str) -> ReceiptState:
        """What a word means; a word that is not declared is no failure."""
        known = {each.casefold(): state for each, state in self.states.items()}
        return known.get(word.casefold(), ReceiptState.ENROUTE)

    def time_of(self, written: str) -> datetime | None:
        """A time in UTC; None where it cannot be read, or is none that a message can have."""
        try:
            return in_range(_time(written, self.time_format, ZoneInfo(self.time_zone)))
        except (ValueError, OverflowError, OSError, TimeOutOfRange):
            return None


_NUMBER: Final = re.compile(r"[0-9]{1,16}(?:\.[0-9]{0,9})?")
# A + before the offset that was not encoded in a query arrives as a blank.
_LOST_PLUS: Final = re.compile(r"(?<=[0-9]) (?=[0-9]{2}:?[0-9]{2}$)")
_LENGTH_WITHOUT_SECONDS: Final = 10


def _time(written: str, form: TimeFormat, zone: ZoneInfo) -> datetime:
    match form:
        case TimeFormat.ISO8601:
            if "T" in written:
                written = _LOST_PLUS.sub("+", written)
            found = datetime.fromisoformat(written)
            return found.replace(tzinfo=zone) if found.tzinfo is None else found
        case TimeFormat.UNIX | TimeFormat.UNIX_MS:
            if not _NUMBER.fullmatch(written):
                raise ValueError("no number")
            seconds = float(written) / (1000 if form is TimeFormat.UNIX_MS else 1)
            return datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)
        case TimeFormat.SMPP:
            with_seconds = len(written) > _LENGTH_WITHOUT_SECONDS
            if not written.isascii() or not written.isdigit():
                raise ValueError("no digits")
            return datetime.strptime(
                written, "%y%m%d%H%M%S" if with_seconds else "%y%m%d%H%M"
            ).replace(tzinfo=zone)
