"""Decisions about many messages at one moment, computed once for those that are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from domain.configuration import Configuration
from domain.configuration.routing_key import RoutingKey
from domain.delivery import Decision, RouteOption, decide
from domain.states import MessageStatus
from services.bulk.state import StateOfBulk, in_bulk
from services.routes import Routes
from store import messages
from store import routing_key as routing_keys
from store.attempts import AttemptRow
from store.database import Connection
from store.messages import MessageRow


@dataclass(frozen=True, slots=True)
class Decided:
    """The decision about messages with the same routing key, and the ranking that it was made by."""

    decision: Decision
    route: int | None
    options: Sequence[RouteOption]


class BulkDecisions:
    """Decides about messages of one bulk; about those without attempts once per routing key.

    Args:
        routes: rank the providers.
        connection: the transaction in which the messages were read.
        configuration: the one in force.
        now: the moment of all decisions.
        bulk: the row of the bulk.
    """

    def __init__(
        self,
        routes: Routes,
        connection: Connection,
        configuration: Configuration,
        now: datetime,
        bulk: StateOfBulk,
    ) -> None:
        self._routes = routes
        self._connection = connection
        self._configuration = configuration
        self._now = now
        self._bulk = bulk
        self._ranked: dict[RoutingKey, tuple[int | None, list[RouteOption]]] = {}
        self._untried: dict[RoutingKey, Decided] = {}

    async def about(self, row: MessageRow, attempts: Sequence[AttemptRow]) -> Decided:
        """What to do with a message, by its row and the rows of its attempts."""
        routing_key = routing_keys.read(row)
        is_like_others = (
            never_tried(row) and row.cancel_requested_at is None and row.valid_until > self._now
        )
        if is_like_others and routing_key in self._untried:
            return self._untried[routing_key]
        if routing_key not in self._ranked:
            self._ranked[routing_key] = await self._routes.options(
                self._connection, self._configuration, routing_key
            )
        route, options = self._ranked[routing_key]
        policy = self._configuration.mode_policy(row.mode).for_message(row.missing_receipt)
        facts = in_bulk(messages.facts(row, attempts), self._bulk)
        decided = Decided(decide(facts, options, policy, self._now), route, options)
        if is_like_others:
            self._untried[routing_key] = decided
        return decided


def never_tried(row: MessageRow) -> bool:
    """Whether a message has no attempts, so that none need be read."""
    return row.status is MessageStatus.QUEUED and row.first_attempt == 1
