"""The services of one process, put together from its settings: the same for the API and workers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from temporalio.client import Client, TLSConfig

from domain.binds import ProviderRole
from domain.receipt_tokens import ReceiptTokens
from providers.registry import ProviderTypes
from services.accept import Accept
from services.accounts import Accounts
from services.batches import Batches
from services.billing import NoBilling
from services.binds import BindLeases
from services.bulk.claims import BulkClaims
from services.bulk.outcomes import OutcomeRecorder
from services.bulk.planner import BulkPlanner
from services.bulk.sender import BulkSender
from services.callbacks.lanes import TemporalLanes
from services.callbacks.management import Callbacks
from services.configuration import Configurations
from services.dead_letters import DeadLetters
from services.decisions import MessageDecisions
from services.delivery import Delivery
from services.grouped_sends import GroupedSends
from services.keys import Keys
from services.messages import Messages
from services.preview import Preview
from services.provider_tests import ProviderTests
from services.provider_webhooks import ProviderReports
from services.providers import Providers
from services.reads import LOCK_SHARE
from services.receipt_correlator import ReceiptCorrelator
from services.receipt_polling import ReceiptPolling
from services.receipt_rules import ReceiptRules
from services.receipts import ReceiptIntake
from services.recipients import RecipientHash
from services.reconciler import Reconciler
from services.reconciler_kinds import all_checked
from services.retention import Retention
from services.routes import Routes
from services.submission import SubmissionValidator
from services.transitions import TransitionPublisher
from services.unparsed_receipts import UnparsedReceipts
from services.workflow_client import WorkflowClient
from services.workflow_starts import WorkflowStartBudget
from settings.settings import Settings
from store.database import Database
from telemetry.temporal import DATA_CONVERTER

_CONNECT_WITHIN: Final = 10.0


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a way in, or a worker, may call."""

    settings: Settings
    database: Database
    reads: Database
    workflow_client: WorkflowClient
    provider_types: ProviderTypes
    configurations: Configurations
    callbacks: Callbacks
    publisher: TransitionPublisher
    correlator: ReceiptCorrelator
    accept: Accept
    preview: Preview
    grouped_sends: GroupedSends
    delivery: Delivery
    bulk_planner: BulkPlanner
    bulk_sender: BulkSender
    batches: Batches
    receipts: ReceiptIntake
    receipt_polling: ReceiptPolling
    receipt_tokens: ReceiptTokens
    unparsed_receipts: UnparsedReceipts
    provider_reports: ProviderReports
    provider_tests: ProviderTests
    messages: Messages
    dead_letters: DeadLetters
    keys: Keys
    accounts: Accounts
    providers: Providers
    binds: BindLeases
    reconciler: Reconciler

    async def close(self) -> None:
        """Finish pending work and notifications, and close the connections to the database."""
        await self.accept.drained()
        await self.grouped_sends.drained()
        await self.dead_letters.drained()
        await self.publisher.drained()
        await self.database.close()
        await self.reads.close()


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
        statement_timeout=settings.database_statement_timeout,
    )
    reads = Database.connect(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_read_pool_size,
        timeout=settings.database_pool_timeout,
        statement_timeout=settings.database_read_timeout,
        lock_timeout=settings.database_read_timeout * LOCK_SHARE,
        pool="reads",
    )
    workflow_client = WorkflowClient(connect or (lambda: connect_temporal(settings)))
    provider_types = ProviderTypes.installed()
    configurations = Configurations(
        database,
        settings.allowed_secrets,
        provider_types.configurations,
        has_public_url=settings.public_url is not None,
    )
    callbacks = Callbacks(
        database, TemporalLanes(workflow_client.client), lambda: configurations.current, reads
    )
    publisher = TransitionPublisher(workflow_client, callbacks)
    rules = ReceiptRules(configurations)
    correlator = ReceiptCorrelator(database, publisher, rules)
    routes = {role: Routes(configurations, role) for role in ProviderRole}
    decisions = MessageDecisions(configurations, routes[ProviderRole.PROVIDERS])
    receipt_tokens = ReceiptTokens(settings.recipient_hash_key.get_secret_value().encode())
    delivery = Delivery(database, configurations, publisher, correlator, decisions, receipt_tokens)
    bulk_planner = BulkPlanner(
        database, configurations, publisher, workflow_client, routes[ProviderRole.CHUNKS]
    )
    bulk_sender = BulkSender(
        database,
        BulkClaims(
            database, configurations, publisher, routes[ProviderRole.CHUNKS], receipt_tokens
        ),
        OutcomeRecorder(database, configurations, publisher, correlator),
    )
    recipient_hash = RecipientHash(
        settings.recipient_hash_key.get_secret_value().encode(), settings.recipient_hash_version
    )
    receipts = ReceiptIntake(database, publisher, correlator, rules, recipient_hash)
    unparsed_receipts = UnparsedReceipts(database, configurations, receipts, provider_types)
    billing = NoBilling()
    checks = SubmissionValidator(
        configurations, allow_private_callbacks=settings.allow_private_callbacks
    )
    keys = Keys(database)
    budget = WorkflowStartBudget(database, settings.workflow_starts)
    grouped_sends = GroupedSends(
        database, configurations, workflow_client, budget, recipient_hash, billing
    )
    accept = Accept(
        database,
        configurations,
        workflow_client,
        decisions,
        checks,
        grouped_sends,
        budget,
        recipient_hash,
        billing,
    )
    messages = Messages(database, reads, publisher, recipient_hash, configurations, routes)
    accounts = Accounts(database, reads, keys)
    providers = Providers(reads, configurations)
    return Services(
        settings=settings,
        database=database,
        reads=reads,
        workflow_client=workflow_client,
        provider_types=provider_types,
        configurations=configurations,
        callbacks=callbacks,
        publisher=publisher,
        correlator=correlator,
        accept=accept,
        preview=Preview(reads, configurations, checks, routes[ProviderRole.PROVIDERS]),
        grouped_sends=grouped_sends,
        delivery=delivery,
        bulk_planner=bulk_planner,
        bulk_sender=bulk_sender,
        batches=Batches(
            database,
            reads,
            configurations,
            workflow_client,
            publisher,
            checks,
            recipient_hash,
            billing,
        ),
        receipts=receipts,
        receipt_polling=ReceiptPolling(database, configurations, receipts),
        receipt_tokens=receipt_tokens,
        unparsed_receipts=unparsed_receipts,
        provider_reports=ProviderReports(
            configurations,
            provider_types,
            settings.allowed_secrets,
            receipt_tokens,
            receipts,
            unparsed_receipts,
            settings.public_url,
        ),
        provider_tests=ProviderTests(reads, configurations, accept, messages, accounts, providers),
        messages=messages,
        dead_letters=DeadLetters(database, reads, configurations, workflow_client, publisher),
        keys=keys,
        accounts=accounts,
        providers=providers,
        binds=BindLeases(database),
        reconciler=Reconciler(
            database,
            all_checked(database, workflow_client),
            callbacks,
            receipts,
            Retention(database, settings.retention),
        ),
    )


async def connect_temporal(settings: Settings) -> Client:
    """A client as the settings say.

    Raises:
        RuntimeError: Temporal does not answer.
    """
    api_key = settings.temporal_api_key
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            return await Client.connect(
                settings.temporal_address,
                namespace=settings.temporal_namespace,
                data_converter=DATA_CONVERTER,
                api_key=api_key.get_secret_value() if api_key else None,
                tls=_tls(settings),
            )
    except TimeoutError:
        raise RuntimeError(
            f"Temporal at {settings.temporal_address} does not answer: check TEMPORAL_ADDRESS, and "
            "whether it runs"
        ) from None


def _tls(settings: Settings) -> TLSConfig | bool:
    def content(path: Path | None) -> bytes | None:
        return path.read_bytes() if path is not None else None

    if not settings.uses_tls_for_temporal:
        return False
    return TLSConfig(
        server_root_ca_cert=content(settings.temporal_tls_server_ca_cert_path),
        domain=settings.temporal_tls_server_name,
        client_cert=content(settings.temporal_tls_client_cert_path),
        client_private_key=content(settings.temporal_tls_client_key_path),
    )
