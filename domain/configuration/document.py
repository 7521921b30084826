"""The whole configuration: what an installation declares, consistent in itself."""

from typing import Self

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails

from domain.configuration.declared import Declared, mistake_at, refuse
from domain.configuration.names import AccountId, Environment, ProviderName
from domain.configuration.policies import (
    AccountPolicy,
    CallbackPolicy,
    ModeOverrides,
    RetryOverrides,
)
from domain.configuration.providers.types import AnyProvider
from domain.configuration.routes import Route
from domain.configuration.routing_key import RoutingKey
from domain.error_classes import RETRIES, ErrorClass, RetryRule
from domain.modes import MODE_POLICIES, Mode, ModePolicy

_MOST_NAMED = 20
"""Of all providers, in the sentence about one that does not exist."""


class Configuration(Declared):
    """Everything that an installation declares."""

    providers: dict[ProviderName, AnyProvider]
    routes: tuple[Route, ...]
    modes: dict[Mode, ModeOverrides] = Field({})
    retries: dict[ErrorClass, RetryOverrides] = Field({})
    accounts: dict[AccountId, AccountPolicy] = Field({})
    callbacks: CallbackPolicy = CallbackPolicy()

    @model_validator(mode="after")
    def _routes_name_providers_that_exist(self) -> Self:
        mistakes: list[InitErrorDetails] = []
        for number, route in enumerate(self.routes):
            for place, name in enumerate(route.providers):
                sentence = self._wrong_with(route, name)
                if sentence:
                    mistakes.append(
                        mistake_at("routes", number, "providers", place, sentence=sentence)
                    )
        refuse(type(self).__name__, mistakes)
        return self

    def _wrong_with(self, route: Route, name: str) -> str | None:
        provider = self.providers.get(name)
        if provider is None:
            known = ", ".join(sorted(self.providers)[:_MOST_NAMED]) or "none"
            return f'there is no provider "{name}"; declared are: {known}'
        wanted = route.match.environment
        if wanted not in {None, provider.environment}:
            return (
                f'provider "{name}" is for {provider.environment} messages, '
                f"and this route takes only {wanted} ones"
            )
        return None

    def route_for(self, key: RoutingKey) -> tuple[int, Route] | None:
        """The first route that matches, with its number in the file, from 0; None if none does.

        A route whose providers are all of the other environment is passed over.
        """
        for number, route in enumerate(self.routes):
            if self.providers_of(route, key.environment) and route.match.covers(key):
                return number, route
        return None

    def providers_of(self, route: Route, environment: Environment) -> tuple[str, ...]:
        """The route's providers that messages of this environment may reach, in order."""
        return tuple(
            name for name in route.providers if self.providers[name].environment is environment
        )

    def receipt_group(self, provider: str) -> tuple[str, ...]:
        """The providers for whose parts a receipt that comes over this one may be, itself first.

        The group's own name is one of them: it may be the former name of a provider.
        """
        groups = {name: each.receipt_group or name for name, each in self.providers.items()}
        group = groups.get(provider, provider)
        others = [name for name, its_group in groups.items() if its_group == group]
        return tuple(dict.fromkeys([provider, *others, group]))

    def mode_policy(self, mode: Mode) -> ModePolicy:
        """The mode's policy with this installation's overrides."""
        overrides = self.modes.get(mode)
        policy = MODE_POLICIES[mode]
        return overrides.apply_to(policy) if overrides else policy

    def allows_sender(self, account: str, mode: Mode, sender: str) -> bool:
        """Whether the account may send as this sender in this mode."""
        overrides = self.modes.get(mode)
        of_mode = overrides.senders if overrides else None
        return self.account(account).allows_sender(sender) and (
            of_mode is None or "*" in of_mode or sender in of_mode
        )

    def retry_rule(self, error_class: ErrorClass) -> RetryRule:
        """What an error of this class is worth, with this installation's overrides."""
        overrides = self.retries.get(error_class)
        rule = RETRIES[error_class]
        return overrides.apply_to(rule) if overrides else rule

    def account(self, account_id: str) -> AccountPolicy:
        """The policy of an account, the default one if it is not declared."""
        return self.accounts.get(account_id, AccountPolicy())
