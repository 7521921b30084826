"""What an operator reads about a message: the first line says it all, and every line fits 80 columns.

Each situation is made by the real parts and a documented test number (docs/simulator.md).
"""

import asyncio
import io
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console
from smsctl.columns import explanation
from smsgateway import Explanation as ShownExplanation

from api.messages import Explanation
from domain.binds import ProviderRole
from domain.modes import Mode
from domain.receipts import ReceiptState
from services.submission import Accepted
from simulator.behaviour import Behaviour, Outage, ReceiptStep, Response
from tests.gateway import CONFIGURATION, RECIPIENT, Gateway, gateway, running_gateway
from tests.workflows.test_bulk import Batch
from workers.roles import Role

__all__ = ["gateway"]

pytestmark = pytest.mark.stack

WIDE = 80
WITHIN = 120
NOT_HERE = "+447700900045"


async def explained(gateway: Gateway, message: Accepted | str) -> ShownExplanation:
    """As the SDK reads it from the API."""
    message_id = message if isinstance(message, str) else message.message_id
    found = await gateway.services.messages.explain(gateway.caller, message_id)
    return ShownExplanation.model_validate_json(
        Explanation.of(found).model_dump_json(by_alias=True)
    )


def printed(explained_: ShownExplanation) -> list[str]:
    """As `smsctl message explain` prints it into a file."""
    out = io.StringIO()
    console = Console(file=out, width=4000, highlight=False, markup=False, emoji=False)
    console.print(explanation(explained_))
    return [line.rstrip() for line in out.getvalue().splitlines()]


async def lines_of(gateway: Gateway, message: Accepted | str) -> list[str]:
    """The printed explanation, whose every line is narrow enough and none of which is cut."""
    shown = await explained(gateway, message)
    lines = printed(shown)
    print("\n" + "\n".join(lines))  # noqa: T201 - for whoever reads a failure
    assert [line for line in lines if len(line) > WIDE] == []
    together = " ".join(" ".join(lines).split())
    for sentence in (*shown.summary[:1], *(step.text for step in shown.steps)):
        assert all(word in together for word in sentence.split())
    assert [step.at for step in shown.steps] == sorted(step.at for step in shown.steps)
    return lines


async def first_sentence(gateway: Gateway, message: Accepted | str) -> str:
    """With which the printed explanation begins, on as many lines as it needs."""
    lines = await lines_of(gateway, message)
    first = [lines[0], *itertools.takewhile(lambda line: not line.startswith("·"), lines[1:])]
    return " ".join(first)


async def until_waiting(gateway: Gateway, message: Accepted, *reasons: str) -> None:
    async with asyncio.timeout(WITHIN):
        while (await gateway.row(message)).waiting_for not in reasons:
            await asyncio.sleep(0.05)


REFUSES = Behaviour(response=Response.REFUSE, status="ESME_RSUBMITFAIL")
ABSENT = Behaviour(receipts=(ReceiptStep(state=ReceiptState.UNDELIVERABLE, error="027"),))
ENDS: dict[str, tuple[dict[str, Any], Behaviour | None, str, str]] = {
    "delivered at once": ({}, None, "delivered", "Delivered by primary."),
    "delivered after a failover": (
        {},
        REFUSES,
        "delivered",
        "Delivered by backup on attempt 2, after primary refused it (ESME_RSUBMITFAIL).",
    ),
    "throttled twice, then delivered": (
        {"to": "+447700900050"},
        None,
        "delivered",
        "Delivered by primary on attempt 3, after primary asked to wait (ESME_RTHROTTLED).",
    ),
    "an invalid recipient": (
        {"to": "+447700900001"},
        None,
        "failed",
        "Failed: primary refused it (ESME_RINVDSTADR, 0x0B: the recipient's number is invalid).",
    ),
    "refused by every provider": (
        {"to": NOT_HERE},
        None,
        "failed",
        "Failed: backup refused it (ESME_RSUBMITFAIL, 0x45: the submit failed).",
    ),
    "an absent subscriber": (
        {},
        ABSENT,
        "failed",
        (
            "Failed: primary reported it as undeliverable (code 027: absent subscriber, if the carrier "
            "uses the codes of GSM)."
        ),
    ),
    "expired at the provider": (
        {"to": "+447700900022"},
        None,
        "failed",
        (
            "Failed: primary could not deliver it in time (code 027: absent subscriber, if the carrier uses "
            "the codes of GSM)."
        ),
    ),
    "no receipt in time": (
        {"to": "+447700900030", "receipt_deadline": timedelta(seconds=5)},
        None,
        "expired",
        "Expired: primary accepted it, and its receipt did not come in time.",
    ),
}


