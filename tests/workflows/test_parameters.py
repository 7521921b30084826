"""Parameters of messages travel to providers: over SMPP as the TLVs that the configuration names."""

from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client

from domain.modes import Mode
from simulator.smsc import Smsc
from simulator.smsc_control import message_as_json
from tests.gateway import CONFIGURATION, RECIPIENT, Gateway, running_gateway
from tests.workflows.test_bulk import Batch

pytestmark = pytest.mark.stack

ENTITY, TEMPLATE = 0x1400, 0x1401
"""The tags by which providers in India take the ids of the sending company and of its template."""
TLVS = """
[[providers.primary.tlvs]]
tag = 0x1400
parameter = "entity_id"
form = "cstring"

[[providers.primary.tlvs]]
tag = 0x1401
parameter = "template_id"

[[providers.primary.tlvs]]
tag = 0x1402
text = "always"

[[providers.backup.tlvs]]
tag = 0x1401
parameter = "template_id"
form = "hex"

[[routes]]
"""
IDS = {"entity_id": "1101234567890123456", "template_id": "1107161234567890123"}
SENT = {
    ENTITY: b"1101234567890123456\0",
    TEMPLATE: b"1107161234567890123",
    0x1402: b"always",
}


@pytest.fixture(params=[1000, 0], ids=["single", "grouped"])
async def gateway(
    database_url: str, temporal_client: Client, request: pytest.FixtureRequest
) -> AsyncIterator[Gateway]:
    async with running_gateway(
        database_url,
        temporal_client,
        configuration=CONFIGURATION.replace("[[routes]]\n", TLVS),
        workflow_starts=request.param,
    ) as running:
        yield running


def vendor_tlvs(smsc: Smsc) -> list[dict[int, bytes]]:
    """The TLVs of vendors in each part that came."""
    return [
        {tlv.tag: tlv.value for tlv in part.tlvs if tlv.tag >= ENTITY}
        for message in smsc.messages
        for part in message.parts
    ]


async def test_parameters_that_the_provider_knows_are_sent_as_its_tlvs(gateway: Gateway):
    message = await gateway.send(parameters={**IDS, "unknown_there": "x"})
    await gateway.until(message, "delivered")
    assert vendor_tlvs(gateway.primary) == [SENT]
    (shown,) = [message_as_json(gateway.primary, each) for each in gateway.primary.messages]
    assert shown["destination"] == RECIPIENT
    assert shown["parts"][0]["tlvs"]["0x1401"] == IDS["template_id"].encode().hex()


async def test_a_message_without_parameters_has_no_tlvs_of_them(gateway: Gateway):
    message = await gateway.send()
    await gateway.until(message, "delivered")
    assert vendor_tlvs(gateway.primary) == [{0x1402: b"always"}]


async def test_each_part_of_a_long_message_has_them(gateway: Gateway):
    message = await gateway.send(body="The disk of db-1 is full. " * 12, parameters=IDS)
    await gateway.until(message, "delivered")
    assert vendor_tlvs(gateway.primary) == [SENT] * 3


async def test_messages_of_a_batch_have_those_of_the_batch(gateway: Gateway):
    batch = await Batch(gateway, 5, parameters=IDS).send()
    await batch.until_all("delivered", within=120)
    assert vendor_tlvs(gateway.primary) == [SENT] * 5


async def test_a_value_that_a_provider_cannot_be_given_goes_to_the_next_one(gateway: Gateway):
    too_long = {"entity_id": "é" * 255, "template_id": "ff00"}
    message = await gateway.send(parameters=too_long, mode=Mode.ALERT)
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("primary", "refused"), ("backup", "delivered")]
    explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
    refused = explained.attempts[0]
    assert (refused.code, refused.error_class) == ("unusable_parameter", "route")
    assert vendor_tlvs(gateway.backup) == [{TEMPLATE: b"\xff\x00"}]
