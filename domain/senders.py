"""Sender IDs: what a message says it comes from, and how SMPP writes that."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from domain.numbers import InvalidNumber, parse_number


class SenderKind(StrEnum):
    ALPHANUMERIC = "alphanumeric"
    SHORT_CODE = "short_code"
    LONG_NUMBER = "long_number"


# (TON, NPI) by SMPP 3.4, 5.2.5 and 5.2.6: alphanumeric/unknown, network specific/unknown,
# international/ISDN. For short codes the specification leaves it open; network specific is what
# most SMSCs document, since a short code means something in one network only.
_ADDRESSING: Mapping[SenderKind, tuple[int, int]] = {
    SenderKind.ALPHANUMERIC: (5, 0),
    SenderKind.SHORT_CODE: (3, 0),
    SenderKind.LONG_NUMBER: (1, 1),
}


class SenderProblem(StrEnum):
    EMPTY = "empty"
    TOO_LONG = "too_long"
    NO_LETTER = "no_letter"
    CHARACTER_NOT_ALLOWED = "character_not_allowed"
    NOT_A_NUMBER = "not_a_number"


_ADVICE: Mapping[SenderProblem, str] = {
    SenderProblem.EMPTY: (
        "The sender is missing: give a name of 1 to 11 characters, a short code, or a number in "
        "international form."
    ),
    SenderProblem.TOO_LONG: (
        "The sender's name is too long: it may have at most 11 characters, spaces included."
    ),
    SenderProblem.NO_LETTER: (
        "The sender has no letter and is no number: a name needs a letter, a short code has 3 to 8 "
        "digits, and a number is in international form."
    ),
    SenderProblem.CHARACTER_NOT_ALLOWED: (
        "The sender's name holds a character that networks do not carry: use the letters A to Z "
        "without accents, digits, spaces, and any of ! \" # % & ' ( ) * + , - . / : ; < = > ? _"
    ),
    SenderProblem.NOT_A_NUMBER: (
        "The sender is neither a short code of 3 to 8 digits nor a number that is possible in "
        "international form: check its digits, and begin a number with + and its country calling "
        "code."
    ),
}


class InvalidSender(ValueError):
    """Text that is no sender ID. The sentence says what to do, and never the sender."""

    def __init__(self, problem: SenderProblem) -> None:
        super().__init__(_ADVICE[problem])
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Sender:
    kind: SenderKind
    value: str
    """A name, a short code, or a number in E.164 with its +."""

    @property
    def ton(self) -> int:
        """`source_addr_ton` of SMPP 3.4, 5.2.5."""
        return _ADDRESSING[self.kind][0]

    @property
    def npi(self) -> int:
        """`source_addr_npi` of SMPP 3.4, 5.2.6."""
        return _ADDRESSING[self.kind][1]

    @property
    def address(self) -> str:
        """`source_addr` of SMPP 3.4, 5.2.8: ASCII, a number without its +."""
        return self.value.removeprefix("+") if self.kind is SenderKind.LONG_NUMBER else self.value

    @property
    def takes_replies(self) -> bool:
        """Whether a phone can reply to it; a name has nothing to reply to."""
        return self.kind is not SenderKind.ALPHANUMERIC


# TS 23.040, 9.1.2.5: ten octets of packed septets.
_LONGEST_NAME = 11

# The ASCII that has the same code in GSM-7, so that it does not matter which of the two an SMSC
# takes an address for: not @ (0x00 in GSM-7, where the address would end) and not $. The underscore
# differs too, but is common in names and taken by all large carriers.
_NAME = re.compile(r"[A-Za-z0-9 !\"#%&'()*+,\-./:;<=>?_]+")
_LETTER = re.compile(r"[A-Za-z]")
_SHORT_CODE = re.compile(r"[0-9]{3,8}")
_NUMBER = re.compile(r"\+.*|[ \-./()]*[0-9][0-9 \-./()]*")


@lru_cache(maxsize=1024)  # an account has few, and thousands of messages have the same
def parse_sender(text: str) -> Sender:
    """Reads a sender ID: a name, a short code, or a number with or without its +.

    Spaces around it do not count. 3 to 8 digits are a short code; more must be a possible number.
    Raises InvalidSender.
    """
    sender = text.strip()
    if not sender:
        raise InvalidSender(SenderProblem.EMPTY)
    if _SHORT_CODE.fullmatch(sender):
        return Sender(SenderKind.SHORT_CODE, sender)
    if _NUMBER.fullmatch(sender):
        return _long_number(sender)
    if not _NAME.fullmatch(sender):
        raise InvalidSender(SenderProblem.CHARACTER_NOT_ALLOWED)
    if not _LETTER.search(sender):
        raise InvalidSender(SenderProblem.NO_LETTER)
    if len(sender) > _LONGEST_NAME:
        raise InvalidSender(SenderProblem.TOO_LONG)
    return Sender(SenderKind.ALPHANUMERIC, sender)


def _long_number(sender: str) -> Sender:
    try:
        number = parse_number(sender if sender.startswith("+") else f"+{sender}")
    except InvalidNumber as error:
        raise InvalidSender(SenderProblem.NOT_A_NUMBER) from error
    return Sender(SenderKind.LONG_NUMBER, number.e164)
