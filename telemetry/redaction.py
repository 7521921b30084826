"""What may leave the process: ids, countries, networks, codes and figures, and nothing else.

Logs, metric labels and spans share one rule: a value passes only under a key that is listed here,
and only in the shape that belongs to that key. So a phone number under `provider`, or a sentence
under `reason`, is held back like a key that nobody listed.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import Any
from uuid import UUID

REDACTED = "[redacted]"

Passed = str | int | float | bool | None
"""What a value becomes when it may pass."""

_Shape = Callable[[Any], Passed]

_NUMBERS_BELOW = 10_000_000  # E.164 numbers have more digits, so a count cannot be one
_WORD = re.compile(r"[A-Za-z/][A-Za-z0-9_.:/<>{}-]*", re.ASCII)
_WORD_LENGTH = 80
_DIGITS_IN_A_WORD = 6
_CODE = re.compile(r"0[xX][0-9A-Fa-f]{1,8}|-?[0-9]{1,5}|[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", re.ASCII)
_HEX_CODE = re.compile(r"0[xX][0-9A-Fa-f]{1,8}", re.ASCII)
# SQLSTATE has digits, but five characters; a decimal code of a carrier has at most five.
_DIGITS_IN_A_CODE = 5
_ID = re.compile(r"[a-z]{2,8}_[0-9a-f]{32}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII)
_HASH = re.compile(r"(?:[0-9a-f]{16}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})", re.ASCII)
_COUNTRY = re.compile(r"[A-Z]{2}|001|unknown", re.ASCII)
_NETWORK = re.compile(r"[0-9]{5,6}|unknown", re.ASCII)
_HOST = re.compile(r"(?=.*[A-Za-z.:])[A-Za-z0-9.\[\]:_-]{1,255}", re.ASCII)
_PLACE = re.compile(r"[A-Za-z0-9_./<>-]{1,160}:[0-9]{1,6}", re.ASCII)
_VERSION = re.compile(r"v?[0-9]{1,4}(?:\.[0-9A-Za-z]{1,6}){0,4}", re.ASCII)
_TRACE = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}", re.ASCII)


def _matching(pattern: re.Pattern[str]) -> _Shape:
    def shape(value: Any) -> Passed:
        text = _as_text(value)
        return text if text is not None and pattern.fullmatch(text) else REDACTED

    return shape


def _as_text(value: Any) -> str | None:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, UUID):
        return str(value)
    return value if isinstance(value, str) else None


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def word(value: Any) -> Passed:
    """A name from a closed set or from the configuration: no blanks, few digits."""
    text = _as_text(value)
    passes = (
        text is not None
        and len(text) <= _WORD_LENGTH
        and _WORD.fullmatch(text) is not None
        and _digits(text) <= _DIGITS_IN_A_WORD
    )
    return text if passes else REDACTED


def code(value: Any) -> Passed:
    """A carrier's, a protocol's or a database's code: "0x00000058", 30003, "23505", "UNDELIV"."""
    if isinstance(value, Enum):
        value = value.value
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text:
        return "" if value == "" else REDACTED
    if not _CODE.fullmatch(text):
        return REDACTED
    return text if _HEX_CODE.fullmatch(text) or _digits(text) <= _DIGITS_IN_A_CODE else REDACTED


def number(value: Any) -> Passed:
    """A figure; one with as many digits as a phone number does not pass."""
    if isinstance(value, timedelta):
        return round(value.total_seconds(), 6)
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) < _NUMBERS_BELOW:
        return round(value, 6) if isinstance(value, float) else int(value)
    return REDACTED


def switch(value: Any) -> Passed:
    """True or false."""
    return value if isinstance(value, bool) else REDACTED


def moment(value: Any) -> Passed:
    """A time, as ISO 8601; only from an object, since a text could be anything."""
    return value.isoformat() if isinstance(value, datetime | date) else REDACTED


def identifier(value: Any) -> Passed:
    """An id of ours: a prefixed id, a UUID, or a name from the configuration."""
    text = _as_text(value)
    if text is not None and (_ID.fullmatch(text) or _UUID.fullmatch(text)):
        return text
    return word(value)


def workflow(value: Any) -> Passed:
    """A workflow's id: ids, hashes and names, joined by slashes."""
    text = _as_text(value)
    if text is None:
        return REDACTED
    parts = text.split("/")
    passes = all(
        _ID.fullmatch(part)
        or _UUID.fullmatch(part)
        or _HASH.fullmatch(part)
        or word(part) != REDACTED
        for part in parts
    )
    return text if passes else REDACTED


