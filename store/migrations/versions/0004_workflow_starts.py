"""The budget of workflow starts for single messages.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # One row, which need not outlive a crash: the budget then begins anew.
    op.execute("""
CREATE UNLOGGED TABLE workflow_starts (
    one         boolean PRIMARY KEY CHECK (one),
    theoretical double precision NOT NULL,
    granted     integer NOT NULL
) WITH (fillfactor = 50)
""")
