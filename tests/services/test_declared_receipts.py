"""Requests of declared providers, from their address to the response."""

from types import SimpleNamespace
from typing import Any

import pytest

from domain.receipts import PartIdentity, ReceiptState
from domain.secrets import AllowedSecrets
from providers.registry import ProviderTypes
from providers.webhooks import WebhookForged
from services.provider_webhooks import ProviderReports, UnknownAddress
from tests.fakes.carrier import PUBLIC_URL, TOKENS
from tests.fakes.declared_aggregators import ATTEMPT, MESSAGE_ID, TOKEN, came, section
from tests.fakes.declared_carrier import KEY, SIGNING, DeclaredCarrier

NAMES = ["kannel", "jasmin", "smsapi"]


class Stored:
    """What was committed: receipts, and requests that could not be read."""

    def __init__(self) -> None:
        self.receipts: list[Any] = []
        self.unparsed: list[Any] = []

    async def take(self, receipt: Any) -> None:
        self.receipts.append(receipt)

    async def store(self, unparsed: Any) -> None:
        self.unparsed.append(unparsed)


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def reports(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> ProviderReports:
    providers = {name: section(name) for name in NAMES}
    for each in providers.values():
        for reference in each.secret_references.values():
            monkeypatch.setenv(reference.removeprefix("env:"), "made-up")
    configurations = SimpleNamespace(current=SimpleNamespace(providers=providers))
    made: Any = ProviderReports
    reports: ProviderReports = made(
        configurations,
        ProviderTypes.installed(),
        AllowedSecrets(("SMSGATEWAY_SECRET_",)),
        TOKENS,
        stored,
        stored,
        PUBLIC_URL,
    )
    return reports


async def test_jasmin_gets_its_word_once_the_receipt_is_committed(reports, stored):
    address = reports.receipt_address("jasmin", TOKEN)
    response = await reports.take_receipts(address, came("id=7033&message_status=DELIVRD&level=2"))
    assert (response.status, response.content_type, response.body) == (
        200,
        "text/plain",
        b"ACK/Jasmin",
    )
    (receipt,) = stored.receipts
    assert receipt.part == PartIdentity(MESSAGE_ID, ATTEMPT, 1)
    assert (receipt.state, receipt.provider_message_id) == (ReceiptState.DELIVERED, "7033")


async def test_the_query_of_a_get_request_that_cannot_be_read_is_kept_with_the_same_response(
    reports, stored
):
    address = reports.receipt_address("kannel", TOKEN)
    response = await reports.take_receipts(address, came(query="stat=1&answer=x"))
    assert (response.status, response.body) == (200, b"")
    assert stored.receipts == []
    assert [each.frame for each in stored.unparsed] == [b"stat=1&answer=x"]


async def test_several_receipts_at_the_providers_own_address_are_matched_by_their_ids(
    reports, stored
):
    address = reports.receipt_address("smsapi", TOKENS.token_of_provider("smsapi"))
    response = await reports.take_receipts(address, came("MsgId=1,2&status=404,405"))
    assert response.body == b"OK"
    assert [(each.provider_message_id, each.part) for each in stored.receipts] == [
        ("1", None),
        ("2", None),
    ]


@pytest.mark.parametrize("token", ["", "x", TOKENS.token_of_provider("jasmin"), TOKEN[:-1] + "_"])
async def test_without_the_secret_token_there_is_no_address(reports, token):
    with pytest.raises(UnknownAddress):
        reports.receipt_address("smsapi", token)


async def test_a_forged_receipt_is_neither_stored_nor_kept(stored, monkeypatch):
    async with DeclaredCarrier() as carrier:
        types = ProviderTypes.installed()
        declared = types.configurations["http"].model_validate(carrier.section())
        monkeypatch.setenv("SMSGATEWAY_SECRET_KEY", KEY)
        monkeypatch.setenv("SMSGATEWAY_SECRET_SIGNING", SIGNING)
        made: Any = ProviderReports
        reports = made(
            SimpleNamespace(current=SimpleNamespace(providers={"x": declared})),
            types,
            AllowedSecrets(("SMSGATEWAY_SECRET_",)),
            TOKENS,
            stored,
            stored,
            PUBLIC_URL,
        )
    address = reports.receipt_address("x", TOKEN)
    with pytest.raises(WebhookForged):
        await reports.take_receipts(address, came(b"{", headers={"x-signature": "sha256=00"}))
    assert (stored.receipts, stored.unparsed) == ([], [])
