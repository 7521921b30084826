"""An SMSC's part of the control: what it shows as JSON, and what it is told.

Numbers and texts are shown only of documented test numbers; whatever else was sent to the
simulator belongs to somebody.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from domain.segments import PartMethod
from simulator.behaviour import Behaviour, Outage, is_documented
from simulator.carrier_control import CarrierEndpoints, port_taken, route
from simulator.control_requests import HIDDEN, RequestModel, read, shown_behaviours, shown_number
from simulator.counts import counts_as_json
from simulator.inbox import Message
from simulator.smsc import Smsc
from smpp.tlvs import Tag


class OutageRequest(RequestModel):
    on: bool
    kind: Outage = Outage.NOT_LISTENING


class ResetRequest(RequestModel):
    after_pdus: int | None = Field(default=None, ge=1)
    """None: now."""


class MoRequest(RequestModel):
    source: str = Field(min_length=1, max_length=21)
    destination: str = Field(min_length=1, max_length=21)
    text: str = Field(min_length=1)
    system_id: str | None = None
    method: PartMethod = PartMethod.UDH8
    order: list[int] | None = Field(default=None, max_length=255)


def state_of(smsc: Smsc) -> dict[str, Any]:
    """The simulator's state and configuration, without the messages that it received."""
    above, next_submits = smsc.throttling
    return {
        "name": smsc.name,
        "port": smsc.port,
        "outage": smsc.down,
        "binds": [
            {"system_id": s.system_id, "bind_type": s.bind_type, "peer": s.peer}
            for s in sorted(smsc.sessions, key=lambda s: (s.system_id, s.peer))
        ],
        "receipts_held": smsc.held,
        "waiting_for_an_esme": smsc.waiting,
        "throttle": {"above": above, "next": next_submits},
        "behaviour": smsc.default.model_dump(mode="json"),
        "numbers": shown_behaviours(smsc.numbers),
        "dialect": smsc.dialect.model_dump(mode="json"),
    }


def message_as_json(smsc: Smsc, message: Message) -> dict[str, Any]:
    """A message as GET /messages shows it."""
    is_shown = is_documented(message.destination)
    return {
        "source": shown_number(message.source),
        "destination": shown_number(message.destination),
        "text": message.text if is_shown else HIDDEN,
        "complete": message.complete,
        "total_parts": message.total,
        "repeated_parts": message.repeated,
        "reference": message.reference,
        "parts": [
            {
                "number": part.number,
                "message_id": smsc.dialect.response_id(part.id),
                "state": part.state,
                "system_id": part.system_id,
                "data_coding": part.content.data_coding,
                "accepted_at": part.accepted_at.isoformat(),
                "validity_seconds": part.validity.total_seconds(),
                "tlvs": {
                    f"0x{tlv.tag:04X}": tlv.value.hex() if is_shown else HIDDEN
                    for tlv in part.tlvs
                    if tlv.tag != Tag.MESSAGE_PAYLOAD
                },
            }
            for part in message.parts
        ],
    }


def counts_of(smsc: Smsc) -> dict[str, Any]:
    """Everything that was counted, and the duplicates among the messages that are kept."""
    return {
        **counts_as_json(smsc.counts),
        "duplicates_by_text": sum(smsc.inbox.duplicates(by="text").values()),
        "duplicates_by_reference": sum(smsc.inbox.duplicates(by="reference").values()),
        "duplicate_parts": smsc.inbox.duplicate_parts(),
    }


class SmscEndpoints(CarrierEndpoints[Behaviour, Message]):
    """The endpoints of an SMSC; each is described in docs/simulator.md."""

    behaviour = Behaviour

    def __init__(self, smsc: Smsc) -> None:
        super().__init__(smsc, smsc)
        self._smsc = smsc

    def state_json(self) -> dict[str, Any]:
        return state_of(self._smsc)

    def counts_json(self) -> dict[str, Any]:
        return counts_of(self._smsc)

    def message_json(self, message: Message) -> dict[str, Any]:
        return message_as_json(self._smsc, message)

    def routes(self, prefix: str) -> Sequence[Route]:
        return [
            *super().routes(prefix),
            route(f"{prefix}/outage", "POST", self.outage),
            route(f"{prefix}/reset", "POST", self.reset),
            route(f"{prefix}/mo", "POST", self.mo),
        ]

    async def outage(self, request: Request) -> Response:
        asked = await read(request, OutageRequest)
        try:
            await self._smsc.outage(on=asked.on, kind=asked.kind)
        except OSError as why:
            raise port_taken(self._smsc.port) from why
        return JSONResponse({"outage": self._smsc.down})

    async def reset(self, request: Request) -> Response:
        asked = await read(request, ResetRequest)
        if asked.after_pdus is None:
            return JSONResponse({"reset": await self._smsc.reset_connections()})
        self._smsc.reset_after(asked.after_pdus)
        return JSONResponse({"after_pdus": asked.after_pdus})

    async def mo(self, request: Request) -> Response:
        asked = await read(request, MoRequest)
        try:
            deliveries = self._smsc.inject_mo(
                asked.source,
                asked.destination,
                asked.text,
                system_id=asked.system_id,
                method=asked.method,
                order=asked.order,
            )
        except ValueError as why:  # whose sentences hold neither texts nor numbers
            raise HTTPException(422, str(why)) from why
        return JSONResponse({"parts": len(deliveries)}, status_code=202)
