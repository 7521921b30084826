"""Build an index concurrently, and rewrite existing rows some at a time.

Senders go on meanwhile. A migration that was interrupted continues where it stopped.

Revision ID: 9002
Revises: 9001
"""

from uuid import UUID

from alembic import op

revision = "9002"
down_revision = "9001"
branch_labels = None
depends_on = None

FOUND = """
SELECT id FROM messages WHERE id > %s AND sample = 'new' AND status = 'sent'
ORDER BY id LIMIT 10
"""
# Rows are locked in the order of ids, as everywhere, to prevent deadlocks.
REWRITTEN = """
WITH locked AS (SELECT id FROM messages WHERE id = ANY(%s) ORDER BY id FOR UPDATE)
UPDATE messages m SET sample = 'rewritten' FROM locked
WHERE m.id = locked.id AND m.id = ANY(%s)
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # An interrupted build leaves an invalid index.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS messages_sample")
        op.execute("CREATE INDEX CONCURRENTLY messages_sample ON messages (sample)")
        connection = op.get_bind()
        last = UUID(int=0)
        while found := connection.exec_driver_sql(FOUND, (last,)).scalars().all():
            connection.exec_driver_sql(REWRITTEN, (found, found))
            last = found[-1]
