"""The names of the roles that `worker.py --role` takes; `workers.task_queues` says what each does."""

from enum import StrEnum


class Role(StrEnum):
    """What a worker does.

    Two hold binds: for single messages (`providers`), and for chunks of many (`chunks`). In one
    process an alert would wait while thousands of others are prepared.
    """

    SENDS = "sends"
    PROVIDERS = "providers"
    CHUNKS = "chunks"
    CALLBACKS = "callbacks"
    RECONCILER = "reconciler"
    ALL = "all"
