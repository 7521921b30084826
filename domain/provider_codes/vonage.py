"""Error codes of Vonage's Messages API, in responses and in status webhooks (developer.vonage.com/api-errors).

A code is a number, or a word where the error is not one of the Messages API itself. A code that is not listed
is worth what the HTTP status or the receipt's status says.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from domain.error_classes import ErrorClass
from domain.provider_codes import ProviderCode
from domain.receipts import ReceiptState

_PARAMETER: Final = "a parameter of the request is missing or wrong"
_CHANNEL: Final = "an error of other channels than SMS"

_GROUPS: Final[tuple[tuple[tuple[str, ...], str, ErrorClass, ReceiptState | None], ...]] = (
    # The account.
    (("1070", "low-balance"), "the account has no credit left", ErrorClass.ACCOUNT, None),
    (("1060", "account-suspended"), "the account is suspended", ErrorClass.ACCOUNT, None),
    (("1080", "unprovisioned"), "the account may not use this API", ErrorClass.ACCOUNT, None),
    (
        ("1110", "unauthorized", "jwt-expired", "invalid-signature"),
        "Vonage refuses the credentials",
        ErrorClass.ACCOUNT,
        None,
    ),
    (("forbidden",), "the account may not do this", ErrorClass.ACCOUNT, None),
    (("not-found",), "the address of the API is wrong", ErrorClass.ACCOUNT, None),
    (
        ("1160",),
        "the account sends only to recipients of its allow list",
        ErrorClass.ACCOUNT,
        None,
    ),
    # Rates.
    (("1000",), "too many requests per second", ErrorClass.THROTTLED, None),
    (("1241",), "too many messages to this recipient", ErrorClass.THROTTLED, None),
    (("1460",), "the daily limit of the 10DLC campaign is reached", ErrorClass.THROTTLED, None),
    (("1472",), "a protection against bursts is active", ErrorClass.THROTTLED, None),
    # Vonage itself. After a response with a 5xx status the message may have been sent.
    (("1030",), "an internal error of Vonage", ErrorClass.TEMPORARY, None),
    (("1100", "1331"), "Vonage could not reach its supplier", ErrorClass.TEMPORARY, None),
    (("1230",), "an error in the network", ErrorClass.TEMPORARY, None),
    (("1330",), "an unknown error, often of a wrong number", ErrorClass.TEMPORARY, None),
    (
        ("1130", "1360"),
        "the validity was over before the message was delivered, or is wrong",
        ErrorClass.UNDELIVERED,
        ReceiptState.EXPIRED,
    ),
    (
        ("1320",),
        "Vonage has already sent this message",
        ErrorClass.UNKNOWN,
        ReceiptState.UNKNOWN,
    ),
    # The recipient.
    (
        ("1040", "1170", "1430"),
        "the recipient's number is missing or invalid",
        ErrorClass.INVALID_RECIPIENT,
        None,
    ),
    (
        ("1190",),
        "the recipient's number is no longer in use",
        ErrorClass.INVALID_RECIPIENT,
        ReceiptState.UNDELIVERABLE,
    ),
    (
        ("1180", "1220", "1260"),
        "the phone is off, busy or has no signal",
        ErrorClass.UNDELIVERED,
        ReceiptState.UNDELIVERABLE,
    ),
    (
        ("1290",),
        "the recipient's own prepaid credit is used up",
        ErrorClass.UNDELIVERED,
        ReceiptState.UNDELIVERABLE,
    ),
    (
        ("1310",),
        "the recipient's device cannot receive texts",
        ErrorClass.LANDLINE,
        ReceiptState.UNDELIVERABLE,
    ),
    (("1240",), "the recipient has sent STOP to this sender", ErrorClass.OPTED_OUT, None),
    (("1050", "1280"), "the recipient's carrier blocks the message", ErrorClass.BLOCKED, None),
    (("1270",), "the recipient's age does not permit the message", ErrorClass.BLOCKED, None),
    (
        ("1470", "1473"),
        "a protection against artificial traffic blocked it",
        ErrorClass.BLOCKED,
        None,
    ),
    (("1200",), "the recipient's number is being ported", ErrorClass.ROUTE, None),
    # The text.
    (("1210",), "a spam filter blocked the text", ErrorClass.CONTENT_FILTERED, None),
    (
        ("1482",),
        "the content id is missing, or its template does not fit the text",
        ErrorClass.CONTENT_FILTERED,
        None,
    ),
    (("1090",), "the text is too long for Vonage", ErrorClass.ROUTE, None),
    # The sender.
    (
        ("1120", "1420", "1481"),
        "the sender cannot send to this country",
        ErrorClass.ROUTE,
        None,
    ),
    (
        ("1480", "1483", "1484"),
        "the sender is not registered as the recipient's country requires",
        ErrorClass.UNREGISTERED_SENDER,
        None,
    ),
    # The request.
    (("1250", "1300"), "there is no route to the recipient's network", ErrorClass.ROUTE, None),
    (
        ("1010", "1020", "1021", "1022", "1140", "1150", "invalid-params"),
        _PARAMETER,
        ErrorClass.ROUTE,
        None,
    ),
    (("1400", "1410", "1440", "1450"), _PARAMETER, ErrorClass.ROUTE, None),
    (("1340", "1350", "1370", "1451", "1461"), _CHANNEL, ErrorClass.ROUTE, None),
    (tuple(str(code) for code in range(1380, 1390)), _CHANNEL, ErrorClass.ROUTE, None),
)


def _codes() -> Iterator[tuple[str, ProviderCode]]:
    for codes, meaning, error_class, state in _GROUPS:
        for code in codes:
            yield code, ProviderCode(meaning, error_class, state)


VONAGE_CODES: Final[Mapping[str, ProviderCode]] = MappingProxyType(dict(_codes()))
