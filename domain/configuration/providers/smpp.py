"""A provider that is reached by SMPP 3.4, or the simulator, which speaks the same."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from domain.configuration.declared import Declared, mistake_at, refuse
from domain.configuration.durations import Duration
from domain.configuration.providers.base import ProviderConfiguration, ProviderSecret
from domain.configuration.providers.connections import Backoff, TlsOptions, tls_from_switch
from domain.configuration.providers.message_ids import MessageIdForms
from domain.configuration.secret_references import allowed_reference
from domain.encoding import DefaultAlphabet
from domain.error_classes import ErrorClass
from domain.parameters import NAME_PATTERN, UnusableParameter
from domain.receipts import ReceiptState
from domain.secrets import SECRET_SCHEMES
from domain.segments import PartMethod

Octet = Annotated[StrictInt, Field(ge=0, le=0xFF)]


class DataCodings(Declared):
    """Values of `data_coding` that the SMSC expects for each encoding."""

    gsm7: Octet = Field(
        0, description="data_coding of GSM-7, or of the alphabet that `alphabet` names"
    )
    ucs2: Octet = Field(8, description="data_coding of UCS-2")


class ValidityForm(StrEnum):
    """How `validity_period` is sent (SMPP 3.4, 7.1.1); NONE leaves it to the SMSC."""

    RELATIVE = "relative"
    ABSOLUTE = "absolute"
    NONE = "none"


class BindStyle(StrEnum):
    """One session for both directions, or a pair of sessions."""

    TRANSCEIVER = "transceiver"
    TRANSMITTER_RECEIVER = "transmitter_receiver"


# Written by the gateway itself, SMPP 3.4, 5.3.2: a second one would contradict the first.
_OWN_TLVS: Mapping[int, str] = {
    0x0204: "user_message_reference",
    0x020C: "sar_msg_ref_num",
    0x020E: "sar_total_segments",
    0x020F: "sar_segment_seqnum",
    0x0424: "message_payload",
}


class TlvForm(StrEnum):
    """How the value of a message's parameter is written into a TLV."""

    TEXT = "text"
    """UTF-8 without a NUL at its end (SMPP 3.4, 3.1: Octet String)."""
    CSTRING = "cstring"
    """UTF-8 with a NUL at its end (C-Octet String)."""
    HEX = "hex"
    """Octets, from hexadecimal digits."""
    INTEGER = "integer"
    """A whole number of `size` octets, the highest first."""


_MOST_VALUE_OCTETS = 255
_HEX_DIGITS = re.compile(r"([0-9A-Fa-f]{2}){0,255}")


class VendorTlv(Declared):
    """A TLV of the provider; exactly one of `text`, `hex`, `number` and `parameter` is given."""

    tag: Annotated[StrictInt, Field(ge=1, le=0xFFFF)] = Field(
        description="such as 0x1400; sent with every message, or with those that have `parameter`"
    )
    text: Annotated[str, StringConstraints(max_length=255)] | None = Field(
        None, description="value as UTF-8, without a NUL at its end"
    )
    hex: Annotated[str, StringConstraints(pattern=r"^([0-9A-Fa-f]{2}){0,255}$")] | None = Field(
        None, description="value as hexadecimal digits, instead of `text`"
    )
    number: Annotated[StrictInt, Field(ge=0)] | None = Field(
        None, description="value as a number, instead of `text`"
    )
    parameter: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] | None = Field(
        None,
        description="the value is that of the message's parameter with this name; without it the TLV "
        "is left out",
    )
    form: TlvForm | None = Field(
        None, description='how the parameter is written; "text" if it is not given'
    )
    size: Annotated[StrictInt, Field(ge=1, le=8)] | None = Field(
        None,
        description='octets of `number`, or of a parameter with `form = "integer"`, with the highest '
        "first",
    )

    @model_validator(mode="after")
    def _has_one_value(self) -> Self:
        if self.tag in _OWN_TLVS:
            name = _OWN_TLVS[self.tag]
            raise ValueError(f"the gateway itself writes {name} (0x{self.tag:04X}): leave it out")
        values = (self.text, self.hex, self.number, self.parameter)
        if sum(value is not None for value in values) != 1:
            raise ValueError("give exactly one of text, hex, number and parameter")
        if self.form is not None and self.parameter is None:
            raise ValueError(
                "form says how a parameter is written: it is given only with parameter"
            )
        is_number = self.number is not None or self.form is TlvForm.INTEGER
        if is_number != (self.size is not None):
            raise ValueError("a number and size belong together: size is the octets of the number")
        if self.number is not None and self.size and self.number >= 1 << (8 * self.size):
            raise ValueError(f"the number does not fit into {self.size} octets")
        return self

    def value(self, parameters: Mapping[str, str]) -> bytes | None:
        """The octets as sent with a message that has these parameters; None to leave the TLV out.

        `text` is in UTF-8 without a terminating NUL (give `hex` for one).

        Raises:
            UnusableParameter: the parameter's value does not have the form that is declared.
        """
        if self.text is not None:
            return self.text.encode()
        if self.hex is not None:
            return bytes.fromhex(self.hex)
        if self.parameter is None:
            return (self.number or 0).to_bytes(self.size or 1, "big")
        value = parameters.get(self.parameter)
        return None if value is None else self._written(self.parameter, value)

    def _written(self, name: str, value: str) -> bytes:
        match self.form:
            case TlvForm.HEX if _HEX_DIGITS.fullmatch(value):
                return bytes.fromhex(value)
            case TlvForm.INTEGER if value.isascii() and value.isdigit():
                number, size = int(value), self.size or 1
                if number < 1 << (8 * size):
                    return number.to_bytes(size, "big")
            case TlvForm.TEXT | TlvForm.CSTRING | None if "\0" not in value:
                octets = value.encode()
                if len(octets) <= _MOST_VALUE_OCTETS:
                    return octets + b"\0" if self.form is TlvForm.CSTRING else octets
        raise UnusableParameter(name)

    @property
    def most_octets(self) -> int:
        """How many octets the value may have."""
        if self.parameter is not None:
            return self.size or _MOST_VALUE_OCTETS + 1
        return len(self.value({}) or b"")