def version(value: Any) -> Passed:
    """A version, such as "1.35.0" or "v1"."""
    text = _as_text(value)
    passes = text is not None and _VERSION.fullmatch(text) and _digits(text) <= _DIGITS_IN_A_WORD
    return text if passes else REDACTED


def _or_none(shape: _Shape) -> _Shape:
    return lambda value: None if value is None else shape(value)


_SHAPES: dict[str, _Shape] = {
    # who and what
    "message_id": identifier,
    "account_id": identifier,
    "attempt_id": identifier,
    "callback_id": identifier,
    "key_id": identifier,
    "by_key_id": identifier,
    "request_id": identifier,
    "receipt_id": identifier,
    "event_id": identifier,
    "dead_letter_id": identifier,
    "bulk_id": identifier,
    "lane_id": identifier,
    "workflow_id": workflow,
    "run_id": identifier,
    "trace_id": _matching(_TRACE),
    "span_id": _matching(_TRACE),
    # where it goes
    "provider": word,
    "provider_type": word,
    "country": _matching(_COUNTRY),
    "network": _matching(_NETWORK),
    "route": word,
    "route_number": number,
    "task_queue": word,
    "bind": word,
    "session": word,
    "host": _matching(_HOST),
    "port": number,
    "namespace": word,
    # what it is
    "mode": word,
    "priority": word,
    "environment": word,
    "encoding": word,
    "status": code,
    "was": word,
    "now": word,
    "state": word,
    "verdict": word,
    "decision": word,
    "outcome": word,
    "reason": word,
    "why": word,
    "code": code,
    "error_class": word,
    "error_type": word,
    "sqlstate": code,
    "pool": word,
    "epoch": number,
    "attempt": number,
    "part": number,
    "parts": number,
    "segments": number,
    "actor": word,
    "scope": word,
    # how much, how long, when
    "count": number,
    "size": number,
    "window": number,
    "in_flight": number,
    "waiting": number,
    "dropped": number,
    "reminded": number,
    "restarted": number,
    "duration_ms": number,
    "delay_s": number,
    "timeout_s": number,
    "age_s": number,
    "rate": number,
    "until": moment,
    "at": moment,
    "due": moment,
    "check_by": moment,
    # what runs
    "role": word,
    "runner": word,
    "operation": word,
    "step": word,
    "command": word,
    "activity_type": word,
    "workflow_type": word,
    "signal": word,
    "event_kind": word,
    "method": word,
    "table": word,
    "pid": number,
    "exit_code": number,
    "version": version,
    "needed": version,
    "dependency": word,
    "config_version": number,
    "place": _matching(_PLACE),
    "ready": switch,
    "tls": switch,
    "matched": switch,
    "duplicate": switch,
    "late": switch,
}
ALLOWED: Mapping[str, _Shape] = MappingProxyType(
    {key: _or_none(shape) for key, shape in _SHAPES.items()}
)
"""Every key that may be logged or put on a span, with the shape of its values."""


def redacted(values: Mapping[str, Any]) -> dict[str, Passed]:
    """The values that may pass; what does not fit its key's shape becomes "[redacted]".

    Values under keys that are not listed are left out, and only counted, under `dropped`: even a
    key can be data when somebody passes a customer's metadata as keywords.
    """
    passed = {key: ALLOWED[key](value) for key, value in values.items() if key in ALLOWED}
    missing = len(values) - len(passed)
    if missing:
        passed["dropped"] = missing
    return passed


_NUMBER_LIKE = re.compile(r"\+?\d(?:[\s().\-/]{0,3}\d){5,}")
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`|\u201c[^\u201d\n]*\u201d")
_ADDRESS = re.compile(r"[^\s@<>]+@[^\s@<>]+")
_QUERY = re.compile(r"\?\S+")


def masked(text: str, longest: int = 200) -> str:
    """A foreign text without what could be data.

    Taken out are numbers of six digits or more (in any script, however grouped), quoted parts,
    mail addresses and query strings.
    """
    for pattern, mark in (
        (_QUOTED, "[...]"),
        (_QUERY, "?[...]"),
        (_ADDRESS, "[...]"),
        (_NUMBER_LIKE, "[...]"),
    ):
        text = pattern.sub(mark, text)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= longest else text[:longest] + "..."
