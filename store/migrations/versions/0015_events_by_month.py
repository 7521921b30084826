"""Events by month, so that old ones are dropped and not deleted.

`events` and `events_of_many` are only added to and read. Each becomes a table in partitions: by the
id of the message or of the bulk, both UUIDv7, so by the time of its acceptance. What there was is the first
partition; it has room until the end of the next month, and the reconciler makes the further ones.
Should it not, the last partition takes what no other does.

That the first partition holds nothing later is proved beside the work, since it is read as a whole
for that. Then one table after the other is exchanged, each in a transaction of its own (a string of
several statements is one): who holds one of them and waits for the other is not to be met. Events that
are written between the two are numbered before those of many that are older; nothing else depends on
that number. A process of the version before goes on with either form.

Revision ID: 0015
Revises: 0014
"""

from datetime import UTC, datetime
from uuid import UUID

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

KEYS = {"events_of_many": "bulk_id", "events": "message_id"}

# Both number their rows together, which an identity column of a table in partitions cannot do.
NUMBERED = {
    "events_of_many": """
CREATE SEQUENCE event_numbers;
SELECT setval('event_numbers', nextval('events_seq_seq') + 1000000);
ALTER TABLE events_of_many ALTER COLUMN seq SET DEFAULT nextval('event_numbers');
""",
    "events": """
ALTER TABLE events ALTER COLUMN seq DROP IDENTITY;
ALTER TABLE events ALTER COLUMN seq SET DEFAULT nextval('event_numbers');
""",
}

PROVEN = """
ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_until;
ALTER TABLE {table} ADD CONSTRAINT {table}_until CHECK ({key} < '{until}') NOT VALID;
"""

EXCHANGED = """
LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;
{numbered}
DROP TRIGGER append_only ON {table};
ALTER TABLE {table} RENAME TO {table}_first;
ALTER INDEX {table}_pkey RENAME TO {table}_first_pkey;
CREATE TABLE {table} (LIKE {table}_first INCLUDING DEFAULTS, PRIMARY KEY ({key}, seq))
    PARTITION BY RANGE ({key});
ALTER TABLE {table} ATTACH PARTITION {table}_first FOR VALUES FROM (MINVALUE) TO ('{until}');
ALTER TABLE {table}_first DROP CONSTRAINT {table}_until;
CREATE TABLE {table}_last PARTITION OF {table} DEFAULT;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


def upgrade() -> None:
    until = UUID(int=int(month_after_next(datetime.now(UTC)).timestamp() * 1000) << 80)
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1s'")
        try:
            for table, key in KEYS.items():
                if is_done(table):  # one that was interrupted goes on
                    continue
                names = {"table": table, "key": key, "until": until}
                op.execute(PROVEN.format(**names))
                op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {table}_until")
                op.execute(EXCHANGED.format(**names, numbered=NUMBERED[table]))
        finally:
            op.execute("RESET lock_timeout")


def month_after_next(moment: datetime) -> datetime:
    months = moment.month + 1
    return datetime(moment.year + months // 12, months % 12 + 1, 1, tzinfo=UTC)


def is_done(table: str) -> bool:
    found = op.get_bind().exec_driver_sql(
        "SELECT relkind = 'p' FROM pg_class WHERE oid = %s::regclass", (table,)
    )
    return bool(found.scalar())
