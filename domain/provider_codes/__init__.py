"""Codes that providers give: what each is worth, and what it means for people. One module for each type."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from domain.error_classes import ErrorClass
from domain.receipts import ReceiptState


@dataclass(frozen=True, slots=True)
class CodeMeaning:
    """What a code stands for; `name` is empty where nobody gave it one."""

    name: str
    meaning: str


@dataclass(frozen=True, slots=True)
class ProviderCode:
    """A code of a provider with an HTTP API.

    Attributes:
        meaning: a short phrase, in our words.
        error_class: what it is worth; UNKNOWN where the message may have been sent all the same. None for
            a warning: the message was not affected.
        state: replaces the state of a receipt with this code; None leaves it as it is.
    """

    meaning: str
    error_class: ErrorClass | None
    state: ReceiptState | None = None


# What may stand in logs, metrics and explanations: a short word or number. A vendor's sentence, in which a
# phone number or a text may be, is none.
_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,40}", re.ASCII)
_MANY_DIGITS: Final = re.compile(r"[0-9]{7}", re.ASCII)


def as_code(written: str) -> str:
    """A vendor's code; empty for a text that is none."""
    return written if _CODE.fullmatch(written) and not _MANY_DIGITS.search(written) else ""


# Codes of our own, of attempts that ended before a provider answered.
OWN_CODES: Final[Mapping[str, CodeMeaning]] = {
    "parts_changed": CodeMeaning("", "the text makes other parts now than those sent before"),
    "unsendable_text": CodeMeaning("", "the text does not fit this provider's alphabet or length"),
    "unusable_parameter": CodeMeaning("", "a parameter does not have the form that is configured"),
}
