"""Recipients found by their hash alone: receipts without an id know no account.

Built beside the work, since it takes a while on a large table.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # One that was interrupted leaves an index that nothing uses.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS recipients_number_hash")
        op.execute(
            "CREATE INDEX CONCURRENTLY recipients_number_hash"
            " ON recipients USING hash (number_hash)"
        )
