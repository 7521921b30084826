"""The part of an attempt that has only one stands in the attempt's own row.

Most messages have one part. As a row of its own it was inserted once and changed twice for each of
them, beside an attempt that changed at the same moments.

Attempts that were written before keep the rows of their parts, and `part_status` tells the two kinds
apart; `all_parts` shows both alike. Processes of the version before write as they did. They do not
see the parts that newer ones write: receipts for these wait until a newer one looks again.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# `part_status` is null where the parts have rows of their own. What an attempt and its only part
# have in common stands once: when it was submitted, its reference, the error and the code.
PARTS = """
ALTER TABLE attempts
    ADD COLUMN part_status         text,
    ADD COLUMN provider_message_id text,
    ADD COLUMN answered_at         timestamptz,
    ADD COLUMN receipt_state       text,
    ADD COLUMN receipt_code        text,
    ADD COLUMN receipt_at          timestamptz;

-- Both kinds of parts. Of attempts whose parts have rows of their own there is one with no status:
-- a condition within would keep the planner from looking only at those that are asked for.
CREATE VIEW all_parts AS
SELECT message_id, attempt, number, provider, status, provider_message_id, error_class, code,
       reference, submitted_at, answered_at, receipt_state, receipt_code, receipt_at
FROM parts
UNION ALL
SELECT message_id, number, 1::smallint, provider, part_status, provider_message_id,
       CASE WHEN part_status NOT IN ('accepted', 'delivered', 'undelivered') THEN error_class END,
       code, reference, started_at, answered_at, receipt_state, receipt_code, receipt_at
FROM attempts;
"""

# The fold of domain/states.py, over both kinds.
FOLDS = """
CREATE OR REPLACE FUNCTION attempt_folds(of_messages uuid[])
RETURNS TABLE (message_id uuid, number smallint, status text) STABLE LANGUAGE sql AS $$
    SELECT a.message_id, a.number, CASE
        WHEN bool_and(part.status = 'delivered') THEN 'delivered'
        WHEN bool_or(part.status = 'undelivered') THEN 'undelivered'
        WHEN bool_or(part.status = 'submitting') THEN 'submitting'
        WHEN a.expired THEN 'expired'
        WHEN bool_or(part.status = 'unknown') THEN 'unknown'
        WHEN bool_and(part.status IN ('accepted', 'delivered')) THEN 'accepted'
        WHEN bool_or(part.status IN ('accepted', 'delivered')) THEN 'partial'
        WHEN bool_or(part.status = 'refused') THEN 'refused'
        WHEN bool_or(part.status = 'throttled') THEN 'throttled'
        ELSE 'unreachable'
    END
    FROM attempts a
    LEFT JOIN parts p ON p.message_id = a.message_id AND p.attempt = a.number
                     AND p.message_id = ANY(of_messages)
    CROSS JOIN LATERAL (SELECT coalesce(a.part_status, p.status) AS status) part
    WHERE a.message_id = ANY(of_messages)
    GROUP BY a.message_id, a.number
$$;
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute(PARTS)
    op.execute(FOLDS)
