"""Messages, attempts, parts, receipts, and what is told about them.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Every key begins with an id that sorts by time (UUIDv7) or with a date, so that each table can be
# partitioned by time without changing what identifies a row.
TABLES = """
CREATE TABLE accounts (
    id          text PRIMARY KEY,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- Standard Webhooks secret ("whsec_…") with which this account's callbacks are signed.
    callback_secret text NOT NULL
);

CREATE TABLE api_keys (
    id           uuid PRIMARY KEY,
    account_id   text NOT NULL REFERENCES accounts (id),
    environment  text NOT NULL CHECK (environment IN ('live', 'test')),
    name         text NOT NULL,
    scopes       text[] NOT NULL,
    secret_hash  bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
CREATE INDEX api_keys_account ON api_keys (account_id, id);

-- The one table that holds phone numbers. Everything else refers to a recipient by id, and finds
-- one by a keyed hash whose key has a version, so that the key can be rotated.
CREATE TABLE recipients (
    id           uuid PRIMARY KEY,
    account_id   text NOT NULL REFERENCES accounts (id),
    hash_version smallint NOT NULL,
    number_hash  bytea NOT NULL,
    number       text,
    country      text NOT NULL,
    network      text NOT NULL DEFAULT 'unknown',
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account_id, hash_version, number_hash)
);

CREATE TABLE configurations (
    version    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    content    text NOT NULL,
    digest     bytea NOT NULL,
    source     text NOT NULL,
    applied_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE callback_lanes (
    id         uuid PRIMARY KEY,
    account_id text NOT NULL REFERENCES accounts (id),
    origin     text NOT NULL,
    active     boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account_id, origin)
);

CREATE TABLE messages (
    id               uuid PRIMARY KEY,
    account_id       text NOT NULL REFERENCES accounts (id),
    environment      text NOT NULL CHECK (environment IN ('live', 'test')),
    mode             text NOT NULL,
    priority         text NOT NULL,
    status           text NOT NULL,
    verdict          text CHECK (verdict IN
                         ('scheduled', 'held', 'sent', 'failed', 'dead_letter', 'expired', 'canceled')),
    reason           text,
    sender           text NOT NULL,
    recipient_id     uuid NOT NULL REFERENCES recipients (id),
    country          text NOT NULL,
    network          text NOT NULL DEFAULT 'unknown',
    body             text,
    encoding         text NOT NULL,
    segments         smallint NOT NULL,
    metadata         jsonb NOT NULL DEFAULT '{}',
    callback_url     text,
    callback_lane_id uuid REFERENCES callback_lanes (id),
    accepted_at      timestamptz NOT NULL,
    scheduled_at     timestamptz,
    validity         interval NOT NULL,
    valid_until      timestamptz NOT NULL,
    since            timestamptz NOT NULL,
    moved_at         timestamptz NOT NULL,
    cancel_requested_at timestamptz,
    waiting_for      text,
    owner            text,
    epoch            integer NOT NULL DEFAULT 1,
    -- Attempts before this one belong to the time before a replay.
    first_attempt    smallint NOT NULL DEFAULT 1,
    check_by         timestamptz,
    config_version   integer REFERENCES configurations (version),
    traceparent      text
);
CREATE INDEX messages_account ON messages (account_id, environment, id DESC);
CREATE INDEX messages_recipient ON messages (recipient_id, id DESC);
CREATE INDEX messages_check_by ON messages (check_by) WHERE check_by IS NOT NULL;
CREATE INDEX messages_dead_letters ON messages (account_id, environment, id)
    WHERE verdict = 'dead_letter';

