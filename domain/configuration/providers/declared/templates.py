"""Texts with placeholders, such as `{to}` and `{secret:NAME}`, that a request is written with."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator

from domain.parameters import NAME_PATTERN

PLACEHOLDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "to": "the recipient's number in E.164, with its +",
        "to_digits": "the recipient's number without +",
        "to_00": "the recipient's number with 00 instead of +",
        "to_number": "the recipient's number without +; in JSON a number, not a text",
        "from": "the sender as it was accepted",
        "from_digits": "the sender; a number without its +",
        "from_number": "the sender without +, if it is a number or a short code",
        "from_name": "the sender, if it is a name",
        "text": "the text",
        "text_hex": "the text in UTF-16BE, as hexadecimal digits",
        "text_gsm7": "the text, if GSM-7 has all of its characters",
        "text_ucs2": "the text, if GSM-7 lacks one of its characters",
        "text_ucs2_hex": "as text_ucs2, in UTF-16BE as hexadecimal digits",
        "coding": "the value of `coding` for the encoding of the text",
        "segments": "how many segments the text has, as the gateway counts; in JSON a number",
        "message_id": "the id of the message, `msg_…`",
        "reference": "the attempt, as 29 lower-case letters and digits; receipts may have it back",
        "receipt_url": "the address for the receipts of this attempt; empty without a public address",
        "validity_seconds": "for how many seconds from now the provider may try; in JSON a number",
        "validity_minutes": "for how many minutes from now the provider may try; in JSON a number",
        "valid_until": "until when the provider may try, as in 2026-11-28T12:00:00Z",
        "valid_until_unix": "until when the provider may try, in Unix seconds; in JSON a number",
    }
)
"""Of a request that sends a message, and what each stands for."""

SECRET: Final = "secret"  # noqa: S105 - the name of a placeholder
PARAMETER: Final = "parameter"
MESSAGE_ID: Final = "id"
"""The provider's id of a message, in a request for its state."""

_RECIPIENT: Final = frozenset({"to", "to_digits", "to_00", "to_number"})
_ALWAYS_GIVEN: Final = _RECIPIENT | {"message_id", "reference", "segments"}
SENDS_TO: Final = _RECIPIENT
SENDS_TEXT: Final = frozenset(name for name in PLACEHOLDERS if name.startswith("text"))

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_PARAMETER_NAME: Final = re.compile(NAME_PATTERN)
_SECRET_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_LONGEST: Final = 1000


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A place in a template: `{name}` or `{name:argument}`."""

    name: str
    argument: str = ""


Values: TypeAlias = Callable[[Placeholder], str | int | None]
"""Returns what a placeholder stands for; None or an empty text where it has no value."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text, cut at its placeholders."""

    pieces: tuple[str | Placeholder, ...]

    @property
    def placeholders(self) -> tuple[Placeholder, ...]:
        return tuple(piece for piece in self.pieces if isinstance(piece, Placeholder))

    def arguments(self, name: str) -> frozenset[str]:
        """The arguments of the placeholders with this name: of which secrets, or parameters."""
        return frozenset(each.argument for each in self.placeholders if each.name == name)

    def fill(self, values: Values, written: Callable[[str], str] = str) -> str | None:
        """The text with its values, each as `written` returns it; None where one of them is missing."""
        text = ""
        for piece in self.pieces:
            if isinstance(piece, str):
                text += piece
                continue
            value = values(piece)
            if value is None or value == "":
                return None
            text += written(str(value))
        return text

    def typed(self, values: Values) -> str | int | None:
        """As `fill`; a template that is one placeholder has the type of its value."""
        if len(self.pieces) == 1 and isinstance(self.pieces[0], Placeholder):
            value = values(self.pieces[0])
            return None if value == "" else value
        return self.fill(values)


