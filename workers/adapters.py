"""Makes the adapter of a provider from its configuration, or says why it cannot be made."""

from datetime import datetime

from domain.binds import BindError, BindFailure
from domain.configuration import ProviderConfiguration
from providers.base import Provider, ProviderSinks
from providers.connections import TlsFileUnusable
from services.assembly import Services
from settings.secrets import SecretMissing, SecretNotAllowed


def make_provider(name: str, configuration: ProviderConfiguration, services: Services) -> Provider:
    """The adapter of a provider, with its secret and its TLS files read.

    Raises:
        Exception: of any kind; `open_error` says what it means.
    """
    return services.provider_types.build(
        name,
        configuration,
        services.settings.allowed_secrets,
        ProviderSinks(
            on_receipt=services.receipts.take,
            on_late=services.delivery.record_late,
            on_unparsed_receipt=services.unparsed_receipts.store,
            read_receipt_token=services.receipt_tokens.read,
            receipt_url=services.provider_reports.receipt_url,
        ),
    )


def open_error(error: Exception, at: datetime) -> BindError:
    """Why a provider could not be made, as its heartbeats report it."""
    match error:
        case SecretNotAllowed():
            return BindError(BindFailure.SECRET_NOT_ALLOWED, at=at)
        case SecretMissing():
            return BindError(BindFailure.SECRET_MISSING, subject=str(error), at=at)
        case TlsFileUnusable():
            return BindError(BindFailure.TLS_UNUSABLE, error.cause, subject=error.subject, at=at)
        case _:
            return BindError(BindFailure.UNEXPECTED, type(error).__name__, at=at)
