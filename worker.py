"""Workers by role, and the preparation that every installation needs once.

`worker.py --role …` polls Temporal for the roles that it is given; `worker.py bootstrap` brings the
database's schema forward, sees to Temporal's search attributes, and makes an admin key.
"""

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.bulk import Planning, SubmittingShares
from activities.callbacks import CallbackDelivery
from activities.send import Deciding, Submitting
from activities.upkeep import Sweeping
from connectors.webhooks import Webhooks
from domain.configuration import ProviderConfiguration
from providers.base import Provider
from providers.smpp import SmppProvider
from services.assembly import Services, assemble, connect_temporal
from services.callbacks import LaneDrain
from services.configuration import NoConfiguration
from services.keys import Keys
from services.orchestration import RPC_TIMEOUT, SEARCH_ATTRIBUTES, in_time
from settings.configuration_file import ConfigurationMistakes
from settings.secrets import SecretMissing, resolve_secret
from settings.settings import Settings
from store import providers as provider_store
from store.database import DATABASE_ERRORS, Connection, Database
from store.providers import Beat
from store.schema import current_version, migrate, newest_version, serves
from telemetry import metrics
from telemetry.logs import get_logger
from telemetry.process import run, settings_or_exit
from workflows.bulk import BulkSendWorkflow
from workflows.callbacks import CALLBACKS, CallbackWorkflow
from workflows.ports.bulk import MOST_OF_A_GROUP, share_queue
from workflows.ports.send import SENDS, provider_queue
from workflows.send import SendWorkflow
from workflows.upkeep import UPKEEP, UPKEEP_WORKFLOW_ID, UpkeepWorkflow

_log = get_logger("worker")

ACCOUNT = "default"
_T = TypeVar("_T")
_RETRY_AFTER = 2.0
_STICKY = timedelta(seconds=5)
"""How long the next task of a workflow waits for the worker that has it in its cache, which may be
dead, before any other one may have it."""
_SHARES_AT_ONCE = {MOST_OF_A_GROUP: 16, MOST_OF_A_GROUP + 1: 2}
"""By the size of shares, how many a provider sends side by side; they have its windows together, and
other workers take what these do not."""
_FEWEST_AT_ONCE = 100
# A lane whose origin hangs takes up a place for as long as its requests are waited for; this many
# may hang before others wait. A lane has 16 connections at most, and one while its origin is down.
_LANES_AT_ONCE = 500
_TIME_TO_PART = timedelta(seconds=5)
"""What a process may need to end beyond the grace that its work has."""
_BEAT_WITHIN = 5.0
_ALONE_FOR = 6.5
"""Seconds for which binds are held without a word from the database: more than one beat takes, and so
much less than `HELD_LASTS` that they are ended by then."""

_MANNERS = 5
"""How nice a worker of bulks alone is (nice(2)): on a busy machine, single messages go first."""


