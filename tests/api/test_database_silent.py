"""Postgres goes silent while requests come: each is answered, none is lost, and all recovers."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from api.batches import PATH as BATCHES
from api.batches import BatchSlots
from api.problems import TOO_MANY_BATCHES, Problem
from domain.configuration import parse_duration
from services import keys
from services.assembly import assemble
from settings.settings import Settings
from store.database import Connection
from tests.api.conftest import (
    CONFIGURATION,
    LIST,
    NUMBER,
    ORDER,
    SEND,
    Api,
    serving,
    slug_of,
    temporal_is_away,
)
from tests.fakes.silent_proxy import SilentProxy, silent_proxy

pytestmark = pytest.mark.stack

FOREVER = 100.0
"""Seconds after which a request counts as never answered."""
LISTS = (LIST, BATCHES, "/api/v1/dead-letters", "/api/v1/callbacks")


@pytest.fixture
def proxy(database_url: str) -> Iterator[SilentProxy]:
    address = urlsplit(database_url)
    with silent_proxy(str(address.hostname), address.port or 5432) as proxy:
        yield proxy


@pytest.fixture
async def api(settings: Settings, proxy: SilentProxy) -> AsyncIterator[Api]:
    """The API, whose way to the database can go silent."""
    url = proxy.url(settings.database_url.get_secret_value())
    async with serving_behind(settings, url) as api:
        yield api
        proxy.resume()


@asynccontextmanager
async def serving_behind(settings: Settings, database_url: str) -> AsyncIterator[Api]:
    """The API with short waits for the database, at this URL."""
    behind = settings.model_copy(
        update={
            "database_url": SecretStr(database_url),
            "database_pool_size": 4,
            "database_read_pool_size": 2,
            "database_pool_timeout": parse_duration("3s"),
            "database_statement_timeout": parse_duration("3s"),
            "database_read_timeout": parse_duration("3s"),
        }
    )
    services = assemble(behind, connect=temporal_is_away)
    try:
        async with serving(services) as api:
            api.key = await api.key_of()
            api.operator = await api.operator_key()
            await services.configurations.apply(CONFIGURATION, applied_by="key_test")
            yield api
    finally:
        await services.close()


async def test_requests_are_answered_with_503_while_the_database_is_silent(api, proxy):
    await api.sent()
    proxy.silence()
    async with asyncio.timeout(FOREVER):
        sends = [api.post(SEND, json=ORDER) for _ in range(12)]
        responses = await asyncio.gather(*sends, *(api.get(path) for path in LISTS))
    assert {(each.status_code, slug_of(each)) for each in responses} == {
        (503, "database-unavailable")
    }
    assert all(each.headers["Retry-After"] for each in responses)
    proxy.resume()
    assert (await api.post(SEND, json=ORDER)).status_code == 202
    for path in LISTS:
        assert (await api.get(path)).status_code == 200


async def test_batches_are_answered_while_the_database_is_silent_however_many_wait(
    api, proxy, monkeypatch
):
    monkeypatch.setattr(keys, "_REMEMBERED_FOR", FOREVER)  # so that all get as far as their bodies
    batch = {"from": "ACME", "body": "Hello.", "recipients": [{"to": NUMBER}]}
    api.app.state.batch_slots = BatchSlots(at_once=2, most_waiting=16, patience=1.0)
    assert (await api.post(BATCHES, json=batch)).status_code == 202
    proxy.silence()
    async with asyncio.timeout(FOREVER):
        responses = await asyncio.gather(*(api.post(BATCHES, json=batch) for _ in range(30)))
    assert {each.status_code for each in responses} == {503}
    assert all(each.headers["Retry-After"] for each in responses)
    at_work = [each for each in responses if slug_of(each) == "database-unavailable"]
    waited = [each for each in responses if slug_of(each) == "too-many-batches"]
    assert len(at_work) + len(waited) == len(responses)
    assert len(at_work) <= 4, "no more than were at work at first, and perhaps two after them"
    proxy.resume()
    assert (await api.post(BATCHES, json=batch)).status_code == 202


async def test_batches_wait_as_long_as_others_end():
    slots = BatchSlots(at_once=1, most_waiting=6, patience=2.0)

    async def hold() -> None:
        async with slots.taken():
            await asyncio.sleep(0.6)

    async with asyncio.timeout(FOREVER):
        await asyncio.gather(*(hold() for _ in range(6)))
    async with slots.taken():
        with pytest.raises(Problem, match=TOO_MANY_BATCHES.detail):
            await hold()
    async with asyncio.timeout(FOREVER):
        await hold()


async def test_readiness_is_known_within_seconds_while_the_database_is_silent(api, proxy):
    assert (await api.get("/readyz", key=None)).json()["database"] == "up"
    proxy.silence()
    # Also while every connection is taken by requests that wait.
    waiting = [asyncio.create_task(api.post(SEND, json=ORDER)) for _ in range(8)]
    await asyncio.sleep(0.1)
    began = time.monotonic()
    response = await api.get("/readyz", key=None)
    took = time.monotonic() - began
    assert (response.status_code, response.json()["database"]) == (503, "down")
    assert took < 10, "some two seconds, or a little more on a busy machine"
    async with asyncio.timeout(FOREVER):
        await asyncio.gather(*waiting)
    proxy.resume()
    assert (await api.get("/readyz", key=None)).json()["database"] == "up"


async def test_a_send_whose_commit_was_not_confirmed_is_sent_once_when_it_is_repeated(
    api, proxy, monkeypatch
):
    key = {"Idempotency-Key": "commit-in-doubt"}
    await api.sent()
    commit = Connection.commit

    async def unconfirmed(connection: Connection) -> None:
        if connection._begun:  # the transaction of the message, whose key was looked at before
            proxy.silence_responses()
        await commit(connection)

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "commit", unconfirmed)
        async with asyncio.timeout(FOREVER):
            unknown = await api.post(SEND, json=ORDER, headers=key)
    assert (unknown.status_code, slug_of(unknown)) == (503, "database-unavailable")
    proxy.resume()
    again = await api.post(SEND, json=ORDER, headers=key)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert (await api.rows())["messages"] == 2, "the first one, and this one"


async def test_lists_that_wait_leave_the_connections_of_accepting_alone(api, database_url):
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE outbox")
        lists = [asyncio.create_task(api.get("/api/v1/callbacks")) for _ in range(6)]
        await asyncio.sleep(0.2)
        for _ in range(5):
            await api.sent()
        async with asyncio.timeout(FOREVER):
            responses = await asyncio.gather(*lists)
        other.rollback()
    assert {slug_of(each) for each in responses} == {"database-unavailable"}
    assert (await api.get("/api/v1/callbacks")).status_code == 200


NARROWED = [
    (f"{LIST}?status=queued", "messages", "since"),
    ("/api/v1/callbacks?state=pending", "outbox", "message_id"),
    ("/api/v1/sms/batches", "batches", "limit"),
    ("/api/v1/dead-letters?provider=primary", "messages", "provider"),
]


@pytest.mark.parametrize(("path", "table", "narrows"), NARROWED)
async def test_a_list_that_takes_too_long_is_refused_with_what_narrows_it(
    settings, database_url, path, table, narrows
):
    # Without an end to waits for locks, a lock makes a statement take long.
    url = make_conninfo(database_url, options="-c lock_timeout=0")
    async with serving_behind(settings, url) as api:
        with psycopg.connect(database_url) as other:
            other.execute(f"LOCK TABLE {table}")
            async with asyncio.timeout(FOREVER):
                refused = await api.get(path)
            other.rollback()
        assert (refused.status_code, slug_of(refused)) == (422, "query-too-wide")
        assert narrows in refused.json()["detail"]
        assert (await api.get(path)).status_code == 200


@pytest.mark.parametrize(("path", "table", "_"), NARROWED)
async def test_a_list_that_waits_for_a_lock_is_not_refused_as_too_wide(
    api, database_url, path, table, _
):
    with psycopg.connect(database_url) as other:
        other.execute(f"LOCK TABLE {table}")
        async with asyncio.timeout(FOREVER):
            refused = await api.get(path)
        other.rollback()
    assert (refused.status_code, slug_of(refused)) == (503, "database-unavailable")
    assert (await api.get(path)).status_code == 200
