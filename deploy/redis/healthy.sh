#!/usr/bin/env bash
# Healthy: Redis answers over TLS to its password, and is not still loading.
set -euo pipefail
REDISCLI_AUTH="$(cat /run/secrets/redis_password)" timeout 5 \
  redis-cli --tls --cacert /run/secrets/ca_certificate -h redis --sni redis ping | grep -qx PONG
