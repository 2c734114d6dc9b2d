#!/usr/bin/env bash
# Healthy: the gateway answers over TLS, its users are there, and the disk behind it takes writes.
set -euo pipefail
[ -e /tmp/run/users-made ]
# Full, failing or absent: Ceph takes no writes any more.
CEPH_CONF=/tmp/ceph.conf timeout 8 ceph --connect-timeout 5 health | grep -q '^HEALTH_\(OK\|WARN\)'
curl --silent --fail --max-time 5 --output /dev/null --cacert /run/secrets/ca_certificate \
  --resolve store:9000:127.0.0.1 https://store:9000/
