"""Workers agree how many binds of a provider each of them holds.

A process of the version before does not know of it, and binds all; what it has bound counts as held,
so that newer ones wait until it is gone.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

HELD = """
ALTER TABLE provider_workers
    ADD COLUMN roles text[] NOT NULL DEFAULT '{}',
    ADD COLUMN binds_held integer
"""


def upgrade() -> None:
    op.execute(HELD)
