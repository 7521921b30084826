"""The types of providers: how each is declared, and the adapter that reaches it.

Another package adds a type by an entry point of the group `smsgateway.providers`. The entry point's
name is the type, and its object is a `ProviderType`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

import structlog

from domain.configuration import ProviderConfiguration
from domain.configuration.providers.infobip import InfobipConfiguration
from domain.configuration.providers.smpp import SmppConfiguration
from domain.configuration.providers.telnyx import TelnyxConfiguration
from domain.configuration.providers.twilio import TwilioConfiguration
from domain.configuration.providers.vonage import VonageConfiguration
from providers import smpp
from providers.base import UnparsedReason
from providers.infobip import InfobipProvider, InfobipWebhooks
from providers.telnyx import TelnyxProvider, TelnyxWebhooks
from providers.twilio import TwilioProvider, TwilioWebhooks
from providers.vonage import VonageProvider, VonageWebhooks
from providers.webhooks import UnreadableWebhook, stored_request
from settings.secrets import check_key_file, resolve_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from domain.secrets import AllowedSecrets
    from providers.base import Provider, ProviderSinks, ReceivedReceipt
    from providers.webhooks import ProviderWebhooks

_log = structlog.get_logger(logger_name=__name__)
_Configuration = TypeVar("_Configuration", bound=ProviderConfiguration)

ENTRY_POINTS: Final = "smsgateway.providers"
"""Group of the entry points by which other packages add their types."""


@dataclass(frozen=True, slots=True)
class ProviderType(Generic[_Configuration]):
    """One type of provider.

    Attributes:
        configuration: class of a provider's section. Its `secrets` and `key_files` name what is read
            before the adapter is made.
        adapter: the adapter's class. It is called with the provider's name, its section, the secrets
            by their keys, and where its receipts and late responses go.
        parse_again: parses the octets of a stored `UnparsedReceipt`; only for an adapter that stores
            any itself. Those of requests are read by `webhooks`.
        webhooks: reads what the provider reports over HTTP, if it does. It is called with the provider's
            name, its section and the secrets by their keys.
    """

    configuration: type[_Configuration]
    adapter: Callable[[str, _Configuration, Mapping[str, str], ProviderSinks], Provider]
    parse_again: (
        Callable[[str, _Configuration, bytes], Sequence[ReceivedReceipt] | UnparsedReason] | None
    ) = None
    webhooks: Callable[[str, _Configuration, Mapping[str, str]], ProviderWebhooks[Any]] | None = (
        None
    )


_SMPP: Final = ProviderType(SmppConfiguration, smpp.SmppProvider.build, smpp.parse_again)
_BUILT_IN: Final[Mapping[str, ProviderType[Any]]] = {
    "smpp": _SMPP,
    "simulator": _SMPP,
    "twilio": ProviderType(TwilioConfiguration, TwilioProvider, webhooks=TwilioWebhooks),
    "telnyx": ProviderType(TelnyxConfiguration, TelnyxProvider, webhooks=TelnyxWebhooks),
    "infobip": ProviderType(InfobipConfiguration, InfobipProvider, webhooks=InfobipWebhooks),
    "vonage": ProviderType(VonageConfiguration, VonageProvider, webhooks=VonageWebhooks),
}


class ProviderTypes:
    """All types of providers that this process knows."""

    def __init__(self, types: Mapping[str, ProviderType[Any]]) -> None:
        self._types = types

    @classmethod
    def installed(cls) -> Self:
        """The built-in types, and those of the installed packages.

        A type that cannot be loaded is logged and left out: the other providers must not be affected.
        """
        found = {
            point.name: loaded
            for point in entry_points(group=ENTRY_POINTS)
            if (loaded := _loaded(point)) is not None
        }
        return cls({**found, **_BUILT_IN})

    @property
    def configurations(self) -> Mapping[str, type[ProviderConfiguration]]:
        """The class of a provider's section, by type."""
        return MappingProxyType({name: each.configuration for name, each in self._types.items()})

    def of(self, name: str) -> ProviderType[Any]:
        """The type with this name.

        Raises:
            KeyError: there is none.
        """
        return self._types[name]

    def build(
        self,
        name: str,
        configuration: ProviderConfiguration,
        allowed: AllowedSecrets,
        sinks: ProviderSinks,
    ) -> Provider:
        """The adapter of a provider, made within a running event loop. Reads its secrets.

        Raises:
            SecretMissing: a secret or a private key cannot be read, or is not allowed.
            Exception: whatever the adapter raises.
        """
        secrets = _secrets(configuration, allowed)
        for path in configuration.key_files():
            check_key_file(path, allowed)
        return self._types[configuration.type].adapter(name, configuration, secrets, sinks)

    def webhooks(
        self, name: str, configuration: ProviderConfiguration, allowed: AllowedSecrets
    ) -> ProviderWebhooks[Any] | None:
        """What reads a provider's requests to the gateway; None if its type sends none. Reads its secrets.

        Raises:
            SecretMissing: a secret cannot be read, or is not allowed.
        """
        make = self._types[configuration.type].webhooks
        if make is None:
            return None
        return make(name, configuration, _secrets(configuration, allowed))

    def parse_again(
        self, name: str, configuration: ProviderConfiguration, frame: bytes
    ) -> Sequence[ReceivedReceipt] | UnparsedReason:
        """The receipts in the octets of an `UnparsedReceipt`, or why there are none.

        Empty where it is something else, or where the adapter stores no such octets.
        """
        known = self._types[configuration.type]
        if known.parse_again is not None:
            return known.parse_again(name, configuration, frame)
        if known.webhooks is None:
            return ()
        try:
            return known.webhooks(name, configuration, {}).receipts(stored_request(frame), None)
        except UnreadableWebhook:
            return UnparsedReason.MALFORMED_REQUEST


def _secrets(configuration: ProviderConfiguration, allowed: AllowedSecrets) -> dict[str, str]:
    return {
        secret.key: resolve_secret(
            secret.reference, allowed, literal_allowed=secret.is_literal
        ).get_secret_value()
        for secret in configuration.secrets()
    }


def _loaded(point: EntryPoint) -> ProviderType[Any] | None:
    """The type behind an entry point, or None, with a log event, where it cannot be used."""
    if point.name in _BUILT_IN:
        _log.error("provider_type_not_loaded", provider_type=point.name, reason="built_in_type")
        return None
    try:
        loaded = point.load()
    except Exception as error:  # noqa: BLE001 - the package of others may raise anything
        _log.error(
            "provider_type_not_loaded", provider_type=point.name, reason="failed", exc_info=error
        )
        return None
    if not isinstance(loaded, ProviderType):
        _log.error("provider_type_not_loaded", provider_type=point.name, reason="no_provider_type")
        return None
    return loaded
