"""An SMSC as SMPP 3.4 has it: messages by submit_sm, receipts as texts of appendix B, query_sm."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from domain.encoding import decode_text
from domain.error_classes import ErrorClass
from domain.receipts import ReceiptState
from smpp.commands import Command
from smpp.pdus import Pdu
from smpp.receipts import MESSAGE_STATES
from smpp.session import BindType, Session
from smpp.statuses import Status
from smpp.tlvs import Tag, Tlv
from tests.fakes.carrier import Carrier, Hang, LoseResponse, Raw, Refusal, Refuse, Sent, Throttle
from tests.fakes.scripted_smsc import ScriptedSmsc

_INTERNATIONAL = 1  # TON, 3.4, 5.2.5
_RECEIPT = 0x04  # esm_class, 3.4, 5.2.12
_RECEIPT_WANTED = 0x01  # registered_delivery, 3.4, 5.2.17
_FIRST_ID = 1_000_000_000

_WORDS = {
    ReceiptState.DELIVERED: "DELIVRD",
    ReceiptState.EXPIRED: "EXPIRED",
    ReceiptState.DELETED: "DELETED",
    ReceiptState.UNDELIVERABLE: "UNDELIV",
    ReceiptState.ACCEPTED: "ACCEPTD",
    ReceiptState.UNKNOWN: "UNKNOWN",
    ReceiptState.REJECTED: "REJECTD",
    ReceiptState.ENROUTE: "ENROUTE",
}


class SmppCarrier(Carrier):
    type: ClassVar[str] = "smpp"
    refusal: ClassVar[Refusal] = Refusal(
        f"0x{Status.ESME_RINVDSTADR:08x}", ErrorClass.INVALID_RECIPIENT
    )
    # Appendix B leaves `err:` to each SMSC: what it means follows from the state.
    failure: ClassVar[Refusal] = Refusal("034", None)
    # No field of submit_sm_resp says it (3.4, 4.4.2).
    gives_retry_after: ClassVar[bool] = False
    # The session is what proves the SMSC.
    signs: ClassVar[bool] = False

    async def __aenter__(self) -> Self:
        self._smsc = ScriptedSmsc()
        self._smsc.response = self._respond
        await self._smsc.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._smsc.server.stop(graceful=False)

    def section(self) -> dict[str, Any]:
        return {
            "type": "smpp",
            "host": "127.0.0.1",
            "port": self._smsc.server.port,
            "system_id": "acme",
            "password": "env:SMSGATEWAY_SECRET_SMPP",
            "rebind_backoff": {"min": "20ms", "max": "100ms"},
        }

    @property
    def secrets(self) -> Mapping[str, str]:
        return {"password": "secret"}

    def next_id(self) -> str:
        self.number += 1
        return str(_FIRST_ID + self.number)

    async def _respond(self, session: Session, pdu: Pdu) -> Pdu | None:
        if pdu.command is Command.QUERY_SM:
            return self._state_of(pdu)
        if pdu.command is not Command.SUBMIT_SM:
            return pdu.reply()
        behaviour = self.behaviours.popleft() if self.behaviours else None
        match behaviour:
            case Throttle():
                return pdu.reply(Status.ESME_RTHROTTLED)
            case Refuse(code):
                return pdu.reply(int(code, 16))
            case Raw():
                raise AssertionError("a response of HTTP is none of SMPP")
        sent = self._read(pdu)
        self.received.append(sent)
        match behaviour:
            case LoseResponse():
                await session.close(reset=True)
                return None
            case Hang():
                return None
        return pdu.reply(fields={"message_id": sent.id.encode()})

    def _read(self, pdu: Pdu) -> Sent:
        assert pdu.number("registered_delivery") & _RECEIPT_WANTED
        text = decode_text(pdu.octets("short_message"), pdu.number("data_coding"))
        assert text is not None
        return Sent(
            id=self.next_id(),
            to=_address(pdu, "dest_addr_ton", "destination_addr"),
            sender=_address(pdu, "source_addr_ton", "source_addr"),
            text=text,
            receipt_url=None,
        )

    def _state_of(self, pdu: Pdu) -> Pdu:
        """The query_sm_resp (3.4, 4.8.2): the message has to be one of the sender that asks."""
        sent = next(
            (each for each in self.received if each.id.encode() == pdu.octets("message_id")), None
        )
        if sent is None or sent.sender != _address(pdu, "source_addr_ton", "source_addr"):
            return pdu.reply(Status.ESME_RQUERYFAIL)
        state, code = self.states[sent.id]
        fields = {
            "message_id": sent.id.encode(),
            "final_date": b"",
            "message_state": _number_of(state),
            "error_code": int(code or 0),
        }
        return pdu.reply(fields=fields)

    async def report(self, sent: Sent, state: ReceiptState, code: str = "") -> None:
        session = next(
            each
            for each in self._smsc.server.sessions
            if each.bind_type is not BindType.TRANSMITTER
        )
        now = datetime.now(UTC)
        text = (
            f"id:{sent.id} sub:001 dlvrd:001 submit date:{now:%y%m%d%H%M} done date:{now:%y%m%d%H%M}"
            f" stat:{_WORDS[state]} err:{code or '000'} text:"
        )
        response = await session.request(
            Command.DELIVER_SM,
            {
                "source_addr_ton": _INTERNATIONAL,
                "source_addr": sent.to.removeprefix("+").encode(),
                "dest_addr_ton": _INTERNATIONAL,
                "destination_addr": sent.sender.removeprefix("+").encode(),
                "esm_class": _RECEIPT,
                "short_message": text.encode(),
            },
            [
                Tlv(Tag.RECEIPTED_MESSAGE_ID, sent.id.encode() + b"\0"),
                Tlv(Tag.MESSAGE_STATE, bytes([_number_of(state)])),
            ],
        )
        assert response.status == Status.ESME_ROK


def _number_of(state: ReceiptState) -> int:
    """Its message_state (3.4, 5.2.28), which SMPP 3.4 counts from 1."""
    return next(number for number, each in MESSAGE_STATES.items() if number and each is state)


def _address(pdu: Pdu, ton: str, address: str) -> str:
    plus = "+" if pdu.number(ton) == _INTERNATIONAL else ""
    return plus + pdu.octets(address).decode()
