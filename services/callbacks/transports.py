"""How the requests of a lane are sent: signed to webhooks, or as signals to workflows."""

import json
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from connectors.webhooks import Webhooks
from domain.callbacks.retries import (
    Response,
    RetryDecision,
    Trouble,
    decide_retry,
    decide_signal_retry,
)
from domain.callbacks.signatures import signed_headers
from domain.configuration import Environment
from services.callbacks.requests import Request
from services.callbacks.secrets import ConfigurationInForce
from services.workflow_client import SignalResult
from telemetry import metrics
from telemetry.logs import get_logger

_log = get_logger(__name__)


# A slice must end in good time, whatever timeout is configured.
_LONGEST_REQUEST: Final = timedelta(minutes=2)


class Signals(Protocol):
    """Signals workflows; `services.workflow_client.WorkflowClient` does."""

    async def signal_listener(
        self, workflow_id: str, name: str, report: Mapping[str, Any]
    ) -> SignalResult:
        """Signal a workflow by its id and the signal's name; never raises for Temporal's absence."""


class LaneTransport(Protocol):
    """How the requests of a lane are sent, and what is done about failures."""

    async def send(self, request: Request, body: bytes, now: datetime) -> Response | None:
        """Send a request; None if it cannot be signed. Never raises for the other side."""

    def decide_retry(self, response: Response, tries: int, at: datetime) -> RetryDecision:
        """What becomes of an event after one more try."""


class WebhookTransport:
    """Signed requests to webhooks."""

    def __init__(
        self,
        webhooks: Webhooks,
        configuration: ConfigurationInForce,
        secrets: Mapping[Environment, str],
    ) -> None:
        self._webhooks = webhooks
        self._configuration = configuration
        self._secrets = secrets

    async def send(self, request: Request, body: bytes, now: datetime) -> Response | None:
        secret = self._secrets.get(request.environment)
        if secret is None:
            return None
        response = await self._webhooks.post(
            request.target,
            headers=signed_headers(secret, request.webhook_id, now, body),
            body=body,
            within=min(self._configuration().callbacks.timeout, _LONGEST_REQUEST),
        )
        events = sum(len(subject.events) for subject in request.subjects)
        outcome = response.trouble or "delivered"
        metrics.callbacks_tried(outcome=outcome, events=events, seconds=response.seconds)
        _log.info(
            "callbacks_tried",
            callback_id=request.webhook_id,
            count=events,
            outcome=outcome,
            status=response.status,
            duration_ms=round(response.seconds * 1000),
        )
        return response

    def decide_retry(self, response: Response, tries: int, at: datetime) -> RetryDecision:
        return decide_retry(response, tries, at, self._configuration().callbacks.retry_delays)


class SignalTransport:
    """Signals to workflows, one for each event."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    async def send(self, request: Request, body: bytes, now: datetime) -> Response:  # noqa: ARG002
        (due,) = request.events
        report = {**json.loads(body), "id": request.webhook_id}
        began = time.monotonic()
        result = await self._signals.signal_listener(request.target, due.event.kind, report)
        seconds = time.monotonic() - began
        if result is SignalResult.TEMPORAL_AWAY:
            return Response(None, Trouble.UNREACHABLE, seconds)
        if result is SignalResult.NOT_RUNNING:
            _log.info("listener_gone", workflow_id=request.target, event_kind=due.event.kind)
        return Response(None, None, seconds)

    def decide_retry(self, response: Response, tries: int, at: datetime) -> RetryDecision:
        return decide_signal_retry(response, tries, at)
