"""Folds whose plans are kept.

Postgres parses and plans the body of a function in SQL anew in every statement that calls it, unless
it can be inlined, which these cannot. One in PL/pgSQL is planned once in each session. A message's
rows are folded some twenty times in its life, by statements and by the checks at commit.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FOLDS = """
CREATE OR REPLACE FUNCTION attempt_fold(
    of_message uuid, of_attempt smallint, is_expired boolean)
RETURNS text STABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT CASE
            WHEN bool_and(status = 'delivered') THEN 'delivered'
            WHEN bool_or(status = 'undelivered') THEN 'undelivered'
            WHEN bool_or(status = 'submitting') THEN 'submitting'
            WHEN is_expired THEN 'expired'
            WHEN bool_or(status = 'unknown') THEN 'unknown'
            WHEN bool_and(status IN ('accepted', 'delivered')) THEN 'accepted'
            WHEN bool_or(status IN ('accepted', 'delivered')) THEN 'partial'
            WHEN bool_or(status = 'refused') THEN 'refused'
            WHEN bool_or(status = 'throttled') THEN 'throttled'
            ELSE 'unreachable'
        END
        FROM parts WHERE message_id = of_message AND attempt = of_attempt);
END $$;

CREATE OR REPLACE FUNCTION message_fold(of_message uuid, of_verdict text, of_first smallint)
RETURNS text STABLE LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM attempts WHERE message_id = of_message AND status = 'delivered') THEN
        RETURN 'delivered';
    END IF;
    IF of_verdict IS NOT NULL THEN
        RETURN of_verdict;
    END IF;
    RETURN coalesce(
        (SELECT CASE status WHEN 'submitting' THEN 'sending'
                            WHEN 'accepted' THEN 'sent'
                            WHEN 'unknown' THEN 'unknown'
                            ELSE 'retried' END
         FROM attempts WHERE message_id = of_message AND number >= of_first
         ORDER BY number DESC LIMIT 1),
        'queued');
END $$;
"""


def upgrade() -> None:
    op.execute(FOLDS)