CREATE TABLE idempotency_keys (
    account_id   text NOT NULL REFERENCES accounts (id),
    environment  text NOT NULL,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    response     jsonb NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (account_id, environment, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

CREATE TABLE attempts (
    message_id     uuid NOT NULL REFERENCES messages (id),
    number         smallint NOT NULL,
    epoch          integer NOT NULL,
    provider       text NOT NULL,
    status         text NOT NULL,
    expired        boolean NOT NULL DEFAULT false,
    error_class    text,
    code           text NOT NULL DEFAULT '',
    tries          smallint NOT NULL DEFAULT 1,
    part_method    text NOT NULL,
    reference      integer NOT NULL,
    bind           text NOT NULL DEFAULT '',
    started_at     timestamptz NOT NULL,
    answer_by      timestamptz NOT NULL,
    settled_at     timestamptz NOT NULL,
    receipt_by     timestamptz NOT NULL,
    recalled       boolean,
    retry_after    interval,
    config_version integer,
    PRIMARY KEY (message_id, number)
);
CREATE INDEX attempts_in_doubt ON attempts (provider, started_at) WHERE status = 'unknown';

CREATE TABLE parts (
    message_id          uuid NOT NULL,
    attempt             smallint NOT NULL,
    number              smallint NOT NULL,
    provider            text NOT NULL,
    status              text NOT NULL,
    provider_message_id text,
    error_class         text,
    code                text NOT NULL DEFAULT '',
    reference           integer NOT NULL,
    submitted_at        timestamptz NOT NULL,
    answered_at         timestamptz,
    receipt_state       text,
    receipt_code        text,
    receipt_at          timestamptz,
    PRIMARY KEY (message_id, attempt, number),
    FOREIGN KEY (message_id, attempt) REFERENCES attempts (message_id, number)
);
CREATE INDEX parts_provider_message_id ON parts (provider, provider_message_id)
    WHERE provider_message_id IS NOT NULL;

-- Receipts are stored before they are answered, whether or not their part is known yet.
-- Providers reuse their ids, hence the day in the key.
CREATE TABLE receipts (
    id                  bigint GENERATED ALWAYS AS IDENTITY,
    day                 date NOT NULL,
    provider            text NOT NULL,
    provider_message_id text NOT NULL,
    state               text NOT NULL,
    code                text NOT NULL,
    network             text,
    reference           integer,
    sender              text,
    number_hash         bytea,
    copies              integer NOT NULL DEFAULT 1,
    received_at         timestamptz NOT NULL,
    done_at             timestamptz,
    message_id          uuid,
    attempt             smallint,
    part                smallint,
    PRIMARY KEY (day, id),
    UNIQUE (day, provider, provider_message_id, state, code)
);
CREATE INDEX receipts_unmatched ON receipts (provider, provider_message_id)
    WHERE message_id IS NULL;
CREATE INDEX receipts_message ON receipts (message_id) WHERE message_id IS NOT NULL;

CREATE TABLE events (
    message_id uuid NOT NULL,
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    at         timestamptz NOT NULL,
    kind       text NOT NULL,
    actor      text NOT NULL,
    previous   text,
    status     text,
    attempt    smallint,
    provider   text,
    network    text,
    code       text,
    reason     text,
    detail     jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (message_id, seq)
);

CREATE TABLE callback_events (
    id            uuid PRIMARY KEY,
    lane_id       uuid NOT NULL REFERENCES callback_lanes (id),
    account_id    text NOT NULL,
    environment   text NOT NULL,
    message_id    uuid NOT NULL,
    url           text NOT NULL,
    status        text NOT NULL,
    provider_code text NOT NULL DEFAULT '',
    occurred_at   timestamptz NOT NULL,
    position      bigint GENERATED ALWAYS AS IDENTITY,
    state         text NOT NULL DEFAULT 'pending'
                  CHECK (state IN ('pending', 'delivered', 'failed')),
    tries         smallint NOT NULL DEFAULT 0,
    next_at       timestamptz NOT NULL,
    answered_at   timestamptz,
    last_status   integer,
    last_error    text
);
CREATE INDEX callback_events_due ON callback_events (lane_id, next_at) WHERE state = 'pending';
CREATE INDEX callback_events_order ON callback_events (message_id, position) WHERE state = 'pending';
CREATE INDEX callback_events_account ON callback_events (account_id, environment, id DESC);

-- A provider without a fresh beat has no worker that could send through it.
CREATE TABLE provider_workers (
    provider text NOT NULL,
    worker   text NOT NULL,
    beat_at  timestamptz NOT NULL,
    binds_up integer NOT NULL,
    state    text NOT NULL,
    PRIMARY KEY (provider, worker)
);
"""

# The folds of domain/states.py. A status that does not follow from the rows cannot be committed.
FOLDS = """
CREATE FUNCTION attempt_fold(of_message uuid, of_attempt smallint, is_expired boolean)
RETURNS text STABLE LANGUAGE sql AS $$
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
    FROM parts WHERE message_id = of_message AND attempt = of_attempt
$$;

CREATE FUNCTION message_fold(of_message uuid, of_verdict text, of_first smallint)
RETURNS text STABLE LANGUAGE sql AS $$
    SELECT CASE
        WHEN EXISTS (SELECT FROM attempts
                     WHERE message_id = of_message AND status = 'delivered') THEN 'delivered'
        WHEN of_verdict IS NOT NULL THEN of_verdict
        ELSE coalesce(
            (SELECT CASE status WHEN 'submitting' THEN 'sending'
                                WHEN 'accepted' THEN 'sent'
                                WHEN 'unknown' THEN 'unknown'
                                ELSE 'retried' END
             FROM attempts WHERE message_id = of_message AND number >= of_first
             ORDER BY number DESC LIMIT 1),
            'queued')
    END
$$;

-- At commit, so that one transaction can write what happened and then what follows from it.
CREATE FUNCTION check_message_fold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    stored record;
BEGIN
    SELECT status, message_fold(id, verdict, first_attempt) AS folded INTO stored
    FROM messages WHERE id = NEW.id;
    IF stored.status IS DISTINCT FROM stored.folded THEN
        RAISE EXCEPTION 'message % cannot be %: its attempts and verdict make it %',
            NEW.id, stored.status, stored.folded USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER message_fold AFTER INSERT OR UPDATE OF status, verdict, first_attempt ON messages
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION check_message_fold();

CREATE FUNCTION check_attempt_fold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    stored record;
BEGIN
    SELECT a.status, attempt_fold(a.message_id, a.number, a.expired) AS folded,
           m.status AS message_status, message_fold(m.id, m.verdict, m.first_attempt) AS message_folded
    INTO stored
    FROM attempts a JOIN messages m ON m.id = a.message_id
    WHERE a.message_id = NEW.message_id
      AND a.number = (to_jsonb(NEW) ->> TG_ARGV[0])::smallint;
    IF stored.status IS DISTINCT FROM stored.folded THEN
        RAISE EXCEPTION 'attempt of message % cannot be %: its parts make it %',
            NEW.message_id, stored.status, stored.folded USING ERRCODE = 'check_violation';
    END IF;
    IF stored.message_status IS DISTINCT FROM stored.message_folded THEN
        RAISE EXCEPTION 'message % cannot stay %: its attempts make it %',
            NEW.message_id, stored.message_status, stored.message_folded
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER attempt_fold AFTER INSERT OR UPDATE OF status, expired ON attempts
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION check_attempt_fold('number');
CREATE CONSTRAINT TRIGGER attempt_fold AFTER INSERT OR UPDATE OF status ON parts
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION check_attempt_fold('attempt');

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(FOLDS)
