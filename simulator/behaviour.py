"""What a carrier does with a message: pure description, and the numbers that stand for it.

A `Behaviour` says how one submit_sm is answered and which receipts follow; a `Dialect` how this
SMSC writes ids and receipts; a `Setup` is both, as a TOML file says them. `TEST_NUMBERS` is the
table of documented numbers by their last digits, which docs/simulator.md and the control page show.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Generic, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from domain.encoding import DefaultAlphabet
from domain.receipts import ReceiptState
from smpp.statuses import Status

_HIGHEST_STATUS: Final = 0xFFFFFFFF

Seconds = Annotated[float, Field(ge=0, le=31 * 24 * 3600)]


def status_code(value: object) -> int:
    """A command_status from its name, such as "ESME_RTHROTTLED", or its number (69, "0x45").

    Raises:
        ValueError: it is neither the name of a status of SMPP 3.4 nor a number from 1.
    """
    if isinstance(value, str) and value in Status.__members__:
        code = int(Status[value])
    else:
        try:
            code = int(value, 0) if isinstance(value, str) else int(str(value))
        except ValueError:
            message = (
                "use a status of SMPP 3.4, section 5.1.3, such as 'ESME_RTHROTTLED', "
                "or its number, such as 88 or '0x58'"
            )
            raise ValueError(message) from None
    if not 0 < code <= _HIGHEST_STATUS:
        message = "a refusal needs a status from 1 to 0xFFFFFFFF; 0 (ESME_ROK) means accepted"
        raise ValueError(message)
    return code


def status_name(code: int) -> str:
    """The ESME name of a command_status, or its hexadecimal number if SMPP 3.4 knows none."""
    try:
        return Status(code).name
    except ValueError:
        return f"0x{code:08X}"


StatusCode = Annotated[
    int, BeforeValidator(status_code), PlainSerializer(status_name, return_type=str)
]


class Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Response(StrEnum):
    """What comes back for a message: for a submit_sm, or for a request."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    """A response with the behaviour's `status`, or its `code` over HTTP."""
    SILENCE = "silence"
    """No response, ever; whether the message was taken says `taken`."""
    RESET = "reset"
    """The connection is reset instead; whether the message was taken says `taken`."""


class ReceiptStep(Described):
    """One receipt of a message, or several equal ones."""

    state: ReceiptState = ReceiptState.DELIVERED
    after: Seconds = 0.05
    """Seconds from the response to the submit, or from reading it when it is not answered."""
    error: str = Field(default="", pattern=r"^[0-9A-Za-z]{0,3}$")
    """The `err:` of the receipt's text; empty for the usual one of the state."""
    copies: int = Field(default=1, ge=1, le=10)
    early: bool = False
    """Sent before the submit_sm_resp; `after` does not count then."""


DELIVERED: Final = (ReceiptStep(),)


class CarrierBehaviour(Described):
    """What happens to a message at a carrier of any kind."""

    response: Response = Response.ACCEPT
    times: int | None = Field(default=None, ge=1)
    """So many submits of a number get `response`, the next one is accepted; None: all of them get it.

    Counted for each number and part; the count begins again after a submit was accepted.
    """
    taken: bool = False
    """Whether a message whose submit was not answered is delivered all the same."""
    latency: Seconds = 0
    """Seconds between reading a submit and answering it."""
    receipt_jitter: Seconds = 0
    """Up to so many seconds are added to each receipt by chance, which puts them out of order."""
    hold: bool = False
    """Receipts that are due are held until they are released."""


class Behaviour(CarrierBehaviour):
    """What happens to a message; by default it is accepted at once and soon delivered."""

    status: StatusCode = int(Status.ESME_RSUBMITFAIL)
    """The refusal, when `response` is `refuse`."""
    part: int | None = Field(default=None, ge=1, le=255)
    """Only this part gets `response`; the others are accepted. None: every part."""
    receipts: tuple[ReceiptStep, ...] = DELIVERED
    """In the order of the table, not of time; empty for none at all."""
    part_receipts: Mapping[int, tuple[ReceiptStep, ...]] = {}
    """Other receipts for single parts, by the part's number."""

    def receipts_of(self, part: int) -> tuple[ReceiptStep, ...]:
        """The receipts of the part with this number (1 for the first or only one)."""
        return self.part_receipts.get(part, self.receipts)


class IdForm(StrEnum):
    """How a message id is written."""

    HEX = "hex"
    DECIMAL = "decimal"

    def write(self, number: int) -> str:
        return f"{number:x}" if self is IdForm.HEX else str(number)

    def read(self, text: str) -> int | None:
        """The number of an id in this form, or None."""
        try:
            return int(text, 16 if self is IdForm.HEX else 10)
        except ValueError:
            return None


class ReceiptCommand(StrEnum):
    """The PDU that carries a receipt."""

    DELIVER_SM = "deliver_sm"
    DATA_SM = "data_sm"


