"""What pydantic finds wrong with a request, in sentences for whoever sent it.

A sentence never repeats what was sent: it may be a number, a body, or a secret in the wrong place.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from domain.parameters import NAME_PATTERN
from services import submission

_TIME = "It is a time with its offset, such as 2026-11-30T09:30:00Z (RFC 3339)."
_TEXT = "It is a text, in quotes."
_OBJECT = "It is an object, in {{ }}."
_LIST = "It is a list, in [ ]."

_SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "missing": "It is required, and missing: add it.",
        "string_type": _TEXT,
        "string_unicode": "It holds something that is no character: send whole characters in UTF-8.",
        "string_too_short": "It is too short: it has at least {min_length} characters.",
        "string_too_long": "It is too long: it has at most {max_length} characters.",
        "int_type": "It is a whole number, without quotes.",
        "int_parsing": "It is a whole number.",
        "int_parsing_size": "It is a whole number, and not as large.",
        "int_from_float": "It is a whole number.",
        "greater_than_equal": "It is too small: it is at least {ge}.",
        "less_than_equal": "It is too large: it is at most {le}.",
        "bool_type": "It is true or false, without quotes.",
        "bool_parsing": "It is true or false.",
        "datetime_type": _TIME,
        "datetime_parsing": _TIME,
        "datetime_from_date_parsing": _TIME,
        "datetime_object_invalid": _TIME,
        "timezone_aware": _TIME,
        "dict_type": _OBJECT,
        "model_type": _OBJECT,
        "model_attributes_type": _OBJECT,
        "list_type": _LIST,
        "tuple_type": _LIST,
        "too_short": "It has too few entries: at least {min_length}.",
        "too_long": "It has too many entries: at most {max_length}.",
        "too_many_bytes": "It is too large: it has at most {max_bytes} bytes.",
        "twice": "It is there twice: leave one of them out.",
    }
)
VISIBLE_ASCII = r"^[\x21-\x7e]{1,255}$"
_PATTERNS: Mapping[str, str] = MappingProxyType(
    {
        VISIBLE_ASCII: "It is 1 to 255 visible ASCII characters, without blanks.",
        NAME_PATTERN: "Its name has a letter first, and then up to 63 letters, digits, _, . and -.",
    }
)
_ELSE = "It is not written as this field wants it: see its description."

# By their own names in the response, so that clients need not know pydantic's.
_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "missing": "missing",
        "extra_forbidden": "unknown_field",
        "enum": "unknown_value",
        "literal_error": "unknown_value",
        "greater_than_equal": "out_of_range",
        "less_than_equal": "out_of_range",
        "string_too_short": "too_short",
        "string_too_long": "too_long",
        "too_short": "too_short",
        "too_long": "too_long",
        "too_many_bytes": "too_long",
    }
)

# A name that was sent is repeated only if it can be nothing else than a name.
_NAME = re.compile(r"(?=\D*(?:\d\D*){0,5}\Z)[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_UNNAMED = "?"
_PLACES = frozenset({"body", "query", "path", "header"})


def field_errors_of(
    errors: Sequence[Mapping[str, Any]], known: Mapping[str, Sequence[str]]
) -> list[submission.FieldError]:
    """One fault for each error that pydantic reported.

    Args:
        errors: as `RequestValidationError.errors` has them.
        known: the names of the fields that the endpoint knows: under "" those of the request
            itself, under a field's name those of what it holds.
    """
    return [_fault(error, known) for error in errors]


def _fault(error: Mapping[str, Any], known: Mapping[str, Sequence[str]]) -> submission.FieldError:
    kind = str(error["type"])
    field = _field(error["loc"])
    return submission.FieldError(
        field, _REASONS.get(kind, "invalid"), _sentence(kind, field, error, known)
    )


def _sentence(
    kind: str, field: str, error: Mapping[str, Any], known: Mapping[str, Sequence[str]]
) -> str:
    context = error.get("ctx") or {}
    match kind:
        case "extra_forbidden":
            return _unknown(field, known)
        case "enum" | "literal_error":
            allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
            return f"It is one of: {', '.join(allowed)}."
        case "value_error":
            # Of our own validators, whose sentences repeat no values.
            return str(context["error"])
        case "string_pattern_mismatch":
            return _PATTERNS.get(context["pattern"], _ELSE)
        case "missing" if not field:
            return "A body is required, and missing: send a JSON object."
        case _:
            return _SENTENCES.get(kind, _ELSE).format_map(context)


def _unknown(field: str, known: Mapping[str, Sequence[str]]) -> str:
    *holders, name = (step for step in field.split(".") if not step.isdecimal())
    names = sorted(known.get(".".join(holders), ()))
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    if close:
        return f"There is no such field: did you mean {close[0]}? Rename it, or leave it out."
    if names:
        return f"There is no such field: leave it out. Known are: {', '.join(names)}."
    return "There is no such field: leave it out."


def _field(location: Sequence[Any]) -> str:
    steps = list(location[1:] if location and location[0] in _PLACES else location)
    if steps[-1:] == ["[key]"]:
        steps = steps[:-1]
    return ".".join(_step(step) for step in steps)


def _step(step: object) -> str:
    if isinstance(step, int):
        return str(step)
    return step if isinstance(step, str) and _NAME.fullmatch(step) else _UNNAMED
