#!/usr/bin/env bash
# Runs Redis as Celery's broker: TLS and a password, and every message on disk within a second.
set -euo pipefail

secrets=/run/secrets
mkdir -p /var/lib/parcelseal-redis/data
umask 077
cat >/tmp/redis.conf <<END
bind * -::*
port 0
tls-port 6379
tls-cert-file $secrets/redis_certificate
tls-key-file $secrets/redis_key
tls-ca-cert-file $secrets/ca_certificate
tls-auth-clients no
requirepass $(cat "$secrets/redis_password")
dir /var/lib/parcelseal-redis/data
appendonly yes
appendfsync everysec
# a queue that is full is an error to be seen, never messages that are dropped
maxmemory 256mb
maxmemory-policy noeviction
END
exec redis-server /tmp/redis.conf
