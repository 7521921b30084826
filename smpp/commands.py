"""The commands of SMPP 3.4 (5.1.2.1); the numbers are smpplib's."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from smpplib.command_codes import commands

RESPONSE_BIT: Final = 0x80000000


class Command(IntEnum):
    """command_id (SMPP 3.4, 5.1.2.1)."""

    GENERIC_NACK = commands["generic_nack"]
    BIND_RECEIVER = commands["bind_receiver"]
    BIND_RECEIVER_RESP = commands["bind_receiver_resp"]
    BIND_TRANSMITTER = commands["bind_transmitter"]
    BIND_TRANSMITTER_RESP = commands["bind_transmitter_resp"]
    QUERY_SM = commands["query_sm"]
    QUERY_SM_RESP = commands["query_sm_resp"]
    SUBMIT_SM = commands["submit_sm"]
    SUBMIT_SM_RESP = commands["submit_sm_resp"]
    DELIVER_SM = commands["deliver_sm"]
    DELIVER_SM_RESP = commands["deliver_sm_resp"]
    UNBIND = commands["unbind"]
    UNBIND_RESP = commands["unbind_resp"]
    REPLACE_SM = commands["replace_sm"]
    REPLACE_SM_RESP = commands["replace_sm_resp"]
    CANCEL_SM = commands["cancel_sm"]
    CANCEL_SM_RESP = commands["cancel_sm_resp"]
    BIND_TRANSCEIVER = commands["bind_transceiver"]
    BIND_TRANSCEIVER_RESP = commands["bind_transceiver_resp"]
    OUTBIND = commands["outbind"]
    ENQUIRE_LINK = commands["enquire_link"]
    ENQUIRE_LINK_RESP = commands["enquire_link_resp"]
    SUBMIT_MULTI = commands["submit_multi"]
    SUBMIT_MULTI_RESP = commands["submit_multi_resp"]
    ALERT_NOTIFICATION = commands["alert_notification"]
    DATA_SM = commands["data_sm"]
    DATA_SM_RESP = commands["data_sm_resp"]

    @property
    def is_response(self) -> bool:
        return bool(self & RESPONSE_BIT)


RESPONSES: Final[Mapping[int, Command]] = {
    int(command): Command(command | RESPONSE_BIT)
    for command in Command
    if command | RESPONSE_BIT in set(Command)
}
"""The response to each request that has one."""


def command_name(command_id: int) -> str:
    """deliver_sm, or "other" for what SMPP 3.4 does not have."""
    return _NAMES.get(command_id, "other")


_NAMES: Final[Mapping[int, str]] = {int(command): command.name.lower() for command in Command}
