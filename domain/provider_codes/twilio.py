"""Error codes of Twilio's Messages API and of its status callbacks (twilio.com/docs/api/errors).

Twilio makes codes finer over time: a code that is not listed is worth what its status says.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from domain.error_classes import ErrorClass
from domain.provider_codes import ProviderCode
from domain.receipts import ReceiptState

_CREDENTIALS: Final = "Twilio refuses the credentials, or the account is not active"
_SENDER: Final = "the sender is malformed, not yours, or cannot send to this country"
_PARAMETER: Final = "a parameter of the request is wrong"
_FILTERED: Final = "a filter of Twilio or of the carrier blocked the text"

_GROUPS: Final[tuple[tuple[tuple[int, ...], str, ErrorClass | None, ReceiptState | None], ...]] = (
    # The account.
    ((20003, 20005, 20006, 20403), _CREDENTIALS, ErrorClass.ACCOUNT, None),
    ((20404,), "the account SID is wrong", ErrorClass.ACCOUNT, None),
    ((21219, 21608), "a trial account sends only to verified numbers", ErrorClass.ACCOUNT, None),
    ((21408,), "the account may not send to this country", ErrorClass.ACCOUNT, None),
    ((30002,), "the account was suspended", ErrorClass.ACCOUNT, None),
    ((30033,), "the 10DLC campaign is suspended", ErrorClass.ACCOUNT, None),
    # Rates.
    (
        (20429, 14107, 63017, 63018),
        "too many requests or messages at once",
        ErrorClass.THROTTLED,
        None,
    ),
    ((21611, 30001), "the sender's queue at Twilio is full", ErrorClass.THROTTLED, None),
    ((30022,), "the rate of the 10DLC campaign is exceeded", ErrorClass.THROTTLED, None),
    ((30023, 30027, 63038), "the daily limit is reached", ErrorClass.THROTTLED, None),
    ((30025, 30026), "part of the daily limit is used: a warning", None, None),
    # Twilio itself.
    (
        (20500, 20503),
        "Twilio had an internal error: the message may have been sent",
        ErrorClass.UNKNOWN,
        None,
    ),
    (
        (30008,),
        "the carrier gave no reason",
        ErrorClass.TEMPORARY,
        None,
    ),
    (
        (30017, 30020, 30021, 30500),
        "congestion, or an internal error of Twilio",
        ErrorClass.TEMPORARY,
        None,
    ),
    (
        (30036,),
        "its validity was over in Twilio's queue",
        ErrorClass.UNDELIVERED,
        ReceiptState.EXPIRED,
    ),
    (
        (30410,),
        "the carrier did not answer Twilio: the message may have been delivered",
        ErrorClass.UNKNOWN,
        ReceiptState.UNKNOWN,
    ),
    # The recipient.
    (
        (21211, 21604, 21265, 21266, 21268),
        "the recipient's number is invalid",
        ErrorClass.INVALID_RECIPIENT,
        None,
    ),
    ((21614,), "the recipient's number is no mobile number", ErrorClass.INVALID_RECIPIENT, None),
    (
        (30005,),
        "the recipient's number is not known or no longer used",
        ErrorClass.INVALID_RECIPIENT,
        None,
    ),
    ((21610,), "the recipient has sent STOP to this sender", ErrorClass.OPTED_OUT, None),
    (
        (21635, 30006),
        "the number is a landline, or its carrier cannot be reached",
        ErrorClass.LANDLINE,
        None,
    ),
    ((30003,), "the phone is off, has no signal, or cannot receive", ErrorClass.UNDELIVERED, None),
    (
        (30004,),
        "the recipient, or a do-not-call list, blocks the message",
        ErrorClass.BLOCKED,
        None,
    ),
    (
        (30450, 30453, 30454),
        "a protection against artificial traffic blocked it",
        ErrorClass.BLOCKED,
        None,
    ),
    # The text.
    ((21618, 30007), _FILTERED, ErrorClass.CONTENT_FILTERED, None),
    (
        (21602, 21605, 21617, 30019),
        "the text is missing or too long",
        ErrorClass.INVALID_MESSAGE,
        None,
    ),
    # The sender.
    ((21212, 21603, 21606, 21659, 21660, 21661, 21267), _SENDER, ErrorClass.ROUTE, None),
    (
        (21701, 21702, 21703, 21704, 21705, 21709),
        "the messaging service has no fitting sender",
        ErrorClass.ROUTE,
        None,
    ),
    (
        (30018, 30024),
        "the sender is not registered in this country",
        ErrorClass.UNREGISTERED_SENDER,
        None,
    ),
    ((30032,), "the toll-free number is not verified", ErrorClass.UNREGISTERED_SENDER, None),
    (
        (30034, 30035),
        "the number is not yet in a 10DLC campaign",
        ErrorClass.UNREGISTERED_SENDER,
        None,
    ),
    # The request.
    ((21612,), "there is no route between this sender and recipient", ErrorClass.ROUTE, None),
    ((21624, 21609, 30010, 30012, 30013), _PARAMETER, ErrorClass.ROUTE, None),
    (
        (30011, 30014, 30015, 30016, 30028, 30029, 30030, 30031),
        _PARAMETER,
        ErrorClass.ROUTE,
        None,
    ),
)


def _codes() -> Iterator[tuple[str, ProviderCode]]:
    for numbers, meaning, error_class, state in _GROUPS:
        for number in numbers:
            yield str(number), ProviderCode(meaning, error_class, state)


TWILIO_CODES: Final[Mapping[str, ProviderCode]] = MappingProxyType(dict(_codes()))
