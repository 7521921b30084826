#!/bin/sh
# Writes the server's configuration from the variables that the real image reads, and starts it.
set -eu

store() {
  cat <<YAML
      sql:
        pluginName: $DB
        databaseName: $1
        connectAddr: "$POSTGRES_SEEDS:$DB_PORT"
        connectProtocol: tcp
        user: $POSTGRES_USER
        password: "$POSTGRES_PWD"
        maxConns: $2
        maxIdleConns: $2
YAML
}

address=$(hostname -i | cut -d ' ' -f 1)
mkdir -p /tmp/temporal/config
cat >/tmp/temporal/config/docker.yaml <<YAML
log: {stdout: true, level: $LOG_LEVEL}
persistence:
  numHistoryShards: $NUM_HISTORY_SHARDS
  defaultStore: default
  visibilityStore: visibility
  datastores:
    default:
$(store "$DBNAME" 20)
    visibility:
$(store "$VISIBILITY_DBNAME" 10)
global:
  membership: {maxJoinDuration: 30s, broadcastAddress: $address}
  metrics: {prometheus: {timerType: histogram, listenAddress: "$PROMETHEUS_ENDPOINT"}}
services:
  frontend: {rpc: {grpcPort: 7233, membershipPort: 6933, httpPort: 7243, bindOnIP: $BIND_ON_IP}}
  matching: {rpc: {grpcPort: 7235, membershipPort: 6935, bindOnIP: $BIND_ON_IP}}
  history: {rpc: {grpcPort: 7234, membershipPort: 6934, bindOnIP: $BIND_ON_IP}}
  worker: {rpc: {membershipPort: 6939, bindOnIP: $BIND_ON_IP}}
clusterMetadata:
  enableGlobalNamespace: false
  failoverVersionIncrement: 10
  masterClusterName: active
  currentClusterName: active
  clusterInformation:
    active:
      enabled: true
      initialFailoverVersion: 1
      rpcName: frontend
      rpcAddress: 127.0.0.1:7233
dcRedirectionPolicy: {policy: noop}
dynamicConfigClient: {filepath: $DYNAMIC_CONFIG_FILE_PATH, pollInterval: 60s}
YAML
exec temporal-server --root /tmp/temporal --config config --env docker --allow-no-auth start
