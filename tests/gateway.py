"""The gateway of a test: its services and a worker in this process, on real servers and simulators.

Tests speak of situations: they send, wait for what should happen, and read what is known.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.service import ServiceClient

from domain.configuration import Environment
from domain.ids import IdPrefix, parse_id
from services.assembly import Services, assemble
from services.keys import Scope
from services.submission import Accepted, Caller, SendCommand
from settings.settings import Settings
from simulator.smsc import Smsc
from store import accounts
from store.database import DatabaseAway, sql
from store.messages import AccountMessage
from tests.rows import rows_of
from workers.process import WorkerProcess
from workers.roles import Role

RECIPIENT = "+447700900123"
CONFIGURATION = """
[providers.primary]
type = "simulator"
port = {primary}
echoes_reference = true
receipt_deadline = "{receipt_deadline}"
response_timeout = "{response_timeout}"
rebind_backoff = {{ min = "100ms", max = "500ms" }}

[providers.backup]
type = "simulator"
port = {backup}
echoes_reference = true
receipt_deadline = "{receipt_deadline}"
response_timeout = "{response_timeout}"
rebind_backoff = {{ min = "100ms", max = "500ms" }}

[[routes]]
providers = ["primary", "backup"]
{more}
"""


@dataclass
class Gateway:
    """A gateway under test, and the two carriers behind it."""

    services: Services
    client: Client
    primary: Smsc
    backup: Smsc
    caller: Caller
    workers: dict[asyncio.Event, asyncio.Task[None]] = field(default_factory=dict)
    """Each under the event that stops it."""

    async def send(
        self, to: str = RECIPIENT, body: str = "Disk full on db-1", **what: Any
    ) -> Accepted:
        """Accept a message as the API would."""
        sender = what.pop("sender", "AbilIT")
        key = what.pop("idempotency_key", None)
        accepted = await self.services.accept(
            self.caller, SendCommand(to=to, sender=sender, body=body, **what), idempotency_key=key
        )
        await self.services.accept.drained()  # where time is skipped, a late start is hours late
        return accepted

    async def row(self, message: Accepted) -> AccountMessage:
        return await self.services.messages.one(self.caller, message.message_id)

    async def status(self, message: Accepted) -> str:
        return str((await self.row(message)).status)

    async def until(self, message: Accepted, *statuses: str, within: float = 120) -> str:
        """Wait until the message has one of these statuses; fails with its whole story."""
        end = time.monotonic() + within
        while (status := await self.status(message)) not in statuses:
            if time.monotonic() > end:
                pytest.fail(f"still {status}, not {statuses}:\n{await self.story(message)}")
            await asyncio.sleep(0.02)
        return status

    async def story(self, message: Accepted) -> str:
        explained = await self.services.messages.explain(self.caller, message.message_id)
        events = [
            f"{e.at:%H:%M:%S.%f} {e.kind} {e.previous}→{e.status} {e.provider} {e.code} {e.reason}"
            for e in explained.events
        ]
        return "\n".join([*explained.summary, *events])

    async def transitions(self, message: Accepted) -> list[str]:
        """The statuses that the message went through."""
        events = await self.services.messages.events(self.caller, message.message_id)
        first = next(e.status for e in events if e.kind == "accepted")
        return [first, *(e.status for e in events if e.kind == "moved")]

    async def attempts(self, message: Accepted) -> list[tuple[str, str]]:
        """Provider and status of each attempt."""
        explained = await self.services.messages.explain(self.caller, message.message_id)
        return [(a.provider, a.status) for a in explained.attempts]

    async def execute(self, statement: str, **parameters: Any) -> None:
        async with self.services.database.begin() as connection:
            connection.send(sql(statement), parameters)

    async def fetch(self, statement: str, **parameters: Any) -> list[Any]:
        """Rows, as soon as the gateway's own work leaves a connection of its pool."""
        end = time.monotonic() + 120
        while True:
            try:
                async with self.services.database.begin() as connection:
                    return list(await rows_of(connection, sql(statement), parameters))
            except DatabaseAway:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.2)

    async def start_worker(
        self, *roles: Role, providers: frozenset[str] | None = None
    ) -> asyncio.Event:
        """Start one more worker, by default with all roles; `end_worker` takes what is returned.

        It binds to `providers`, or to every declared one.
        """
        # A client may have one worker for each task queue, and each process has a client.
        service = await ServiceClient.connect(self.client.service_client.config)
        client = Client(**{**self.client.config(), "service_client": service})
        process = WorkerProcess(self.services, client, frozenset(roles or [Role.ALL]), providers)
        stop = asyncio.Event()
        self.workers[stop] = asyncio.create_task(process.work(stop))
        return stop

    async def end_worker(self, worker_: asyncio.Event) -> None:
        worker_.set()
        await self.workers.pop(worker_)

    async def end_workers(self) -> None:
        await asyncio.gather(*(self.end_worker(each) for each in list(self.workers)))

    async def receipts_held(self, count: int, within: float = 120) -> None:
        """Wait until the primary holds so many receipts."""
        end = time.monotonic() + within
        while self.primary.held < count:
            assert time.monotonic() < end, f"{self.primary.held} receipts are held, not {count}"
            await asyncio.sleep(0.02)

    async def release_receipts(self, count: int = 1) -> None:
        """Let the primary send the receipts that it holds, once there are so many."""
        await self.receipts_held(count)
        self.primary.release_receipts()

    async def providers_up(self, *names: str, within: float = 120) -> None:
        """Wait until a living worker has binds to these providers, and to no others."""
        end = time.monotonic() + within
        while True:
            listed = await self.services.providers.listed(self.caller)
            if {status.name for status in listed if status.up} == set(names):
                # Decisions remember for a moment which providers were up.
                await asyncio.sleep(0.4)
                return
            assert time.monotonic() < end, f"not up: {names}"
            await asyncio.sleep(0.02)


