"""Many messages under one runner: batches, bulks, events of many, and folds checked once a commit.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
-- Messages that one runner takes to their ends. They are those whose id lies from `first_id` to
-- `last_id` (both included) and whose `bulk_id` is this one.
CREATE TABLE bulks (
    id          uuid PRIMARY KEY,
    first_id    uuid NOT NULL,
    last_id     uuid NOT NULL,
    messages    integer NOT NULL,
    created_at  timestamptz NOT NULL,
    paused_at   timestamptz,
    canceled_at timestamptz
);

-- What one request asked for; its messages are those of the bulk with the same id.
CREATE TABLE batches (
    id          uuid PRIMARY KEY REFERENCES bulks (id),
    account_id  text NOT NULL REFERENCES accounts (id),
    environment text NOT NULL,
    mode        text NOT NULL,
    sender      text NOT NULL,
    recipients  integer NOT NULL,
    accepted    integer NOT NULL,
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL
);
CREATE INDEX batches_account ON batches (account_id, environment, id DESC);

-- Recipients of a batch that got no message; never their numbers.
CREATE TABLE batch_refusals (
    batch_id uuid NOT NULL REFERENCES batches (id),
    position integer NOT NULL,
    field    text NOT NULL,
    reason   text NOT NULL,
    sentence text NOT NULL,
    PRIMARY KEY (batch_id, position, field)
);

-- Room beside each row for its next versions, which then need no new entries in the indexes.
ALTER TABLE messages SET (fillfactor = 60);
ALTER TABLE attempts SET (fillfactor = 70);
ALTER TABLE parts SET (fillfactor = 70);
-- With the status in its condition every move of an attempt needed new entries in all indexes; those
-- in doubt are found by their recipient.
DROP INDEX attempts_in_doubt;

ALTER TABLE messages ADD COLUMN bulk_id uuid, ADD COLUMN position integer;

-- The same event of many messages of one bulk, once; `seq` is of the same sequence as that of
-- `events`, so that both together are in order.
CREATE TABLE events_of_many (
    bulk_id     uuid NOT NULL,
    seq         bigint NOT NULL DEFAULT nextval('events_seq_seq'),
    message_ids uuid[] NOT NULL,
    at          timestamptz NOT NULL,
    kind        text NOT NULL,
    actor       text NOT NULL,
    previous    text,
    status      text,
    attempt     smallint,
    provider    text,
    network     text,
    code        text,
    reason      text,
    detail      jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (bulk_id, seq)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON events_of_many
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

# The folds of domain/states.py, for many messages at once. Those of the first migration stay for
# processes that began before this one.
FOLDS = """
CREATE FUNCTION attempt_folds(of_messages uuid[])
RETURNS TABLE (message_id uuid, number smallint, status text) STABLE LANGUAGE sql AS $$
    SELECT a.message_id, a.number, CASE
        WHEN bool_and(p.status = 'delivered') THEN 'delivered'
        WHEN bool_or(p.status = 'undelivered') THEN 'undelivered'
        WHEN bool_or(p.status = 'submitting') THEN 'submitting'
        WHEN a.expired THEN 'expired'
        WHEN bool_or(p.status = 'unknown') THEN 'unknown'
        WHEN bool_and(p.status IN ('accepted', 'delivered')) THEN 'accepted'
        WHEN bool_or(p.status IN ('accepted', 'delivered')) THEN 'partial'
        WHEN bool_or(p.status = 'refused') THEN 'refused'
        WHEN bool_or(p.status = 'throttled') THEN 'throttled'
        ELSE 'unreachable'
    END
    FROM attempts a LEFT JOIN parts p ON p.message_id = a.message_id AND p.attempt = a.number
                                     AND p.message_id = ANY(of_messages)
    WHERE a.message_id = ANY(of_messages)
    GROUP BY a.message_id, a.number
$$;

CREATE FUNCTION message_folds(of_messages uuid[])
RETURNS TABLE (id uuid, status text) STABLE LANGUAGE sql AS $$
    SELECT m.id, CASE
        WHEN tried.delivered THEN 'delivered'
        WHEN m.verdict IS NOT NULL THEN m.verdict
        ELSE CASE tried.latest
            WHEN 'submitting' THEN 'sending'
            WHEN 'accepted' THEN 'sent'
            WHEN 'unknown' THEN 'unknown'
            ELSE CASE WHEN tried.latest IS NULL THEN 'queued' ELSE 'retried' END
        END
    END
    FROM messages m
    CROSS JOIN LATERAL (
        SELECT bool_or(a.status = 'delivered') AS delivered,
               (array_agg(a.status ORDER BY a.number DESC)
                    FILTER (WHERE a.number >= m.first_attempt))[1] AS latest
        FROM attempts a WHERE a.message_id = m.id
    ) tried
    WHERE m.id = ANY(of_messages)
