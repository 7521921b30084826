"""SMPP 3.4 PDUs as values, and their bytes.

This is the one module that touches smpplib. Command ids, status codes, TLV tags and the layouts of
most bodies are smpplib's. The codec that reads and writes them is ours, because smpplib's (2.2.4)
raises on TLVs that it does not expect and drops those of vendors, makes silent garbage of missing
terminators and short TLVs, cuts over-long addresses, ignores a given sequence number, cannot write
again what it has read, knows neither cancel_sm, replace_sm, submit_multi nor outbind, and spends
some 20 microseconds on a submit_sm where a table of `struct` runs spends four.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from smpplib import command as smpplib_command
from smpplib import command_codes, consts
from smpplib.ptypes import ostr

from domain.values import value

HEADER_LENGTH: Final = 16
# message_payload carries up to 64 KiB (3.4, 5.3.2.32); the rest is room for fields and TLVs.
MAX_FRAME_LENGTH: Final = 0x11000
RESPONSE_BIT: Final = 0x80000000
MAX_SEQUENCE: Final = 0x7FFFFFFF


class Command(IntEnum):
    """command_id (SMPP 3.4, 5.1.2.1)."""

    GENERIC_NACK = command_codes.commands["generic_nack"]
    BIND_RECEIVER = command_codes.commands["bind_receiver"]
    BIND_RECEIVER_RESP = command_codes.commands["bind_receiver_resp"]
    BIND_TRANSMITTER = command_codes.commands["bind_transmitter"]
    BIND_TRANSMITTER_RESP = command_codes.commands["bind_transmitter_resp"]
    QUERY_SM = command_codes.commands["query_sm"]
    QUERY_SM_RESP = command_codes.commands["query_sm_resp"]
    SUBMIT_SM = command_codes.commands["submit_sm"]
    SUBMIT_SM_RESP = command_codes.commands["submit_sm_resp"]
    DELIVER_SM = command_codes.commands["deliver_sm"]
    DELIVER_SM_RESP = command_codes.commands["deliver_sm_resp"]
    UNBIND = command_codes.commands["unbind"]
    UNBIND_RESP = command_codes.commands["unbind_resp"]
    REPLACE_SM = command_codes.commands["replace_sm"]
    REPLACE_SM_RESP = command_codes.commands["replace_sm_resp"]
    CANCEL_SM = command_codes.commands["cancel_sm"]
    CANCEL_SM_RESP = command_codes.commands["cancel_sm_resp"]
    BIND_TRANSCEIVER = command_codes.commands["bind_transceiver"]
    BIND_TRANSCEIVER_RESP = command_codes.commands["bind_transceiver_resp"]
    OUTBIND = command_codes.commands["outbind"]
    ENQUIRE_LINK = command_codes.commands["enquire_link"]
    ENQUIRE_LINK_RESP = command_codes.commands["enquire_link_resp"]
    SUBMIT_MULTI = command_codes.commands["submit_multi"]
    SUBMIT_MULTI_RESP = command_codes.commands["submit_multi_resp"]
    ALERT_NOTIFICATION = command_codes.commands["alert_notification"]
    DATA_SM = command_codes.commands["data_sm"]
    DATA_SM_RESP = command_codes.commands["data_sm_resp"]

    @property
    def is_response(self) -> bool:
        return bool(self & RESPONSE_BIT)


class Status(IntEnum):
    """command_status (SMPP 3.4, 5.1.3). SMSCs add their own: a Pdu's status is a plain int."""

    ESME_ROK = consts.SMPP_ESME_ROK
    ESME_RINVMSGLEN = consts.SMPP_ESME_RINVMSGLEN
    ESME_RINVCMDLEN = consts.SMPP_ESME_RINVCMDLEN
    ESME_RINVCMDID = consts.SMPP_ESME_RINVCMDID
    ESME_RINVBNDSTS = consts.SMPP_ESME_RINVBNDSTS
    ESME_RALYBND = consts.SMPP_ESME_RALYBND
    ESME_RINVPRTFLG = consts.SMPP_ESME_RINVPRTFLG
    ESME_RINVREGDLVFLG = consts.SMPP_ESME_RINVREGDLVFLG
    ESME_RSYSERR = consts.SMPP_ESME_RSYSERR
    ESME_RINVSRCADR = consts.SMPP_ESME_RINVSRCADR
    ESME_RINVDSTADR = consts.SMPP_ESME_RINVDSTADR
    ESME_RINVMSGID = consts.SMPP_ESME_RINVMSGID
    ESME_RBINDFAIL = consts.SMPP_ESME_RBINDFAIL
    ESME_RINVPASWD = consts.SMPP_ESME_RINVPASWD
    ESME_RINVSYSID = consts.SMPP_ESME_RINVSYSID
    ESME_RCANCELFAIL = consts.SMPP_ESME_RCANCELFAIL
    ESME_RREPLACEFAIL = consts.SMPP_ESME_RREPLACEFAIL
    ESME_RMSGQFUL = consts.SMPP_ESME_RMSGQFUL
    ESME_RINVSERTYP = consts.SMPP_ESME_RINVSERTYP
    ESME_RINVNUMDESTS = consts.SMPP_ESME_RINVNUMDESTS
    ESME_RINVDLNAME = consts.SMPP_ESME_RINVDLNAME
    ESME_RINVDESTFLAG = consts.SMPP_ESME_RINVDESTFLAG
    ESME_RINVSUBREP = consts.SMPP_ESME_RINVSUBREP
    ESME_RINVESMCLASS = consts.SMPP_ESME_RINVESMCLASS
    ESME_RCNTSUBDL = consts.SMPP_ESME_RCNTSUBDL
    ESME_RSUBMITFAIL = consts.SMPP_ESME_RSUBMITFAIL
    ESME_RINVSRCTON = consts.SMPP_ESME_RINVSRCTON
    ESME_RINVSRCNPI = consts.SMPP_ESME_RINVSRCNPI
    ESME_RINVDSTTON = consts.SMPP_ESME_RINVDSTTON
    ESME_RINVDSTNPI = consts.SMPP_ESME_RINVDSTNPI
    ESME_RINVSYSTYP = consts.SMPP_ESME_RINVSYSTYP
    ESME_RINVREPFLAG = consts.SMPP_ESME_RINVREPFLAG
    ESME_RINVNUMMSGS = consts.SMPP_ESME_RINVNUMMSGS
    ESME_RTHROTTLED = consts.SMPP_ESME_RTHROTTLED
    ESME_RINVSCHED = consts.SMPP_ESME_RINVSCHED
    ESME_RINVEXPIRY = consts.SMPP_ESME_RINVEXPIRY
    ESME_RINVDFTMSGID = consts.SMPP_ESME_RINVDFTMSGID
    ESME_RX_T_APPN = consts.SMPP_ESME_RX_T_APPN
    ESME_RX_P_APPN = consts.SMPP_ESME_RX_P_APPN
    ESME_RX_R_APPN = consts.SMPP_ESME_RX_R_APPN
    ESME_RQUERYFAIL = consts.SMPP_ESME_RQUERYFAIL
    ESME_RINVOPTPARSTREAM = consts.SMPP_ESME_RINVOPTPARSTREAM
    ESME_ROPTPARNOTALLWD = consts.SMPP_ESME_ROPTPARNOTALLWD
    ESME_RINVPARLEN = consts.SMPP_ESME_RINVPARLEN
    ESME_RMISSINGOPTPARAM = consts.SMPP_ESME_RMISSINGOPTPARAM
    ESME_RINVOPTPARAMVAL = consts.SMPP_ESME_RINVOPTPARAMVAL
    ESME_RDELIVERYFAILURE = consts.SMPP_ESME_RDELIVERYFAILURE
    ESME_RUNKNOWNERR = consts.SMPP_ESME_RUNKNOWNERR


