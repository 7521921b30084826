-- Many messages at once: a batch is what a customer sends in one request, a bulk is the messages that
-- one workflow runs.

-- The messages of a bulk are those with an id from `first_id` to `last_id` (both included) and with
-- its `bulk_id`.
CREATE TABLE bulks (
    id          uuid PRIMARY KEY,
    first_id    uuid NOT NULL,
    last_id     uuid NOT NULL,
    messages    integer NOT NULL,
    created_at  timestamptz NOT NULL,
    -- That of its messages: the reconciler starts runners in the order of priority.
    priority    text NOT NULL DEFAULT 'normal',
    paused_at   timestamptz,
    -- For its messages, an outage counts from here at the earliest.
    resumed_at  timestamptz,
    canceled_at timestamptz,
    -- When the reconciler polls the bulk; NULL once its messages need no runner.
    check_by    timestamptz
);
CREATE INDEX bulks_check_by ON bulks (check_by) WHERE check_by IS NOT NULL;

-- The messages of a batch are those of the bulk with the same id.
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

-- Recipients of a batch that failed validation, by their position in the request. Their numbers are
-- not stored.
CREATE TABLE batch_refusals (
    batch_id uuid NOT NULL REFERENCES batches (id),
    position integer NOT NULL,
    field    text NOT NULL,
    reason   text NOT NULL,
    sentence text NOT NULL,
    PRIMARY KEY (batch_id, position, field)
);
