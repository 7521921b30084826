-- The outbox: events for endpoints that subscribe to their kinds, each written in the transaction of what it
-- reports (docs/decisions/0025).

-- An endpoint is where an account's events go: the webhooks of one origin, or the account's listening
-- workflows. Its events form one lane. While `active` is set, a workflow looks at the lane without a
-- signal.
CREATE TABLE endpoints (
    id         uuid PRIMARY KEY,
    account_id text NOT NULL REFERENCES accounts (id),
    transport  text NOT NULL DEFAULT 'webhook' CHECK (transport IN ('webhook', 'signal')),
    -- Scheme, host and port of webhooks; 'temporal' for signals.
    origin     text NOT NULL,
    -- The kinds of events that the endpoint subscribes to: others are not written to its lane.
    kinds      text[] NOT NULL DEFAULT '{message.status}',
    active     boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account_id, origin)
);

-- An event: its kind, the id of the thing that it is about, and what later changes of the thing would
-- falsify. The body is made when the event is sent.
CREATE TABLE outbox (
    id            uuid PRIMARY KEY,
    lane_id       uuid NOT NULL,
    account_id    text NOT NULL,
    environment   text NOT NULL,
    kind          text NOT NULL DEFAULT 'message.status',
    subject_id    uuid NOT NULL,
    -- The URL of a webhook, or the id of a workflow.
    target        text NOT NULL,
    status        text NOT NULL,
    code          text NOT NULL DEFAULT '',
    occurred_at   timestamptz NOT NULL,
    -- Events of one subject are delivered to an endpoint in this order.
    position      bigint GENERATED ALWAYS AS IDENTITY,
    state         text NOT NULL DEFAULT 'pending'
                  CHECK (state IN ('pending', 'delivered', 'failed')),
    tries         smallint NOT NULL DEFAULT 0,
    next_at       timestamptz NOT NULL,
    responded_at  timestamptz,
    last_status   integer,
    last_error    text
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);
-- An event that was never tried is due at once, a retry only at its time. In one index, hundreds of
-- thousands of retries that wait would lie between the events that are due.
CREATE INDEX outbox_untried ON outbox (lane_id, next_at)
    WHERE state = 'pending' AND tries = 0;
CREATE INDEX outbox_again ON outbox (lane_id, next_at)
    WHERE state = 'pending' AND tries > 0;
CREATE INDEX outbox_order ON outbox (subject_id, lane_id, position) WHERE state = 'pending';

-- For lists: all events of an account, those of one subject, and those that were given up. The last
-- two have no entry for a pending event, which so costs nothing.
CREATE INDEX outbox_account ON outbox (account_id, environment, id DESC);
CREATE INDEX outbox_ended ON outbox (subject_id) WHERE state <> 'pending';
CREATE INDEX outbox_failed ON outbox (account_id, environment, id)
    WHERE state = 'failed';
