"""What the HTTP status of a provider's response means, where nothing else says it."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from domain.error_classes import ErrorClass

# A 408 or 5xx may come after the message was accepted: its outcome is unknown.
_CLASSES: Final[Mapping[int, ErrorClass]] = MappingProxyType(
    {
        HTTPStatus.UNAUTHORIZED: ErrorClass.ACCOUNT,
        HTTPStatus.PAYMENT_REQUIRED: ErrorClass.ACCOUNT,
        HTTPStatus.FORBIDDEN: ErrorClass.ACCOUNT,
        HTTPStatus.NOT_FOUND: ErrorClass.ACCOUNT,
        HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: ErrorClass.ACCOUNT,
        HTTPStatus.REQUEST_TIMEOUT: ErrorClass.UNKNOWN,
        HTTPStatus.TOO_MANY_REQUESTS: ErrorClass.THROTTLED,
    }
)


def class_of_status(status: int) -> ErrorClass:
    """What an HTTP status means that is no success; a redirect is a wrong `url`."""
    known = _CLASSES.get(status)
    if known is not None:
        return known
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ErrorClass.UNKNOWN
    return ErrorClass.ACCOUNT if status < HTTPStatus.BAD_REQUEST else ErrorClass.ROUTE


def is_success(status: int) -> bool:
    """Whether an HTTP status is one of 200 to 299 (RFC 9110, 15.3)."""
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