class Dialect(Described):
    """How this SMSC writes what SMPP leaves open."""

    id_in_response: IdForm = IdForm.DECIMAL
    """Also the form that query_sm and cancel_sm are asked in."""
    capitals_in_response: bool = False
    """Hexadecimal ids are in capitals in the response, and in small letters elsewhere."""
    id_in_receipt: IdForm = IdForm.DECIMAL
    """The id in the text of a receipt."""
    id_in_tlv: IdForm | None = None
    """The id in receipted_message_id; None for that of `id_in_receipt`."""
    receipt_tlvs: bool = True
    """Receipts carry receipted_message_id and message_state, and network_error_code on failure."""
    receipt_text: bool = True
    """Receipts carry the text `id:… stat:…` of SMPP 3.4, appendix B."""
    receipt_states: Mapping[ReceiptState, Annotated[str, Field(pattern=r"^[!-~]{1,32}$")]] = {}
    """What the text has behind `stat:` instead of the words of appendix B."""
    receipt_data_coding: int = Field(default=0, ge=0, le=255)
    """The data_coding of receipts, whose text is ASCII all the same."""
    receipt_padding: int = Field(default=0, ge=0, le=8)
    """NULs at the end of the text."""
    receipts_by: ReceiptCommand = ReceiptCommand.DELIVER_SM
    echo_reference: bool = True
    """Receipts carry the submit's user_message_reference."""
    alphabet: DefaultAlphabet = DefaultAlphabet.GSM7
    """What data_coding 0 means here."""

    def response_id(self, number: int) -> str:
        """An id as submit_sm_resp has it."""
        written = self.id_in_response.write(number)
        return written.upper() if self.capitals_in_response else written

    @model_validator(mode="after")
    def _says_which_message(self) -> Self:
        if not (self.receipt_tlvs or self.receipt_text):
            raise ValueError(
                "receipts need `receipt_tlvs`, `receipt_text` or both to name a message"
            )
        return self


class Outage(StrEnum):
    """How an SMSC that is down looks to an ESME; either way cuts every connection there is."""

    NOT_LISTENING = "not_listening"
    """Connections are refused."""
    REFUSES_BINDS = "refuses_binds"
    """Connections are taken, and binds answered with ESME_RBINDFAIL."""


class Setup(Described):
    """An SMSC as a TOML file describes it: how it writes, how it behaves, for whom, how fast."""

    default: Behaviour = Behaviour()
    numbers: Mapping[str, Behaviour] = {}
    dialect: Dialect = Dialect()
    throttle_above: int | None = Field(default=None, ge=1)
    """Submits within a second beyond which ESME_RTHROTTLED is answered; None for no limit."""
    test_numbers: bool = True
    """Whether the documented test numbers mean something here; a backup delivers what its primary
    refuses when they do not."""

    @classmethod
    def read(cls, path: Path) -> "Setup":
        """The setup in a TOML file.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no TOML, or says something that no SMSC here can do.
        """
        return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


AnyBehaviour = TypeVar("AnyBehaviour", bound=CarrierBehaviour)


@dataclass(frozen=True, slots=True)
class NumberMeaning(Generic[AnyBehaviour]):
    """What one documented test number stands for, in a sentence and as behaviour."""

    meaning: str
    behaviour: AnyBehaviour


def _means(meaning: str, **behaviour: object) -> NumberMeaning[Behaviour]:
    return NumberMeaning(meaning, Behaviour.model_validate(behaviour))


def _receipts(*steps: tuple[ReceiptState, float]) -> tuple[ReceiptStep, ...]:
    return tuple(ReceiptStep(state=state, after=after) for state, after in steps)


def _refused(status: Status, why: str) -> NumberMeaning[Behaviour]:
    return _means(
        f"refused with {status.name} (0x{status:02X}): {why}",
        response=Response.REFUSE,
        status=int(status),
    )


NEVER_REACHED: Final = 30 * 24 * 3600.0
_UNDELIVERABLE: Final = _receipts((ReceiptState.UNDELIVERABLE, 0.05))

