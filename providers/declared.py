"""Providers whose HTTP API is declared in the configuration (`type = "http"`)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

from domain.attempt_references import attempt_reference
from domain.configuration.providers.declared.documents import Format, Unreadable
from domain.configuration.providers.declared.receipt import PartlyUnreadable
from domain.configuration.providers.declared.request import filled_json
from domain.configuration.providers.declared.response import Verdict
from domain.configuration.providers.declared.section import DeclaredProviderConfiguration
from domain.configuration.providers.declared.templates import MESSAGE_ID, SECRET, Placeholder
from domain.error_classes import ErrorClass
from domain.outcomes import OutcomeKind, PartOutcome
from domain.parameters import UnusableParameter
from domain.receipts import LONGEST_ID, storable
from domain.segments import UnsendableText
from providers.declared_requests import RequestWriter
from providers.declared_signatures import SignatureVerifier
from providers.declared_values import Sending, values_of
from providers.http import HttpProvider
from providers.webhooks import ProviderWebhooks, UnreadableWebhook, WebhookResponse, receipt_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    import httpx

    from domain.configuration.providers.declared.receipt import ReadReceipt
    from domain.receipts import PartIdentity
    from providers.base import Exchange, Outbound, PartSender, ProviderSinks, ReceivedReceipt
    from providers.declared_requests import WrittenRequest
    from providers.http import HttpResponse
    from providers.webhooks import WebhookRequest

_ACCEPTED_TYPES: Final[Mapping[Format, str]] = {Format.JSON: "application/json"}


class DeclaredProvider(HttpProvider[DeclaredProviderConfiguration]):
    """An account at a provider that is declared in the configuration."""

    def __init__(
        self,
        name: str,
        configuration: DeclaredProviderConfiguration,
        secrets: Mapping[str, str],
        sinks: ProviderSinks,
    ) -> None:
        super().__init__(name, configuration, secrets, sinks)
        self._writer = RequestWriter(configuration.authentication, secrets)

    @classmethod
    def build(
        cls,
        name: str,
        configuration: DeclaredProviderConfiguration,
        secrets: Mapping[str, str],
        sinks: ProviderSinks,
    ) -> DeclaredProvider:
        """The adapter of a section; its requests are repeated if the provider recognizes repeats."""
        recognizes = configuration.idempotency is not None
        made = RepeatableDeclaredProvider if recognizes else DeclaredProvider
        return made(name, configuration, secrets, sinks)

    def _authorization(self) -> Mapping[str, str]:
        return {}  # `RequestWriter` writes the credentials: some are in the query or in the body

    def validity(self, outbound: Outbound) -> timedelta | None:
        validity, longest = super().validity(outbound), self._configuration.request.longest_validity
        if validity is None or longest is None:
            return validity
        return min(validity, longest)

    def _request(self, outbound: Outbound) -> httpx.Request:
        declared = self._configuration.request
        longest = declared.longest_text
        if longest is not None and len(outbound.text) > longest:
            raise UnsendableText(f"the provider takes at most {longest} characters")
        sending = Sending(
            outbound,
            self.receipt_url(outbound),
            self.validity(outbound),
            datetime.now(UTC),
            declared.coding,
        )
        values = values_of(sending, self._secrets)
        try:
            written = self._writer.write(
                declared.method,
                declared.path,
                values,
                query=declared.query,
                headers=declared.headers,
                form=declared.form,
                json_body=None
                if declared.json_body is None
                else filled_json(declared.json_body, values) or {},
            )
        except UnicodeEncodeError:
            raise UnsendableText("the text has half of a surrogate pair") from None
        request = self._built(written, self._configuration.response.format)
        idempotency = self._configuration.idempotency
        if idempotency is not None and idempotency.header is not None:
            request.headers[idempotency.header] = _reference(outbound)
        return request

    def _built(self, written: WrittenRequest, expected: Format) -> httpx.Request:
        headers = {"accept": _ACCEPTED_TYPES.get(expected, "*/*"), **written.headers}
        return self._build_request(
            written.method, written.target, headers=headers, content=written.body
        )

    def _outcome(self, number: int, response: HttpResponse) -> PartOutcome:
        declared = self._configuration
        found = declared.response.read(response.status, response.body)
        code = declared.known_codes.kept(found.code)
        match found.verdict:
            case Verdict.ACCEPTED:
                return PartOutcome(
                    number,
                    OutcomeKind.ACCEPTED,
                    provider_message_id=storable(found.id, LONGEST_ID) or None,
                    segments=found.segments,
                    price=found.price,
                )
            case Verdict.UNKNOWN:
                return PartOutcome(
                    number, OutcomeKind.UNKNOWN, code=code, error_class=ErrorClass.UNKNOWN
                )
            case Verdict.REFUSED:
                if (
                    declared.idempotency is not None
                    and code in declared.idempotency.duplicate_codes
                ):
                    return PartOutcome(number, OutcomeKind.ACCEPTED)
                its_class = declared.known_codes.class_of_response(
                    code, response.status, declared.response
                )
                outcome = self._refused(number, code, response, otherwise=its_class)
                if outcome.kind is OutcomeKind.THROTTLED and found.after is not None:
                    return replace(outcome, after=found.after)
                return outcome

    async def query(self, provider_message_id: str, *, sender: str) -> ReceivedReceipt | None:
        del sender
        polling = self._configuration.polling
        if polling is None:
            return None

        def value_of(placeholder: Placeholder) -> str | None:
            if placeholder.name == SECRET:
                return self._secrets[placeholder.argument]
            return provider_message_id if placeholder.name == MESSAGE_ID else None

        try:
            written = self._writer.write(
                polling.method,
                polling.path,
                value_of,
                query=polling.query,
                headers={},
                form=polling.form,
            )
        except (UnusableParameter, UnicodeEncodeError):
            return None
        response = await self._ask(self._built(written, polling.format))
        if response is None or not response.is_success:
            return None
        found = polling.read(provider_message_id, response.body)
        return None if found is None else _received(self.name, self._configuration, found, None)


class RepeatableDeclaredProvider(DeclaredProvider):
    """One that recognizes a request that comes twice, by a key or by an id of ours."""

    repeats_are_safe: ClassVar[bool] = True

    def _part_sender(self, outbound: Outbound, start_by: float | None) -> PartSender:
        send = super()._part_sender(outbound, start_by)
        idempotency = self._configuration.idempotency
        if idempotency is None or not idempotency.reference_is_id:
            return send

        async def with_our_id(number: int) -> Exchange:
            exchange = await send(number)
            outcome = exchange.outcome
            if outcome.kind is not OutcomeKind.ACCEPTED or outcome.provider_message_id is not None:
                return exchange
            outcome = replace(outcome, provider_message_id=_reference(outbound))
            return replace(exchange, outcome=outcome)

        return with_our_id


_GET: Final = frozenset({"GET"})


class DeclaredWebhooks(ProviderWebhooks[DeclaredProviderConfiguration]):
    """Receipts of a provider that is declared in the configuration."""

    @property
    def methods(self) -> frozenset[str]:
        receipt = self._configuration.receipt
        return _GET if receipt is not None and receipt.format is Format.QUERY else super().methods

    def response(self) -> WebhookResponse:
        receipt = self._configuration.receipt
        if receipt is None:
            return self.stored
        declared = receipt.response
        return WebhookResponse(declared.status, declared.content_type, declared.body.encode())

    def kept(self, request: WebhookRequest) -> bytes:
        return self._content(request)

    def _content(self, request: WebhookRequest) -> bytes:
        """Where the receipts are: in the query, or in the body, which alone can be signed."""
        if self.methods == _GET and request.url:  # a request that was kept has only what is read
            return urlsplit(request.url).query.encode()
        return request.body

    def verify(self, request: WebhookRequest) -> None:
        receipt = self._configuration.receipt
        if receipt is not None:
            SignatureVerifier(receipt.signature, self._secrets).verify(request)

    def receipts(
        self, request: WebhookRequest, part: PartIdentity | None
    ) -> Sequence[ReceivedReceipt]:
        declared = self._configuration.receipt
        if declared is None:
            raise UnreadableWebhook
        try:
            return self._received(declared.read(self._content(request)), part)
        except PartlyUnreadable as error:
            raise UnreadableWebhook(self._received(error.receipts, part)) from None
        except Unreadable:
            raise UnreadableWebhook from None

    def _received(
        self, found: Sequence[ReadReceipt], part: PartIdentity | None
    ) -> Sequence[ReceivedReceipt]:
        """The receipts of a request; `part` is the one that its address names, if it does.

        Raises:
            UnreadableWebhook: one of them says neither by an id nor otherwise for which message it is.
        """
        # Of receipts for several messages, the address of one attempt does not say whose they are.
        named = part if len({each.id for each in found}) == 1 else None
        known = [
            _received(self.name, self._configuration, each, named or each.part)
            for each in found
            if each.id or named or each.part
        ]
        if len(known) < len(found):
            raise UnreadableWebhook(known)
        return known


def _received(
    name: str,
    declared: DeclaredProviderConfiguration,
    found: ReadReceipt,
    part: PartIdentity | None,
) -> ReceivedReceipt:
    return receipt_of(
        name,
        declared,
        provider_message_id=found.id,
        state=found.state,
        code=declared.known_codes.kept(found.code),
        part=part,
        recipient=found.recipient,
        network=found.network,
        done_at=found.done_at,
    )


def _reference(outbound: Outbound) -> str:
    return attempt_reference(outbound.message_id, outbound.attempt)
