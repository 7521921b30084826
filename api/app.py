"""The application: endpoints, guards and description, around the services of this process."""

from fastapi import FastAPI

from api import (
    batches,
    callbacks,
    configuration,
    dead_letters,
    health,
    keys,
    messages,
    openapi,
    problems,
    providers,
    webhooks,
)
from api.guards import BodyLimit, Unforeseen
from services.assembly import Services
from telemetry.http import FASTAPI_TELEMETRY_OFF, HttpTelemetry

VERSION = "0.1.0"
ROUTERS = (
    batches.router,  # before messages, one of whose ids would else be "batches"
    messages.router,
    dead_letters.router,
    providers.router,
    callbacks.router,
    webhooks.router,
    keys.router,
    configuration.router,
    health.router,
)


def create_app(services: Services) -> FastAPI:
    """The API on top of these services, which whoever made them closes."""
    app = FastAPI(
        title=openapi.TITLE,
        version=VERSION,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        openapi_url="/openapi.json",
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,
        telemetry=FASTAPI_TELEMETRY_OFF,
    )
    app.state.services = services
    for router in ROUTERS:
        app.include_router(router)
    problems.explain(app)
    openapi.describe(app)
    # The one that is added last stands before all others.
    app.add_middleware(
        BodyLimit,
        most=services.settings.max_body_bytes,
        more={batches.PATH: services.settings.max_batch_bytes},
    )
    app.add_middleware(Unforeseen)
    app.add_middleware(HttpTelemetry)
    return app