@pytest.mark.parametrize("situation", ENDS)
async def test_the_first_line_says_how_a_message_ended(gateway: Gateway, situation):
    what, behaviour, status, first = ENDS[situation]
    if behaviour is not None:
        gateway.primary.set_number(RECIPIENT, behaviour)
    message = await gateway.send(**what)
    await gateway.until(message, status)
    assert await first_sentence(gateway, message) == first


async def test_repeated_steps_are_one_line_with_their_number_and_span(gateway: Gateway):
    message = await gateway.send("+447700900058")
    async with asyncio.timeout(WITHIN):
        while len(await gateway.attempts(message)) < 3:
            await asyncio.sleep(0.05)
    await until_waiting(gateway, message, "backoff")
    lines = await lines_of(gateway, message)
    assert (
        lines[0] == "Waiting to try primary again, after primary asked to wait (ESME_RTHROTTLED)."
    )
    assert lines[1].startswith("· At 20")
    shown = await explained(gateway, message)
    (step,) = (each for each in shown.steps if each.kind == "attempt")
    assert step.count >= 3
    assert (step.code, step.code_name) == ("0x00000058", "ESME_RTHROTTLED")
    assert step.text.startswith(
        f"Attempts 1 to {step.count}: primary asked to wait (ESME_RTHROTTLED"
    )
    assert step.until is not None
    assert step.until > step.at


async def test_a_message_that_waits_for_its_receipt(gateway: Gateway):
    message = await gateway.send("+447700900037")
    await until_waiting(gateway, message, "receipt")
    first, then, *_ = await lines_of(gateway, message)
    assert first == "Waiting for a receipt from primary."
    assert then.startswith("· If nothing changes by 20")


async def test_a_message_that_waits_for_a_provider_says_since_when_it_is_down_and_why(
    gateway: Gateway,
):
    await gateway.primary.outage(kind=Outage.REFUSES_BINDS)
    await gateway.backup.outage()
    await gateway.providers_up()
    message = await gateway.send()
    await until_waiting(gateway, message, "provider")
    async with asyncio.timeout(WITHIN):  # the first reason is that the sessions have ended
        while True:
            lines = await lines_of(gateway, message)
            said = " ".join(" ".join(lines).split())
            if "refused the bind" in said and "refused the connection" in said:
                break
            await asyncio.sleep(0.5)
    assert lines[0] == "Waiting for a provider of its route: primary and backup are down."
    assert "primary is down since 20" in said
    assert "the SMSC refused the bind (ESME_RBINDFAIL)." in said
    assert "the provider's host refused the connection" in said
    assert "it becomes a dead letter (no provider was up)" in said


async def test_a_scheduled_message_and_its_cancellation(gateway: Gateway):
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    message = await gateway.send(scheduled_at=at)
    lines = await lines_of(gateway, message)
    assert lines[0] == f"Scheduled for {at:%Y-%m-%d %H:%M:%S}Z."
    assert lines[1].startswith(f"· At {at:%Y-%m-%d %H:%M:%S}Z it goes to primary (attempt 1)")
    await gateway.services.messages.cancel(gateway.caller, message.message_id)
    await gateway.until(message, "canceled")
    assert (await lines_of(gateway, message))[0] == "Cancelled: no provider had it."


async def test_a_message_whose_outcome_is_unknown(gateway: Gateway):
    message = await gateway.send("+447700900070")
    await gateway.until(message, "unknown")
    await until_waiting(gateway, message, "receipt")
    lines = await lines_of(gateway, message)
    assert lines[0] == "Unknown outcome: primary did not answer, so it may have been sent."


async def test_a_message_of_a_batch_and_one_that_is_held(gateway: Gateway):
    batch = await Batch(gateway, 1).send()
    await batch.until_all("delivered")
    lines = await lines_of(gateway, batch.messages[0])
    assert lines[0] == "Delivered by primary."
    assert "· It is one of a batch, whose messages share a workflow." in lines
    held = await Batch(gateway, 1, scheduled_at=datetime.now(UTC) + timedelta(seconds=2)).send()
    await gateway.services.batches.pause(gateway.caller, held.id)
    await asyncio.sleep(2.5)
    lines = await lines_of(gateway, held.messages[0])
    assert lines[0] == "Held until its batch is resumed."


IMPATIENT = '[modes.promotional]\noutage_patience = "1s"'


