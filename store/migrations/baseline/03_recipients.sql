-- Recipients, and what is counted for each of them.

-- The one table that holds phone numbers; `unparsed_receipts` holds whole PDUs, which contain some.
-- All other tables refer to a recipient by id or by keyed hash. The hash's key has a version, so that
-- the key can be rotated.
CREATE TABLE recipients (
    id           uuid PRIMARY KEY,
    account_id   text NOT NULL,
    hash_version smallint NOT NULL,
    number_hash  bytea NOT NULL,
    number       text,
    country      text NOT NULL,
    network      text NOT NULL DEFAULT 'unknown',
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account_id, hash_version, number_hash)
);
-- For receipts that are matched by their recipient: a receipt does not name an account.
CREATE INDEX recipients_number_hash ON recipients USING hash (number_hash);

-- Concatenation references, which join the parts of a long message on the phone, are counted for each
-- recipient (docs/decisions/0019). `numbers_taken` only increases, and a message of n parts takes n
-- numbers. Its reference is the first of them plus an offset of the recipient, cut to 8 or 16 bits.
-- The two times are the beginnings of the current block of 128 numbers and of the block before it: they
-- prove that an 8-bit reference was not used recently.
CREATE TABLE concatenation_references (
    recipient_id          uuid PRIMARY KEY REFERENCES recipients (id) ON DELETE CASCADE,
    numbers_taken         bigint NOT NULL,
    block_began_at        timestamptz NOT NULL,
    block_before_began_at timestamptz NOT NULL
) WITH (fillfactor = 80);