def _place() -> str:
    """Where this process has its number: the host's name, and which kernel and container it is."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not on Linux
        known += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(_PIDS.readlink())]
    return f"{known[0]}/{hashlib.sha256(repr(known).encode()).hexdigest()[:8]}"


_PIDS = Path("/proc/self/ns/pid")
_PLACE = _place()
_workers = itertools.count(1)


def _is_gone(worker: str) -> bool:
    """Whether this was a worker of this place whose process does not run any more (proc(5))."""
    place, _, number = worker.rpartition("/")
    if place != _PLACE or not _PIDS.exists():
        return False
    try:
        stat = Path(f"/proc/{number.partition('.')[0]}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


class Role(StrEnum):
    """What a worker does.

    Two hold binds: for single messages (`providers`), and for shares of many (`shares`). In one
    process an alert would wait while thousands of others are prepared.
    """

    SENDS = "sends"
    PROVIDERS = "providers"
    SHARES = "shares"
    CALLBACKS = "callbacks"
    UPKEEP = "upkeep"
    ALL = "all"


class Gateway:
    """One worker process: the pollers of its roles, and the binds of its providers."""

    def __init__(self, services: Services, client: Client, roles: frozenset[Role]) -> None:
        self._services = services
        self._client = client
        self._roles = roles
        self._name = f"{_PLACE}/{os.getpid()}.{next(_workers)}"

    async def work(self, stop: asyncio.Event) -> None:
        """Poll until told to stop, then finish what is under way."""
        async with contextlib.AsyncExitStack() as stack:
            follower = asyncio.create_task(self._services.configurations.follow())
            stack.push_async_callback(_cancelled, follower)
            if self._has(Role.SENDS):
                await stack.enter_async_context(self._sends())
            if self._has(Role.CALLBACKS):
                await stack.enter_async_context(self._callbacks())
            if self._has(Role.UPKEEP):
                await stack.enter_async_context(self._upkeep())
            if binding := frozenset(filter(self._has, (Role.PROVIDERS, Role.SHARES))):
                await stack.enter_async_context(
                    ProviderPools(self._services, self._worker, self._name, binding)
                )
            _log.info("worker_ready")
            await stop.wait()
            # What is under way may finish; but a Temporal that is away could be waited for for ever.
            grace = self._services.settings.shutdown_grace + _TIME_TO_PART
            closing = asyncio.create_task(stack.pop_all().aclose())
            done, _ = await asyncio.wait([closing], timeout=grace.total_seconds())
            if not done:
                _log.warning("worker_left_unfinished")

    def _has(self, role: Role) -> bool:
        return role in self._roles or Role.ALL in self._roles

    def _worker(self, queue: str, **what: Any) -> Worker:
        return Worker(
            self._client,
            task_queue=queue,
            identity=self._name,
            graceful_shutdown_timeout=self._services.settings.shutdown_grace,
            **what,
        )

    @asynccontextmanager
    async def _sends(self) -> AsyncIterator[None]:
        deciding = Deciding(self._services.delivery)
        planning = Planning(self._services.bulks)
        async with self._worker(
            SENDS,
            workflows=[SendWorkflow, BulkSendWorkflow],
            activities=[deciding.decide, planning.plan],
            max_cached_workflows=1000,
            # One sandbox for each message costs a quarter of the worker (docs/decisions/0007);
            # the recorded histories are replayed inside of it.
            workflow_runner=UnsandboxedWorkflowRunner(),
            sticky_queue_schedule_to_start_timeout=_STICKY,
        ):
            yield

    @asynccontextmanager
    async def _callbacks(self) -> AsyncIterator[None]:
        settings, configurations = self._services.settings, self._services.configurations

        def private_allowed() -> bool:
            policy = configurations.current.callbacks
            return settings.allow_private_callbacks or policy.allow_private_addresses

        async with Webhooks(allow_private=private_allowed) as webhooks:
            drain = LaneDrain(self._services.database, webhooks, lambda: configurations.current)
            delivery = CallbackDelivery(drain)
            async with self._worker(
                CALLBACKS,
                workflows=[CallbackWorkflow],
                activities=[delivery.drain_lane],
                max_concurrent_activities=_LANES_AT_ONCE,
            ):
                yield

    @asynccontextmanager
    async def _upkeep(self) -> AsyncIterator[None]:
        sweeping = Sweeping(self._services.upkeep)
        async with self._worker(
            UPKEEP,
            workflows=[UpkeepWorkflow],
            activities=[sweeping.doubt_everything, sweeping.sweep],
        ):
            keeper = asyncio.create_task(self._keep_upkeep_running())
            try:
                yield
            finally:
                await _cancelled(keeper)

    async def _keep_upkeep_running(self) -> None:
        """See to it that the reconciler exists, also after Temporal lost its database.

        One that did not exist is the sign of that loss: then the search attributes are gone, too.
        """
        while True:
            try:
                async with in_time():
                    await self._client.start_workflow(
                        UpkeepWorkflow.run,
                        id=UPKEEP_WORKFLOW_ID,
                        task_queue=UPKEEP,
                        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                        static_summary="Takes up what was forgotten",
                        rpc_timeout=RPC_TIMEOUT,
                    )
                _log.info("upkeep_started")
                await self._see_to_search_attributes()
            except WorkflowAlreadyStartedError:
                pass
            except (RPCError, TimeoutError) as error:
                _log.warning("upkeep_not_started", error_type=type(error).__name__)
            await asyncio.sleep(_RETRY_AFTER)

    async def _see_to_search_attributes(self) -> None:
        namespace = self._services.settings.temporal_namespace
        try:
            await add_search_attributes(self._client, namespace)
        except RPCError as error:
            # Not every Temporal lets its users add them; messages are sent without them, too.
            _log.warning("search_attributes_not_added", code=error.status.name)


class ProviderPools:
    """One pool for each declared provider; follows the configuration.

    A provider that was removed or changed is drained; one that is new or changed is bound anew.
    """

    def __init__(
        self,
        services: Services,
        make_worker: Callable[..., Worker],
        worker_name: str,
        roles: frozenset[Role],
    ) -> None:
        self._services = services
        self._make_worker = make_worker
        self._worker_name = worker_name
        self._roles = roles
        self._pools: dict[str, tuple[ProviderConfiguration, ProviderPool]] = {}
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._services.configurations.on_change(self._changed.set)
        await self._follow_once()
        self._keeper = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            await _cancelled(self._keeper)
        await asyncio.gather(*(pool.stop() for _, pool in self._pools.values()))

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._follow_once()

    async def _follow_once(self) -> None:
        declared = self._services.configurations.current.providers
        gone = [name for name, (known, _) in self._pools.items() if declared.get(name) != known]
        await asyncio.gather(*(self._pools.pop(name)[1].stop() for name in gone))
        for name, configuration in declared.items():
            if name in self._pools:
                continue
            try:
                pool = ProviderPool(
                    name,
                    configuration,
                    self._services,
                    self._make_worker,
                    self._worker_name,
                    self._roles,
                )
            except SecretMissing:
                _log.exception("provider_not_started", provider=name)
                continue
            self._pools[name] = (configuration, pool)
            await pool.start()


class ProviderPool:
    """This process's binds to one provider: beats while it lives, polls while a bind is up."""

    def __init__(
        self,
        name: str,
        configuration: ProviderConfiguration,
        services: Services,
        make_worker: Callable[..., Worker],
        worker_name: str,
        roles: frozenset[Role],
    ) -> None:
        password = resolve_secret(
            configuration.password, literal_allowed=configuration.password_is_literal
        )
        self._name = name
        self._configuration = configuration
        self._services = services
        self._make_worker = make_worker
        self._worker_name = worker_name
        self._provider: Provider = SmppProvider(
            name,
            configuration,
            password.get_secret_value(),
            on_receipt=services.receipts.take,
            on_late=services.delivery.record_late,
        )
        # Every slot of every window, and as many again for the priority heap to choose from.
        self._most_at_once = max(_FEWEST_AT_ONCE, 2 * configuration.binds * configuration.window)
        self._roles = roles
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to bind; returns at once."""
        self._tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._beat())]

    async def stop(self) -> None:
        """Take leave: no new tasks, answers awaited, unbound."""
        polling, beating = self._tasks
        await _cancelled(beating)
        leaving = asyncio.create_task(self._leave())
        polling.cancel()
        # The binds are let go even if the poller cannot be stopped, since Temporal is away.
        await asyncio.wait([polling], timeout=_TIME_TO_PART.total_seconds())
        await self._provider.stop(self._services.settings.shutdown_grace)
        await _cancelled(leaving)
        await self._say_gone()
        metrics.provider_gone(self._name)

    async def _poll(self) -> None:
        while True:
            await self._provider.wait_until(up=True)
            try:
                await self._poll_while_up()
            except Exception as error:  # noqa: BLE001 - whatever it was, this pool has to poll again
                _log.warning(
                    "provider_not_polled", provider=self._name, error_type=type(error).__name__
                )
                await asyncio.sleep(_RETRY_AFTER)

    async def _poll_while_up(self) -> None:
        """Poll until no bind is up; raises what ends a poller, such as a Temporal that is away."""
        workers = []
        if Role.PROVIDERS in self._roles:
            submitting = Submitting(self._services.delivery, {self._name: self._provider})
            workers.append(
                self._make_worker(
                    provider_queue(self._name),
                    activities=[submitting.submit, submitting.recall],
                    max_concurrent_activities=self._most_at_once,
                )
            )
        if Role.SHARES in self._roles:
            sharing = SubmittingShares(self._services.bulks, self._provider)
            workers += [
                self._make_worker(
                    share_queue(self._name, messages),
                    activities=[sharing.submit_share],
                    max_concurrent_activities=at_once,
                )
                for messages, at_once in _SHARES_AT_ONCE.items()
            ]
        # Not as contexts, which tell of a failure by cancelling the task that waits here.
        polling = [asyncio.create_task(worker.run()) for worker in workers]
        down = asyncio.create_task(self._provider.wait_until(up=False))
        try:
            await asyncio.wait({*polling, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            down.cancel()
            await asyncio.gather(*(worker.shutdown() for worker in workers))
        await asyncio.gather(*polling)

    async def _beat(self) -> None:
        """Say how it stands, and hold as many binds as is agreed: every two seconds, or as that changes."""
        loop = asyncio.get_running_loop()
        agreed_at = loop.time()
        while True:
            up, held, began = self._provider.up, self._provider.held, loop.time()
            binds = held
            try:
                async with asyncio.timeout(_BEAT_WITHIN):
                    binds = await self._agree(held, up=up)
                agreed_at = began
            except (*DATABASE_ERRORS, TimeoutError) as error:
                _log.warning("beat_missed", provider=self._name, error_type=type(error).__name__)
                if loop.time() - agreed_at > _ALONE_FOR:
                    binds = 0  # soon others take them for free
            if binds != held:
                _log.info("binds_held", provider=self._name, count=binds)
                await self._provider.hold(binds)
                if binds < held:
                    continue  # the others wait for these
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(provider_store.BEAT_EVERY.total_seconds()):
                    await self._provider.wait_until(up=not up)

    async def _agree(self, held: int, *, up: bool) -> int:
        beat = Beat(
            provider=self._name,
            worker=self._worker_name,
            roles=sorted(self._roles),
            binds_held=held,
            binds_up=self._provider.binds_up,
            state="up" if up else "down",
        )
        return await self._services.binds.agree(beat, self._configuration, _is_gone)

    async def _leave(self) -> None:
        """Say that nothing goes this way any more, for as long as binds are still held."""
        while True:
            beat = Beat(
                provider=self._name,
                worker=self._worker_name,
                roles=(),
                binds_held=self._provider.held,
                binds_up=0,
                state="down",
            )
            await self._say(partial(provider_store.tell, beat=beat))
            await asyncio.sleep(provider_store.BEAT_EVERY.total_seconds())

    async def _say_gone(self) -> None:
        await self._say(partial(provider_store.gone, provider=self._name, worker=self._worker_name))

    async def _say(self, what: Callable[[Connection], None]) -> None:
        try:
            async with self._services.database.begin() as connection:
                what(connection)
        except DATABASE_ERRORS as error:
            # The beat runs out by itself.
            _log.warning("beat_missed", provider=self._name, error_type=type(error).__name__)


async def _cancelled(task: asyncio.Task[None]) -> None:
    """End a task, and wait until it has ended."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def work(settings: Settings, roles: frozenset[Role], stop: asyncio.Event) -> int:
    """A worker, from its first connection to its last answer; the exit code."""
    services = assemble(settings)
    try:
        if not await _ready(services, stop):
            return 0
        client = await _until_it_answers(lambda: connect_temporal(settings), "temporal", stop)
        if client is not None:
            await Gateway(services, client, roles).work(stop)
    except ConfigurationMistakes as mistakes:
        print(mistakes, file=sys.stderr)  # noqa: T201 - to the person who started it
        return 2
    finally:
        await services.close()
    return 0