@lru_cache(maxsize=4096)
def parse_template(text: str) -> Template:
    """Cut a text at its placeholders; `{{` and `}}` stand for braces.

    Raises:
        ValueError: a brace is neither, or the text is too long; the sentence does not repeat it.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"a text with placeholders has at most {_LONGEST} characters")
    pieces: list[str | Placeholder] = []
    literal, end = "", 0
    for token in _TOKEN.finditer(text):
        literal += text[end : token.start()]
        end = token.end()
        if token[1] is not None:
            name, _, argument = token[1].partition(":")
            pieces += (
                [literal, Placeholder(name, argument)] if literal else [Placeholder(name, argument)]
            )
            literal = ""
        elif len(token[0]) == 1:
            raise ValueError(
                "a brace begins or ends no placeholder: write {{ or }} for a brace itself"
            )
        else:
            literal += token[0][0]
    literal += text[end:]
    return Template((*pieces, literal) if literal or not pieces else tuple(pieces))


def _check(template: Template, known: Collection[str], *, with_parameters: bool = False) -> None:
    for each in template.placeholders:
        match each.name:
            case "secret":
                is_right = bool(_SECRET_NAME.fullmatch(each.argument))
                sentence = "{secret:NAME} needs the name of one of the provider's secrets"
            case "parameter" if with_parameters:
                is_right = bool(_PARAMETER_NAME.fullmatch(each.argument))
                sentence = "{parameter:NAME} needs the name of a parameter of messages"
            case _:
                is_right = each.name in known and not each.argument
                sentence = _unknown(each.name, known)
        if not is_right:
            raise ValueError(sentence)


def _unknown(name: str, known: Collection[str]) -> str:
    if not known:
        return "there are only placeholders of secrets here: {secret:NAME}"
    close = difflib.get_close_matches(name[:64], sorted(known), n=1)
    if close and close[0] != name:
        return f"it has a placeholder that does not exist; did you mean {{{close[0]}}}?"
    return f"it has a placeholder that does not exist here: there are {_listed(known)}"


def _listed(known: Collection[str]) -> str:
    *others, last = (f"{{{name}}}" for name in sorted(known))
    return f"{', '.join(others)} and {last}" if others else last


def checked_message(text: str) -> str:
    """The text itself, if it is one with placeholders of a message.

    Raises:
        ValueError: it is not; the sentence says why.
    """
    _check(parse_template(text), PLACEHOLDERS, with_parameters=True)
    return text


def _checked_secret(text: str) -> str:
    _check(parse_template(text), ())
    return text


def _with_secret(text: str) -> str:
    if not parse_template(_checked_secret(text)).arguments(SECRET):
        raise ValueError(
            "a secret is not written here: declare it in secrets, and write {secret:NAME}"
        )
    return text


def _checked_poll(text: str) -> str:
    _check(parse_template(text), {MESSAGE_ID})
    return text


# RFC 3986, 3.3: the characters of a path that need no encoding, beside the placeholders.
_PATH: Final = re.compile(r"/[A-Za-z0-9\-._~/:@!$&'()*+,;=%{}]*")


def _checked_path(text: str) -> str:
    literal = re.sub(r"\{[^{}]*\}", "", text)
    if not _PATH.fullmatch(re.sub(r"\{[^{}]*\}", "{}", text)):
        raise ValueError("a path begins with / and is percent-encoded ASCII; its query is `query`")
    if re.search(r"%(?![0-9A-Fa-f]{2})", literal):
        raise ValueError(
            "a % in a path is followed by two hexadecimal digits: write %25 for the sign itself"
        )
    if "//" in text or any(segment in {".", ".."} for segment in text.split("/")):
        raise ValueError("a path has no empty segments, and none that is . or ..")
    return text


def _checked_send_path(text: str) -> str:
    _check(parse_template(_checked_path(text)), _ALWAYS_GIVEN, with_parameters=True)
    return text


def _checked_poll_path(text: str) -> str:
    _checked_poll(_checked_path(text))
    return text


MessageTemplate = Annotated[str, AfterValidator(checked_message)]
"""A text with any placeholder of a message, of secrets and of parameters."""
SecretTemplate = Annotated[str, AfterValidator(_checked_secret)]
"""A text with placeholders of secrets only."""
WithSecret = Annotated[str, AfterValidator(_with_secret)]
"""A text with at least one placeholder of a secret, and no others."""
PollTemplate = Annotated[str, AfterValidator(_checked_poll)]
"""A text with placeholders of secrets, and `{id}`."""
SendPath = Annotated[str, AfterValidator(_checked_send_path)]
"""A path with placeholders that always have a value."""
PollPath = Annotated[str, AfterValidator(_checked_poll_path)]
