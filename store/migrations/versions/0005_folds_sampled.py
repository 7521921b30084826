"""Folds of many messages are checked by a sample.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A statement that touches up to twenty messages has all of them checked at the commit, a larger one
# some twenty of them, chosen by chance: what writes a wrong status for one in ten messages is found
# out in the first statement. With the setting `smsgateway.folds_checked` at 'all', all are.
SAMPLED = """
CREATE FUNCTION share_to_check(touched bigint) RETURNS double precision STABLE LANGUAGE sql AS $$
    SELECT CASE WHEN touched <= 20
                  OR coalesce(current_setting('smsgateway.folds_checked', true), '') = 'all'
                THEN 1 ELSE 20.0 / touched END
$$;

CREATE OR REPLACE FUNCTION messages_touched() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    share double precision := share_to_check((SELECT count(*) FROM changed));
BEGIN
    PERFORM check_later((SELECT array_agg(id) FROM changed WHERE random() <= share));
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION attempts_touched() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    share double precision := share_to_check((SELECT count(*) FROM changed));
BEGIN
    PERFORM check_later((SELECT array_agg(message_id) FROM changed WHERE random() <= share));
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    op.execute(SAMPLED)
