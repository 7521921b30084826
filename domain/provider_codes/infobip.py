"""Statuses and errors of Infobip (infobip.com/docs: message-status-codes, error-code-reference).

They are two tables, whose numbers overlap: status 5 is a delivered message, error 5 a phone that was not
identified. So the codes here are written `status_5` and `error_5`. A receipt has one of each.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from domain.error_classes import ErrorClass
from domain.provider_codes import ProviderCode
from domain.receipts import ReceiptState

_Row = tuple[Iterable[int], str, ErrorClass | None, ReceiptState | None]


def status_code(number: int) -> str:
    """The code of an entry in the table of statuses."""
    return f"status_{number}"


def error_code(number: int) -> str:
    """The code of an entry in the table of errors."""
    return f"error_{number}"


DUPLICATE_ID: Final = 23
"""The status of a repeat: the message with this id has arrived before."""

_STATUSES: Final[tuple[_Row, ...]] = (
    # On the way. Status 2 is intermediate in spite of its group, DELIVERED.
    ((26,), "accepted", None, ReceiptState.ACCEPTED),
    ((7,), "passed on to the operator", None, ReceiptState.ENROUTE),
    ((3,), "with the operator, whose report is missing yet", None, ReceiptState.ENROUTE),
    ((2,), "the operator has it, and the phone not yet", None, ReceiptState.ENROUTE),
    (
        (DUPLICATE_ID,),
        "a repeat of a message that has arrived before",
        None,
        ReceiptState.ACCEPTED,
    ),
    # At the end.
    ((5,), "delivered to the phone", None, ReceiptState.DELIVERED),
    ((4,), "rejected by the operator", ErrorClass.UNDELIVERED, ReceiptState.UNDELIVERABLE),
    ((9,), "not delivered", ErrorClass.UNDELIVERED, ReceiptState.UNDELIVERABLE),
    ((31,), "not sent", ErrorClass.UNDELIVERED, ReceiptState.UNDELIVERABLE),
    ((15,), "its validity was over", ErrorClass.UNDELIVERED, ReceiptState.EXPIRED),
    (
        (29,),
        "the operator never reported: the message may have been delivered",
        ErrorClass.UNKNOWN,
        ReceiptState.UNKNOWN,
    ),
    # The account.
    (
        (6,),
        "the recipient's network is not covered, or not set up for the account",
        ErrorClass.ACCOUNT,
        ReceiptState.REJECTED,
    ),
    ((12,), "the account has no credit left", ErrorClass.ACCOUNT, ReceiptState.REJECTED),
    ((17,), "the account's credit has expired", ErrorClass.ACCOUNT, ReceiptState.REJECTED),
    (
        (18,),
        "the account may only send to one number, for tests",
        ErrorClass.ACCOUNT,
        ReceiptState.REJECTED,
    ),
    ((19,), "the account has no route", ErrorClass.ACCOUNT, ReceiptState.REJECTED),
    # The recipient.
    (
        (8, 52),
        "the recipient's number is invalid",
        ErrorClass.INVALID_RECIPIENT,
        ReceiptState.REJECTED,
    ),
    ((51,), "the recipient is missing", ErrorClass.INVALID_RECIPIENT, ReceiptState.REJECTED),
    ((10,), "the recipient is on a do-not-disturb list", ErrorClass.BLOCKED, ReceiptState.REJECTED),
    (
        (14,),
        "the recipient is on the blocklist of the account or of the operator",
        ErrorClass.OPTED_OUT,
        ReceiptState.REJECTED,
    ),
    ((87,), "a protection against fraud blocked it", ErrorClass.BLOCKED, ReceiptState.REJECTED),
    # The sender.
    (
        (11,),
        "the sender is not registered for the account",
        ErrorClass.UNREGISTERED_SENDER,
        ReceiptState.REJECTED,
    ),
    (
        (13,),
        "the sender is on the account's blocklist",
        ErrorClass.ROUTE,
        ReceiptState.REJECTED,
    ),
    # The rest.
    (
        (20,),
        "too many messages to this number within an hour",
        ErrorClass.THROTTLED,
        ReceiptState.REJECTED,
    ),
    ((21,), "Infobip had an internal error", ErrorClass.TEMPORARY, ReceiptState.REJECTED),
    (
        (100,),
        "Infobip is not available, or takes the request for malformed",
        ErrorClass.TEMPORARY,
        ReceiptState.REJECTED,
    ),
    ((24,), "the user data header is malformed", ErrorClass.ROUTE, ReceiptState.REJECTED),
    (
        (25,),
        "the text has more than 25 parts or 4000 octets",
        ErrorClass.ROUTE,
        ReceiptState.REJECTED,
    ),
)

_ERRORS: Final[tuple[_Row, ...]] = (
    # The recipient's number.
    (
        (1, 3041),
        "the recipient's number is not known or no longer used",
        ErrorClass.INVALID_RECIPIENT,
        None,
    ),
    ((351, 352), "the recipient's number is invalid", ErrorClass.INVALID_RECIPIENT, None),
    # The phone cannot be reached just now.
    (
        (2, 5, 6, 24, 27, 31, 32),
        "the phone is off, has no signal, or is busy",
        ErrorClass.UNDELIVERED,
        None,
    ),
    (
        (8,),
        "the phone is in a foreign network without an agreement",
        ErrorClass.UNDELIVERED,
        None,
    ),
    (
        (33, 256),
        "the memory of the phone or the operator's list of waiting messages is full",
        ErrorClass.UNDELIVERED,
        None,
    ),
    (
        (257, 258, 259, 261, 262, 628),
        "the phone had an error",
        ErrorClass.UNDELIVERED,
        None,
    ),
    (
        (1031, *range(1152, 1167)),
        "the recipient's network cannot be reached",
        ErrorClass.UNDELIVERED,
        None,
    ),
    (
        (13, 569),
        "the recipient's subscription is barred or suspended",
        ErrorClass.UNDELIVERED,
        None,
    ),
    ((581,), "the recipient has no credit left", ErrorClass.UNDELIVERED, None),
    ((810,), "not delivered", ErrorClass.UNDELIVERED, None),
    # The phone or the subscription cannot receive texts.
    (
        (7, 9, 11, 12, 21, 568, 629),
        "the phone or the subscription cannot receive texts",
        ErrorClass.LANDLINE,
        None,
    ),
    # Blocks and filters.
    (
        (10, 15, 560, 566, 604, 632, 2049),
        "the operator blocks messages to this recipient",
        ErrorClass.BLOCKED,
        None,
    ),
    ((2050,), "the recipient is on a do-not-disturb list", ErrorClass.BLOCKED, None),
    ((608,), "a protection against fraud blocked it", ErrorClass.BLOCKED, None),
    ((561, 607, 2051), "a filter blocked the text", ErrorClass.CONTENT_FILTERED, None),
    (
        (573, 603, 2052),
        "the recipient has sent STOP, blocks the sender, or is on a blocklist",
        ErrorClass.OPTED_OUT,
        None,
    ),
    # The sender.
    ((368, 375, 564, 2053), "the sender is invalid or blocked", ErrorClass.ROUTE, None),
    (
        (488,),
        "the toll-free number is not verified",
        ErrorClass.UNREGISTERED_SENDER,
        None,
    ),
    (
        (562, 563),
        "the short code is not set up at the operator, or has expired there",
        ErrorClass.UNREGISTERED_SENDER,
        None,
    ),
    (
        (571, 572, 594),
        "the campaign is not registered at the operator",
        ErrorClass.UNREGISTERED_SENDER,
        None,
    ),
    (
        (565, 574),
        "the recipient cannot get messages from this short code",
        ErrorClass.ROUTE,
        None,
    ),
    # Rates.
    ((541, 542, 4202), "the operator's rate or daily limit is reached", ErrorClass.THROTTLED, None),
    ((609,), "the daily limit of the account is reached", ErrorClass.THROTTLED, None),
    (
        (4103, 4104),
        "too many messages to this number within an hour",
        ErrorClass.THROTTLED,
        None,
    ),
    # The account.
    ((4099,), "the account's monthly limit is reached", ErrorClass.ACCOUNT, None),
    ((433,), "the account has no access", ErrorClass.ACCOUNT, None),
    ((577, 578, 579, 580), "a limit of a demo account is reached", ErrorClass.ACCOUNT, None),
    # Another provider may do it.
    (
        (345, 592, 597, 633),
        "the recipient's operator is not known or not covered",
        ErrorClass.ROUTE,
        None,
    ),
    ((598, 601), "the account is not set up for this kind of traffic", ErrorClass.ROUTE, None),
    ((71, 323, 355, 4096), "the message does not have the right form", ErrorClass.ROUTE, None),
    (
        (5492,),
        "the same message was sent to this recipient before",
        ErrorClass.INVALID_MESSAGE,
        None,
    ),
    # Time.
    (
        (811, 4098, 4101),
        "its validity was over",
        ErrorClass.UNDELIVERED,
        ReceiptState.EXPIRED,
    ),
    (
        (4100,),
        "its validity was over before it left Infobip",
        ErrorClass.UNDELIVERED,
        ReceiptState.EXPIRED,
    ),
    (
        (502, 815),
        "the operator did not answer Infobip: the message may have been delivered",
        ErrorClass.UNKNOWN,
        ReceiptState.UNKNOWN,
    ),
    # Networks and Infobip itself.
    (
        (20, 34, 35, 36, 255, 500, 501, *range(503, 510), *range(1024, 1031), *range(1281, 1285)),
        "a network had an error",
        ErrorClass.TEMPORARY,
        None,
    ),
    (
        (*range(1536, 1542), *range(1792, 1797), 631, 2048),
        "a network had an error",
        ErrorClass.TEMPORARY,
        None,
    ),
    ((51, 260, 630), "a network is congested", ErrorClass.TEMPORARY, None),
    ((4097,), "it did not leave Infobip", ErrorClass.TEMPORARY, None),
)


def _codes() -> Iterator[tuple[str, ProviderCode]]:
    for written, rows in ((status_code, _STATUSES), (error_code, _ERRORS)):
        for numbers, meaning, error_class, state in rows:
            for number in numbers:
                yield written(number), ProviderCode(meaning, error_class, state)


INFOBIP_CODES: Final[Mapping[str, ProviderCode]] = MappingProxyType(dict(_codes()))

STATUS_GROUPS: Final[Mapping[int, ReceiptState]] = MappingProxyType(
    {
        0: ReceiptState.ACCEPTED,
        1: ReceiptState.ENROUTE,
        2: ReceiptState.UNDELIVERABLE,
        3: ReceiptState.DELIVERED,
        4: ReceiptState.EXPIRED,
        5: ReceiptState.REJECTED,
    }
)
"""The state of a status that is not in the table, by its group."""

ERROR_GROUPS: Final[Mapping[int, ErrorClass]] = MappingProxyType(
    {1: ErrorClass.UNDELIVERED, 2: ErrorClass.ROUTE, 3: ErrorClass.ROUTE}
)
"""The class of an error that is not in the table, by its group: of the phone, of the user, of the operator.

One of the operator that is not permanent is temporary."""
