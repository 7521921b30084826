"""Which providers may carry a message, best first, and how long each may take."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from domain.configuration import Configuration, Environment
from domain.delivery import RouteOption
from domain.errors import ErrorClass
from domain.modes import MissingReceiptPolicy, Mode, ModePolicy
from services.configuration import Configurations
from store import providers
from store.database import Connection, Row

ROUTED_BY = ("environment", "country", "mode", "sender", "network", "account_id")
"""What routes look at in a message."""

AFTER_VALIDITY = timedelta(seconds=60)
"""How long after a message's validity its receipt (EXPIRED, most likely) is still waited for."""

_ALIVE_FOR = 0.3
"""Seconds for which it is remembered which providers are up."""


class Routes:
    """Ranks the providers of routes, by the configuration in force and by who is up."""

    def __init__(self, configurations: Configurations) -> None:
        self._configurations = configurations
        self._alive: frozenset[str] = frozenset()
        self._alive_until = 0.0

    async def options(
        self, connection: Connection, configuration: Configuration, message: Row
    ) -> tuple[int | None, list[RouteOption]]:
        """The providers of a message's route, best first, and the route's number.

        `message` holds what messages are `ROUTED_BY`.
        """
        environment = Environment(message["environment"])
        found = configuration.route_for(
            country=message["country"],
            mode=Mode(message["mode"]),
            sender=message["sender"],
            network=message["network"],
            account=message["account_id"],
            environment=environment,
        )
        if found is None:
            return None, []
        number, route = found
        alive = await self._living(connection)
        retries = {error: configuration.retry_rule(error) for error in ErrorClass}
        names = configuration.providers_of(route, environment)
        return number, [
            RouteOption(
                provider=name,
                up=name in alive,
                receipts=configuration.providers[name].receipts,
                recalls=configuration.providers[name].cancel,
                retries=retries,
                # The order of the list is the ranking, so that the first one scores highest.
                score=1 - place / len(names),
            )
            for place, name in enumerate(names)
        ]

    def explained(self, route: int | None, options: Sequence[RouteOption]) -> dict[str, Any]:
        """A ranking as the event of a decision shows it."""
        return {
            "configuration": self._configurations.version,
            "route": route,
            "ranking": [
                {"provider": option.provider, "score": option.score, "up": option.up}
                for option in options
            ],
        }

    async def _living(self, connection: Connection) -> frozenset[str]:
        """Providers with a living worker, remembered for a moment by all messages of this process."""
        now = time.monotonic()
        if now >= self._alive_until:
            self._alive = await providers.alive(connection)
            self._alive_until = now + _ALIVE_FOR
        return self._alive


def receipt_deadline(configuration: Configuration, provider: str) -> timedelta:
    """How long a provider's receipts are waited for where another route would be next."""
    declared = configuration.providers.get(provider)
    return declared.receipt_deadline if declared else timedelta(minutes=30)


def receipt_by(
    configuration: Configuration,
    provider: str,
    policy: ModePolicy,
    valid_until: datetime,
    now: datetime,
) -> datetime:
    """How long to wait for the receipt of an attempt that starts now.

    A silent phone is usually off, so most messages wait until they are no longer valid; those
    that must arrive go to the next route after the provider's deadline.
    """
    at_last = valid_until + AFTER_VALIDITY
    if policy.missing_receipt is MissingReceiptPolicy.EXPIRE:
        return at_last
    return min(at_last, now + receipt_deadline(configuration, provider))
