"""Which class a provider's section belongs to, by its `type`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import PlainValidator, SerializeAsAny, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails

from domain.configuration.providers.base import ProviderConfiguration
from domain.configuration.providers.infobip import InfobipConfiguration
from domain.configuration.providers.smpp import SmppConfiguration
from domain.configuration.providers.telnyx import TelnyxConfiguration
from domain.configuration.providers.twilio import TwilioConfiguration
from domain.configuration.providers.vonage import VonageConfiguration

DEFAULT_TYPE: Final = "smpp"
"""Of a section that names no type."""

BUILT_IN_TYPES: Final[Mapping[str, type[ProviderConfiguration]]] = MappingProxyType(
    {
        "smpp": SmppConfiguration,
        "simulator": SmppConfiguration,
        "twilio": TwilioConfiguration,
        "telnyx": TelnyxConfiguration,
        "infobip": InfobipConfiguration,
        "vonage": VonageConfiguration,
    }
)

PROVIDER_TYPES: Final = "provider_types"
"""Key of pydantic's validation context under which the classes of all installed types are found, by
type; without them, only the built-in types are known."""


def section_class(
    section: object, types: Mapping[str, type[ProviderConfiguration]]
) -> type[ProviderConfiguration] | None:
    """The class of a provider's section; None where its type is not among `types`."""
    named = section.get("type", DEFAULT_TYPE) if isinstance(section, Mapping) else DEFAULT_TYPE
    return types.get(named) if isinstance(named, str) else None


def _by_type(section: object, info: ValidationInfo) -> ProviderConfiguration:
    if isinstance(section, ProviderConfiguration):
        return section
    types = (info.context or {}).get(PROVIDER_TYPES) or BUILT_IN_TYPES
    found = section_class(section, types)
    if found is None:
        raise _unknown_type(section, types)
    return found.model_validate(section, context=info.context)


def _unknown_type(
    section: object, types: Mapping[str, type[ProviderConfiguration]]
) -> ValidationError:
    *others, last = [f"'{name}'" for name in sorted(types)]
    expected = f"{', '.join(others)} or {last}" if others else last
    details = InitErrorDetails(
        type="literal_error",
        loc=("type",),
        input=section.get("type") if isinstance(section, Mapping) else None,
        ctx={"expected": expected},
    )
    return ValidationError.from_exception_data("provider", [details], hide_input=True)


AnyProvider = Annotated[SerializeAsAny[ProviderConfiguration], PlainValidator(_by_type)]
"""A provider of any installed type: a union that `type` discriminates."""
