"""Attempts found by the id that their provider gave to their only part.

Built beside the work, since it reads the whole table.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # One that was interrupted leaves an index that nothing uses.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS attempts_provider_message_id")
        op.execute(
            "CREATE INDEX CONCURRENTLY attempts_provider_message_id"
            " ON attempts (provider, provider_message_id) WHERE provider_message_id IS NOT NULL"
        )
