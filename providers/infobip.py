"""Infobip's SMS API (v3): messages out, delivery reports in, and logs when a report is missing.

infobip.com/docs/api/channels/sms: sms-messaging/outbound-sms, sms-messaging/logs-and-status-reports.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

from domain.configuration.providers.infobip import (
    CAMPAIGN,
    INDIA_DLT,
    INDIA_DLT_REQUIRED,
    InfobipConfiguration,
)
from domain.error_classes import RECEIPT_ERRORS, ErrorClass
from domain.outcomes import OutcomeKind, PartOutcome
from domain.parameters import UnusableParameter
from domain.provider_codes.infobip import (
    DUPLICATE_ID,
    ERROR_GROUPS,
    INFOBIP_CODES,
    STATUS_GROUPS,
    error_code,
    status_code,
)
from domain.receipts import FAILURES, PartIdentity, ReceiptState
from domain.segments import UnsendableText
from providers.base import PartSender
from providers.http import HttpProvider, basic
from providers.json_values import as_e164, as_object, as_segments, as_sender, as_text, as_time
from providers.webhooks import (
    ForgedReason,
    ProviderWebhooks,
    UnreadableWebhook,
    WebhookForged,
    receipt_of,
    same_secret,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from providers.base import Exchange, Outbound, ReceivedReceipt
    from providers.http import HttpResponse
    from providers.webhooks import WebhookRequest

_LONGEST_TEXT: Final = 4000
"""Octets, and so at least characters (status 25)."""
_MOST_REPORTS: Final = 1000
"""In one request; Infobip sends 100 at most."""
_LONGEST_VALIDITY: Final = 48 * 3600
"""Seconds (validityPeriod)."""

_ID: Final = re.compile(
    r"(?P<message_id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"-(?P<attempt>[1-9][0-9]{0,4})-(?P<number>[1-9][0-9]{0,2})",
    re.ASCII,
)
_MOST_ATTEMPTS: Final = 0x7FFF
_NETWORK: Final = re.compile(r"[0-9]{5,6}", re.ASCII)


def message_id(part: PartIdentity) -> str:
    """The id that we give a part at Infobip: the same whenever it is sent, so that a repeat is refused."""
    return f"{part.message_id}-{part.attempt}-{part.number}"


def part_with(written: str) -> PartIdentity | None:
    """The part that an id of ours names; None for any other id."""
    found = _ID.fullmatch(written)
    if found is None or int(found["attempt"]) > _MOST_ATTEMPTS:
        return None
    return PartIdentity(UUID(found["message_id"]), int(found["attempt"]), int(found["number"]))


class InfobipProvider(HttpProvider[InfobipConfiguration]):
    """An account at Infobip. A repeat has the same id: Infobip refuses it, if the first has arrived."""

    repeats_are_safe: ClassVar[bool] = True

    def _authorization(self) -> Mapping[str, str]:
        user = self._configuration.user
        if user is not None:
            return basic(user, self._secrets["password"])
        return {"authorization": f"App {self._secrets['api_key']}"}

    def _request(self, outbound: Outbound) -> httpx.Request:
        if len(outbound.text) > _LONGEST_TEXT:
            raise UnsendableText(f"Infobip takes at most {_LONGEST_TEXT} octets")
        destination = {
            "to": outbound.recipient.removeprefix("+"),
            "messageId": message_id(_part_of(outbound)),
        }
        message: dict[str, Any] = {
            "sender": outbound.sender.removeprefix("+"),
            "destinations": [destination],
            "content": {"text": outbound.text},
        }
        options = self._options(outbound)
        if options:
            message["options"] = options
        receipt_url = self.receipt_url(outbound)
        if receipt_url is not None:
            message["webhooks"] = {
                "delivery": {"url": receipt_url},
                "contentType": "application/json",
            }
        body = {"messages": [message], "options": {"includeSmsCountInResponse": True}}
        return self._build_request("POST", "/sms/3/messages", json=body)

    def receipt_url(self, outbound: Outbound) -> str | None:
        # Only Infobip's subscriptions have credentials, and they count only without an address.
        if self._configuration.webhook_user is not None:
            return None
        return super().receipt_url(outbound)

    def _options(self, outbound: Outbound) -> Mapping[str, Any]:
        options: dict[str, Any] = {}
        validity = self.validity(outbound)
        if validity is not None:
            seconds = min(max(1, int(validity.total_seconds())), _LONGEST_VALIDITY)
            options["validityPeriod"] = {"amount": seconds, "timeUnit": "SECONDS"}
        parameters = outbound.parameters
        if CAMPAIGN in parameters:
            options["campaignReferenceId"] = parameters[CAMPAIGN]
        india = {field: parameters[name] for name, field in INDIA_DLT.items() if name in parameters}
        if india:
            if INDIA_DLT_REQUIRED not in parameters:
                raise UnusableParameter(INDIA_DLT_REQUIRED)
            options["regional"] = {"indiaDlt": india}
        return options

    def _part_sender(self, outbound: Outbound, start_by: float | None) -> PartSender:
        send = super()._part_sender(outbound, start_by)
        ours = message_id(_part_of(outbound))

        async def send_with_id(number: int) -> Exchange:
            exchange = await send(number)
            outcome = exchange.outcome
            if outcome.kind is OutcomeKind.ACCEPTED and not outcome.provider_message_id:
                outcome = replace(outcome, provider_message_id=ours)
            return replace(exchange, outcome=outcome)

        return send_with_id

    def _outcome(self, number: int, response: HttpResponse) -> PartOutcome:
        body = response.json_object()
        if not response.is_success:
            return self._refused(number, _problem(body), response)
        message = _first(body.get("messages"))
        status = as_object(message.get("status"))
        state = _state(status)
        # The refusal of a repeat is among them: it proves that the first request has arrived.
        if state in _ACCEPTED:
            return PartOutcome(
                number,
                OutcomeKind.ACCEPTED,
                provider_message_id=as_text(message.get("messageId")),
                segments=as_segments(as_object(message.get("details")).get("messageCount")),
            )
        # Without a state that is known, it may have been taken.
        otherwise = RECEIPT_ERRORS[state] if state in FAILURES else ErrorClass.UNKNOWN
        return self._refused(number, _status_code(status), response, otherwise=otherwise)

    async def query(self, provider_message_id: str, *, sender: str) -> ReceivedReceipt | None:
        """Query the logs, which can be read repeatedly; each report can be read only once."""
        del sender
        response = await self._ask(
            self._build_request("GET", "/sms/3/logs", params={"messageId": provider_message_id})
        )
        body = {} if response is None or not response.is_success else response.json_object()
        receipts = [
            receipt
            for entry in _list(body.get("results"))
            if (receipt := _receipt(self.name, self._configuration, entry)) is not None
            and receipt.provider_message_id == provider_message_id
            # The log of a repeat that was refused has the same id.
            and receipt.code != status_code(DUPLICATE_ID)
        ]
        final = [receipt for receipt in receipts if receipt.state.is_final]
        return next(iter(final or receipts), None)


class InfobipWebhooks(ProviderWebhooks[InfobipConfiguration]):
    """Delivery reports of Infobip. They are not signed: the address is secret, and may have credentials."""

    def verify(self, request: WebhookRequest) -> None:
        user = self._configuration.webhook_user
        if user is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if not given:
            raise WebhookForged(ForgedReason.UNSIGNED)
        expected = basic(user, self._secrets["webhook_password"])["authorization"]
        if scheme.lower() != "basic" or not same_secret(
            given.strip(), expected.removeprefix("Basic ")
        ):
            raise WebhookForged(ForgedReason.BAD_SIGNATURE)

    def receipts(
        self, request: WebhookRequest, part: PartIdentity | None
    ) -> Sequence[ReceivedReceipt]:
        body = request.json()
        entries = body.get("results") if isinstance(body, dict) else None
        if not isinstance(entries, list) or len(entries) > _MOST_REPORTS:
            raise UnreadableWebhook
        read = [self._read(entry, part, is_alone=len(entries) == 1) for entry in entries]
        receipts = [receipt for receipt in read if receipt is not None]
        if len(receipts) < len(read):
            raise UnreadableWebhook(receipts)
        return receipts

    def _read(
        self, entry: object, part: PartIdentity | None, *, is_alone: bool
    ) -> ReceivedReceipt | None:
        receipt = _receipt(self.name, self._configuration, entry)
        if receipt is None:
            return None
        named = part_with(receipt.provider_message_id)
        if part is None:  # the provider's fixed address: only our own id names the part
            return replace(receipt, part=named) if receipt.provider_message_id else None
        # The address identifies only its own attempt. Other reports in the same request are matched
        # by their ids.
        if named == part or (named is None and is_alone):
            return replace(receipt, part=part)
        return receipt if receipt.provider_message_id else None


_ACCEPTED: Final = frozenset({ReceiptState.ACCEPTED, ReceiptState.ENROUTE, ReceiptState.DELIVERED})


def _receipt(
    provider: str, configuration: InfobipConfiguration, entry: object
) -> ReceivedReceipt | None:
    """A report, or an entry of the logs; None if it has no status. Names of v2 are read, too."""
    fields = as_object(entry)
    status = as_object(fields.get("status"))
    if _number(status.get("id")) is None and _number(status.get("groupId")) is None:
        return None
    state, code, otherwise = _state(status) or ReceiptState.ENROUTE, _status_code(status), None
    error = as_object(fields.get("error"))
    error_id = _number(error.get("id"))
    # What went wrong says more than that it did. A message that did not fail has no error that counts.
    if state in FAILURES and error_id:
        otherwise = _class_otherwise(configuration, state, code, error)
        code = error_code(error_id)
    network = as_text(fields.get("mccMnc"))
    return receipt_of(
        provider,
        configuration,
        provider_message_id=as_text(fields.get("messageId")),
        state=state,
        code=code,
        sender=as_sender(as_text(fields.get("sender") or fields.get("from"))),
        recipient=as_e164(as_text(fields.get("to") or fields.get("destination"))),
        network=network if _NETWORK.fullmatch(network) else None,
        done_at=as_time(fields.get("doneAt")),
        otherwise=otherwise,
    )


def _state(status: Mapping[str, Any]) -> ReceiptState | None:
    """What a status means: its own entry in the table counts, else its group; None for neither."""
    known = INFOBIP_CODES.get(_status_code(status))
    if known is not None:
        return known.state
    group = _number(status.get("groupId"))
    return None if group is None else STATUS_GROUPS.get(group)


def _status_code(status: Mapping[str, Any]) -> str:
    number = _number(status.get("id"))
    return "" if number is None else status_code(number)


def _class_otherwise(
    configuration: InfobipConfiguration,
    state: ReceiptState,
    code: str,
    error: Mapping[str, Any],
) -> ErrorClass | None:
    """The class of an error that is not in the table, of a message with this state and code of a status.

    It is that of the status, if it says more than the state, else that of the error's group.
    """
    declared = configuration.errors.get(code)
    known = INFOBIP_CODES.get(code)
    if declared is not None:
        return declared
    if known is not None and known.error_class is not RECEIPT_ERRORS[state]:
        return known.error_class
    group = _number(error.get("groupId"))
    if group == _OPERATOR and error.get("permanent") is False:
        return ErrorClass.TEMPORARY
    return None if group is None else ERROR_GROUPS.get(group)


_OPERATOR: Final = 3


def _problem(body: Mapping[str, Any]) -> str:
    """The code of a request that failed as a whole: of v3, or of the endpoints before it."""
    exception = as_object(as_object(body.get("requestError")).get("serviceException"))
    return as_text(body.get("errorCode")) or as_text(exception.get("messageId"))


def _part_of(outbound: Outbound) -> PartIdentity:
    return PartIdentity(outbound.message_id, outbound.attempt)


def _number(written: object) -> int | None:
    text = as_text(written)
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if is_number else None


_MOST_DIGITS: Final = 5


def _list(written: object) -> Sequence[object]:
    return written if isinstance(written, list) else ()


def _first(written: object) -> Mapping[str, Any]:
    return as_object(next(iter(_list(written)), None))
