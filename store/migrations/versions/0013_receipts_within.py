"""A receipt that is written together with its answer stands in the attempt's own row.

It was a row of its own, with an entry in each of three indexes, of which nothing was read again but
what the attempt has, too: its state, its code and when it came. Its copies, if any come later, are
rows, as are all other receipts.

A process of the version before shows no receipt where it stands in the attempt, and tells of a copy.

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE attempts
    ADD COLUMN receipt_within  boolean NOT NULL DEFAULT false,
    ADD COLUMN receipt_done_at timestamptz;

CREATE OR REPLACE VIEW all_parts AS
SELECT message_id, attempt, number, provider, status, provider_message_id, error_class, code,
       reference, submitted_at, answered_at, receipt_state, receipt_code, receipt_at,
       false AS receipt_within
FROM parts
UNION ALL
SELECT message_id, number, 1::smallint, provider, part_status, provider_message_id,
       CASE WHEN part_status NOT IN ('accepted', 'delivered', 'undelivered') THEN error_class END,
       code, reference, started_at, answered_at, receipt_state, receipt_code, receipt_at,
       receipt_within
FROM attempts;
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute(COLUMNS)
