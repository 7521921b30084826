"""The carrier's code in a receipt reaches the event and the callback that follow from it."""

import pytest

from domain.ids import IdPrefix, parse_id
from domain.receipts import ReceiptState
from simulator.behaviour import Behaviour, ReceiptStep
from tests.gateway import Gateway, gateway, uuid_of
from tests.workflows.test_bulk import Batch

__all__ = ["gateway"]

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("runner", ["single", "bulk"])
async def test_transitions_and_callbacks_carry_the_code_of_the_receipt(gateway: Gateway, runner):
    url = "http://127.0.0.1:9/hook"
    codes = {}
    for state, code in ((ReceiptState.DELIVERED, "000"), (ReceiptState.EXPIRED, "027")):
        gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(state=state, error=code),)))
        if runner == "single":
            message = await gateway.send(callback_url=url)
            uuid = uuid_of(message)
            await gateway.until(message, "delivered", "failed")
        else:
            batch = await Batch(gateway, 1, callback_url=url).send()
            uuid = parse_id(IdPrefix.MESSAGE, batch.messages[0])
            await batch.until(lambda counts: set(counts) <= {"delivered", "failed"})
        rows = await gateway.fetch(
            "SELECT status, code AS provider_code FROM outbox WHERE subject_id = :id", id=uuid
        )
        codes |= {row["status"]: row["provider_code"] for row in rows}
    assert codes == {"sent": "", "delivered": "000", "failed": "027"}
