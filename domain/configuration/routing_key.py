"""The routing key: everything in a message on which the choice of its route depends."""

import hashlib
from dataclasses import field, fields
from typing import Final
from uuid import UUID

from domain.configuration.names import Environment
from domain.modes import Mode
from domain.values import value

BUCKETS: Final = 1000
"""How many buckets there are; a weight can be a tenth of a percent."""


def bucket_of(message_id: UUID) -> int:
    """The bucket of a message, from 0 to 999: the same in every process and at any time.

    Ids begin with a time and count up, so they are hashed: the messages of any moment are divided evenly.
    """
    digest = hashlib.sha256(message_id.bytes).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS


@value
class RoutingKey:
    """What routes look at in a message. Messages with equal keys have the same providers, best first.

    The fields are named as the columns of `messages`; `COLUMNS` lists them.

    Attributes:
        environment: of the key that sent it.
        country: ISO 3166-1 alpha-2, by the recipient's number; ZZ for none.
        mode: what it is for.
        sender: as accepted.
        network: MCC and MNC, or "unknown".
        account_id: whose message it is.
        bucket: see `bucket_of`; None where the key stands for many messages. It divides messages with
            equal keys among the providers of their route by weight, so it is no part of the comparison.
        only_provider: the only provider that may have the message, whatever the routes say; None for
            all but an operator's test of a provider. Such a message is never one of a bulk, so it is no
            part of the comparison either.
    """

    environment: Environment
    country: str
    mode: Mode
    sender: str
    network: str
    account_id: str
    bucket: int | None = field(default=None, compare=False)
    only_provider: str | None = field(default=None, compare=False)


COLUMNS: Final = tuple(each.name for each in fields(RoutingKey) if each.compare)
"""The columns of `messages` that a routing key consists of."""
