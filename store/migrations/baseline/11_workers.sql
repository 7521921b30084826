-- What workers report about their providers, and what they share.

-- The last heartbeat of each worker for each provider. A provider without a recent heartbeat has no
-- worker that could send through it.
CREATE TABLE provider_workers (
    provider        text NOT NULL,
    worker          text NOT NULL,
    heartbeat_at         timestamptz NOT NULL,
    state           text NOT NULL,
    -- The roles that the worker has at the provider, and those whose task queues it polls now.
    roles           text[] NOT NULL,
    polls           text[] NOT NULL,
    -- Binds that can transmit, and binds that it holds: workers divide a provider's binds among them
    -- (docs/decisions/0016).
    binds_up        integer NOT NULL,
    binds_held      integer NOT NULL,
    -- Why a session is not bound; with `ended_at`, why one was not bound before.
    last_bind_error jsonb,
    -- The current rate divided by the usual one, below 1 while the provider throttles.
    rate_ratio      real NOT NULL,
    -- The messages per second that the worker may submit (NULL is no limit) and those that it wanted to
    -- submit: workers divide a provider's rate by demand (docs/decisions/0027). `rate_limited`: messages
    -- waited for the rate, so that it can use more than its demand.
    rate_share      double precision,
    demand          double precision NOT NULL,
    critical_demand double precision NOT NULL,
    rate_limited    boolean NOT NULL,
    PRIMARY KEY (provider, worker)
);

-- The last heartbeat with state `up`, for each provider and role. It outlives its worker: an outage
-- counts from it. Without a row, an outage counts from the message.
CREATE TABLE provider_states (
    provider   text NOT NULL,
    role       text NOT NULL,
    last_up_at timestamptz NOT NULL,
    PRIMARY KEY (provider, role)
) WITH (fillfactor = 50);

-- The budget of workflow starts for single messages: one row for all processes, a rate limiter by
-- GCRA (ITU-T I.371, annex A). It need not survive a crash; the budget then starts anew.
CREATE UNLOGGED TABLE workflow_starts (
    one         boolean PRIMARY KEY CHECK (one),
    theoretical double precision NOT NULL,
    granted     integer NOT NULL
) WITH (fillfactor = 50);