def uuid_of(message: Accepted) -> Any:
    return parse_id(IdPrefix.MESSAGE, message.message_id)


@asynccontextmanager
async def running_gateway(
    database_url: str,
    client: Client,
    *,
    connect: Callable[[], Awaitable[Client]] | None = None,
    receipt_deadline: str = "30m",
    response_timeout: str = "2s",
    more: str = "",
    configuration: str = CONFIGURATION,
    with_worker: bool = True,
    workflow_starts: int = 1000,
    secret_folders: tuple[str, ...] | None = None,
    public_url: str | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway on this database and Temporal, with two simulated carriers."""

    async def connected() -> Client:
        return client

    settings = Settings(
        database_url=SecretStr(database_url),
        recipient_hash_key=SecretStr(secrets.token_hex(32)),
        allow_private_callbacks=True,
        workflow_starts=workflow_starts,
        **({} if secret_folders is None else {"allowed_secret_folders": secret_folders}),
        shutdown_grace="3s",
        public_url=public_url,
        # A database that is slow on a busy machine is not away; tests of silence have settings of their own.
        database_pool_timeout="60s",
        database_statement_timeout="60s",
    )
    services = assemble(settings, connect=connect or connected)
    async with Smsc("primary") as primary, Smsc("backup") as backup:
        async with services.database.begin() as connection:
            accounts.ensure_account(connection, "default", "whsec_" + "A" * 44)
        await services.configurations.apply(
            configuration.format(
                primary=primary.port,
                backup=backup.port,
                receipt_deadline=receipt_deadline,
                response_timeout=response_timeout,
                more=more,
            ),
            applied_by="test",
        )
        caller = Caller("default", Environment.LIVE, "key_test", frozenset({Scope.ADMIN.value}))
        gateway = Gateway(services, client, primary, backup, caller)
        try:
            if with_worker:
                await gateway.start_worker()
                await gateway.providers_up("primary", "backup")
            yield gateway
        finally:
            await gateway.end_workers()
            await services.close()


@pytest.fixture
async def gateway(database_url: str, temporal_client: Client) -> AsyncIterator[Gateway]:
    """A whole gateway: database, Temporal, worker, two carriers."""
    async with running_gateway(database_url, temporal_client) as running:
        yield running
