"""Which providers may carry a message, best first, and how long each may take."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from domain import deadlines
from domain.binds import ProviderRole
from domain.configuration import Configuration
from domain.configuration.routing_key import RoutingKey
from domain.delivery import RouteOption, Standing
from domain.error_classes import ErrorClass
from domain.modes import MissingReceiptPolicy, Mode
from services.configuration import Configurations
from store import providers
from store.database import Connection

_CACHED_FOR = 0.3
"""Seconds for which the set of providers that are up is cached."""


class Routes:
    """Ranks the providers of routes, by the configuration in force and by who is up.

    `role` is the one by which the ranked messages are sent: a provider is up if a worker with a
    bind polls the task queues of this role.
    """

    def __init__(self, configurations: Configurations, role: ProviderRole) -> None:
        self._configurations = configurations
        self._role = role
        self._cached: frozenset[str] = frozenset()
        self._last_up: Mapping[str, datetime] = {}
        self._cached_until = 0.0

    async def options(
        self, connection: Connection, configuration: Configuration, key: RoutingKey
    ) -> tuple[int | None, list[RouteOption]]:
        """The providers of the route of messages with this key, best first, and the route's number.

        A key with an only provider has no route; its provider must be of the key's environment.
        """
        number, names = _number_and_providers(configuration, key)
        if not names:
            return number, []
        up = await self._up(connection)
        retries = {error: configuration.retry_rule(error) for error in ErrorClass}
        return number, [
            RouteOption(
                provider=name,
                up=name in up,
                down_since=None if name in up else self._last_up.get(name),
                receipts=configuration.providers[name].receipts,
                cancels=configuration.providers[name].cancel,
                retries=retries,
            )
            for name in names
        ]

    def explained(
        self,
        route: int | None,
        options: Sequence[RouteOption],
        standings: Mapping[str, Standing] = MappingProxyType({}),
        *,
        only_provider: str | None = None,
    ) -> dict[str, Any]:
        """A ranking as the event of a decision shows it: best first, and why each was chosen or not.

        `only_provider` is the one that the message was accepted for, if it was for one alone.
        """
        return {
            "role": self._role.value,
            "configuration": self._configurations.version,
            "route": route,
            **({} if only_provider is None else {"only_provider": only_provider}),
            "ranking": [
                {
                    "provider": option.provider,
                    "up": option.up,
                    "standing": standings.get(option.provider),
                    "down_since": option.down_since.isoformat() if option.down_since else None,
                }
                for option in options
            ],
        }

    async def _up(self, connection: Connection) -> frozenset[str]:
        """Providers whose task queues of this role are polled, cached for all messages."""
        now = time.monotonic()
        if now >= self._cached_until:
            last_up = providers.last_up(connection, self._role)
            self._cached = await providers.up_for(connection, self._role)
            self._last_up = await last_up
            self._cached_until = now + _CACHED_FOR
        return self._cached


def _number_and_providers(
    configuration: Configuration, key: RoutingKey
) -> tuple[int | None, Sequence[str]]:
    only = key.only_provider
    if only is not None:
        declared = configuration.providers.get(only)
        usable = declared is not None and declared.environment is key.environment
        return None, (only,) if usable else ()
    found = configuration.route_for(key)
    if found is None:
        return None, ()
    number, route = found
    return number, configuration.providers_of(route, key.environment)


def receipt_deadline(configuration: Configuration, provider: str) -> timedelta:
    """A provider's own `receipt_deadline`, also if it is not declared any more."""
    declared = configuration.providers.get(provider)
    return declared.receipt_deadline if declared else timedelta(minutes=30)


def unknown_until(configuration: Configuration, provider: str, now: datetime) -> datetime:
    """How long a receipt may still resolve an outcome of this provider that is unknown from now on."""
    return deadlines.unknown_until(now, receipt_deadline(configuration, provider))


def receipt_wait(
    receipt_by: datetime, missing_receipt: MissingReceiptPolicy | None, now: datetime
) -> timedelta | None:
    """What bounds a provider's tries to deliver, beside the validity; None where nothing does.

    A message whose listener gets a report of the missing receipt is still to be delivered after that.
    """
    return None if missing_receipt is MissingReceiptPolicy.TELL_LISTENER else receipt_by - now


def receipt_by(
    configuration: Configuration,
    provider: str,
    mode: Mode,
    requested: timedelta | None,
    valid_until: datetime,
    now: datetime,
    *,
    alternatives: int,
    missing_receipt: MissingReceiptPolicy | None = None,
) -> datetime:
    """How long to wait for the receipt of an attempt that starts now.

    `requested` and `missing_receipt` are what the message's request asked for, if anything;
    `alternatives` as in `domain.delivery.Submit`.
    """
    policy = configuration.mode_policy(mode).for_message(missing_receipt)
    deadline = deadlines.receipt_deadline(
        requested,
        policy.receipt_deadline,
        receipt_deadline(configuration, provider),
        next_route=policy.must_arrive,
    )
    return deadlines.receipt_by(
        now,
        valid_until,
        deadline,
        next_route=policy.must_arrive,
        alternatives=alternatives,
    )


def receipt_by_after_enroute(
    configuration: Configuration,
    provider: str,
    mode: Mode,
    receipt_by: datetime,
    at: datetime,
    valid_until: datetime,
    missing_receipt: MissingReceiptPolicy | None = None,
) -> datetime:
    """How long to wait for the receipt of an attempt after an ENROUTE receipt that came at `at`.

    As long as without it, once more: by the mode where the next route follows, else by the provider.
    """
    policy = configuration.mode_policy(mode).for_message(missing_receipt)
    own = receipt_deadline(configuration, provider)
    deadline = deadlines.receipt_deadline(
        None, policy.receipt_deadline, own, next_route=policy.must_arrive
    )
    return deadlines.receipt_by_after_enroute(receipt_by, at, deadline or own, valid_until)
