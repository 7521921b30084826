"""A preview of a message: what would be accepted, and which route it would take. It stores nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from domain.configuration.routing_key import RoutingKey
from domain.delivery import RouteOption
from services.configuration import Configurations
from services.routes import Routes
from services.submission import (
    Caller,
    MessageOptions,
    SendCommand,
    SubmissionValidator,
    ValidatedRecipient,
)
from store.database import Database


@dataclass(frozen=True, slots=True)
class MessagePreview:
    """A message that would be accepted; `route` is None if no route takes it.

    Attributes:
        options: what was asked for, with what the mode and the account decide.
        recipient: the number, and the text as it would be sent.
        route: the number of its route in the configuration, from 0.
        providers: those of the route, in the order of preference.
        ignored_parameters: the message's parameters that each of these has no use for, by name.
    """

    options: MessageOptions
    recipient: ValidatedRecipient
    route: int | None
    providers: Sequence[RouteOption]
    ignored_parameters: Mapping[str, Sequence[str]]


class Preview:
    """Validates a message and finds its route, as accepting it would do."""

    def __init__(
        self,
        reads: Database,
        configurations: Configurations,
        checks: SubmissionValidator,
        routes: Routes,
    ) -> None:
        self._reads = reads
        self._configurations = configurations
        self._checks = checks
        self._routes = routes

    async def __call__(self, caller: Caller, command: SendCommand) -> MessagePreview:
        """Look at a message.

        Raises:
            Refused: it would not be accepted; with every fault of the command.
        """
        submission = self._checks.submission(
            caller, command, datetime.now(UTC), idempotency_key=None
        )
        options, recipient = submission.checked()
        routing_key = RoutingKey(
            environment=caller.environment,
            country=recipient.number.country,
            mode=options.mode,
            sender=options.sender.value,
            network="unknown",
            account_id=caller.account_id,
        )
        async with self._reads.begin() as connection:
            route, providers = await self._routes.options(
                connection, self._configurations.current, routing_key
            )
        declared = self._configurations.current.providers
        ignored = {
            each.provider: sorted(
                set(command.parameters) - declared[each.provider].known_parameters()
            )
            for each in providers
        }
        return MessagePreview(options, recipient, route, providers, ignored)
