"""A bulk has one time at which the reconciler asks after it, not one for each of its messages.

With `check_by` of a message in an index, its last move needed a new entry in three other indexes, too.
Those of messages with a runner of their own stay; those that the version before has given to messages
of bulks are taken for their bulk's when they have come. Half of each page is left for the next version
of its rows.

To a runner in a process of the version before, a bulk that a process of this one has accepted is at its
end; the reconciler of this version starts another.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE bulks ADD COLUMN check_by timestamptz;
CREATE INDEX bulks_check_by ON bulks (check_by) WHERE check_by IS NOT NULL;
ALTER TABLE messages SET (fillfactor = 50);
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute(COLUMNS)
