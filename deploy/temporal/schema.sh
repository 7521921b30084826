#!/bin/sh
# Brings Temporal's two schemas forward to the version of this image; safe to run again.
#
# The tool reads SQL_PLUGIN, SQL_HOST, SQL_PORT and SQL_USER; SQL_PASSWORD_FILE names the secret. The
# schemas are those inside the tool, so they always fit the server of the same version.
set -eu

SQL_PASSWORD="$(cat "$SQL_PASSWORD_FILE")"
export SQL_PASSWORD

bring_forward() {
  # 0.0 makes the tables of versions, if there are none, and leaves later versions alone.
  temporal-sql-tool --database "$1" setup-schema --version 0.0
  temporal-sql-tool --database "$1" update-schema --schema-name "postgresql/v12/$2"
}

bring_forward temporal temporal
bring_forward temporal_visibility visibility