async def _ready(services: Services, stop: asyncio.Event) -> bool:
    """Wait for the database, its schema, and a configuration; False if told to stop meanwhile."""
    version = await _until_it_answers(lambda: current_version(services.database), "database", stop)
    while not serves(version):
        if stop.is_set():
            return False
        _log.warning("schema_too_old", version=version, needed=newest_version())
        await asyncio.sleep(_RETRY_AFTER)
        version = await current_version(services.database)
    if services.settings.config is not None:
        await services.configurations.load_file(services.settings.config)
    else:
        await services.configurations.refresh()
    while not services.configurations.loaded:
        if stop.is_set():
            return False
        _log.warning("no_configuration", reason=type(NoConfiguration()).__name__)
        await asyncio.sleep(_RETRY_AFTER)
        await services.configurations.refresh()
    return True


async def _until_it_answers(
    ask: Callable[[], Awaitable[_T]], what: str, stop: asyncio.Event
) -> _T | None:
    """Ask until there is an answer; None if told to stop first."""
    while not stop.is_set():
        try:
            return await ask()
        except (*DATABASE_ERRORS, RuntimeError, RPCError) as error:
            _log.warning("not_answering", dependency=what, error_type=type(error).__name__)
            await asyncio.sleep(_RETRY_AFTER)
    return None


