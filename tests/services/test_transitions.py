import asyncio
import time
from uuid import UUID, uuid4

import pytest

import services.transitions
from domain.states import MessageStatus
from services.transitions import TransitionPublisher
from store.transitions import Transition

LANE, ANOTHER = UUID(int=1), UUID(int=2)


def transition(lane: UUID, messages: int = 1) -> Transition:
    return Transition(
        message_id=None,
        bulk_id=uuid4(),
        previous=MessageStatus.SENT,
        status=MessageStatus.DELIVERED,
        reason="delivered",
        mode="transactional",
        provider="primary",
        code="",
        account_id="default",
        owner=None,
        epoch=1,
        callback_lane_id=lane,
        listener_lane_id=None,
        traceparent=None,
        ids=tuple(uuid4() for _ in range(messages)),
    )


class Lanes:
    """What wakes lanes, or what fails to."""

    def __init__(self) -> None:
        self.woken: list[tuple[float, list[UUID]]] = []
        self.fails = False
        self.asleep = True

    async def wake(self, lanes: list[UUID]) -> bool:
        self.woken.append((time.monotonic(), list(lanes)))
        if self.fails:
            raise RuntimeError
        return self.asleep

    @property
    def which(self) -> list[list[UUID]]:
        return [lanes for _, lanes in self.woken]


@pytest.fixture
def lanes() -> Lanes:
    return Lanes()


@pytest.fixture
def publisher(lanes: Lanes) -> TransitionPublisher:
    return TransitionPublisher(workflow_client=None, callbacks=lanes)


async def test_a_lane_is_woken_at_once_and_what_follows_soon_is_gathered(publisher, lanes):
    publisher.publish([transition(LANE)])
    await asyncio.sleep(0.01)
    assert lanes.which == [[LANE]]
    for _ in range(5):
        publisher.publish([transition(ANOTHER), transition(LANE)])
        await asyncio.sleep(0.005)
    assert lanes.which == [[LANE]]
    await asyncio.sleep(0.2)
    assert lanes.which == [[LANE], [LANE, ANOTHER]]
    assert lanes.woken[1][0] - lanes.woken[0][0] >= 0.09


async def test_lanes_that_are_awake_and_have_many_callbacks_are_woken_less_often(publisher, lanes):
    lanes.asleep = False
    for count in (20, 19):
        lanes.woken.clear()
        publisher.publish([transition(LANE, count), transition(ANOTHER, 20)])
        await asyncio.sleep(0.01)
        publisher.publish([transition(LANE)])
        await asyncio.sleep(0.3)
        assert len(lanes.woken) == (1 if count == 20 else 2)
        await publisher.drained()
        publisher._ending.clear()


async def test_what_is_gathered_at_the_end_is_published_before_it(
    publisher, lanes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(services.transitions, "_BETWEEN_WAKES", 60)
    publisher.publish([transition(LANE)])
    await asyncio.sleep(0.01)
    publisher.publish([transition(ANOTHER)])
    async with asyncio.timeout(60):
        await publisher.drained()
    assert lanes.which == [[LANE], [ANOTHER]]


async def test_a_wake_that_failed_does_not_prevent_a_later_one(publisher, lanes):
    lanes.fails = True
    publisher.publish([transition(LANE)])
    await asyncio.sleep(0.01)
    lanes.fails = False
    publisher.publish([transition(LANE)])
    await asyncio.sleep(0.01)
    assert lanes.which == [[LANE], [LANE]]