def status_name(status: int) -> str:
    """ESME_RTHROTTLED, or 0x00000400 where the specification has no name for it."""
    return _STATUS_NAMES.get(status, f"0x{status:08X}")


_STATUS_NAMES: Final[Mapping[int, str]] = {int(status): status.name for status in Status}


class Tag(IntEnum):
    """TLV tags (SMPP 3.4, 5.3.2). Vendors add their own: a Tlv's tag is a plain int."""

    DEST_ADDR_SUBUNIT = consts.OPTIONAL_PARAMS["dest_addr_subunit"]
    DEST_NETWORK_TYPE = consts.OPTIONAL_PARAMS["dest_network_type"]
    DEST_BEARER_TYPE = consts.OPTIONAL_PARAMS["dest_bearer_type"]
    DEST_TELEMATICS_ID = consts.OPTIONAL_PARAMS["dest_telematics_id"]
    SOURCE_ADDR_SUBUNIT = consts.OPTIONAL_PARAMS["source_addr_subunit"]
    SOURCE_NETWORK_TYPE = consts.OPTIONAL_PARAMS["source_network_type"]
    SOURCE_BEARER_TYPE = consts.OPTIONAL_PARAMS["source_bearer_type"]
    SOURCE_TELEMATICS_ID = consts.OPTIONAL_PARAMS["source_telematics_id"]
    QOS_TIME_TO_LIVE = consts.OPTIONAL_PARAMS["qos_time_to_live"]
    PAYLOAD_TYPE = consts.OPTIONAL_PARAMS["payload_type"]
    ADDITIONAL_STATUS_INFO_TEXT = consts.OPTIONAL_PARAMS["additional_status_info_text"]
    RECEIPTED_MESSAGE_ID = consts.OPTIONAL_PARAMS["receipted_message_id"]
    MS_MSG_WAIT_FACILITIES = consts.OPTIONAL_PARAMS["ms_msg_wait_facilities"]
    PRIVACY_INDICATOR = consts.OPTIONAL_PARAMS["privacy_indicator"]
    SOURCE_SUBADDRESS = consts.OPTIONAL_PARAMS["source_subaddress"]
    DEST_SUBADDRESS = consts.OPTIONAL_PARAMS["dest_subaddress"]
    USER_MESSAGE_REFERENCE = consts.OPTIONAL_PARAMS["user_message_reference"]
    USER_RESPONSE_CODE = consts.OPTIONAL_PARAMS["user_response_code"]
    SOURCE_PORT = consts.OPTIONAL_PARAMS["source_port"]
    DESTINATION_PORT = consts.OPTIONAL_PARAMS["destination_port"]
    SAR_MSG_REF_NUM = consts.OPTIONAL_PARAMS["sar_msg_ref_num"]
    LANGUAGE_INDICATOR = consts.OPTIONAL_PARAMS["language_indicator"]
    SAR_TOTAL_SEGMENTS = consts.OPTIONAL_PARAMS["sar_total_segments"]
    SAR_SEGMENT_SEQNUM = consts.OPTIONAL_PARAMS["sar_segment_seqnum"]
    SC_INTERFACE_VERSION = consts.OPTIONAL_PARAMS["sc_interface_version"]
    CALLBACK_NUM_PRES_IND = consts.OPTIONAL_PARAMS["callback_num_pres_ind"]
    CALLBACK_NUM_ATAG = consts.OPTIONAL_PARAMS["callback_num_atag"]
    NUMBER_OF_MESSAGES = consts.OPTIONAL_PARAMS["number_of_messages"]
    CALLBACK_NUM = consts.OPTIONAL_PARAMS["callback_num"]
    DPF_RESULT = consts.OPTIONAL_PARAMS["dpf_result"]
    SET_DPF = consts.OPTIONAL_PARAMS["set_dpf"]
    MS_AVAILABILITY_STATUS = consts.OPTIONAL_PARAMS["ms_availability_status"]
    NETWORK_ERROR_CODE = consts.OPTIONAL_PARAMS["network_error_code"]
    MESSAGE_PAYLOAD = consts.OPTIONAL_PARAMS["message_payload"]
    DELIVERY_FAILURE_REASON = consts.OPTIONAL_PARAMS["delivery_failure_reason"]
    MORE_MESSAGES_TO_SEND = consts.OPTIONAL_PARAMS["more_messages_to_send"]
    MESSAGE_STATE = consts.OPTIONAL_PARAMS["message_state"]
    USSD_SERVICE_OP = consts.OPTIONAL_PARAMS["ussd_service_op"]
    DISPLAY_TIME = consts.OPTIONAL_PARAMS["display_time"]
    SMS_SIGNAL = consts.OPTIONAL_PARAMS["sms_signal"]
    MS_VALIDITY = consts.OPTIONAL_PARAMS["ms_validity"]
    ALERT_ON_MESSAGE_DELIVERY = consts.OPTIONAL_PARAMS["alert_on_message_delivery"]
    ITS_REPLY_TYPE = consts.OPTIONAL_PARAMS["its_reply_type"]
    ITS_SESSION_INFO = consts.OPTIONAL_PARAMS["its_session_info"]


