"""An outbox for tests: accounts, messages with a callback URL, and their callbacks."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.callbacks.signatures import secret_of
from domain.callbacks.urls import origin_of
from domain.ids import IdPrefix, public_id
from domain.states import MessageStatus
from store import accounts, callbacks, messages
from store.callbacks import StoredCallback
from store.database import Database, sql
from store.messages import NewMessage
from tests.rows import rows_of

SECRET = secret_of(b"a key of these two dozen")
ACCOUNT = "acme"
NUMBER = "+447700900123"

_EMIT = sql("""
INSERT INTO outbox (id, lane_id, account_id, environment, subject_id, target, status,
                    code, occurred_at, next_at)
SELECT :id, callback_lane_id, account_id, environment, id, callback_url, :status, '000', :at, :at
FROM messages WHERE id = :message_id
RETURNING lane_id
""")


class Outbox:
    """Writes what other parts of the gateway write, and reads what became of it."""

    def __init__(self, database: Database, now: datetime | None = None) -> None:
        """`now` is when callbacks are due whose time is not given; without it, the time at which they are added."""
        self.database = database
        self.now = now

    async def account(self, name: str = ACCOUNT, secret: str = SECRET) -> None:
        async with self.database.begin() as connection:
            accounts.ensure_account(connection, name, secret)

    async def lane(self, url: str, account: str = ACCOUNT) -> UUID:
        async with self.database.begin() as connection:
            return await callbacks.lane(connection, account, origin_of(url))

    async def message(
        self,
        url: str,
        *,
        account: str = ACCOUNT,
        environment: str = "live",
        number: str = NUMBER,
        listener: str | None = None,
    ) -> UUID:
        """A message whose callbacks go to `url`, and whose final status goes to a listener, if any."""
        now = datetime.now(UTC)
        message_id = uuid7()
        async with self.database.begin() as connection:
            recipient_id = await messages.recipient(
                connection, account, number, number.encode(), 1, "GB"
            )
            messages.insert(
                connection,
                NewMessage(
                    id=message_id,
                    account_id=account,
                    environment=environment,
                    mode="transactional",
                    priority="normal",
                    sender="Acme",
                    recipient_id=recipient_id,
                    country="GB",
                    network="unknown",
                    body="Hello",
                    encoding="gsm7",
                    segments=1,
                    accepted_at=now,
                    scheduled_at=None,
                    validity=timedelta(hours=1),
                    valid_until=now + timedelta(hours=1),
                    owner="test",
                    check_by=now,
                    config_version=None,
                    callback_url=url,
                    callback_lane_id=await callbacks.lane(connection, account, origin_of(url)),
                    listener=listener,
                    listener_lane_id=await callbacks.listener_lane(connection, account)
                    if listener
                    else None,
                ),
            )
        return message_id

    async def emit(
        self, message_id: UUID, *statuses: MessageStatus, at: datetime | None = None
    ) -> list[UUID]:
        """Add callbacks of a message, as a transition does; their ids."""
        ids = [uuid7() for _ in statuses]
        async with self.database.begin() as connection:
            for callback_id, status in zip(ids, statuses, strict=True):
                connection.send(
                    _EMIT,
                    {
                        "id": callback_id,
                        "message_id": message_id,
                        "status": status.value,
                        "at": at or self.now or datetime.now(UTC),
                    },
                )
        return ids

    async def give_up(self, callback_id: UUID) -> None:
        async with self.database.begin() as connection:
            connection.send(
                sql("UPDATE outbox SET state = 'failed', tries = 10 WHERE id = :id"),
                {"id": callback_id},
            )

    async def callback(self, callback_id: UUID) -> dict[str, Any]:
        found = await rows_of(
            self.database, sql("SELECT * FROM outbox WHERE id = :id"), {"id": callback_id}
        )
        return found[0]

    async def states(self, lane_id: UUID) -> dict[str, int]:
        """How many callbacks of a lane are in which state."""
        found = await rows_of(
            self.database,
            sql("SELECT state, count(*) AS n FROM outbox WHERE lane_id = :l GROUP BY 1"),
            {"l": lane_id},
        )
        return {state["state"]: state["n"] for state in found}

    async def active(self, lane_id: UUID) -> bool:
        found = await rows_of(
            self.database, sql("SELECT active FROM endpoints WHERE id = :id"), {"id": lane_id}
        )
        return bool(found[0]["active"])

    async def erase_number(self, number: str = NUMBER) -> None:
        async with self.database.begin() as connection:
            connection.send(
                sql("UPDATE recipients SET number = NULL WHERE number = :number"),
                {"number": number},
            )


def public(message_id: UUID) -> str:
    return public_id(IdPrefix.MESSAGE, message_id)


def ids_of(rows: Sequence[StoredCallback]) -> list[UUID]:
    return [row.id for row in rows]
