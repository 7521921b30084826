"""What an installation declares: providers, routes, and the policies of modes, errors and accounts.

These are values only. `settings/configuration_file.py` reads them from TOML and says where a
mistake stands; a `Configuration` that exists is consistent in itself (a route names no provider
that is missing). Secrets are references, never values, so that a configuration can be stored.

This package exports what any part of the gateway may know. What only one type of provider has is
imported from its module below `domain.configuration.providers`.
"""

from domain.configuration.document import Configuration
from domain.configuration.durations import Duration, format_duration, parse_duration
from domain.configuration.names import Environment
from domain.configuration.policies import AccountPolicy, CallbackPolicy
from domain.configuration.providers.base import ProviderConfiguration
from domain.configuration.routes import Match
from domain.configuration.secret_references import ALLOWED_SECRETS

__all__ = [
    "ALLOWED_SECRETS",
    "AccountPolicy",
    "CallbackPolicy",
    "Configuration",
    "Duration",
    "Environment",
    "Match",
    "ProviderConfiguration",
    "format_duration",
    "parse_duration",
]
