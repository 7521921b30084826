"""Sentences for what pydantic finds wrong, for people who never heard of pydantic.

They never repeat a value that was given, because it may be a secret in the wrong place.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from pydantic_core import ErrorDetails

from domain.parameters import NAME_PATTERN

_PATTERNS: Mapping[str, str] = MappingProxyType(
    {
        r"^[a-z][a-z0-9_-]{0,31}$": "a name has up to 32 lower-case letters, digits, _ and -, "
        "and begins with a letter",
        r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$": "an account's id (`smsctl account list`) has up to 64 letters, "
        "digits, _ and -, and begins with a letter or digit",
        r"^([0-9]{5,6}|unknown)$": 'a network is its MCC and MNC as five or six digits, or "unknown"',
        r"^([0-9A-Fa-f]{2}){0,255}$": "it must be written as pairs of hexadecimal digits, at most 255",
        r"^[\x21-\x7e]{1,15}$": "it must have 1 to 15 characters of ASCII, without blanks (SMPP 3.4, 4.1.1)",
        r"^[\x20-\x7e]{0,12}$": "it must have at most 12 characters of ASCII (SMPP 3.4, 4.1.1)",
        r"^[^\s,;:=]{1,32}$": "a state of receipts is 1 to 32 characters as they stand behind `stat:`, "
        "without blanks and without any of , ; : =",
        r"^https?://[^\s/?#]+\S*$": "it must be an address that begins with https:// or http://",
        NAME_PATTERN: "a parameter's name has up to 64 letters, digits and any of _ . -, and begins with a letter",
        r"^AC[0-9a-fA-F]{32}$": "the SID of an account is AC and 32 hexadecimal digits: Twilio's console shows it",
        r"^SK[0-9a-fA-F]{32}$": "the SID of an API key is SK and 32 hexadecimal digits",
        r"^MG[0-9a-fA-F]{32}$": "the SID of a messaging service is MG and 32 hexadecimal digits",
        r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$": "it must be written as a UUID, such as "
        "aaaaaaaa-bbbb-cccc-dddd-0123456789ab",
        r"^[0-9A-Za-z]{1,64}$": "it must have 1 to 64 letters and digits",
        r"^[\x21-\x39\x3b-\x7e]{1,255}$": "it must have 1 to 255 characters of ASCII, without blanks and "
        "colons (RFC 7617, 2)",
        r"^[a-z][a-z0-9_]{0,31}$": "a name has up to 32 lower-case letters, digits and _, and begins with a "
        "letter",
        r"^[\x21-\x7e ]{1,100}$": "it must have 1 to 100 characters of ASCII",
        r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$": "it must be the name of a header (RFC 9110, 5.1)",
        r"^[\x21-\x7e ]{0,64}$": "it must have at most 64 characters of ASCII",
        r"^[A-Za-z0-9_.:-]{0,16}$": "it must have at most 16 letters, digits and any of _ . : -",
        r"^[^\s:/]+:[0-9]{1,5}$": "it must be written as host:port",
    }
)

_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "missing": "it is missing",
        "string_type": "it must be a text, in quotes",
        "int_type": "it must be a whole number, without quotes",
        "int_parsing": "it must be a whole number",
        "int_from_float": "it must be a whole number",
        "float_type": "it must be a number, without quotes",
        "float_parsing": "it must be a number",
        "finite_number": "it must be a finite number",
        "bool_type": "it must be true or false, without quotes",
        "bool_parsing": "it must be true or false",
        "tuple_type": "it must be a list, in [ ]",
        "dict_type": "it must be a table",
        "model_type": "it must be a table",
        "model_attributes_type": "it must be a table",
        "path_type": "it must be a path",
        "enum": "it must be one of {expected}",
        "literal_error": "it must be one of {expected}",
        "greater_than": "it must be more than {gt}",
        "greater_than_equal": "it must be at least {ge}",
        "less_than": "it must be less than {lt}",
        "less_than_equal": "it must be at most {le}",
        "string_too_short": "it must have at least {min_length} characters",
        "string_too_long": "it must have at most {max_length} characters",
        "too_short": "it must have at least {min_length} entries",
        "too_long": "it must have at most {max_length} entries",
        "extra_forbidden": "there is no such key",
    }
)


def sentence_about(details: ErrorDetails) -> str:
    """What is wrong with one value, without a full stop and without the value."""
    kind = details["type"]
    context = details.get("ctx", {})
    match kind:
        case "value_error":
            return str(context["error"])
        case "string_pattern_mismatch" if context["pattern"] in _PATTERNS:
            return _PATTERNS[context["pattern"]]
        case _ if kind in _TEMPLATES:
            return _TEMPLATES[kind].format_map(
                {name: _number(value) for name, value in context.items()}
            )
        case _:
            return _lower(details["msg"])


def _number(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


def _lower(text: str) -> str:
    return re.sub(r"^[A-Z](?=[a-z])", lambda found: found[0].lower(), text)