async def test_what_no_provider_takes_is_a_dead_letter_or_expires(database_url, temporal_client):
    async with running_gateway(
        database_url, temporal_client, more=IMPATIENT, with_worker=False
    ) as gateway:
        await gateway.start_worker(Role.SENDS)
        dead = await gateway.send(mode=Mode.PROMOTIONAL)
        late = await gateway.send(validity=timedelta(seconds=5))
        await until_waiting(gateway, late, "provider")
        lines = await lines_of(gateway, late)
        assert lines[0] == "Waiting for a provider of its route: primary and backup are down."
        assert "· primary is down: no worker process serves it." in lines
        await gateway.until(dead, "dead_letter")
        assert (await lines_of(gateway, dead))[0] == (
            "Dead letter: no provider of its route was up."
        )
        await gateway.until(late, "expired")
        assert (await lines_of(gateway, late))[0] == (
            "Expired: its validity was over before a provider took it."
        )


OTHER = """
[providers.elsewhere]
type = "simulator"
port = {primary}
"""


async def test_each_provider_that_was_not_chosen_has_its_reason(database_url, temporal_client):
    configuration = CONFIGURATION.replace("[[routes]]", f"{OTHER}\n[[routes]]")
    async with running_gateway(
        database_url, temporal_client, configuration=configuration, with_worker=False
    ) as gateway:
        await gateway.start_worker(providers=frozenset({"primary", "backup"}))
        await gateway.providers_up("primary", "backup")
        message = await gateway.send()
        await gateway.until(message, "delivered")
        lines = await lines_of(gateway, message)
        assert lines[:3] == [
            "Delivered by primary.",
            "· Why primary had attempt 1 (routes[0]): backup came later in the order;",
            "  elsewhere is not on its route.",
        ]
        await gateway.primary.outage()
        await gateway.providers_up("backup")
        message = await gateway.send()
        await gateway.until(message, "delivered")
        lines = await lines_of(gateway, message)
        assert lines[0] == "Delivered by backup."
        assert lines[1].startswith(
            "· Why backup had attempt 1 (routes[0]): primary was down since 20"
        )
        shown = await explained(gateway, message)
        (step,) = (step for step in shown.steps if step.kind == "attempt")
        assert "Attempt 1: backup accepted it; primary was down since 20" in step.text


async def test_an_alert_that_gets_no_receipt_goes_on_and_says_so(gateway: Gateway):
    gateway.primary.set_number(RECIPIENT, Behaviour(receipts=()))
    message = await gateway.send(mode=Mode.ALERT, receipt_deadline=timedelta(seconds=5))
    await until_waiting(gateway, message, "receipt")
    first, *others = (await explained(gateway, message)).summary
    assert first == "Waiting for a receipt from primary."
    assert others[0].endswith(
        "primary is asked to cancel it, and then it goes to backup (attempt 2)."
    )
    await gateway.until(message, "delivered")
    assert await first_sentence(gateway, message) == (
        "Delivered by backup on attempt 2, after no receipt came from primary in time."
    )
    kinds = [step.kind for step in (await explained(gateway, message)).steps]
    assert kinds[:3] == ["accepted", "attempt", "cancel"]
    assert kinds[-4:] == ["no_receipt", "attempt", "receipt", "ended"]


async def test_a_decision_comes_before_the_transition_that_follows_from_it(gateway: Gateway):
    message = await gateway.send("+447700900001")
    await gateway.until(message, "failed")
    events = (await explained(gateway, message)).events
    (decided,) = (e for e in events if e.kind == "decided" and e.status == "failed")
    (moved,) = (e for e in events if e.kind == "moved" and e.status == "failed")
    assert decided.seq < moved.seq


async def test_the_explanation_of_a_replayed_dead_letter_has_both_runs(
    database_url, temporal_client
):
    async with running_gateway(
        database_url, temporal_client, more=IMPATIENT, with_worker=False
    ) as gateway:
        await gateway.start_worker(Role.SENDS)
        message = await gateway.send(mode=Mode.PROMOTIONAL)
        await gateway.until(message, "dead_letter")
        await gateway.start_worker(Role.PROVIDERS)
        async with asyncio.timeout(WITHIN):
            while not all(
                ProviderRole.PROVIDERS in status.roles
                for status in await gateway.services.providers.listed(gateway.caller)
            ):
                await asyncio.sleep(0.1)
        await gateway.services.dead_letters.replay(
            gateway.caller, message_ids=[message.message_id], provider=None, limit=1
        )
        await gateway.until(message, "delivered")
        lines = await lines_of(gateway, message)
        assert lines[0] == "Delivered by primary."
        assert "· Replayed 1 time from the dead letters." in lines
        steps = (await explained(gateway, message)).steps
        assert [step.kind for step in steps] == [
            "accepted",
            "ended",
            "replayed",
            "attempt",
            "receipt",
            "ended",
        ]
        assert steps[1].text == "Ended as a dead letter (no provider was up)."