$$;
"""

# Which messages a transaction has touched is gathered by the statements' triggers in a setting of
# that transaction; one row, of which nothing remains, has them all checked at its commit. So one
# transaction can write what happened and then what follows from it, and many messages cost one
# check.
CHECKS = """
CREATE UNLOGGED TABLE fold_checks (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);

CREATE FUNCTION check_later(touched uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before text := coalesce(current_setting('smsgateway.touched', true), '');
BEGIN
    IF touched IS NULL THEN
        RETURN;
    END IF;
    IF before = '' THEN
        INSERT INTO fold_checks DEFAULT VALUES;
    END IF;
    PERFORM set_config('smsgateway.touched', before || ',' || array_to_string(touched, ','), true);
END $$;

CREATE FUNCTION messages_touched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_later((SELECT array_agg(id) FROM changed));
    RETURN NULL;
END $$;
CREATE FUNCTION attempts_touched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_later((SELECT array_agg(message_id) FROM changed));
    RETURN NULL;
END $$;

CREATE FUNCTION check_folds() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched uuid[];
    wrong record;
BEGIN
    SELECT array_agg(DISTINCT each::uuid) INTO touched
    FROM unnest(string_to_array(ltrim(current_setting('smsgateway.touched'), ','), ',')) AS each;
    PERFORM set_config('smsgateway.touched', '', true);
    DELETE FROM fold_checks WHERE id = NEW.id;
    SELECT a.message_id, a.status, f.status AS folded INTO wrong
    FROM attempt_folds(touched) f
    JOIN attempts a ON a.message_id = f.message_id AND a.number = f.number
    WHERE a.message_id = ANY(touched) AND a.status IS DISTINCT FROM f.status LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt of message % cannot be %: its parts make it %',
            wrong.message_id, wrong.status, wrong.folded USING ERRCODE = 'check_violation';
    END IF;
    SELECT m.id, m.status, f.status AS folded INTO wrong
    FROM message_folds(touched) f JOIN messages m ON m.id = f.id
    WHERE m.id = ANY(touched) AND m.status IS DISTINCT FROM f.status LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'message % cannot be %: its attempts and verdict make it %',
            wrong.id, wrong.status, wrong.folded USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_folds AFTER INSERT ON fold_checks
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_folds();

DROP TRIGGER message_fold ON messages;
DROP TRIGGER attempt_fold ON attempts;
DROP TRIGGER attempt_fold ON parts;
CREATE TRIGGER touched_by_insert AFTER INSERT ON messages
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION messages_touched();
CREATE TRIGGER touched_by_update AFTER UPDATE ON messages
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION messages_touched();
CREATE TRIGGER touched_by_insert AFTER INSERT ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION attempts_touched();
CREATE TRIGGER touched_by_update AFTER UPDATE ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION attempts_touched();
CREATE TRIGGER touched_by_insert AFTER INSERT ON parts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION attempts_touched();
CREATE TRIGGER touched_by_update AFTER UPDATE ON parts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION attempts_touched();
"""

# A reference is checked row by row, five of them for each message. The rows of these tables are
# written in one statement with what they refer to, or while it is locked.
REFERENCES = """
ALTER TABLE parts DROP CONSTRAINT parts_message_id_attempt_fkey;
ALTER TABLE attempts DROP CONSTRAINT attempts_message_id_fkey;
ALTER TABLE messages DROP CONSTRAINT messages_account_id_fkey;
ALTER TABLE messages DROP CONSTRAINT messages_recipient_id_fkey;
ALTER TABLE messages DROP CONSTRAINT messages_callback_lane_id_fkey;
ALTER TABLE messages DROP CONSTRAINT messages_config_version_fkey;
ALTER TABLE recipients DROP CONSTRAINT recipients_account_id_fkey;
ALTER TABLE callback_events DROP CONSTRAINT callback_events_lane_id_fkey;
"""


def upgrade() -> None:
    # Whoever waits for a table holds up all who come after: better to let go and try again.
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute(TABLES)
    op.execute(FOLDS)
    op.execute(CHECKS)
    op.execute(REFERENCES)
