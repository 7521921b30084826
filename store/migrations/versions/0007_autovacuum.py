"""Vacuum the tables of messages after every twentieth row, not every fifth.

Each message leaves some ten dead rows behind. At ten million messages Postgres would let a fifth of
all rows die before it looked, and then work through all of them at once.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = ("messages", "attempts", "parts", "receipts", "callback_events")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    for table in TABLES:
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.05,"
            " autovacuum_analyze_scale_factor = 0.05)"
        )
