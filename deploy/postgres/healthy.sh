#!/usr/bin/env bash
# Healthy: the server takes connections.
set -euo pipefail
PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)"
pg_isready --quiet --host=/tmp --username=postgres --dbname=postgres --timeout=5