async def bootstrap(settings: Settings, key_name: str | None, *, print_key: bool) -> int:
    """Prepare the database, Temporal and, if asked, an admin key; safe to run again."""
    database = Database.connect(settings.database_url.get_secret_value(), pool_size=1)
    try:
        _log.info("database_migrated", version=await migrate(database))
        if settings.config is not None:
            services = assemble(settings)
            try:
                await services.configurations.load_file(settings.config)
            finally:
                await services.close()
        await add_search_attributes(await connect_temporal(settings), settings.temporal_namespace)
        if key_name is not None:
            key = await Keys(database).bootstrap(ACCOUNT, name=key_name)
            if print_key:
                print(json.dumps({"api_key": key.secret, "key_id": key.id}), flush=True)  # noqa: T201 - what was asked for
    except ConfigurationMistakes as mistakes:
        print(mistakes, file=sys.stderr)  # noqa: T201 - to the person who started it
        return 2
    finally:
        await database.close()
    return 0


async def add_search_attributes(client: Client, namespace: str) -> None:
    """Add the attributes by which operators find workflows, as far as they are missing."""
    for name in SEARCH_ATTRIBUTES:
        try:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=namespace,
                    search_attributes={name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD},
                )
            )
        except RPCError as error:
            if error.status is not RPCStatusCode.ALREADY_EXISTS:
                raise


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="worker.py", description="Workers of the SMS gateway, and its preparation."
    )
    parser.add_argument(
        "--role",
        action="append",
        type=Role,
        choices=list(Role),
        help="what to work on; may be given several times (default: all)",
    )
    commands = parser.add_subparsers(dest="command")
    prepare = commands.add_parser(
        "bootstrap", help="bring schema and search attributes forward, make an admin key"
    )
    prepare.add_argument(
        "--new-key", metavar="NAME", help="make an admin key of this name; earlier ones are revoked"
    )
    prepare.add_argument("--print-key", action="store_true", help="print the key, as JSON")
    return parser.parse_args(arguments)


def main() -> None:
    """The command line."""
    arguments = _arguments(sys.argv[1:])
    settings = settings_or_exit()
    if arguments.command == "bootstrap":
        run(
            lambda _: bootstrap(settings, arguments.new_key, print_key=arguments.print_key),
            service="bootstrap",
            settings=settings,
        )
    roles = frozenset(arguments.role or [Role.ALL])
    if roles == {Role.SHARES}:
        os.nice(_MANNERS)
    run(lambda stop: work(settings, roles, stop), service="worker", settings=settings)


if __name__ == "__main__":
    main()