# By the last two digits of +4477009000xx, and of +120155501xx and +336399800xx, so that another
# country's number is at hand for each. Digits that are not here get the SMSC's default behaviour.
TEST_NUMBERS: Mapping[str, NumberMeaning[Behaviour]] = MappingProxyType(
    {
        # 01 to 19 and 33 to 66: refused for good. Where the digits allow, they are the status in hex.
        "01": _refused(Status.ESME_RINVDSTADR, "no such recipient, on any route"),
        "02": _refused(Status.ESME_RINVSRCADR, "sender not allowed"),
        "03": _refused(Status.ESME_RINVMSGLEN, "message too long"),
        "08": _refused(Status.ESME_RSYSERR, "system error, every time"),
        "14": _refused(Status.ESME_RMSGQFUL, "queue full, every time"),
        "45": _refused(Status.ESME_RSUBMITFAIL, "this route cannot; another may"),
        "58": _refused(Status.ESME_RTHROTTLED, "throttled, every time"),
        "64": _refused(Status.ESME_RX_T_APPN, "temporary application error, every time"),
        # 20 to 29: accepted, and a receipt that is not DELIVRD.
        "20": _means("undeliverable (UNDELIV)", receipts=_UNDELIVERABLE),
        "21": _means("rejected (REJECTD)", receipts=_receipts((ReceiptState.REJECTED, 0.05))),
        "22": _means("expired (EXPIRED)", receipts=_receipts((ReceiptState.EXPIRED, 0.05))),
        "23": _means("deleted (DELETED)", receipts=_receipts((ReceiptState.DELETED, 0.05))),
        "24": _means(
            "state unknown (UNKNOWN), and no further receipt",
            receipts=_receipts((ReceiptState.UNKNOWN, 0.05)),
        ),
        "25": _means(
            "phone is off: no receipt until the validity is over, then EXPIRED",
            receipts=_receipts((ReceiptState.DELIVERED, NEVER_REACHED)),
        ),
        # 30 to 39: delivered, with receipts that are missing, late, repeated or out of order.
        "30": _means("no receipt", receipts=()),
        "31": _means(
            "receipt late, after 5 s", receipts=_receipts((ReceiptState.DELIVERED, 5))
        ),
        "32": _means(
            "receipt early, before the submit_sm_resp", receipts=(ReceiptStep(early=True),)
        ),
        "34": _means("the same receipt three times", receipts=(ReceiptStep(copies=3),)),
        "35": _means(
            "ENROUTE, then delivered after 1 s",
            receipts=_receipts((ReceiptState.ENROUTE, 0.05), (ReceiptState.DELIVERED, 1)),
        ),
        "36": _means(
            "out of order: delivered, and ENROUTE after it",
            receipts=_receipts((ReceiptState.DELIVERED, 0.05), (ReceiptState.ENROUTE, 0.3)),
        ),
        "37": _means("receipt held until it is released", hold=True),
        # 40 to 49: parts.
        "40": _means("the receipt of part 2 never comes", part_receipts={2: ()}),
        "41": _means("part 2 is undeliverable", part_receipts={2: _UNDELIVERABLE}),
        "42": _means(
            "part 2 is refused once with ESME_RSYSERR",
            response=Response.REFUSE,
            status=int(Status.ESME_RSYSERR),
            times=1,
            part=2,
        ),
        "43": _means(
            "part 2 is refused with ESME_RSUBMITFAIL, every time",
            response=Response.REFUSE,
            status=int(Status.ESME_RSUBMITFAIL),
            part=2,
        ),
        "44": _means(
            "the receipts of parts 1 to 3 come in reverse order",
            part_receipts={
                1: _receipts((ReceiptState.DELIVERED, 0.6)),
                2: _receipts((ReceiptState.DELIVERED, 0.4)),
                3: _receipts((ReceiptState.DELIVERED, 0.2)),
            },
        ),
        # 50 to 54: refused at first, then accepted and delivered.
        "50": _means(
            "throttled twice, then accepted",
            response=Response.REFUSE,
            status=int(Status.ESME_RTHROTTLED),
            times=2,
        ),
        "51": _means(
            "system error once, then accepted",
            response=Response.REFUSE,
            status=int(Status.ESME_RSYSERR),
            times=1,
        ),
        "52": _means(
            "queue full twice, then accepted",
            response=Response.REFUSE,
            status=int(Status.ESME_RMSGQFUL),
            times=2,
        ),
        # 70 to 79: no response, or a slow one.
        "70": _means("no response, and lost", response=Response.SILENCE),
        "71": _means("no response, and delivered", response=Response.SILENCE, taken=True),
        "72": _means("connection reset after the submit, and lost", response=Response.RESET),
        "73": _means(
            "connection reset after the submit, and delivered", response=Response.RESET, taken=True
        ),
        "74": _means(
            "no response and lost once, then accepted", response=Response.SILENCE, times=1
        ),
        "75": _means(
            "connection reset and lost once, then accepted", response=Response.RESET, times=1
        ),
        "76": _means("response after 2 s", latency=2),
        "77": _means("no response, delivered, no receipt", response=Response.SILENCE,
                         taken=True, receipts=()),
    }
)  # fmt: skip

_STEERED_RANGES: Final = frozenset({"4477009000", "120155501", "336399800"})

# Of regulators' ranges for tests and films: Ofcom's +447700900000 to 999, NANPA's 555-0100 to 0199,
# and Arcep's +3363998xxxx. Only these are ever shown.
_DOCUMENTED_RANGES: Final = ("447700900", "120155501", "3363998")
_DOCUMENTED_LENGTHS: Final = MappingProxyType({"447700900": 12, "120155501": 11, "3363998": 11})


def digits_of(number: str) -> str:
    """A number without its plus sign, as it is compared here."""
    return number.removeprefix("+")


def meaning_of(
    number: str, numbers: Mapping[str, NumberMeaning[AnyBehaviour]]
) -> NumberMeaning[AnyBehaviour] | None:
    """What the last digits of a number stand for in a table; None when it is not in there."""
    digits = digits_of(number)
    if digits[:-2] not in _STEERED_RANGES:
        return None
    return numbers.get(digits[-2:])


def is_documented(number: str) -> bool:
    """Whether a number is of the ranges set aside for tests, which belong to nobody."""
    digits = digits_of(number)
    return any(
        digits.startswith(range_) and len(digits) == _DOCUMENTED_LENGTHS[range_]
        for range_ in _DOCUMENTED_RANGES
    )
