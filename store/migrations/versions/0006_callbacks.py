"""What a lane has never tried, and what it tries again, each by an index of its own.

A callback that was never tried is due at once, one that was tried only when its time has come. In
one index, hundreds of thousands that wait for their time lay between those that are due.

Built beside the work, since it takes a while on a large table. Processes of the version before go
on meanwhile, and read slower until they are replaced.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, which in (
            ("callback_events_untried", "tries = 0"),
            ("callback_events_again", "tries > 0"),
        ):
            # One that was interrupted leaves an index that nothing uses.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(
                f"CREATE INDEX CONCURRENTLY {name} ON callback_events (lane_id, next_at)"
                f" WHERE state = 'pending' AND {which}"
            )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS callback_events_due")
