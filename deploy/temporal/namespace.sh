#!/bin/sh
# Sees to it that the namespace exists and keeps finished workflows for as long as is wanted.
#
# TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE say which one, RETENTION how long ("72h").
set -eu

if temporal operator namespace describe >/dev/null 2>&1; then
  exec temporal operator namespace update --retention "$RETENTION"
fi
exec temporal operator namespace create --retention "$RETENTION"
