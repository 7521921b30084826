-- Messages, and the idempotency keys of the requests that sent them.

CREATE TABLE messages (
    id                  uuid PRIMARY KEY,
    account_id          text NOT NULL,
    environment         text NOT NULL CHECK (environment IN ('live', 'test')),
    mode                text NOT NULL,
    priority            text NOT NULL,

    -- The status follows from the verdict and the attempts (07_status.sql).
    status              text NOT NULL,
    verdict             text CHECK (verdict IN
                            ('scheduled', 'sent', 'failed', 'dead_letter', 'expired', 'canceled')),
    reason              text,
    -- Providers that the route of a dead letter offered. A dead letter that no provider ever received
    -- has no attempt that names one.
    offered             text[],

    -- What is sent, and to whom.
    sender              text NOT NULL,
    recipient_id        uuid NOT NULL,
    country             text NOT NULL,
    network             text NOT NULL DEFAULT 'unknown',
    body                text,
    encoding            text NOT NULL,
    segments            smallint NOT NULL,
    metadata            jsonb NOT NULL DEFAULT '{}',
    -- What providers are given beside the text, by name. NULL for a message without parameters, as most
    -- are: an empty object would take space in each version of the row.
    parameters          jsonb,

    -- Where transitions are reported: all of them, or only the final one.
    callback_url        text,
    callback_lane_id    uuid,
    callback_final_only boolean NOT NULL DEFAULT false,

    -- The workflow that is notified of each final status, and its endpoint. Internal senders set it.
    listener            text,
    listener_lane_id    uuid,

    accepted_at         timestamptz NOT NULL,
    scheduled_at        timestamptz,
    -- `validity` stays beside `valid_until`, since a replay gives a message its whole validity again.
    validity            interval NOT NULL,
    valid_until         timestamptz NOT NULL,
    -- The receipt deadline that the request set; NULL leaves it to mode and provider.
    receipt_deadline    interval,
    -- What the request wants when no receipt came by then; NULL leaves it to the mode.
    missing_receipt     text CHECK (missing_receipt IN ('next_route', 'expire', 'tell_listener')),
    -- The acceptance, or the last replay; an outage of its providers counts from here at the earliest.
    since               timestamptz NOT NULL,
    transitioned_at            timestamptz NOT NULL,
    cancel_requested_at timestamptz,
    waiting_for         text,
    -- The only provider that may have the message, without a look at routes: an operator's test of this
    -- provider. NULL for all others.
    only_provider       text,

    -- The bulk that the message was accepted with, and its position in the batch's request.
    bulk_id             uuid,
    position            integer,

    -- The workflow that runs the message. `epoch` is the fence: it grows with each new runner, and a
    -- claim with an older epoch writes nothing (docs/decisions/0003).
    owner               text,
    epoch               integer NOT NULL DEFAULT 1,
    -- Attempts with a lower number are from before a replay.
    first_attempt       smallint NOT NULL DEFAULT 1,
    -- When the reconciler checks the message. NULL for one that is final, and for one that a bulk
    -- runs, which has `bulks.check_by`. Clearing a value of its own with the last transition would
    -- need a new entry in this index and in the three others.
    check_by            timestamptz,

    config_version      integer,
    traceparent         text,
    CHECK (missing_receipt <> 'tell_listener' OR listener IS NOT NULL),
    CHECK ((listener IS NULL) = (listener_lane_id IS NULL)),
    -- The messages of a bulk are routed by their routing keys alone.
    CHECK (only_provider IS NULL OR bulk_id IS NULL)
) WITH (
    -- Each message leaves some ten dead rows. With Postgres' default, a fifth of ten million rows
    -- would be dead before vacuum began, and would then be vacuumed all at once.
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05,
    -- A message is updated several times while it is young. Free space in its page for the next
    -- version of the row means no new entries in the indexes (HOT update).
    fillfactor = 50
);
CREATE INDEX messages_account ON messages (account_id, environment, id DESC);
CREATE INDEX messages_recipient ON messages (recipient_id, id DESC);
CREATE INDEX messages_check_by ON messages (check_by) WHERE check_by IS NOT NULL;
CREATE INDEX messages_dead_letters ON messages (account_id, environment, id)
    WHERE verdict = 'dead_letter';

-- A repeated request with the same key gets the stored response, and sends nothing.
CREATE TABLE idempotency_keys (
    account_id   text NOT NULL REFERENCES accounts (id),
    environment  text NOT NULL,
    -- Whose keys these are: 'api' for those that the account gave with its requests, else the name
    -- of the part of the gateway that sends for the account.
    namespace    text NOT NULL,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    response     jsonb NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (account_id, environment, namespace, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