class MalformedPdu(Exception):
    """A frame that is complete but cannot be read; the stream behind it stays in step.

    `status` is the command_status to answer with (3.4, 5.1.3).
    """

    def __init__(self, command_id: int, sequence: int, status: Status, why: str) -> None:
        super().__init__(f"command 0x{command_id:08X}: {why} ({status.name})")
        self.command_id = command_id
        self.sequence = sequence
        self.status = status


class MalformedStream(Exception):
    """A command_length that cannot be: where the next PDU begins is not known any more."""


class FieldError(ValueError):
    """A value that its field cannot carry: too long, out of range, or not of this command."""


@value
class Tlv:
    """An optional parameter (3.4, 3.2.4.1): `tag` and `value` as on the wire."""

    tag: int
    value: bytes = field(repr=False)  # may be a number or a text of people


Fields: TypeAlias = Mapping[str, int | bytes]

NO_FIELDS: Final[Fields] = MappingProxyType({})


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
            return _DEFAULTS.get(name, 0)
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
        return Pdu(_RESPONSES[self.command], status, self.sequence, fields, tlvs)


_RESPONSES: Final[Mapping[int, Command]] = {
    int(command): Command(command | RESPONSE_BIT)
    for command in Command
    if command | RESPONSE_BIT in set(Command)
}


