"""What becomes of messages whose account is suspended after they were accepted."""

import pytest
from temporalio.client import Client

from services.keys import Operator
from tests.gateway import running_gateway

pytestmark = pytest.mark.stack


async def test_messages_that_were_accepted_before_the_suspension_are_sent(
    database_url: str, temporal_client: Client
):
    async with running_gateway(database_url, temporal_client, with_worker=False) as gateway:
        message = await gateway.send()
        accounts = gateway.services.accounts
        suspended = await accounts.suspend(Operator("key_test"), gateway.caller.account_id)
        assert suspended.suspended_at is not None
        await gateway.start_worker()
        await gateway.until(message, "delivered")
