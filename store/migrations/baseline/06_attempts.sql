-- Attempts to send a message through a provider, and their parts (one SMS each). A claim writes them
-- before the submit; a crash in between leaves an attempt whose outcome is `unknown`.

-- The only part of an attempt is stored in the attempt's row: `part_status`, the ids, `responded_at`,
-- and `receipt_…` (docs/decisions/0014). Most messages have one part. A row of its own was inserted
-- once and updated twice for each of them, beside an attempt that changed at the same moments. What an
-- attempt and its only part have in common is stored once: `started_at`, the reference, the error and
-- the code. Where an attempt has several parts, they are rows of `parts`, and `part_status` is NULL.
CREATE TABLE attempts (
    message_id     uuid NOT NULL,
    number         smallint NOT NULL,
    epoch          integer NOT NULL,
    provider       text NOT NULL,
    -- Follows from the parts (07_status.sql).
    status         text NOT NULL,
    -- No receipt came until `receipt_by`.
    expired        boolean NOT NULL DEFAULT false,
    error_class    text,
    code           text NOT NULL DEFAULT '',
    -- Submits of this attempt; missing parts are submitted again under the same number.
    tries          smallint NOT NULL DEFAULT 1,
    part_method    text NOT NULL,
    reference      integer NOT NULL,
    -- The session that submitted it.
    bind           text NOT NULL DEFAULT '',
    started_at     timestamptz NOT NULL,
    -- Deadlines of the submit response and of the receipts.
    response_by      timestamptz NOT NULL,
    receipt_by     timestamptz NOT NULL,
    -- When the status last changed.
    settled_at     timestamptz NOT NULL,
    -- NULL until a cancel is sent to the provider, then whether the provider cancelled the attempt.
    cancelled_at_provider       boolean,
    -- How long the provider wants us to wait.
    retry_after    interval,
    config_version integer,

    part_status               text,
    -- The form in which ids are compared. The form that the provider gave goes back to the provider;
    -- it is stored only where it differs (such as capitals).
    provider_message_id       text,
    provider_message_id_given text,
    responded_at               timestamptz,
    -- What the provider says that it bills, as it reported it.
    billed_segments           smallint,
    price                     numeric CHECK (price >= 0),
    price_currency            text,
    receipt_state             text,
    receipt_code              text,
    -- What the code means, where the provider's adapter said so.
    receipt_error_class       text,
    receipt_at                timestamptz,
    receipt_done_at           timestamptz,
    -- Whether the receipt that was written together with the response is stored here, and not in
    -- `receipts`: as a row it needed entries in three indexes, and nothing of it was read again.
    -- Other receipts, and later copies of this one, are rows of `receipts`.
    receipt_within            boolean NOT NULL DEFAULT false,

    PRIMARY KEY (message_id, number)
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);
-- No index has the status in its condition: each transition would then need new entries in all of
-- them.
CREATE INDEX attempts_provider_message_id ON attempts (provider, provider_message_id)
    WHERE provider_message_id IS NOT NULL;

CREATE TABLE parts (
    message_id                uuid NOT NULL,
    attempt                   smallint NOT NULL,
    number                    smallint NOT NULL,
    provider                  text NOT NULL,
    status                    text NOT NULL,
    provider_message_id       text,
    provider_message_id_given text,
    error_class               text,
    code                      text NOT NULL DEFAULT '',
    reference                 integer NOT NULL,
    submitted_at              timestamptz NOT NULL,
    responded_at               timestamptz,
    billed_segments           smallint,
    price                     numeric CHECK (price >= 0),
    price_currency            text,
    receipt_state             text,
    receipt_code              text,
    receipt_error_class       text,
    receipt_at                timestamptz,
    PRIMARY KEY (message_id, attempt, number)
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX parts_provider_message_id ON parts (provider, provider_message_id)
    WHERE provider_message_id IS NOT NULL;

-- Parts of both kinds. An attempt with several parts adds a row without a status: with a condition
-- inside the view, the planner would read all attempts for the parts of one message.
CREATE VIEW all_parts AS
SELECT message_id, attempt, number, provider, status, provider_message_id, error_class, code,
       reference, submitted_at, responded_at, receipt_state, receipt_code, receipt_error_class,
       receipt_at, billed_segments, price, price_currency, false AS receipt_within
FROM parts
UNION ALL
SELECT message_id, number, 1::smallint, provider, part_status, provider_message_id,
       CASE WHEN part_status NOT IN ('accepted', 'delivered', 'undelivered') THEN error_class END,
       code, reference, started_at, responded_at, receipt_state, receipt_code, receipt_error_class,
       receipt_at, billed_segments, price, price_currency, receipt_within
FROM attempts;