class _Unreadable(Exception):
    def __init__(self, status: Status, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Step(Protocol):
    """One stretch of a body."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def read(self, frame: bytes, position: int, fields: dict[str, int | bytes]) -> int:
        """Put what stands at `position` into `fields`; return the position behind it."""

    def write(self, fields: Fields, out: list[bytes]) -> None: ...


class _Text:
    """A C-octet string: text and its NUL (3.4, 3.1).

    A longer text than the specification allows is refused when written. It is taken when read:
    SMSCs do send ids of more than 64 characters, and to refuse the answer would lose the message.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.names = (name,)
        self._size = size

    def read(self, frame: bytes, position: int, fields: dict[str, int | bytes]) -> int:
        end = frame.find(b"\0", position)
        if end < 0:
            raise _Unreadable(Status.ESME_RINVCMDLEN, f"{self.name} does not end")
        fields[self.name] = frame[position:end]
        return end + 1

    def write(self, fields: Fields, out: list[bytes]) -> None:
        value = fields.get(self.name, b"")
        if not isinstance(value, bytes):
            raise FieldError(f"{self.name} takes bytes")
        if len(value) >= self._size:
            raise FieldError(
                f"{self.name} takes at most {self._size - 1} octets, and {len(value)} were given"
            )
        if b"\0" in value:
            raise FieldError(f"{self.name} must not contain a NUL")
        out.append(value + b"\0")


class _Integers:
    """Neighbouring one-octet integers, read and written at once."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._run = struct.Struct(f"{len(names)}B")
        self._defaults = [(name, _DEFAULTS.get(name, 0)) for name in names]

    def read(self, frame: bytes, position: int, fields: dict[str, int | bytes]) -> int:
        try:
            fields.update(zip(self.names, self._run.unpack_from(frame, position), strict=True))
        except struct.error:
            raise _Unreadable(Status.ESME_RINVCMDLEN, f"{self.names[0]} is cut off") from None
        return position + self._run.size

    def write(self, fields: Fields, out: list[bytes]) -> None:
        try:
            out.append(self._run.pack(*[fields.get(name, n) for name, n in self._defaults]))
        except struct.error:
            raise FieldError(f"{', '.join(self.names)} take integers from 0 to 255") from None


class _CountedOctets:
    """sm_length and short_message: octets behind their count."""

    names = ("short_message",)
    _MAX_WRITTEN = 254  # 3.4, 5.2.22; the octet could count one more, and some SMSCs do

    def read(self, frame: bytes, position: int, fields: dict[str, int | bytes]) -> int:
        if position >= len(frame):
            raise _Unreadable(Status.ESME_RINVCMDLEN, "sm_length is cut off")
        start = position + 1
        end = start + frame[position]
        if end > len(frame):
            raise _Unreadable(Status.ESME_RINVMSGLEN, "short_message is cut off")
        fields["short_message"] = frame[start:end]
        return end

    def write(self, fields: Fields, out: list[bytes]) -> None:
        value = fields.get("short_message", b"")
        if not isinstance(value, bytes):
            raise FieldError("short_message takes bytes")
        if len(value) > self._MAX_WRITTEN:
            raise FieldError(
                f"short_message takes at most {self._MAX_WRITTEN} octets, and {len(value)} were"
                " given: split it, or use message_payload"
            )
        out.append(bytes((len(value),)))
        out.append(value)


class _Records:
    """A count and as many records, kept as their octets: the lists of submit_multi (3.4, 4.5)."""

    _MAX_RECORDS = 255

    def __init__(self, name: str, skip_one: Callable[[bytes, int], int]) -> None:
        self.name = name
        self.names = (name,)
        self._skip_one = skip_one

    def read(self, frame: bytes, position: int, fields: dict[str, int | bytes]) -> int:
        if position >= len(frame):
            raise _Unreadable(Status.ESME_RINVCMDLEN, f"the count of {self.name} is cut off")
        start = end = position + 1
        for _ in range(frame[position]):
            end = self._skip_one(frame, end)
        fields[self.name] = frame[start:end]
        return end

    def write(self, fields: Fields, out: list[bytes]) -> None:
        value = fields.get(self.name, b"")
        if not isinstance(value, bytes):
            raise FieldError(f"{self.name} takes bytes")
        count = position = 0
        try:
            while position < len(value):
                position = self._skip_one(value, position)
                count += 1
        except _Unreadable as why:
            raise FieldError(f"{self.name}: {why}") from None
        if count > self._MAX_RECORDS:
            raise FieldError(
                f"{self.name} takes at most {self._MAX_RECORDS} records, and {count} were given"
            )
        out.append(bytes((count,)))
        out.append(value)


def _skip(frame: bytes, position: int, *, octets: int = 0, text: bool = False) -> int:
    end = position + octets
    if text:
        end = frame.find(b"\0", end) + 1
        if end == 0:
            raise _Unreadable(Status.ESME_RINVNUMDESTS, "a text does not end")
    if end > len(frame):
        raise _Unreadable(Status.ESME_RINVNUMDESTS, "a record is cut off")
    return end


def _skip_destination(frame: bytes, position: int) -> int:
    """dest_flag, then TON, NPI and address, or the name of a distribution list (3.4, 4.5.1.1)."""
    match frame[position : position + 1]:
        case b"\x01":
            return _skip(frame, position, octets=3, text=True)
        case b"\x02":
            return _skip(frame, position, octets=1, text=True)
        case _:
            raise _Unreadable(Status.ESME_RINVDESTFLAG, "dest_flag is neither 1 nor 2")


def _skip_unsuccessful(frame: bytes, position: int) -> int:
    """TON, NPI, address and the four octets of its error (3.4, 4.5.2.1)."""
    return _skip(frame, _skip(frame, position, octets=2, text=True), octets=4)


_DEFAULTS: Final[Mapping[str, int]] = {"interface_version": consts.SMPP_VERSION_34}

# What smpplib has shorter than the specification (3.4, 4.7.1 and 4.12.1: addresses of 65 octets).
_MENDED_SIZES: Final[Mapping[tuple[Command, str], int]] = {
    (Command.DATA_SM, "source_addr"): 65,
    (Command.DATA_SM, "destination_addr"): 65,
    (Command.ALERT_NOTIFICATION, "source_addr"): 65,
    (Command.ALERT_NOTIFICATION, "esme_addr"): 65,
}


def _smpplib_steps(command: Command) -> tuple[_Step, ...]:
    """The body of `command` as smpplib declares it, without its optional parameters."""
    declared = getattr(smpplib_command, _SMPPLIB_CLASSES[command])
    steps: list[_Step] = []
    integers: list[str] = []

    def end_run() -> None:
        if integers:
            steps.append(_Integers(tuple(integers)))
            integers.clear()

    for name in declared.params_order:
        if name in consts.OPTIONAL_PARAMS and name not in getattr(declared, "mandatory_fields", ""):
            break
        param = declared.params[name]
        if name == "sm_length":
            continue
        if param.type is int:
            integers.append(name)
            continue
        end_run()
        if param.type is ostr:
            steps.append(_CountedOctets())
        else:
            steps.append(_Text(name, _MENDED_SIZES.get((command, name), param.max)))
    end_run()
    return tuple(steps)


_SMPPLIB_CLASSES: Final[Mapping[Command, str]] = {
    Command.GENERIC_NACK: "GenericNAck",
    Command.BIND_RECEIVER: "BindReceiver",
    Command.BIND_RECEIVER_RESP: "BindReceiverResp",
    Command.BIND_TRANSMITTER: "BindTransmitter",
    Command.BIND_TRANSMITTER_RESP: "BindTransmitterResp",
    Command.BIND_TRANSCEIVER: "BindTransceiver",
    Command.BIND_TRANSCEIVER_RESP: "BindTransceiverResp",
    Command.QUERY_SM: "QuerySM",
    Command.QUERY_SM_RESP: "QuerySMResp",
    Command.SUBMIT_SM: "SubmitSM",
    Command.SUBMIT_SM_RESP: "SubmitSMResp",
    Command.DELIVER_SM: "DeliverSM",
    Command.DELIVER_SM_RESP: "DeliverSMResp",
    Command.DATA_SM: "DataSM",
    Command.DATA_SM_RESP: "DataSMResp",
    Command.UNBIND: "Unbind",
    Command.UNBIND_RESP: "UnbindResp",
    Command.ENQUIRE_LINK: "EnquireLink",
    Command.ENQUIRE_LINK_RESP: "EnquireLinkResp",
    Command.ALERT_NOTIFICATION: "AlertNotification",
}

_SOURCE: Final = (
    _Integers(("source_addr_ton", "source_addr_npi")),
    _Text("source_addr", 21),
)

# What smpplib does not have (3.4, 4.1.7, 4.5, 4.9 and 4.10).
_OWN_STEPS: Final[Mapping[Command, tuple[_Step, ...]]] = {
    Command.OUTBIND: (_Text("system_id", 16), _Text("password", 9)),
    Command.CANCEL_SM: (
        _Text("service_type", 6),
        _Text("message_id", 65),
        *_SOURCE,
        _Integers(("dest_addr_ton", "dest_addr_npi")),
        _Text("destination_addr", 21),
    ),
    Command.CANCEL_SM_RESP: (),
    Command.REPLACE_SM: (
        _Text("message_id", 65),
        *_SOURCE,
        _Text("schedule_delivery_time", 17),
        _Text("validity_period", 17),
        _Integers(("registered_delivery", "sm_default_msg_id")),
        _CountedOctets(),
    ),
    Command.REPLACE_SM_RESP: (),
    Command.SUBMIT_MULTI: (
        _Text("service_type", 6),
        *_SOURCE,
        _Records("dest_address", _skip_destination),
        _Integers(("esm_class", "protocol_id", "priority_flag")),
        _Text("schedule_delivery_time", 17),
        _Text("validity_period", 17),
        _Integers(
            (
                "registered_delivery",
                "replace_if_present_flag",
                "data_coding",
                "sm_default_msg_id",
            )
        ),
        _CountedOctets(),
    ),
    Command.SUBMIT_MULTI_RESP: (
        _Text("message_id", 65),
        _Records("unsuccess_sme", _skip_unsuccessful),
    ),
}


# Responses that have no body when they refuse (3.4, 4.1.2, 4.1.4, 4.1.6 and 4.4.2). The others have
# theirs nonetheless, and jsmpp loses a session over a deliver_sm_resp that has none.
_BARE_WHEN_REFUSED: Final = frozenset(
    {
        Command.BIND_RECEIVER_RESP,
        Command.BIND_TRANSCEIVER_RESP,
        Command.BIND_TRANSMITTER_RESP,
        Command.SUBMIT_SM_RESP,
    }
)


class _Layout:
    """The body of one command."""

    def __init__(self, command: Command, steps: tuple[_Step, ...]) -> None:
        self.command = command
        self.steps = steps
        self.is_response = bool(command & RESPONSE_BIT)
        self.is_bare_when_refused = command in _BARE_WHEN_REFUSED
        self.names = frozenset(name for step in steps for name in step.names)
        self.empty: Fields = _decoded_defaults(steps)


def _decoded_defaults(steps: tuple[_Step, ...]) -> Fields:
    out: list[bytes] = []
    for step in steps:
        step.write(NO_FIELDS, out)
    body = b"".join(out)
    fields: dict[str, int | bytes] = {}
    position = 0
    for step in steps:
        position = step.read(body, position, fields)
    return MappingProxyType(fields)


_LAYOUTS: Final[Mapping[int, _Layout]] = {
    int(command): _Layout(
        command, _OWN_STEPS[command] if command in _OWN_STEPS else _smpplib_steps(command)
    )
    for command in Command
}
_HEADER: Final = struct.Struct(">4I")
_COMMAND_LENGTH: Final = struct.Struct(">I")
_TLV_HEADER: Final = struct.Struct(">2H")
_MAX_TLV: Final = 0xFFFF


def encode(pdu: Pdu) -> bytes:
    """The frame of this PDU, its command_length included.

    Raises:
        FieldError: a value does not fit its field, or the command has no such field.
    """
    layout = _LAYOUTS[pdu.command]
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
            out.append(_TLV_HEADER.pack(tlv.tag, len(tlv.value)))
        except struct.error:
            raise FieldError(
                f"a TLV takes a tag of 16 bits and at most {_MAX_TLV} octets: tag 0x{tlv.tag:X},"
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

    A response is read as leniently as its meaning allows, since what it answers has happened:
    fields missing at its end have their defaults (a refusal usually has no body, 3.4, 4.4.2),
    TLVs are read as far as they are readable, and a refusal counts whatever stands behind it.

    Raises:
        MalformedPdu: the only error, whatever the bytes.
    """
    if len(frame) < HEADER_LENGTH:
        raise MalformedPdu(0, 0, Status.ESME_RINVCMDLEN, "the header is cut off")
    length, command_id, status, sequence = _HEADER.unpack_from(frame)
    layout = _LAYOUTS.get(command_id)
    if layout is None:
        raise MalformedPdu(command_id, sequence, Status.ESME_RINVCMDID, "no such command")
    if length != len(frame):
        raise MalformedPdu(
            command_id, sequence, Status.ESME_RINVCMDLEN, "command_length is not the length"
        )
    fields: dict[str, int | bytes] = {}
    tlvs: tuple[Tlv, ...] = ()
    position = HEADER_LENGTH
    try:
        for step in layout.steps:
            if position == length and layout.is_response:
                return Pdu(layout.command, status, sequence, {**layout.empty, **fields})
            position = step.read(frame, position, fields)
        if position != length:
            tlvs = _read_tlvs(frame, position, lenient=layout.is_response)
    except _Unreadable as why:
        if layout.is_response and status != Status.ESME_ROK:
            return Pdu(layout.command, status, sequence, layout.empty)
        raise MalformedPdu(command_id, sequence, why.status, str(why)) from None
    return Pdu(layout.command, status, sequence, fields, tlvs)


def _read_tlvs(frame: bytes, position: int, *, lenient: bool) -> tuple[Tlv, ...]:
    tlvs: list[Tlv] = []
    length = len(frame)
    while position < length:
        start = position + _TLV_HEADER.size
        if start > length:
            if lenient:
                break
            raise _Unreadable(Status.ESME_RINVOPTPARSTREAM, "the header of a TLV is cut off")
        tag, size = _TLV_HEADER.unpack_from(frame, position)
        position = start + size
        if position > length:
            if lenient:
                break
            raise _Unreadable(Status.ESME_RINVOPTPARSTREAM, f"TLV 0x{tag:04X} is cut off")
        tlvs.append(Tlv(tag, frame[start:position]))
    return tuple(tlvs)


class FrameReader:
    """Cuts a byte stream into frames, however the bytes are chopped on their way."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._needed = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that `data` completes.

        Raises:
            MalformedStream: after the frames before it, at a command_length under 16 or over
                `MAX_FRAME_LENGTH`; nothing behind it can be read.
        """
        if self._partial:
            self._partial += data
            # Collected until the frame is whole, so that a trickle of octets costs no copies.
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial.clear()
        position = 0
        size = len(data)
        self._needed = _COMMAND_LENGTH.size
        while size - position >= _COMMAND_LENGTH.size:
            (length,) = _COMMAND_LENGTH.unpack_from(data, position)
            if not HEADER_LENGTH <= length <= MAX_FRAME_LENGTH:
                raise MalformedStream(f"a command_length of {length} cannot be")
            if size - position < length:
                self._needed = length
                break
            yield data[position : position + length]
            position += length
        if position < size:
            self._partial += data[position:]
