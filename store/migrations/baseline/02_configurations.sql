-- Versions of the configuration. The newest one is in force, the older ones explain older messages.

CREATE TABLE configurations (
    version    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    content    text NOT NULL,
    digest     bytea NOT NULL,
    source     text NOT NULL,
    applied_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