_HIGHEST_STATUS = 0xFFFFFFFF


def _command_status(key: object) -> int:
    text = str(key)
    try:
        status = int(text, 16) if text.lower().startswith("0x") else int(text)
    except ValueError:
        status = 0
    if not 0 < status <= _HIGHEST_STATUS:
        raise ValueError('a command status is written like "0x00000045", or as a decimal number')
    return status


CommandStatus = Annotated[
    int,
    BeforeValidator(_command_status),
    PlainSerializer(lambda status: f"0x{status:08X}", return_type=str, when_used="json"),
]

ReceiptWord = Annotated[
    str,
    BeforeValidator(lambda word: word.upper() if isinstance(word, str) else word),
    StringConstraints(pattern=r"^[^\s,;:=]{1,32}$"),
]
"""What an SMSC writes behind `stat:`; capitals and small letters are the same."""

# SMPP 3.4, 4.1.1 and 4.4.1: sizes of the fields without their NUL.
SystemId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,15}$")]
SystemType = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{0,12}$")]
_LONGEST_PASSWORD = 8
# A PDU has room for 4 KiB beside a message_payload of 64 KiB; half of it is for the other fields.
_MOST_TLV_OCTETS = 2048
_TLV_HEADER = 4


def checked_password(password: str) -> str:
    """The password itself, if a bind can carry it (SMPP 3.4, 5.2.2).

    Raises:
        ValueError: with a sentence that repeats neither the password nor its length.
    """
    # What is not UTF-8 in an environment variable comes as lone surrogates (PEP 383).
    octets = password.encode("utf-8", "surrogateescape")
    if len(octets) > _LONGEST_PASSWORD or "\0" in password:
        raise ValueError(
            f"an SMPP password has at most {_LONGEST_PASSWORD} octets (SMPP 3.4, 5.2.2) and no NUL, "
            "and this one cannot be sent: have the carrier set another one"
        )
    return password


# What `type = "simulator"` need not say; the name and the password are no secret.
_SIMULATOR: Mapping[str, Any] = {
    "host": "127.0.0.1",
    "port": 2775,
    "system_id": "simulator",
    "password": "simulate",
}


