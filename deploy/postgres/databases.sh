#!/bin/sh
# Temporal's databases and ours, each with a role of its own that reaches no other database. Safe to
# run again: what is there stays, and passwords become those of the secret files, which is also how
# they are changed.
#
# PGHOST, PGUSER and PGDATABASE say where; the *_PASSWORD_FILE variables name the secrets.
set -eu

PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"
export PGPASSWORD

# psql reads the passwords itself, so that they stand in no command line.
exec psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<'SQL'
\set temporal_password `cat "$TEMPORAL_PASSWORD_FILE"`
\set gateway_password `cat "$GATEWAY_PASSWORD_FILE"`

SELECT format('CREATE ROLE %I LOGIN', role)
FROM unnest(ARRAY['temporal', 'gateway']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role)
\gexec

ALTER ROLE temporal PASSWORD :'temporal_password';
ALTER ROLE gateway PASSWORD :'gateway_password';

SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
FROM (VALUES ('temporal', 'temporal'), ('temporal_visibility', 'temporal'), ('gateway', 'gateway'))
    AS wanted (name, owner)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec

REVOKE ALL ON DATABASE postgres, temporal, temporal_visibility, gateway FROM PUBLIC;
SQL
