#!/usr/bin/env bash
# How many tasks wait for a worker, by queue: docs/how-to/operate.md, Alarms. Arguments: further queues.
set -euo pipefail
for queue in default backup drill retention sealing "$@"; do
  REDISCLI_AUTH="$(cat /run/secrets/redis_password)" timeout 5 \
    redis-cli --tls --cacert /run/secrets/ca_certificate -h redis --sni redis llen "$queue" |
    sed "s/^/$queue /"
done