class SmppConfiguration(ProviderConfiguration):
    """One account at an SMSC (SMPP 3.4), or at the simulator, which speaks the same."""

    type: Literal["smpp", "simulator"] = Field(
        "smpp",
        description="`simulator` needs no address, and its password may be written in the file",
    )
    host: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(
        description="name or address of the SMSC"
    )
    port: Annotated[StrictInt, Field(ge=1, le=65535)] = Field(2775, description="port of the SMSC")
    system_id: SystemId = Field(description="the gateway's account name at the SMSC")
    password: str = Field(description="reference to a secret of at most 8 octets")
    system_type: SystemType = Field(
        "", description="value that the carrier requires; usually empty"
    )

    bind: BindStyle = Field(
        BindStyle.TRANSCEIVER, description="one session for both directions, or one for each"
    )
    tls: Annotated[TlsOptions | None, BeforeValidator(tls_from_switch)] = Field(
        None, description="true for TLS, or a table of its options"
    )

    connect_timeout: Duration = Field(
        timedelta(seconds=5), description="timeout for the connection and the bind together"
    )
    enquire_link: Duration = Field(
        timedelta(seconds=30), description="idle time after which enquire_link is sent"
    )
    rebind_backoff: Backoff = Field(
        Backoff(), description="waits between tries to bind again, doubled each time"
    )

    message_id: MessageIdForms = MessageIdForms()
    receipt_states: dict[ReceiptWord, ReceiptState] = Field(
        {},
        description="states of this SMSC's words in `stat:`, where they differ from the standard",
    )
    echoes_reference: StrictBool = Field(
        False, description="whether receipts have the user_message_reference of the submit"
    )

    alphabet: DefaultAlphabet = Field(
        DefaultAlphabet.GSM7, description="alphabet of data_coding 0 at this SMSC"
    )
    data_coding: DataCodings = DataCodings()
    parts: PartMethod = Field(
        PartMethod.UDH8, description="how the parts of a long message are concatenated"
    )
    validity: ValidityForm = Field(ValidityForm.RELATIVE, description="format of validity_period")
    cancel: StrictBool = Field(True, description="whether the SMSC supports cancel_sm")

    source_ton: Octet | None = Field(
        None, description="overrides the value that follows from the sender"
    )
    source_npi: Octet | None = Field(
        None, description="overrides the value that follows from the sender"
    )
    destination_ton: Octet | None = Field(None, description="overrides 1, international")
    destination_npi: Octet | None = Field(None, description="overrides 1, E.164")

    tlvs: tuple[VendorTlv, ...] = ()
    errors: dict[CommandStatus, ErrorClass] = Field(
        {},
        description="error classes of this SMSC's command statuses, where they differ from the standard",
    )

    @model_validator(mode="before")
    @classmethod
    def _simulator_needs_no_address(cls, data: object) -> object:
        if isinstance(data, Mapping) and data.get("type") == "simulator":
            return {**_SIMULATOR, **data}
        return data

    @field_validator("password")
    @classmethod
    def _password_is_a_reference(cls, password: str, info: ValidationInfo) -> str:
        if info.data.get("type") != "simulator":
            return allowed_reference(password, info)
        scheme = password.partition(":")[0]
        if ":" in password and scheme in SECRET_SCHEMES:
            return allowed_reference(password, info)
        return checked_password(password)

    @field_validator("tlvs")
    @classmethod
    def _one_value_for_each_tag(cls, tlvs: tuple[VendorTlv, ...]) -> tuple[VendorTlv, ...]:
        tags = [tlv.tag for tlv in tlvs]
        refuse(
            cls.__name__,
            [
                mistake_at(place, "tag", sentence=f"0x{tag:04X} is given twice")
                for place, tag in enumerate(tags)
                if tag in tags[:place]
            ],
        )
        if sum(_TLV_HEADER + tlv.most_octets for tlv in tlvs) > _MOST_TLV_OCTETS:
            raise ValueError(
                f"all TLVs together have at most {_MOST_TLV_OCTETS} octets, their tags and lengths "
                "included: a PDU has no room for more"
            )
        return tlvs

    @property
    def password_is_literal(self) -> bool:
        """Whether `password` is the password itself, which only a simulator's may be."""
        return self.password.partition(":")[0] not in SECRET_SCHEMES

    def part_method(self, *, long_reference: bool) -> PartMethod:
        if long_reference and self.parts is PartMethod.UDH8:
            return PartMethod.UDH16
        return self.parts

    def receipt_id(self, written: str) -> str:
        return self.message_id.of_receipt(written)

    def known_parameters(self) -> frozenset[str]:
        return frozenset(tlv.parameter for tlv in self.tlvs if tlv.parameter is not None)

    def secrets(self) -> Sequence[ProviderSecret]:
        return (
            ProviderSecret("password", self.password, self.password_is_literal, checked_password),
        )

    def key_files(self) -> Sequence[str]:
        return () if self.tls is None or self.tls.key is None else (self.tls.key,)
