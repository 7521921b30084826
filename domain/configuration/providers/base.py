"""What the gateway needs to know of any provider, whatever its type."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictInt

from domain.configuration.declared import Declared
from domain.configuration.durations import Duration
from domain.configuration.names import Environment, ProviderName
from domain.configuration.secret_references import SecretReference
from domain.error_classes import ErrorClass
from domain.provider_codes import ProviderCode
from domain.segments import PartMethod


@dataclass(frozen=True, slots=True)
class ProviderSecret:
    """A secret that the adapter of a provider needs.

    Attributes:
        key: of the provider's section, where the secret is declared.
        reference: where the secret is found.
        is_literal: whether `reference` is the secret itself.
        check: raises ValueError, with a sentence that does not repeat it, for an unusable secret.
    """

    key: str
    reference: str = field(repr=False)
    is_literal: bool
    check: Callable[[str], object]


class ProviderConfiguration(Declared):
    """One account at a provider: what routing, claims, deadlines and receipts depend on.

    Each type of provider has a subclass with what its adapter needs beyond that.
    """

    type: str = Field(description="type of the adapter for the provider")
    environment: Environment = Field(
        Environment.LIVE, description="environment of the keys whose messages may use the provider"
    )

    binds: Annotated[StrictInt, Field(ge=1, le=64)] = Field(
        2, description="number of sessions, over all processes"
    )
    window: Annotated[StrictInt, Field(ge=1, le=10_000)] = Field(
        100, description="maximum number of submits without a response, for each bind"
    )
    rate: Annotated[float, Field(gt=0, le=100_000, strict=True)] | None = Field(
        None,
        description="maximum messages per second, over all processes; no limit if it is missing",
    )
    response_timeout: Duration = Field(
        timedelta(seconds=10),
        description="how long to wait for a response; then the outcome is unknown",
    )

    receipts: StrictBool = Field(
        True,
        description='whether the provider sends receipts; if not, messages end with the status "sent"',
    )
    receipt_deadline: Duration = Field(
        timedelta(minutes=30),
        description="how long to wait for a receipt if the outcome is unknown or the next route would "
        "follow; the mode's deadline applies there if it is shorter",
    )
    receipt_secret: SecretReference | None = Field(
        None,
        description="reference to the secret that signs this provider's receipts at "
        "POST /webhooks/sms-delivery",
    )
    receipt_group: ProviderName | None = Field(
        None,
        description="the same name for providers that may get each other's receipts, such as two "
        "hosts of one account; after a provider is renamed, its former name",
    )

    cancel: StrictBool = Field(
        True, description="whether the provider can cancel a message that it accepted"
    )
    errors: Mapping[Any, ErrorClass] = Field(
        {},
        description="error classes of this provider's codes, where they differ from the standard",
    )

    @property
    def receipt_poll_after(self) -> timedelta | None:
        """How long after the submit the missing receipt of a part is requested; None for never."""
        return None

    @property
    def splits_messages(self) -> bool:
        """Whether a long message is one submit, which the provider itself splits into parts."""
        return self.part_method(long_reference=False) is PartMethod.PAYLOAD

    def part_method(self, *, long_reference: bool) -> PartMethod:
        """How the parts of a new attempt are joined; PAYLOAD where the provider does that.

        `long_reference` asks for a reference of 16 bits where the method has one of 8.
        """
        del long_reference
        return PartMethod.PAYLOAD

    def receipt_id(self, written: str) -> str:
        """The message id of a receipt, in the form in which ids are stored and compared."""
        return written

    def known_parameters(self) -> frozenset[str]:
        """The names of messages' parameters that the provider is given; others are ignored."""
        return frozenset()

    def codes(self) -> Mapping[str, ProviderCode]:
        """The provider's own table of codes; empty where they are statuses of SMPP."""
        return {}

    def secrets(self) -> Sequence[ProviderSecret]:
        """The secrets that the adapter is built with."""
        return ()

    def key_files(self) -> Sequence[str]:
        """Paths of the private keys that the adapter reads."""
        return ()
