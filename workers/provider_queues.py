"""The task queues of one provider: for single messages, and for chunks of bulks by their size."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias

from temporalio.worker import Worker

from activities.bulk import SubmittingChunks
from activities.send import Submitting
from domain.binds import ProviderRole
from domain.configuration import ProviderConfiguration
from providers.base import Provider
from services.assembly import Services
from workflows.ports.bulk import MOST_OF_A_GROUP, chunk_queue
from workflows.ports.send import provider_queue

MakeWorker: TypeAlias = Callable[..., Worker]
"""Makes a poller of Temporal's SDK: the name of a task queue, then options of `Worker`."""

_CHUNKS_AT_ONCE: Final[Mapping[int, int]] = MappingProxyType(
    {MOST_OF_A_GROUP: 16, MOST_OF_A_GROUP + 1: 2}
)
"""By the size of shares, how many a provider sends side by side; they have its windows together, and
other workers take what these do not."""
_FEWEST_AT_ONCE: Final = 100


def workers_of_role(
    role: ProviderRole,
    provider: Provider,
    configuration: ProviderConfiguration,
    services: Services,
    make_worker: MakeWorker,
) -> Callable[[], list[Worker]]:
    """What makes the pollers of a role's task queues."""
    return partial(WORKERS_OF_ROLES[role], provider, configuration, services, make_worker)


def _single_messages(
    provider: Provider,
    configuration: ProviderConfiguration,
    services: Services,
    make_worker: MakeWorker,
) -> list[Worker]:
    submitting = Submitting(services.delivery, {provider.name: provider})
    # Every slot of every window, and as many again for the priority heap to choose from.
    slots = 2 * configuration.binds * configuration.window
    return [
        make_worker(
            provider_queue(provider.name),
            activities=[submitting.submit, submitting.cancel_at_provider],
            max_concurrent_activities=max(_FEWEST_AT_ONCE, slots),
        )
    ]


def _chunks(
    provider: Provider, _: ProviderConfiguration, services: Services, make_worker: MakeWorker
) -> list[Worker]:
    submitting = SubmittingChunks(services.bulk_sender, provider)
    return [
        make_worker(
            chunk_queue(provider.name, messages),
            activities=[submitting.submit_chunk],
            max_concurrent_activities=at_once,
        )
        for messages, at_once in _CHUNKS_AT_ONCE.items()
    ]


WORKERS_OF_ROLES: Final[
    Mapping[
        ProviderRole,
        Callable[[Provider, ProviderConfiguration, Services, MakeWorker], list[Worker]],
    ]
] = MappingProxyType({ProviderRole.PROVIDERS: _single_messages, ProviderRole.CHUNKS: _chunks})
"""What makes the pollers of each role's task queues for a provider."""
