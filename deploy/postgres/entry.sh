#!/usr/bin/env bash
# Makes a cluster on first start, then runs it: TLS and a password for everybody, in the network and
# at the socket. Words after the image's name are settings (`-c name=value`).
set -euo pipefail

secrets=/run/secrets
place=/var/lib/parcelseal-postgres
export PGDATA="$place/data"
PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)"

if [ ! -e "$place/made" ]; then
  echo "postgres: making the cluster" >&2
  rm -rf "$PGDATA"
  printf 'parcelseal:x:%s:%s::/tmp:/bin/false\n' "$(id -u)" "$(id -g)" >/tmp/passwd
  printf 'parcelseal:x:%s:\n' "$(id -g)" >/tmp/group
  LD_PRELOAD="$(ls /usr/lib/*/libnss_wrapper.so)" \
    NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/tmp/group \
    initdb --username=postgres --auth=scram-sha-256 --pwfile="$secrets/database_superuser" \
    --encoding=UTF8 --locale=C.UTF-8 --data-checksums >&2
  printf '%s\n' 'local all all scram-sha-256' 'hostssl all all all scram-sha-256' \
    >"$PGDATA/pg_hba.conf"
  touch "$place/made"
fi

# A version that is newer than the cluster has to be moved to by hand: docs/how-to/upgrade.md.
exec postgres \
  -c listen_addresses='*' \
  -c unix_socket_directories=/tmp \
  -c ssl=on \
  -c ssl_cert_file="$secrets/database_certificate" \
  -c ssl_key_file="$secrets/database_key" \
  -c password_encryption=scram-sha-256 \
  -c timezone=UTC \
  -c log_error_verbosity=terse \
  -c log_min_error_statement=panic \
  "$@"
