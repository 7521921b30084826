"""SMPP 3.4 PDUs as values, and their bytes.

Command ids, status codes and TLV tags are smpplib's. The codec is ours, because smpplib's (2.2.4)
raises on TLVs that it does not expect and drops those of vendors, makes silent garbage of missing
terminators and short TLVs, cuts over-long addresses, ignores a given sequence number, cannot write
again what it has read, knows neither cancel_sm, replace_sm, submit_multi nor outbind, and spends
some 20 microseconds on a submit_sm where a table of `struct` runs spends four.
"""

from __future__ import annotations

import struct
from dataclasses import field
from typing import Final

from domain.values import value
from smpp.bodies import DEFAULTS, LAYOUTS, Layout
from smpp.commands import RESPONSES, Command
from smpp.fields import NO_FIELDS, CString, FieldError, Fields, ShortMessage, Unreadable
from smpp.frames import HEADER_LENGTH, MAX_FRAME_LENGTH
from smpp.statuses import Status
from smpp.tlvs import MAX_TLV, TLV_HEADER, Tlv, read_tlvs

MAX_SEQUENCE: Final = 0x7FFFFFFF

_HEADER: Final = struct.Struct(">4I")


class MalformedPdu(Exception):
    """A frame that is complete but cannot be read; the stream behind it stays in step.

    `status` is the command_status to answer with (3.4, 5.1.3). `frame` has the frame's octets.
    """

    def __init__(
        self, command_id: int, sequence: int, status: Status, why: str, frame: bytes = b""
    ) -> None:
        super().__init__(f"command 0x{command_id:08X}: {why} ({status.name})")
        self.command_id = command_id
        self.sequence = sequence
        self.status = status
        self.frame = frame


@value
class Pdu:
    """One PDU. `fields` has SMPP's names; text is bytes, without its terminator.

    Counts (sm_length, number_of_dests, no_unsuccess) are not fields: they follow from what they
    count. The lists of submit_multi, `dest_address` and `unsuccess_sme`, are their octets.

    Fields that are left out are written with their defaults (0 or empty); a decoded Pdu has all
    fields of its command. TLVs are kept in their order, known or not.
    """

    command: Command
    status: int = 0
    sequence: int = 0
    fields: Fields = field(default_factory=lambda: NO_FIELDS, repr=False)
    tlvs: tuple[Tlv, ...] = ()
    frame: bytes = field(default=b"", repr=False, compare=False)
    """The octets that it was decoded from; empty for a PDU of our own."""
    is_irregular: bool = field(default=False, compare=False)
    """Whether `decode` passed over something: octets after the body, or a field that is cut off."""

    def tlv(self, tag: int) -> bytes | None:
        """The value of the first TLV with this tag."""
        for tlv in self.tlvs:
            if tlv.tag == tag:
                return tlv.value
        return None

    def octets(self, name: str) -> bytes:
        """The text or octet field `name`; empty where it is not set."""
        value = self.fields.get(name, b"")
        if not isinstance(value, bytes):
            raise TypeError(f"{name} is a number")
        return value

    def number(self, name: str) -> int:
        """The integer field `name`; its default where it is not set."""
        value = self.fields.get(name)
        if value is None:
            return DEFAULTS.get(name, 0)
        if not isinstance(value, int):
            raise TypeError(f"{name} is text")
        return value

    def reply(
        self,
        status: int = 0,
        fields: Fields = NO_FIELDS,
        tlvs: tuple[Tlv, ...] = (),
    ) -> Pdu:
        """The response to this request, with its sequence number."""
        return Pdu(RESPONSES[self.command], status, self.sequence, fields, tlvs)


