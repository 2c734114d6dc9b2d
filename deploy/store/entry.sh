#!/usr/bin/env bash
# Makes a Ceph of one monitor, manager and disk on first start, then runs it with its S3 gateway.
# Only the gateway listens outside. When one process ends, all end, and Docker starts them again.
set -euo pipefail

data=/var/lib/store
secrets=/run/secrets
gigabytes="${STORE_GIGABYTES:-20}"
export CEPH_CONF=/tmp/ceph.conf
cd / # Debian names the folder of object classes relative to it

say() { echo "store: $*" >&2; }

umask 077
mkdir -p "$data"/{mon,mgr,osd,keys} /tmp/run
[ -e "$data/fsid" ] || cat /proc/sys/kernel/random/uuid >"$data/fsid"

cat >"$CEPH_CONF" <<END
[global]
fsid = $(cat "$data/fsid")
mon host = [v2:127.0.0.1:3300,v1:127.0.0.1:6789]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = $data/keys/admin.keyring
run dir = /tmp/run
admin socket = /tmp/run/\$name.asok
crash dir = /tmp/run
log to stderr = false
err to stderr = true
log to file = false
mon cluster log to stderr = false
mon cluster log to file = false
# one disk: what is lost with it has to be found at another site
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
osd pool default pg num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail warn = 5
mon data avail crit = 2
auth allow insecure global id reclaim = false
osd memory target = 939524096
osd scrub auto repair = false
[mon]
mon data = $data/mon/\$id
[mgr]
mgr data = $data/mgr/\$id
# none is needed, and those that use Python's cryptography fail in Debian 13
mgr module path = /tmp/run
keyring = $data/mgr/\$id/keyring
[osd]
osd data = $data/osd/\$id
keyring = $data/osd/\$id/keyring
bluestore block size = $((gigabytes << 30))
bdev enable discard = false
# it would write to a full disk, and end there
osd mclock skip benchmark = true
# how full it is, it looks when it asks its peers; it has none
osd heartbeat interval = 1
[client.gateway]
keyring = $data/keys/gateway.keyring
rgw frontends = beast ssl_port=9000 ssl_certificate=$secrets/store_certificate
rgw enable usage log = false
rgw enable apis = s3, admin
rgw thread pool size = 64
END

pids=()
stop() {
  trap - TERM INT
  # the gateway first, the monitor last, each waits for what it has in hand
  for ((at = ${#pids[@]} - 1; at >= 0; at--)); do
    kill "${pids[at]}" 2>/dev/null || :
    wait "${pids[at]}" 2>/dev/null || :
  done
}
trap 'stop; exit 0' TERM INT

until_it_answers() {
  for _ in $(seq 60); do
    timeout 10 "$@" >/dev/null 2>&1 && return
    sleep 1
  done
  say "no answer after a minute: $*"
  exit 1
}

if [ ! -e "$data/mon/made" ]; then
  say "making the monitor"
  rm -rf "$data"/mon/a "$data"/keys/*
  ceph-authtool --create-keyring "$data/keys/mon.keyring" --gen-key -n mon. --cap mon 'allow *'
  ceph-authtool --create-keyring "$data/keys/admin.keyring" --gen-key -n client.admin \
    --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  ceph-authtool "$data/keys/mon.keyring" --import-keyring "$data/keys/admin.keyring"
  monmaptool --create --clobber --fsid "$(cat "$data/fsid")" \
    --addv a '[v2:127.0.0.1:3300,v1:127.0.0.1:6789]' /tmp/monmap
  ceph-mon --mkfs -i a --monmap /tmp/monmap --keyring "$data/keys/mon.keyring"
  touch "$data/mon/made"
fi
ceph-mon -i a -f &
pids+=($!)
until_it_answers ceph --connect-timeout 5 -s
ceph config set mon auth_allow_insecure_global_id_reclaim false
ceph health mute MGR_MODULE_ERROR --sticky
# Early: how full it is becomes known every few seconds, and a disk without any room left does not
# start again. What is between is written meanwhile.
ceph osd set-nearfull-ratio 0.75
ceph osd set-backfillfull-ratio 0.8
ceph osd set-full-ratio 0.85

mkdir -p "$data/mgr/a"
[ -s "$data/mgr/a/keyring" ] ||
  ceph auth get-or-create mgr.a mon 'allow profile mgr' osd 'allow *' -o "$data/mgr/a/keyring"
ceph-mgr -i a -f &
pids+=($!)

if [ ! -e "$data/osd/made" ]; then
  say "making the disk of $gigabytes GiB; it takes room as it fills"
  rm -rf "$data/osd/0"
  mkdir -p "$data/osd/0"
  [ -e "$data/osd/uuid" ] || cat /proc/sys/kernel/random/uuid >"$data/osd/uuid"
  [ "$(ceph osd new "$(cat "$data/osd/uuid")")" = 0 ]
  ceph auth get-or-create osd.0 osd 'allow *' mon 'allow profile osd' mgr 'allow profile osd' \
    -o "$data/osd/0/keyring"
  ceph-osd -i 0 --mkfs --osd-uuid "$(cat "$data/osd/uuid")"
  touch "$data/osd/made"
fi
ceph-osd -i 0 -f &
pids+=($!)

[ -s "$data/keys/gateway.keyring" ] ||
  ceph auth get-or-create client.gateway mon 'allow rw' osd 'allow rwx' mgr 'allow r' \
    -o "$data/keys/gateway.keyring"
until_it_answers ceph osd pool ls
radosgw -n client.gateway -f &
pids+=($!)

# A user for each key pair that `compose init` made: NAME_access and NAME_secret.
for file in "$secrets"/store_*_access; do
  name="${file##*/store_}"
  name="${name%_access}"
  until_it_answers radosgw-admin user list
  radosgw-admin user info --uid="$name" >/dev/null 2>&1 ||
    radosgw-admin user create --uid="$name" --display-name="ParcelSeal $name" --max-buckets=4 \
      --access-key="$(cat "$file")" --secret-key="$(cat "${file%_access}_secret")" >/dev/null
done
touch /tmp/run/users-made
say "ready"

code=0
wait -n "${pids[@]}" || code=$?
say "a process of Ceph ended (exit code $code)"
stop
exit 1
