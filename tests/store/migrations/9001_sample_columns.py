"""Add what the next release needs: a column, and a function that reads it.

It needs `messages` for itself, waits a second for it, and is one transaction.

Revision ID: 9001
Revises: the newest of ours
"""

from pathlib import Path

from alembic import op
from alembic.script import ScriptDirectory

import store.schema

revision = "9001"
down_revision = ScriptDirectory(
    str(Path(store.schema.__file__).parent / "migrations")
).get_current_head()
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE messages ADD COLUMN sample text NOT NULL DEFAULT 'new';

CREATE FUNCTION samples(of_messages uuid[]) RETURNS SETOF text STABLE LANGUAGE sql AS $$
    SELECT sample FROM messages WHERE id = ANY(of_messages)
$$;
"""


def upgrade() -> None:
    # A statement that waits for a table holds up all that come after it: better to give up after a
    # second, and try again.
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute(COLUMNS)
