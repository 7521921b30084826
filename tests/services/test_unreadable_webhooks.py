"""A provider's request of which only some receipts can be read."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.configuration.providers.twilio import TwilioConfiguration
from domain.receipt_tokens import ReceiptTokens
from domain.receipts import ReceiptState
from domain.secrets import AllowedSecrets
from providers.base import ReceivedReceipt, UnparsedReceipt
from providers.registry import ProviderTypes
from providers.webhooks import ProviderWebhooks, UnreadableWebhook, WebhookRequest, receipt_of
from services.provider_webhooks import ProviderReports, ReceiptAddress, ReportNotStored

DECLARED = TwilioConfiguration.model_validate(
    {
        "type": "twilio",
        "account_sid": "AC72d1371c17149d439536b3216fdaeeb9",
        "auth_token": "env:SMSGATEWAY_SECRET_TOKEN",
    }
)
READABLE = receipt_of(
    "primary", DECLARED, provider_message_id="1", state=ReceiptState.DELIVERED, code="0"
)
REQUEST = WebhookRequest("POST", "https://sms.example.com/", {}, b"[1, 2]", datetime.now(UTC))


class HalfReadable(ProviderWebhooks[TwilioConfiguration]):
    def verify(self, request):
        pass

    def receipts(self, request, part):
        raise UnreadableWebhook([READABLE])


class Stored:
    """What was stored; receipts are refused while the database is `away`."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.receipts: list[ReceivedReceipt] = []
        self.unparsed: list[UnparsedReceipt] = []

    def take(self, receipt: ReceivedReceipt) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.away:
            done.set_exception(ConnectionError())
        else:
            self.receipts.append(receipt)
            done.set_result(None)
        return done

    async def store(self, receipt: UnparsedReceipt) -> None:
        self.unparsed.append(receipt)


def reports(stored: Any) -> ProviderReports:
    return ProviderReports(
        configurations=stored,
        types=ProviderTypes({}),
        allowed=AllowedSecrets(),
        tokens=ReceiptTokens(b"secret of the tests"),
        intake=stored,
        unparsed=stored,
        public_url="https://sms.example.com",
    )


ADDRESS = ReceiptAddress(HalfReadable("primary", DECLARED, {}), None)


async def test_readable_receipts_are_stored_and_the_request_is_kept_for_the_others():
    stored = Stored()
    await reports(stored).take_receipts(ADDRESS, REQUEST)
    assert stored.receipts == [READABLE]
    assert [each.frame for each in stored.unparsed] == [REQUEST.body]


async def test_the_provider_sends_it_again_where_the_readable_receipts_were_not_stored():
    stored = Stored(away=True)
    with pytest.raises(ReportNotStored):
        await reports(stored).take_receipts(ADDRESS, REQUEST)
    assert stored.unparsed == []
