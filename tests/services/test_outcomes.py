"""Outcomes that cannot be written: later, while the database is away; never, if it refuses them."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from domain.ids import IdPrefix, parse_id
from services.bulk.outcomes import OutcomeRecorder, Outcomes
from services.outcomes import until_written
from store.attempts import AttemptChange, PartRecord
from store.database import DatabaseAway, TransactionLost, sql
from tests.api.conftest import Api, api, logged, services, settings, unconfigured
from tests.rows import rows_of

__all__ = ["api", "logged", "services", "settings", "unconfigured"]

pytestmark = pytest.mark.stack

TOO_LONG = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(4000))
"""Postgres refuses it in an index, however well it compresses others (54000)."""
REFUSED = (TOO_LONG, "with\x00zero")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.outcomes._RETRY_INTERVAL", 0.01)


def failing_then(*errors: Exception) -> Callable[[], object]:
    left = list(errors)

    async def write() -> str:
        if left:
            raise left.pop(0)
        return "written"

    return write


async def test_an_outcome_is_written_when_the_database_is_back():
    write = failing_then(DatabaseAway(), DatabaseAway("25006"), TransactionLost("40P01"))
    assert await until_written(write, message_id=None, provider="primary") == ("written", 4)


async def test_an_outcome_is_given_up_when_the_database_stays_away(monkeypatch):
    monkeypatch.setattr("services.outcomes._GIVE_UP_AFTER", 0.0)
    with pytest.raises(DatabaseAway):
        await until_written(failing_then(*[DatabaseAway()] * 9), message_id=None, provider="p")


async def test_an_outcome_that_postgres_refuses_is_tried_once_and_logged_by_its_code(api, logged):
    tries = 0

    async def write() -> None:
        nonlocal tries
        tries += 1
        await rows_of(api.services.database, sql("SELECT CAST(:text AS integer)"), {"text": "x"})

    with pytest.raises(psycopg.Error):
        await until_written(write, message_id=None, provider="primary")
    assert tries == 1
    assert '"sqlstate":"22P02"' in logged.getvalue().replace(" ", "")


@pytest.mark.parametrize("bad", REFUSED, ids=["too long", "NUL"])
async def test_one_outcome_that_postgres_refuses_holds_up_no_other(api: Api, bad: str):
    ids = [await api.sent(to=f"+4477009001{n:02}") for n in range(7)]
    for message in ids:
        await api.claimed(message)
    changes = [
        AttemptChange(
            message_id=parse_id(IdPrefix.MESSAGE, message),
            number=1,
            parts=[PartRecord(1, "accepted", bad if n == 4 else f"id-{n}", None, "")],
            code="",
        )
        for n, message in enumerate(ids)
    ]
    shared = api.services
    recorder = OutcomeRecorder(
        shared.database, shared.configurations, shared.publisher, shared.correlator
    )
    outcomes = Outcomes(recorder, "primary")
    written = await asyncio.gather(*map(outcomes.submit, changes), return_exceptions=True)
    assert [n for n, error in enumerate(written) if error is not None] == [4]
    assert isinstance(written[4], psycopg.Error)
    statuses = [(await api.get(f"/api/v1/sms/{message}")).json()["status"] for message in ids]
    assert statuses == ["sent"] * 4 + ["sending"] + ["sent"] * 2
