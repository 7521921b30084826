#!/bin/sh
# Pins every image of docker-compose.yml and the Dockerfile to the digest that its tag has now, so that a tag
# that is moved changes nothing here. Run it where Docker (with buildx) reaches the registry, look at
# the difference, and commit it. Run it again after a tag was changed.
#
#   sh deploy/pin-images.sh            writes the digests
#   sh deploy/pin-images.sh --check    changes nothing; fails unless each image has a digest
set -eu

cd "$(dirname "$0")/.."
files='docker-compose.yml Dockerfile'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# `image: NAME:TAG[@DIGEST]`, and `ARG PYTHON=TAG[@DIGEST]`; the image that is built here has none.
named() {
  sed -n 's/^ *image: \([a-z0-9./-]*:[A-Za-z0-9._-]*\(@sha256:[0-9a-f]*\)\{0,1\}\)$/\1/p' docker-compose.yml
  sed -n 's/^ARG PYTHON=\(.*\)$/python:\1/p' Dockerfile
}

if [ "${1:-}" = --check ]; then
  unpinned=$(named | grep -v '@sha256:[0-9a-f]\{64\}$' | sort -u || true)
  if [ -n "$unpinned" ]; then
    echo "These images have a tag and no digest; run: sh deploy/pin-images.sh" >&2
    echo "$unpinned" >&2
    exit 1
  fi
  exit 0
fi

# All digests first, so that nothing is written unless all of them are known.
for image in $(named | sed 's/@.*//' | sort -u); do
  digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image") || {
    echo "The digest of $image cannot be read: is Docker installed, and can it reach the registry?" >&2
    exit 1
  }
  if ! echo "$digest" | grep -q -x 'sha256:[0-9a-f]\{64\}'; then
    echo "Docker gave no digest of $image, but: $digest" >&2
    exit 1
  fi
  echo "$image $digest" >>"$work/digests"
done

for file in $files; do
  cp "$file" "$work/file"
  while read -r image digest; do
    escaped=$(echo "$image" | sed 's/[.]/[.]/g')
    tag=${escaped#python:}
    sed -e "s#^\( *image: $escaped\)\(@sha256:[0-9a-f]*\)\{0,1\}\$#\1@$digest#" \
      -e "s#^\(ARG PYTHON=$tag\)\(@sha256:[0-9a-f]*\)\{0,1\}\$#\1@$digest#" \
      "$work/file" >"$work/changed"
    mv "$work/changed" "$work/file"
  done <"$work/digests"
  cat "$work/file" >"$file" # in place, so that its mode stays
done
cat "$work/digests"
