-- Accounts and their API keys.
--
-- Rules for all tables:
-- * Every key begins with an id that sorts by time (UUIDv7) or with a date. So each table can be
--   partitioned by time later, without another key.
-- * The tables with the most rows (messages, attempts, parts, outbox, recipients) have no
--   foreign keys: Postgres would check five of them row by row for each message. Their rows are
--   written in one statement with the rows that they refer to, or while those are locked.

CREATE TABLE accounts (
    -- `acc_…`, or the name that `worker.py bootstrap` was given. The configuration and all other
    -- tables name an account by it; it never changes.
    id                   text PRIMARY KEY,
    name                 text NOT NULL UNIQUE CHECK (char_length(name) BETWEEN 1 AND 64),
    -- The name in Unicode's normal form KC and case-folded, so that names that look alike are equal.
    folded_name          text UNIQUE,
    created_at           timestamptz NOT NULL DEFAULT now(),
    -- While it is set, the account's keys read and cancel, but accept nothing.
    suspended_at         timestamptz,
    -- Standard Webhooks secrets ("whsec_…") that sign the account's callbacks. Each environment has
    -- its own: with one for both, a key of the test environment could forge live callbacks.
    callback_secret      text NOT NULL,
    -- Two random UUIDs are 32 bytes, 244 bits of them random.
    test_callback_secret text NOT NULL DEFAULT 'whsec_' || encode(
        decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'),
        'base64')
);

CREATE TABLE api_keys (
    id           uuid PRIMARY KEY,
    -- NULL for the keys of operators, which concern the installation and belong to no account.
    account_id   text REFERENCES accounts (id),
    -- The key that created this one. A key is valid only as long as its parent is; NULL for keys of
    -- `worker.py bootstrap`, and for keys of an account that an operator created.
    parent_id    uuid REFERENCES api_keys (id),
    environment  text CHECK (environment IN ('live', 'test')),
    name         text NOT NULL,
    scopes       text[] NOT NULL,
    -- The key itself is stored nowhere.
    secret_hash  bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    CHECK ((account_id IS NULL) = (environment IS NULL))
);
CREATE INDEX api_keys_account ON api_keys (account_id, id);
CREATE INDEX api_keys_parent ON api_keys (parent_id) WHERE parent_id IS NOT NULL;
