"""Attacks on each zone of workers, from inside its containers: what an intruder there cannot do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from include.deployment import layout
from include.deployment.zones import ZONES, Zone
from include.workflow.declaration import Queue
from tests.compose.stack import NotShown, Stack, say

ATTACKS = Path(__file__).with_name("attacks.py")
PORTS = {
    layout.POSTGRES: 5432,
    layout.SCRATCH: 5432,
    layout.CUSTOMERS: 5432,
    layout.STORE: layout.STORE_PORT,
    layout.REDIS: layout.REDIS_PORT,
    layout.MAIL: layout.MAIL_PORT,
    "api-server": 8080,
}
ALWAYS = {"api-server", layout.REDIS, layout.POSTGRES, layout.STORE}
OWNERS = {"offsite_store": "worker-retention", "evidence_store": "worker-sealing"}
READ, WRITE, ALL = ["read"], ["read", "write"], ["read", "write", "hide", "delete"]
OFFSITE = {Queue.BACKUP: WRITE, Queue.RETENTION: ALL, Queue.SEALING: []}  # others read
EVIDENCE = {Queue.DEFAULT: ALL, Queue.SEALING: ALL}  # others read
# Removes all that attacks left, and writes objects that nothing locks.
TARGET = """
import os, sys
from include.composition import workplace_of
from include.services.objectstore.s3 import make_s3_client
spec = workplace_of(os.environ).connection(sys.argv[1])
client = make_s3_client(spec.text("endpoint_url"), spec.text("region_name"), spec.login,
    spec.password, verify=spec.text("verify"))
bucket = spec.text("bucket")
listed = client.list_object_versions(Bucket=bucket, Prefix="attack/")
for version in listed.get("Versions", []) + listed.get("DeleteMarkers", []):
    client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
for name in sys.argv[2:]:
    client.put_object(Bucket=bucket, Key="attack/" + name, Body=b"x")
"""


def zones(stack: Stack) -> None:
    """An attack from inside each zone: keys, servers, backups, evidence, deletions, ways out."""
    targets = addresses(stack)
    failures = []
    with objects_to_attack(stack):
        for zone in ZONES.values():
            found, wanted = attack(stack, zone.service, targets), expected(zone)
            say(f"{zone.service}: {json.dumps({name: found[name] for name in wanted})}")
            failures += [
                f"{zone.service}, {name}: {found[name]} instead of {wanted[name]}"
                for name in wanted
                if found[name] != wanted[name]
            ]
    found = attack(stack, layout.MAIL, targets)
    say(f"mail: {json.dumps(found)}")
    wanted = {"keys": ["mail_certificate"], "reached": [], "ways_out": []}  # its own certificate
    failures += [
        f"mail, {name}: {found[name]} instead of {wanted[name]}"
        for name in wanted
        if found[name] != wanted[name]
    ]
    if failures:
        raise NotShown("\n".join(failures))


def expected(zone: Zone) -> dict[str, Any]:
    """Return what an attack from inside a zone achieves, and nothing more."""
    customers = {Queue.RETENTION: ["delete", "read"], Queue.DRILL: []}
    reads = ["read"] if zone.reaches_databases or zone.queue is Queue.SEALING else []
    return {
        "keys": sorted(zone.keys),
        "reached": sorted(ALWAYS | zone.servers),
        "ways_out": [],
        "opened_backups": ["drill.key", "drill_key"] if zone.queue is Queue.DRILL else [],
        "signed_evidence": ["evidence.key"] if zone.queue is Queue.SEALING else [],
        "offsite_store": OFFSITE.get(zone.queue, READ),
        "evidence_store": EVIDENCE.get(zone.queue, READ),
        "customers": customers.get(zone.queue, reads),
    }


def attack(stack: Stack, service: str, targets: dict[str, tuple[str, int]]) -> dict[str, Any]:
    """Attack from inside a service; names of services in place of their addresses."""
    answer = _python(stack, service, ATTACKS.read_text(), json.dumps(targets), service)
    found: dict[str, Any] = json.loads(answer)
    reached = {name.partition(" ")[0] for name in found["reached"]}
    found["reached"] = sorted(reached - {service})
    found["opened_backups"] = sorted(found.get("opened_backups", []))
    return found


def addresses(stack: Stack) -> dict[str, tuple[str, int]]:
    """Return where servers listen: by name, and by address in each network."""
    found: dict[str, tuple[str, int]] = {}
    for service, port in PORTS.items():
        found[f"{service} by name"] = (service, port)
        for container in stack.containers(service):
            networks = json.loads(
                stack.docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", container)
            )
            for name, network in networks.items():
                found[f"{service} in {name}"] = (network["IPAddress"], port)
    return found


@contextmanager
def objects_to_attack(stack: Stack) -> Iterator[None]:
    """An object for each zone in both buckets, without a lock: the login alone decides."""
    for conn_id, owner in OWNERS.items():
        _python(stack, owner, TARGET, conn_id, *(zone.service for zone in ZONES.values()))
    try:
        yield
    finally:
        for conn_id, owner in OWNERS.items():
            _python(stack, owner, TARGET, conn_id)


def _python(stack: Stack, service: str, program: str, *words: str) -> str:
    done = subprocess.run(
        ["docker", "compose", "exec", "-T", service, "python", "-", *words],
        cwd=stack.folder,
        input=program,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotShown(f"{service}: {done.stderr}")
    return done.stdout
