"""The mandatory fields of every command, as a table with the sections of SMPP 3.4.

Sizes are those of the specification, the NUL included. Counts (sm_length, number_of_dests,
no_unsuccess) are part of what they count.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from smpplib.consts import SMPP_VERSION_34

from smpp.commands import Command
from smpp.fields import (
    NO_FIELDS,
    CString,
    Fields,
    Integer,
    Records,
    ShortMessage,
    Step,
    Unreadable,
    skip,
    steps_of,
)
from smpp.statuses import Status

Body: TypeAlias = tuple[Integer | Step, ...]


def _skip_destination(frame: bytes, position: int) -> int:
    """dest_flag, then TON, NPI and address, or the name of a distribution list (3.4, 4.5.1.1)."""
    match frame[position : position + 1]:
        case b"\x01":
            return skip(frame, position, octets=3, text=True)
        case b"\x02":
            return skip(frame, position, octets=1, text=True)
        case _:
            raise Unreadable(Status.ESME_RINVDESTFLAG, "dest_flag is neither 1 nor 2")


def _skip_unsuccessful(frame: bytes, position: int) -> int:
    """TON, NPI, address and the four octets of its error (3.4, 4.5.2.1)."""
    return skip(frame, skip(frame, position, octets=2, text=True), octets=4)


_INTERFACE_VERSION: Final = Integer("interface_version", default=SMPP_VERSION_34)  # 5.2.4

_SYSTEM_ID: Final = CString("system_id", 16)  # 5.2.1
_PASSWORD: Final = CString("password", 9)  # 5.2.2
_MESSAGE_ID: Final = CString("message_id", 65)  # 5.2.23
_SERVICE_TYPE: Final = CString("service_type", 6)  # 5.2.11
_SCHEDULE: Final = CString("schedule_delivery_time", 17)  # 5.2.15
_VALIDITY: Final = CString("validity_period", 17)  # 5.2.16

_BIND: Final[Body] = (
    _SYSTEM_ID,
    _PASSWORD,
    CString("system_type", 13),  # 5.2.3
    _INTERFACE_VERSION,
    Integer("addr_ton"),  # 5.2.5
    Integer("addr_npi"),  # 5.2.6
    CString("address_range", 41),  # 5.2.7
)


def _source(size: int = 21) -> Body:
    """5.2.5, 5.2.6 and 5.2.8."""
    return (
        Integer("source_addr_ton"),
        Integer("source_addr_npi"),
        CString("source_addr", size),
    )


def _destination(size: int = 21) -> Body:
    """5.2.5, 5.2.6 and 5.2.9."""
    return (
        Integer("dest_addr_ton"),
        Integer("dest_addr_npi"),
        CString("destination_addr", size),
    )


_AFTER_ADDRESSES: Final[Body] = (
    Integer("esm_class"),  # 5.2.12
    Integer("protocol_id"),  # 5.2.13
    Integer("priority_flag"),  # 5.2.14
    _SCHEDULE,
    _VALIDITY,
    Integer("registered_delivery"),  # 5.2.17
    Integer("replace_if_present_flag"),  # 5.2.18
    Integer("data_coding"),  # 5.2.19
    Integer("sm_default_msg_id"),  # 5.2.20
    ShortMessage(),  # 5.2.21 and 5.2.22
)

_SUBMIT: Final[Body] = (_SERVICE_TYPE, *_source(), *_destination(), *_AFTER_ADDRESSES)

BODIES: Final[Mapping[Command, Body]] = MappingProxyType(
    {
        Command.BIND_TRANSMITTER: _BIND,  # 4.1.1
        Command.BIND_TRANSMITTER_RESP: (_SYSTEM_ID,),  # 4.1.2
        Command.BIND_RECEIVER: _BIND,  # 4.1.3
        Command.BIND_RECEIVER_RESP: (_SYSTEM_ID,),  # 4.1.4
        Command.BIND_TRANSCEIVER: _BIND,  # 4.1.5
        Command.BIND_TRANSCEIVER_RESP: (_SYSTEM_ID,),  # 4.1.6
        Command.OUTBIND: (_SYSTEM_ID, _PASSWORD),  # 4.1.7
        Command.UNBIND: (),  # 4.2.1
        Command.UNBIND_RESP: (),  # 4.2.2
        Command.GENERIC_NACK: (),  # 4.3.1
        Command.SUBMIT_SM: _SUBMIT,  # 4.4.1
        Command.SUBMIT_SM_RESP: (_MESSAGE_ID,),  # 4.4.2
        Command.SUBMIT_MULTI: (  # 4.5.1
            _SERVICE_TYPE,
            *_source(),
            Records("dest_address", _skip_destination),  # 4.5.1.1
            *_AFTER_ADDRESSES,
        ),
        Command.SUBMIT_MULTI_RESP: (  # 4.5.2
            _MESSAGE_ID,
            Records("unsuccess_sme", _skip_unsuccessful),  # 4.5.2.1
        ),
        Command.DELIVER_SM: _SUBMIT,  # 4.6.1
        Command.DELIVER_SM_RESP: (_MESSAGE_ID,),  # 4.6.2
        Command.DATA_SM: (  # 4.7.1
            _SERVICE_TYPE,
            *_source(65),
            *_destination(65),
            Integer("esm_class"),
            Integer("registered_delivery"),
            Integer("data_coding"),
        ),
        Command.DATA_SM_RESP: (_MESSAGE_ID,),  # 4.7.2
        Command.QUERY_SM: (_MESSAGE_ID, *_source()),  # 4.8.1
        Command.QUERY_SM_RESP: (  # 4.8.2
            _MESSAGE_ID,
            CString("final_date", 17),
            Integer("message_state"),
            Integer("error_code"),
        ),
        Command.CANCEL_SM: (_SERVICE_TYPE, _MESSAGE_ID, *_source(), *_destination()),  # 4.9.1
        Command.CANCEL_SM_RESP: (),  # 4.9.2
        Command.REPLACE_SM: (  # 4.10.1
            _MESSAGE_ID,
            *_source(),
            _SCHEDULE,
            _VALIDITY,
            Integer("registered_delivery"),
            Integer("sm_default_msg_id"),
            ShortMessage(),
        ),
        Command.REPLACE_SM_RESP: (),  # 4.10.2
        Command.ENQUIRE_LINK: (),  # 4.11.1
        Command.ENQUIRE_LINK_RESP: (),  # 4.11.2
        Command.ALERT_NOTIFICATION: (  # 4.12.1
            *_source(65),
            Integer("esme_addr_ton"),
            Integer("esme_addr_npi"),
            CString("esme_addr", 65),  # 5.2.10
        ),
    }
)
"""The mandatory fields of each command, in their order."""

DEFAULTS: Final[Mapping[str, int]] = MappingProxyType(
    {_INTERFACE_VERSION.name: _INTERFACE_VERSION.default}
)
"""What integers are where they are not set, if not 0."""

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

# Requests whose text is sent on: if octets after the body may be a text that is cut off, the sender
# has to hear of it. To refuse any other request would only lose what it says.
_CARRY_A_TEXT: Final = frozenset(
    {Command.SUBMIT_SM, Command.SUBMIT_MULTI, Command.DATA_SM, Command.REPLACE_SM}
)


class Layout:
    """The body of one command."""

    def __init__(self, command: Command, steps: tuple[Step, ...]) -> None:
        self.command = command
        self.steps = steps
        self.is_response = command.is_response
        self.carries_a_text = command in _CARRY_A_TEXT
        self.is_bare_when_refused = command in _BARE_WHEN_REFUSED
        self.names = frozenset(name for step in steps for name in step.names)
        self.may_be_cut_off = (
            self.names
            if self.is_response
            else frozenset({"short_message"} if command is Command.DELIVER_SM else ())
        )
        self.empty: Fields = _decoded_defaults(steps)


def _decoded_defaults(steps: tuple[Step, ...]) -> Fields:
    out: list[bytes] = []
    for step in steps:
        step.write(NO_FIELDS, out)
    body = b"".join(out)
    fields: dict[str, int | bytes] = {}
    position = 0
    for step in steps:
        position = step.read(body, position, fields)
    return MappingProxyType(fields)


LAYOUTS: Final[Mapping[int, Layout]] = {
    int(command): Layout(command, steps_of(body)) for command, body in BODIES.items()
}
