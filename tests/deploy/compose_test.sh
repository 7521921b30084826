#!/usr/bin/env bash
# Follows docs/deployment.md on a real Docker Engine (`make compose-test`): builds the image, brings
# docker-compose.yml up, sends messages over the simulator, restores a backup, and removes everything.
#
# It needs a Debian machine, root, and no Docker daemon that runs already: it starts its own, with all
# data in a folder below /tmp. No registry of images is needed: the images of others have stand-ins
# (stand_ins/Dockerfile). What is built for that stays in the cache of `make setup`. It takes some
# 12 minutes, and 20 more the first time.
set -euo pipefail
cd "$(dirname "$0")/../.."

compose_version=v2.40.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/smsgateway
export PATH=$PATH:/usr/sbin:/usr/local/go/bin DEBIAN_FRONTEND=noninteractive

fail() { echo "compose-test: $*" >&2; exit 1; }
say() { printf '\n=== %s (%d s)\n' "$*" "$SECONDS"; }

# --- what it needs -----------------------------------------------------------------------------------

[ "$(id -u)" = 0 ] || fail "run it as root, since it starts a Docker daemon of its own."
command -v apt-get >/dev/null || fail "it needs Debian, whose packages it installs and builds on."
command -v go >/dev/null || fail "Go is not installed, by which Docker Compose is built (https://go.dev/dl)."

declare -A packages=(
  [dockerd]=docker.io [iptables]=iptables [ip]=iproute2 [debootstrap]=debootstrap
  [prometheus]=prometheus [curl]=curl
)
missing=()
for program in "${!packages[@]}"; do
  command -v "$program" >/dev/null || missing+=("${packages[$program]}")
done
if ((${#missing[@]})); then
  say "installing ${missing[*]}"
  apt-get update -q
  apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

if [ -e /sys/class/net/docker0 ]; then
  fail "a Docker daemon runs here; stop it, since the stand-ins would replace images of the same names."
fi

# --- and how it leaves the machine -------------------------------------------------------------------

work=$(mktemp -d /tmp/compose-test.XXXXXX)
export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/docker
daemon=

clean_up() {
  if [ -n "$daemon" ]; then
    docker ps --all --quiet | xargs -r docker rm --force --volumes >/dev/null
    docker network prune --force >/dev/null
    kill "$daemon" && wait "$daemon" || true
    ip link delete docker0
    iptables-restore <"$work/iptables"
    sysctl -q -w "net.ipv4.ip_forward=$forwarding"
    awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts | xargs -r umount
  fi
  rm -rf "$work"
}
trap clean_up EXIT

# --- programs ----------------------------------------------------------------------------------------

say "Docker Compose $compose_version"
compose=$cache/compose-$compose_version/docker-compose
if [ ! -x "$compose" ]; then
  mkdir -p "$(dirname "$compose")"
  # `go install` refuses a module that excludes others.
  sources=$(go mod download -json "github.com/docker/compose/v2@$compose_version" |
    sed -n 's/^.*"Dir": "\(.*\)",$/\1/p')
  cp -R --no-preserve=mode "$sources" "$work/compose"
  (cd "$work/compose" && go build -o "$compose.new" ./cmd)
  mv "$compose.new" "$compose"
fi
mkdir -p "$DOCKER_CONFIG/cli-plugins"
ln -s "$compose" "$DOCKER_CONFIG/cli-plugins/docker-compose"

say "programs of the stand-ins"
debian=$cache/debian-bookworm.tar
if [ ! -e "$debian" ]; then
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,wget bookworm "$work/debian"
  rm -rf "$work/debian/var/cache/apt" "$work/debian/var/lib/apt/lists"
  tar -C "$work/debian" -cf "$debian.new" .
  mv "$debian.new" "$debian"
fi
mkdir "$work/images"
cp tests/deploy/stand_ins/* "$work/images"
# Packages are fetched in a container as on this machine.
cp /etc/ssl/certs/ca-certificates.crt "$work/images"
.venv/bin/python -m tests.deploy.stand_ins.collect "$work/images"

# --- the daemon and the images -----------------------------------------------------------------------

say "Docker"
iptables -t filter -L -n >/dev/null # makes the tables, so that they are saved even if they are empty
iptables -t nat -L -n >/dev/null
iptables-save >"$work/iptables"
forwarding=$(sysctl -n net.ipv4.ip_forward)
dockerd --data-root "$work/data" --exec-root "$work/run" --pidfile "$work/docker.pid" \
  --host "$DOCKER_HOST" >"$work/docker.log" 2>&1 &
daemon=$!
for _ in $(seq 120); do
  docker info >/dev/null 2>&1 && break
  kill -0 "$daemon" 2>/dev/null || { tail -n 5 "$work/docker.log"; fail "dockerd does not start."; }
  sleep 1
done

say "stand-ins"
docker import "$debian" debian:stand-in
stand_in() { # of a target in stand_ins/Dockerfile, for the image that FILE names
  local image
  image=$(sed -n "s#^$3\(@.*\)\{0,1\}\$#\1#p" "$2" | sort -u)
  docker build -q --target "$1" --tag "${4:-}$image" "$work/images"
}
stand_in python Dockerfile 'ARG PYTHON=\([^@]*\)' python:
stand_in postgres docker-compose.yml ' *image: \(postgres:[^@]*\)'
stand_in temporal-server docker-compose.yml ' *image: \(temporalio/server:[^@]*\)'
stand_in temporal-admin-tools docker-compose.yml ' *image: \(temporalio/admin-tools:[^@]*\)'
stand_in prometheus docker-compose.yml ' *image: \(prom/prometheus:[^@]*\)'

# --- the page ----------------------------------------------------------------------------------------

say "docs/deployment.md"
# In a copy of what is committed or about to be, so that no .env and no secret of this checkout counts.
mkdir "$work/checkout"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work/checkout"
if ! COMPOSE_TEST_CHECKOUT=$work/checkout .venv/bin/python -m pytest -n 0 -x -v --color=no \
  tests/deploy/walk_deployment.py; then
  (cd "$work/checkout" && docker compose --profile simulator logs --no-color --tail 20)
  exit 1
fi
say "done"
