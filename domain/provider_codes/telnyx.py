"""Error codes of Telnyx's API v2, in its responses and in the events of messages.

developers.telnyx.com: docs/messaging/messages/error-codes, development/api-fundamentals/api-errors.
A code that is not listed is worth what its HTTP status or the message's status says.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from domain.error_classes import ErrorClass
from domain.provider_codes import ProviderCode
from domain.receipts import ReceiptState

KEY_IN_USE: Final = "idempotency_key"
"""Our code for a 422 about the `Idempotency-Key`, for which Telnyx documents no code of its own."""

_MALFORMED: Final = "a parameter of the request is wrong"
_SENDER: Final = "the sender is not on the messaging profile, or cannot send this"
_TOLL_FREE: Final = "the toll-free number is not verified or not set up yet"
_FILTERED: Final = "a filter of Telnyx or of the carrier blocked the text"
_DISABLED: Final = "the messaging profile is disabled, or messaging is disabled for the account"

_GROUPS: Final[tuple[tuple[tuple[str, ...], str, ErrorClass, ReceiptState | None], ...]] = (
    # The account.
    (("10005",), "the messaging profile or the address is not known", ErrorClass.ACCOUNT, None),
    (
        ("10009", "10010"),
        "Telnyx refuses the API key, or it lacks the permission",
        ErrorClass.ACCOUNT,
        None,
    ),
    (("20100",), "the account has no credit left", ErrorClass.ACCOUNT, None),
    (
        ("40309", "40331"),
        "the messaging profile may not send to this country",
        ErrorClass.ACCOUNT,
        None,
    ),
    (("40311", "40312", "40313", "40314"), _DISABLED, ErrorClass.ACCOUNT, None),
    (
        ("40333",),
        "the messaging profile's spend limit of the day is reached",
        ErrorClass.ACCOUNT,
        None,
    ),
    # Rates.
    (("10011",), "too many requests", ErrorClass.THROTTLED, None),
    (
        ("40011", "40016", "40018"),
        "the carrier's rate or its limit for a day is reached",
        ErrorClass.THROTTLED,
        None,
    ),
    (("40318",), "the sender's queue at Telnyx is full", ErrorClass.THROTTLED, None),
    # Telnyx itself.
    (
        ("10007", "10008"),
        "Telnyx had an internal error: the message may have been sent",
        ErrorClass.UNKNOWN,
        None,
    ),
    (
        (KEY_IN_USE,),
        "Telnyx has another request with this Idempotency-Key: the message may have been sent",
        ErrorClass.UNKNOWN,
        None,
    ),
    (
        ("40014",),
        "it waited too long in Telnyx's queue",
        ErrorClass.UNDELIVERED,
        ReceiptState.EXPIRED,
    ),
    (("40007",), "the message went in a loop", ErrorClass.ROUTE, None),
    # The recipient.
    (
        ("10002", "10016", "40012", "40310"),
        "the recipient's number is invalid",
        ErrorClass.INVALID_RECIPIENT,
        None,
    ),
    (
        ("40001",),
        "the number is a landline, or no network has it",
        ErrorClass.LANDLINE,
        None,
    ),
    (("40005",), "it expired at the carrier", ErrorClass.UNDELIVERED, ReceiptState.EXPIRED),
    (("40006",), "the recipient's carrier is down", ErrorClass.TEMPORARY, None),
    (
        ("40004", "40008"),
        "the recipient's carrier refused it and gave no reason",
        ErrorClass.ROUTE,
        None,
    ),
    (
        ("40020",),
        "a protection against artificial traffic blocked it",
        ErrorClass.BLOCKED,
        None,
    ),
    (("40300",), "the recipient has sent STOP to this sender", ErrorClass.OPTED_OUT, None),
    # The text.
    (("40002", "40015", "40017", "40322"), _FILTERED, ErrorClass.CONTENT_FILTERED, None),
    (
        ("40009", "40302", "40304", "40316", "40317", "40328"),
        "the text is missing, invalid or too long",
        ErrorClass.INVALID_MESSAGE,
        None,
    ),
    # The sender. A carrier that blocks one sender for good may take the message from another one.
    (("10001",), "the sender's number is not active", ErrorClass.ROUTE, None),
    (("40003",), "the carrier blocks this sender for good", ErrorClass.ROUTE, None),
    (
        ("40013", "40100", "40305", "40306", "40307", "40308", "40320", "40321", "40325"),
        _SENDER,
        ErrorClass.ROUTE,
        None,
    ),
    (
        ("40315",),
        "the sender has too many complaints or failures",
        ErrorClass.ROUTE,
        None,
    ),
    (
        ("40010", "40019"),
        "the sender is not in a 10DLC campaign",
        ErrorClass.UNREGISTERED_SENDER,
        None,
    ),
    (
        ("40150", "40151", "40155", "40323", "40329", "40330"),
        _TOLL_FREE,
        ErrorClass.UNREGISTERED_SENDER,
        None,
    ),
    # The request.
    (("10003", "10004", "10006", "10014", "10015", "10023"), _MALFORMED, ErrorClass.ROUTE, None),
    (("10012",), "Telnyx has such a resource already", ErrorClass.ROUTE, None),
    (
        ("40301", "40319"),
        "this kind of sender cannot send to this kind of recipient",
        ErrorClass.ROUTE,
        None,
    ),
)


def _codes() -> Iterator[tuple[str, ProviderCode]]:
    for codes, meaning, error_class, state in _GROUPS:
        for code in codes:
            yield code, ProviderCode(meaning, error_class, state)


TELNYX_CODES: Final[Mapping[str, ProviderCode]] = MappingProxyType(dict(_codes()))
