"""The services of one process, put together from its settings: the same for the API and workers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from temporalio.client import Client, TLSConfig

from services.accept import Accept
from services.announcements import Announcements
from services.asked import Checks
from services.batches import Batches
from services.binds import BindShares
from services.bulk import Bulks
from services.callbacks import Callbacks, TemporalLanes
from services.configuration import Configurations
from services.dead_letters import DeadLetters
from services.delivery import Delivery
from services.groups import Groups
from services.keys import Keys
from services.meeting import Meeting
from services.messages import Messages
from services.money import Unlimited
from services.orchestration import Orchestration
from services.providers import Providers
from services.receipts import ReceiptIntake
from services.recipients import RecipientHash
from services.retention import Retention
from services.routes import Routes
from services.starts import StartBudget
from services.upkeep import Upkeep
from settings.settings import Settings
from store.database import Database
from telemetry.temporal import DATA_CONVERTER


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a way in, or a worker, may call."""

    settings: Settings
    database: Database
    orchestration: Orchestration
    configurations: Configurations
    callbacks: Callbacks
    announcements: Announcements
    accept: Accept
    groups: Groups
    delivery: Delivery
    bulks: Bulks
    batches: Batches
    receipts: ReceiptIntake
    messages: Messages
    dead_letters: DeadLetters
    keys: Keys
    providers: Providers
    binds: BindShares
    upkeep: Upkeep

    async def close(self) -> None:
        """Tell what is still to be told, and let go of the database."""
        await self.accept.drained()
        await self.groups.drained()
        await self.announcements.drained()
        await self.database.close()


def assemble(
    settings: Settings, *, connect: Callable[[], Awaitable[Client]] | None = None
) -> Services:
    """Put the services together; nothing is connected before it is used.

    Args:
        settings: of this process.
        connect: how to reach Temporal, where the settings do not say it (in tests).
    """
    database = Database.connect(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        timeout=settings.database_pool_timeout,
    )
    orchestration = Orchestration(connect or (lambda: connect_temporal(settings)))
    configurations = Configurations(database)
    callbacks = Callbacks(
        database, TemporalLanes(orchestration.client), lambda: configurations.current
    )
    announcements = Announcements(orchestration, callbacks)
    meeting = Meeting(database, announcements)
    routes = Routes(configurations)
    delivery = Delivery(database, configurations, announcements, meeting, routes)
    bulks = Bulks(database, configurations, announcements, meeting, orchestration, routes)
    recipient_hash = RecipientHash(
        settings.recipient_hash_key.get_secret_value().encode(), settings.recipient_hash_version
    )
    receipts = ReceiptIntake(database, announcements, meeting, recipient_hash)
    purse = Unlimited()
    checks = Checks(configurations, allow_private_callbacks=settings.allow_private_callbacks)
    budget = StartBudget(database, settings.workflow_starts)
    groups = Groups(database, configurations, orchestration, budget, recipient_hash, purse)
    return Services(
        settings=settings,
        database=database,
        orchestration=orchestration,
        configurations=configurations,
        callbacks=callbacks,
        announcements=announcements,
        accept=Accept(
            database,
            configurations,
            orchestration,
            delivery,
            checks,
            groups,
            budget,
            recipient_hash,
            purse,
        ),
        groups=groups,
        delivery=delivery,
        bulks=bulks,
        batches=Batches(
            database,
            configurations,
            orchestration,
            announcements,
            checks,
            recipient_hash,
            purse,
        ),
        receipts=receipts,
        messages=Messages(database, announcements, recipient_hash),
        dead_letters=DeadLetters(database, orchestration, announcements),
        keys=Keys(database),
        providers=Providers(database, configurations),
        binds=BindShares(database),
        upkeep=Upkeep(
            database, orchestration, callbacks, receipts, Retention(database, settings.retention)
        ),
    )


async def connect_temporal(settings: Settings) -> Client:
    """A client as the settings say.

    Raises:
        RuntimeError: Temporal does not answer.
    """
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        data_converter=DATA_CONVERTER,
        api_key=settings.temporal_api_key.get_secret_value() if settings.temporal_api_key else None,
        tls=_tls(settings),
    )


def _tls(settings: Settings) -> TLSConfig | bool:
    def content(path: Path | None) -> bytes | None:
        return path.read_bytes() if path is not None else None

    if not (settings.temporal_tls or settings.temporal_api_key):
        return False
    return TLSConfig(
        server_root_ca_cert=content(settings.temporal_tls_server_ca_cert_path),
        client_cert=content(settings.temporal_tls_client_cert_path),
        client_private_key=content(settings.temporal_tls_client_key_path),
    )
