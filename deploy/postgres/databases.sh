#!/bin/sh
# Temporal's databases and ours, each with roles of its own that reach no other database. Safe to run
# again: what is there stays, and passwords become those of the secret files, which is also how they
# are changed.
#
# Ours has two roles. gateway_owner owns the tables and runs migrations. gateway is what the processes
# use: it reads and writes rows, and cannot change, truncate or drop tables, nor what is only added to.
#
# PGHOST, PGUSER and PGDATABASE say where; the *_PASSWORD_FILE variables name the secrets.
set -eu

PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"
export PGPASSWORD

# psql reads the passwords itself, so that they stand in no command line.
exec psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<'SQL'
\set temporal_password `cat "$TEMPORAL_PASSWORD_FILE"`
\set owner_password `cat "$GATEWAY_OWNER_PASSWORD_FILE"`
\set gateway_password `cat "$GATEWAY_PASSWORD_FILE"`

SELECT format('CREATE ROLE %I LOGIN', role)
FROM unnest(ARRAY['temporal', 'gateway_owner', 'gateway']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role)
\gexec

ALTER ROLE temporal PASSWORD :'temporal_password';
ALTER ROLE gateway_owner PASSWORD :'owner_password';
ALTER ROLE gateway PASSWORD :'gateway_password';

SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
FROM (VALUES ('temporal', 'temporal'), ('temporal_visibility', 'temporal'),
             ('gateway', 'gateway_owner')) AS wanted (name, owner)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec

REVOKE ALL ON DATABASE postgres, temporal, temporal_visibility, gateway FROM PUBLIC;

\connect gateway
BEGIN;
-- Earlier versions had one role for everything.
REASSIGN OWNED BY gateway TO gateway_owner;
ALTER SCHEMA public OWNER TO gateway_owner;
REVOKE ALL ON DATABASE gateway FROM gateway;
REVOKE CREATE ON SCHEMA public FROM PUBLIC, gateway;
GRANT CONNECT ON DATABASE gateway TO gateway;
GRANT USAGE ON SCHEMA public TO gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO gateway;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO gateway;
ALTER DEFAULT PRIVILEGES FOR ROLE gateway_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO gateway;
ALTER DEFAULT PRIVILEGES FOR ROLE gateway_owner IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO gateway;

-- What is only added to, once a migration has made it. Old rows of the last partitions are deleted.
SELECT format('REVOKE UPDATE%s, TRUNCATE ON %s FROM gateway',
              CASE WHEN tgtype & 8 = 8 THEN ', DELETE' ELSE '' END, tgrelid::regclass)
FROM pg_trigger WHERE tgname = 'append_only'
\gexec
SELECT 'REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM gateway'
WHERE to_regclass('alembic_version') IS NOT NULL
\gexec
COMMIT;
SQL
