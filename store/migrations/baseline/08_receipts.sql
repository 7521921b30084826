-- Receipts. They are stored before they are acknowledged, whether or not their part is known yet.

-- A receipt is matched to a part by all that it carries (docs/decisions/0021). There is no unique key
-- on what it says: an SMSC may use an id again within a day, so only the part decides whether a
-- receipt is a copy. `day` is in the key so that the table can be partitioned by time.
CREATE TABLE receipts (
    id                  bigint GENERATED ALWAYS AS IDENTITY,
    day                 date NOT NULL,
    provider            text NOT NULL,
    provider_message_id text NOT NULL,
    state               text NOT NULL,
    code                text NOT NULL,
    -- What the code means, where the provider's adapter said so.
    error_class         text,
    network             text,
    reference           integer,
    sender              text,
    -- Keyed hashes of the numbers that the receipt came from and went to.
    number_hash         bytea,
    destination_hash    bytea,
    copies              integer NOT NULL DEFAULT 1,
    received_at         timestamptz NOT NULL,
    done_at             timestamptz,
    -- The part that the receipt itself names (docs/decisions/0024): it is matched to this part or to
    -- none. NULL for a receipt that names none.
    named_message_id    uuid,
    named_attempt       smallint,
    named_part          smallint,
    -- The matched part.
    message_id          uuid,
    attempt             smallint,
    part                smallint,
    -- When a receipt that matches no part yet is matched again, and how often it was. `match_at` is
    -- NULL for a matched receipt, and for one that is no longer retried.
    match_at            timestamptz,
    tries               smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (day, id)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX receipts_message ON receipts (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX receipts_waiting ON receipts (provider, provider_message_id)
    WHERE match_at IS NOT NULL;
CREATE INDEX receipts_named ON receipts (named_message_id)
    WHERE match_at IS NOT NULL AND named_message_id IS NOT NULL;
CREATE INDEX receipts_match_at ON receipts (match_at) WHERE match_at IS NOT NULL;
CREATE INDEX receipts_never_matched ON receipts (received_at, provider)
    WHERE message_id IS NULL AND match_at IS NULL;

-- Receipts that cannot be parsed. `frame` is the whole PDU: it contains the recipient's number, so it
-- is never shown or logged.
CREATE TABLE unparsed_receipts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider    text NOT NULL,
    received_at timestamptz NOT NULL,
    reason      text NOT NULL,
    frame       bytea NOT NULL
);
CREATE INDEX unparsed_receipts_provider ON unparsed_receipts (provider, id);
CREATE INDEX unparsed_receipts_age ON unparsed_receipts (received_at);

-- Parts whose receipts did not come, and when they are requested from their providers. A scan of what is
-- open adds the rows, so that submits and receipts need no statement and no index for it.
CREATE TABLE receipt_polls (
    message_id uuid NOT NULL,
    attempt    smallint NOT NULL,
    number     smallint NOT NULL,
    provider   text NOT NULL,
    -- When the next request is due. A worker puts it off before its request, so that no other worker
    -- makes one at the same time.
    poll_at    timestamptz NOT NULL,
    -- How many requests there were.
    polls      smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (message_id, attempt, number)
);
CREATE INDEX receipt_polls_poll_at ON receipt_polls (provider, poll_at);

-- When the next scan may begin: one row for all workers. It need not survive a crash; the scan then begins
-- at once.
CREATE UNLOGGED TABLE receipt_poll_scans (
    one     boolean PRIMARY KEY CHECK (one),
    next_at timestamptz NOT NULL
) WITH (fillfactor = 50);