def encode(pdu: Pdu) -> bytes:
    """The frame of this PDU, its command_length included.

    Raises:
        FieldError: a value does not fit its field, or the command has no such field.
    """
    layout = LAYOUTS[pdu.command]
    fields = pdu.fields
    if not fields.keys() <= layout.names:
        strange = ", ".join(sorted(fields.keys() - layout.names))
        raise FieldError(f"{layout.command.name} has no field {strange}")
    out: list[bytes] = [b""]
    bare = pdu.status and layout.is_bare_when_refused and not fields and not pdu.tlvs
    if not bare:
        for step in layout.steps:
            step.write(fields, out)
    for tlv in pdu.tlvs:
        try:
            out.append(TLV_HEADER.pack(tlv.tag, len(tlv.value)))
        except struct.error:
            raise FieldError(
                f"a TLV takes a tag of 16 bits and at most {MAX_TLV} octets: tag 0x{tlv.tag:X},"
                f" {len(tlv.value)} octets"
            ) from None
        out.append(tlv.value)
    length = HEADER_LENGTH + sum(map(len, out))
    if length > MAX_FRAME_LENGTH:
        raise FieldError(f"a PDU takes at most {MAX_FRAME_LENGTH} octets, and this has {length}")
    try:
        out[0] = _HEADER.pack(length, layout.command, pdu.status, pdu.sequence)
    except struct.error:
        raise FieldError("status and sequence take integers of 32 bits") from None
    return b"".join(out)


def decode(frame: bytes) -> Pdu:
    """Read one complete frame, as `FrameReader` yields it.

    Octets after the body that are no TLVs are passed over, unless they may be the text of a submit
    that is cut off. A response is also read if it is cut off: fields missing at its end have their
    defaults (a refusal usually has no body, 3.4, 4.4.2), and a text without its NUL ends with the
    frame. A refusal counts whatever stands behind it. A deliver_sm may end within its text.

    Raises:
        MalformedPdu: the only error, whatever the bytes.
    """
    if len(frame) < HEADER_LENGTH:
        raise MalformedPdu(0, 0, Status.ESME_RINVCMDLEN, "the header is cut off", frame)
    length, command_id, status, sequence = _HEADER.unpack_from(frame)
    layout = LAYOUTS.get(command_id)
    if layout is None:
        raise MalformedPdu(command_id, sequence, Status.ESME_RINVCMDID, "no such command", frame)
    if length != len(frame):
        raise MalformedPdu(
            command_id, sequence, Status.ESME_RINVCMDLEN, "command_length is not the length", frame
        )
    fields: Fields
    try:
        fields, position = _read_body(layout, frame)
    except Unreadable as why:
        if layout.is_response and status != Status.ESME_ROK:
            return Pdu(layout.command, status, sequence, layout.empty, (), frame, True)
        raise MalformedPdu(command_id, sequence, why.status, str(why), frame) from None
    if position == length:
        return Pdu(layout.command, status, sequence, fields, (), frame)
    if position > length:
        fields = layout.empty if status else fields
        return Pdu(layout.command, status, sequence, fields, (), frame, True)
    tlvs, left = read_tlvs(frame, position)
    if layout.carries_a_text and left.strip(b"\0"):
        raise MalformedPdu(
            command_id, sequence, Status.ESME_RINVOPTPARSTREAM, "a TLV is cut off", frame
        )
    return Pdu(layout.command, status, sequence, fields, tlvs, frame, bool(left))


def _read_body(layout: Layout, frame: bytes) -> tuple[dict[str, int | bytes], int]:
    """The fields, and the position behind them, which is beyond the frame if a text is cut off."""
    fields: dict[str, int | bytes] = {}
    position = HEADER_LENGTH
    for step in layout.steps:
        if position == len(frame) and layout.is_response:
            return {**layout.empty, **fields}, position
        try:
            position = step.read(frame, position, fields)
        except Unreadable:
            if not layout.may_be_cut_off.issuperset(step.names):
                raise
            if isinstance(step, CString):
                fields[step.name] = frame[position:]
            elif isinstance(step, ShortMessage):
                fields["short_message"] = frame[position + 1 :]
            else:
                raise
            return {**layout.empty, **fields}, len(frame) + 1
    return fields, position
