"""Routes: which messages go to which providers."""

from enum import StrEnum

from pydantic import Field, field_validator

from domain.configuration.declared import Declared, mistake_at, refuse
from domain.configuration.names import AccountId, Country, Environment, Network, ProviderName
from domain.configuration.routing_key import RoutingKey
from domain.modes import Mode


class Match(Declared):
    """Which messages a route takes; what is left empty matches everything."""

    countries: tuple[Country, ...] = Field((), description="countries of the recipient's number")
    modes: tuple[Mode, ...] = Field((), description="modes of the message")
    senders: tuple[str, ...] = Field((), description="senders, by their exact text")
    networks: tuple[Network, ...] = Field(
        (), description="networks of the recipient, as MCC and MNC"
    )
    accounts: tuple[AccountId, ...] = Field(
        (), description="ids of the accounts that send the message"
    )
    environment: Environment | None = Field(None, description="environment of the key")

    def covers(self, key: RoutingKey) -> bool:
        """Whether a message with this routing key takes this route."""
        return (
            (not self.countries or key.country in self.countries)
            and (not self.modes or key.mode in self.modes)
            and (not self.senders or key.sender in self.senders)
            and (not self.networks or key.network in self.networks)
            and (not self.accounts or key.account_id in self.accounts)
            and self.environment in {None, key.environment}
        )


class Strategy(StrEnum):
    """How the providers of a route are ordered."""

    PRIORITY = "priority"
    """In the order of the list."""


_LATER_STRATEGIES = frozenset({"cost", "balanced"})


class Route(Declared):
    """Messages that match, and the providers to try for them."""

    match: Match = Match()
    strategy: Strategy = Field(
        Strategy.PRIORITY,
        description="how the order of the providers is chosen: `priority` is the order of the list",
    )
    providers: tuple[ProviderName, ...] = Field(
        description="providers to try, the preferred one first"
    )

    @field_validator("strategy", mode="before")
    @classmethod
    def _strategy_works_already(cls, strategy: object) -> object:
        if isinstance(strategy, str) and strategy in _LATER_STRATEGIES:
            raise ValueError(
                f'the strategy "{strategy}" is not supported yet: use "priority", '
                "which tries the providers in the order of the list"
            )
        return strategy

    @field_validator("providers")
    @classmethod
    def _names_each_provider_once(cls, providers: tuple[str, ...]) -> tuple[str, ...]:
        if not providers:
            raise ValueError("a route needs at least one provider")
        refuse(
            cls.__name__,
            [
                mistake_at(place, sentence=f'"{name}" is listed twice')
                for place, name in enumerate(providers)
                if name in providers[:place]
            ],
        )
        return providers
