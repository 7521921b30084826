"""The application: endpoints, guards and description, around the services of this process."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api import (
    accounts,
    batches,
    callbacks,
    configuration,
    dead_letters,
    documentation,
    events,
    health,
    keys,
    messages,
    openapi,
    operator_keys,
    problems,
    provider_tests,
    provider_webhooks,
    providers,
    webhooks,
)
from api.body_limiter import BodyLimit
from api.guards import HeadAsGet, NotStored, Unforeseen
from services.assembly import Services
from services.provider_webhooks import PATH as PROVIDER_WEBHOOKS
from telemetry.http import FASTAPI_TELEMETRY_OFF, HttpTelemetry

VERSION = "0.1.0"
_BATCHES_AT_ONCE: Final = 2
_BATCHES_WAITING: Final = 16
"""Batches that wait; the body of each is held, up to `SMSGATEWAY_MAX_BATCH_BYTES`."""
_BATCH_PATIENCE: Final = 5.0
"""Seconds that a batch waits after another one ended: so long may a free connection take, too."""
BODY_LIMITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "/": "max_body_bytes",
        batches.PATH: "max_batch_bytes",
        PROVIDER_WEBHOOKS: "max_webhook_bytes",
    }
)
"""By prefix of the path, the setting that limits bodies; the longest prefix of a path counts."""
ROUTERS = (
    batches.router,  # before messages, one of whose ids would else be "batches"
    messages.router,
    events.router,
    dead_letters.router,
    providers.router,
    provider_tests.router,
    callbacks.router,
    webhooks.router,
    provider_webhooks.router,
    keys.router,
    accounts.router,
    operator_keys.router,
    configuration.router,
    health.router,
    documentation.router,
)


def create_app(services: Services) -> FastAPI:
    """The API on top of these services, which whoever made them closes."""
    app = FastAPI(
        title=openapi.TITLE,
        version=VERSION,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        openapi_url="/openapi.json",
        docs_url=None,  # it would load scripts from elsewhere; see `documentation`
        redoc_url=None,
        redirect_slashes=False,
        telemetry=FASTAPI_TELEMETRY_OFF,
    )
    app.state.services = services
    for router in ROUTERS:
        app.include_router(router)
    app.state.batch_slots = batches.BatchSlots(
        at_once=_BATCHES_AT_ONCE,
        most_waiting=_BATCHES_WAITING,
        patience=_BATCH_PATIENCE,
    )
    problems.explain(
        app,
        [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)],
    )
    openapi.describe(app)
    # The one that is added last stands before all others.
    app.add_middleware(
        BodyLimit,
        limits={
            prefix: getattr(services.settings, setting) for prefix, setting in BODY_LIMITS.items()
        },
        timeout=services.settings.request_timeout,
    )
    app.add_middleware(Unforeseen)
    app.add_middleware(NotStored)
    app.add_middleware(HeadAsGet)
    app.add_middleware(HttpTelemetry)
    return app
