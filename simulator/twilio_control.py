"""The simulated Twilio's part of the control: what it shows as JSON, and what it is told.

Numbers and texts are shown only of documented test numbers, and the addresses of callbacks not at all:
whoever has one can report receipts.
"""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from domain.configuration.providers.twilio import SIMULATED_ACCOUNT
from simulator.behaviour import is_documented
from simulator.carrier_control import CarrierEndpoints, port_taken, route
from simulator.control_requests import HIDDEN, RequestModel, read, shown_behaviours, shown_number
from simulator.counts import counts_as_json
from simulator.twilio import TwilioCarrier, TwilioMessage
from simulator.twilio_behaviour import TwilioBehaviour


class SwitchRequest(RequestModel):
    on: bool


class TwilioEndpoints(CarrierEndpoints[TwilioBehaviour, TwilioMessage]):
    """The endpoints of a simulated Twilio; each is described in docs/simulator.md."""

    behaviour = TwilioBehaviour

    def __init__(self, carrier: TwilioCarrier) -> None:
        super().__init__(carrier, carrier)
        self._carrier = carrier

    def state_json(self) -> dict[str, Any]:
        carrier = self._carrier
        above, next_requests = carrier.throttling
        return {
            "name": carrier.name,
            "url": carrier.url,
            "account_sid": SIMULATED_ACCOUNT,
            "outage": "not_listening" if carrier.down else None,
            "connections": carrier.connections,
            "callbacks_held": carrier.held,
            "throttle": {"above": above, "next": next_requests},
            "behaviour": carrier.default.model_dump(mode="json"),
            "numbers": shown_behaviours(carrier.numbers),
        }

    def counts_json(self) -> dict[str, Any]:
        return {
            **counts_as_json(self._carrier.counts),
            "duplicates_by_text": self._carrier.duplicates(),
        }

    def message_json(self, message: TwilioMessage) -> dict[str, Any]:
        return {
            "sid": message.sid,
            "from": shown_number(message.sender),
            "to": shown_number(message.to),
            "text": message.body if is_documented(message.to) else HIDDEN,
            "segments": message.segments,
            "status": message.status.value,
            "error_code": message.error,
            "price": message.price,
            "accepted_at": message.accepted_at.isoformat(),
            "validity_seconds": message.validity,
            "callbacks": [
                {
                    "status": callback.status,
                    "signature": callback.signature,
                    "tries": callback.tries,
                    "response": callback.response,
                }
                for callback in message.callbacks
            ],
        }

    def routes(self, prefix: str) -> Sequence[Route]:
        return [
            *super().routes(prefix),
            route(f"{prefix}/outage", "POST", self.outage),
            route(f"{prefix}/reset", "POST", self.reset),
        ]

    async def outage(self, request: Request) -> Response:
        switch = await read(request, SwitchRequest)
        try:
            await self._carrier.outage(on=switch.on)
        except OSError as why:
            raise port_taken(self._carrier.port) from why
        return JSONResponse({"outage": "not_listening" if self._carrier.down else None})

    async def reset(self, _: Request) -> Response:
        return JSONResponse({"reset": await self._carrier.reset_connections()})
