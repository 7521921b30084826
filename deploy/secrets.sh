#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, as far as they are missing; changes none.
#
#   sh deploy/secrets.sh [FOLDER]      FOLDER is deploy/secrets, or what SECRETS in .env says
#
# Containers read them under numbers of users that this machine does not know, so each file may be
# read by everybody, and the folder around them by its owner alone.
set -eu

case ${1:-} in
-*)
  [ "$1" = "-h" ] || [ "$1" = "--help" ] || { echo "secrets.sh: unknown option $1" >&2; code=2; }
  echo "Usage: sh deploy/secrets.sh [FOLDER]"
  echo "Creates the secrets that docker-compose.yml mounts, as far as they are missing."
  exit "${code:-0}"
  ;;
esac

folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder/carriers" "$folder/signing"

random() { od -An -N "$1" -t x1 /dev/urandom | tr -d ' \n'; }

keep() {
  if [ ! -e "$folder/$1" ]; then
    printf '%s\n' "$2" >"$folder/$1.new"
    chmod 0444 "$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1"
    echo "made $folder/$1"
  fi
}

keep postgres_password "$(random 24)"
keep temporal_database_password "$(random 24)"
keep gateway_owner_database_password "$(random 24)"
keep gateway_owner_database_url \
  "postgresql://gateway_owner:$(cat "$folder/gateway_owner_database_password")@postgres:5432/gateway"
keep gateway_database_password "$(random 24)"
keep gateway_database_url \
  "postgresql://gateway:$(cat "$folder/gateway_database_password")@postgres:5432/gateway"
keep recipient_hash_key "$(random 32)"
keep grafana_admin_password "$(random 16)"

# Mounted as folders, so that they are opened by their own modes.
chmod 0700 "$folder"
chmod 0755 "$folder/carriers" "$folder/signing"
