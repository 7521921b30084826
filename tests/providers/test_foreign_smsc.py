"""A provider against jsmpp's SMSC, whose reading of the specification is its own."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from domain.configuration.providers.smpp import SmppConfiguration
from domain.modes import Priority
from domain.outcomes import OutcomeKind
from domain.receipts import ReceiptState
from providers.base import Outbound
from providers.smpp import SmppProvider
from smpp.client import BindRefused
from smpp.commands import Command
from smpp.statuses import Status
from smpp.tlvs import Tag, Tlv
from tests.fakes.scripted_smsc import until
from tests.foreign.jsmpp import COORDINATES, PASSWORD, SYSTEM_ID, Jsmpp

pytestmark = pytest.mark.java

RECIPIENT = "+447700900001"


def running(maven, folder, *, tls):
    smsc = Jsmpp(maven.classpath(COORDINATES), folder, tls=tls)
    try:
        smsc.start()
        yield smsc
    finally:
        smsc.stop()


@pytest.fixture(scope="module")
def jsmpp(maven, tmp_path_factory):
    yield from running(maven, tmp_path_factory.mktemp("jsmpp"), tls=False)


@pytest.fixture(scope="module")
def jsmpp_by_tls(maven, tmp_path_factory):
    yield from running(maven, tmp_path_factory.mktemp("jsmpp"), tls=True)


@pytest.fixture
async def receipts():
    return []


class GreetedProvider(SmppProvider):
    """Knows when jsmpp has greeted it: before that it must not go, or jsmpp goes too."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.greeted = asyncio.Event()

    async def _response(self, session, pdu):
        response = await super()._response(session, pdu)
        self.greeted.set()
        return response


@pytest.fixture(params=["jsmpp", "jsmpp_by_tls"])
async def provider(request, receipts):
    smsc = request.getfixturevalue(request.param)
    configuration = SmppConfiguration.model_validate(
        {
            "type": "smpp",
            "host": "127.0.0.1",
            "port": smsc.port,
            "system_id": SYSTEM_ID,
            "password": "env:UNUSED",
            "binds": 1,
            "message_id": {"response": "hex", "receipt": "decimal"},
            "tls": {"verify": False} if request.param == "jsmpp_by_tls" else False,
            "tlvs": [{"tag": 0x1400, "text": "1207161"}],
        }
    )

    async def on_receipt(receipt):
        receipts.append(receipt)

    provider = GreetedProvider("jsmpp", configuration, PASSWORD, on_receipt)
    await provider.hold(configuration.binds)
    await asyncio.wait_for(provider.greeted.wait(), 60)
    yield provider
    await provider.stop(timedelta(seconds=2))


async def send(provider, text):
    outbound = Outbound(
        message_id=UUID(int=1),
        attempt=1,
        sender="ACME",
        recipient=RECIPIENT,
        text=text,
        reference=77,
        valid_until=datetime.now(UTC) + timedelta(hours=1),
        priority=Priority.NORMAL,
    )
    async with provider.acquire(outbound.priority):
        numbers = range(1, provider.count_parts(outbound) + 1)
        return await provider.submit(outbound, numbers)


async def test_messages_are_accepted_and_their_receipts_found(provider, receipts):
    sent = await asyncio.gather(
        send(provider, "Hello"), send(provider, "Zażółć gęślą jaźń 🙂"), send(provider, "x" * 400)
    )
    outcomes = [outcome for each in sent for outcome in each]
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.ACCEPTED] * 5
    await until(lambda: len(receipts) == 5)
    ids = {outcome.provider_message_id for outcome in outcomes}
    assert {receipt.provider_message_id for receipt in receipts} == ids
    assert {receipt.state for receipt in receipts} == {ReceiptState.DELIVERED}
    assert {(receipt.sender, receipt.recipient) for receipt in receipts} == {("ACME", RECIPIENT)}
    assert all(abs(receipt.done_at - datetime.now(UTC)) < timedelta(days=1) for receipt in receipts)


async def test_an_operation_that_the_smsc_does_not_support_returns_nothing(provider):
    assert not await provider.cancel_at_provider("1", sender="ACME", recipient=RECIPIENT)
    assert await provider.query("1", sender="ACME") is None


async def test_its_tlvs_in_answers_are_kept(jsmpp):
    session = await jsmpp.bind()
    response = await session.request(
        Command.SUBMIT_SM,
        {"destination_addr": b"447700900001", "short_message": b"Hello"},
        [Tlv(0x1400, b"vendor"), Tlv(Tag.USER_MESSAGE_REFERENCE, b"\0\7")],
    )
    assert response.status == 0
    assert all(isinstance(tlv.value, bytes) for tlv in response.tlvs)
    assert 0x0428 in {tlv.tag for tlv in response.tlvs}
    await session.unbind()
    assert session.close_reason == "unbound by us"


async def test_its_throttling_throttles_us(jsmpp):
    session = await jsmpp.bind(window=5000)
    fields = {"destination_addr": b"447700900001", "short_message": b"Hello"}
    responses = await asyncio.gather(
        *[session.request(Command.SUBMIT_SM, fields) for _ in range(8000)]
    )
    statuses = Counter(response.status for response in responses)
    assert set(statuses) == {Status.ESME_ROK, Status.ESME_RTHROTTLED}
    assert session.in_flight == 0
    await session.unbind()


async def test_its_refusal_of_a_password_is_understood(jsmpp):
    with pytest.raises(BindRefused) as refused:
        await jsmpp.bind(password="wrong")
    assert refused.value.status in {Status.ESME_RINVPASWD, Status.ESME_RINVSYSID}
