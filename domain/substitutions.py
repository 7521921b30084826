"""Smart encoding: what a word processor put in, put back as GSM-7 has it.

One curly quote makes a whole message UCS-2, and 160 characters become 70. Only what reads the same
afterwards is replaced: signs of typography, and letters under another code, but never one letter
by another.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from unicodedata import normalize

import regex

from domain.encoding import GSM7_CHARACTERS, DefaultAlphabet, is_gsm7


@dataclass(frozen=True, slots=True)
class Replacement:
    """`count` times `character` (one, or a letter with its combining marks) was replaced."""

    character: str
    replacement: str
    count: int


# Written by code, since most of these look like what replaces them, or like nothing at all.
_REPLACED_BY: Mapping[str, str] = {
    # Single quotes (curly, low, reversed, angled), primes, modifier letters, backtick, acute.
    "'": "\u2018\u2019\u201a\u201b\u2032\u2035\u2039\u203a\u02b9\u02bb\u02bc\u02bd\u02c8`\u00b4\uff07",
    # Double quotes, double primes, guillemets.
    '"': "\u201c\u201d\u201e\u201f\u2033\u2036\u301d\u301e\u301f\u00ab\u00bb\uff02",
    # Hyphens, figure, en and em dash, horizontal bar, minus.
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\u02d7\ufe58\ufe63\uff0d",
    # Ellipsis and leaders.
    "...": "\u2026",
    "..": "\u2025",
    # One dot leader, middle dot, bullet and dot operators.
    ".": "\u2024\u00b7\u2219\u22c5",
    # Bullets and asterisks.
    "*": "\u2022\u2023\u2217\u204e\uff0a",
    # Fraction and division slash.
    "/": "\u2044\u2215\uff0f",
    # Multiplication sign.
    "x": "\u00d7",
    "~": "\u02dc\u223c\uff5e",
    "^": "\u02c6",
    "|": "\u00a6\u2223",
    "!!": "\u203c",
    "?!": "\u2048",
    "!?": "\u2049",
    "??": "\u2047",
    # Increment, product, sum, ohm, kelvin and angstrom signs: letters under another code.
    "\N{GREEK CAPITAL LETTER DELTA}": "\u2206",
    "\N{GREEK CAPITAL LETTER PI}": "\u220f",
    "\N{GREEK CAPITAL LETTER SIGMA}": "\u2211",
    "\N{GREEK CAPITAL LETTER OMEGA}": "\u2126",
    "K": "\u212a",
    "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}": "\u212b",
    # Ligatures, as copied from a PDF.
    "ff": "\ufb00",
    "fi": "\ufb01",
    "fl": "\ufb02",
    "ffi": "\ufb03",
    "ffl": "\ufb04",
    # Tab, and no-break, Ogham, en to hair, narrow, mathematical and ideographic spaces.
    " ": "\t\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u202f\u205f\u3000",
    # Vertical tab, next line, line and paragraph separators.
    "\n": "\v\u0085\u2028\u2029",
    # Soft hyphen, grapheme joiner, zero-width and bidirectional marks, word joiner, invisible
    # operators, variation selectors of text and emoji style, byte order mark.
    "": "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff",
}

SUBSTITUTIONS: Mapping[str, str] = {
    character: replacement
    for replacement, characters in _REPLACED_BY.items()
    for character in characters
}
"""Each character that smart encoding replaces, with what replaces it."""

# A letter with its accents decomposed, as text from a Mac often has them, or one of the table.
_REPLACEABLE = regex.compile(
    r"\p{L}[\u0300-\u034e\u0350-\u036f]+|[" + regex.escape("".join(SUBSTITUTIONS)) + "]"
)

# A text with any other character does not become GSM-7: its letters are not looked through.
_REPLACEABLE_TEXT: frozenset[str] = frozenset(
    {*GSM7_CHARACTERS, *SUBSTITUTIONS, *map(chr, range(0x300, 0x370))}
)


def substitute(
    text: str, alphabet: DefaultAlphabet = DefaultAlphabet.GSM7
) -> tuple[str, tuple[Replacement, ...]]:
    """The text in GSM-7 with the replacements that made it so, in order of first appearance.

    All or nothing: a text that is GSM-7 already, or would not become it, is returned as it is.
    """
    if is_gsm7(text, alphabet) or not _REPLACEABLE_TEXT.issuperset(text):
        return text, ()
    replaced: Counter[tuple[str, str]] = Counter()
    pieces = list(_pieces(text, replaced))
    smart = "".join(pieces)
    if not is_gsm7(smart, alphabet):
        return text, ()
    return smart, tuple(Replacement(was, becomes, n) for (was, becomes), n in replaced.items())


def _pieces(text: str, replaced: Counter[tuple[str, str]]) -> Iterator[str]:
    end = 0
    for match in _REPLACEABLE.finditer(text):
        was = match.group()
        becomes = SUBSTITUTIONS.get(was)
        if becomes is None:
            becomes = normalize("NFC", was)
        replaced[was, becomes] += 1
        yield text[end : match.start()]
        yield becomes
        end = match.end()
    yield text[end:]
