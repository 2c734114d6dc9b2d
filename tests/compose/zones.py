"""Attacks from inside the containers of each trust zone, and the results that are allowed."""

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
OWNERS = {
    "offsite_store": "worker-retention",
    "evidence_store": "worker-sealing",
    "extract_store": "worker",
}
READ, WRITE, ALL = ["read"], ["read", "write"], ["read", "write", "hide", "delete"]
# All other zones may only read.
OFFSITE = {Queue.BACKUP: WRITE, Queue.RETENTION: ALL, Queue.SEALING: []}
EVIDENCE = {Queue.DEFAULT: ALL, Queue.SEALING: ALL}  # all other zones may only read
EXTRACTS = {Queue.DEFAULT: ALL}  # no other zone has a login
# Remove all objects of earlier attacks, and write objects without a lock.
TARGET = """
import os, sys
from include.composition import services_from
from include.services.objectstore.s3 import make_s3_client
spec = services_from(os.environ).connection(sys.argv[1])
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
    """Require that attacks from inside a trust zone reach only its own keys and servers."""
    targets = addresses(stack)
    failures = []
    with objects_to_attack(stack):
        for zone in ZONES.values():
            achieved, allowed = attack(stack, zone.service, targets), expected(zone)
            say(f"{zone.service}: {json.dumps({name: achieved[name] for name in allowed})}")
            failures += [
                f"{zone.service}, {name}: {achieved[name]} instead of {allowed[name]}"
                for name in allowed
                if achieved[name] != allowed[name]
            ]
    achieved = attack(stack, layout.MAIL, targets)
    say(f"mail: {json.dumps(achieved)}")
    allowed = {"keys": ["mail_certificate"], "reached": [], "ways_out": []}  # its own certificate
    failures += [
        f"mail, {name}: {achieved[name]} instead of {allowed[name]}"
        for name in allowed
        if achieved[name] != allowed[name]
    ]
    if failures:
        raise NotShown("\n".join(failures))


def expected(zone: Zone) -> dict[str, Any]:
    """Return the allowed results of attacks from inside a trust zone."""
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
        "extract_store": EXTRACTS.get(zone.queue, []),
        "customers": customers.get(zone.queue, reads),
    }


def attack(stack: Stack, service: str, targets: dict[str, tuple[str, int]]) -> dict[str, Any]:
    """Run the attacks inside a service's container, and return their results.

    The results name reached servers by service instead of by address.
    """
    answer = _python(stack, service, ATTACKS.read_text(), json.dumps(targets), service)
    achieved: dict[str, Any] = json.loads(answer)
    reached = {name.partition(" ")[0] for name in achieved["reached"]}
    achieved["reached"] = sorted(reached - {service})
    achieved["opened_backups"] = sorted(achieved.get("opened_backups", []))
    return achieved


def addresses(stack: Stack) -> dict[str, tuple[str, int]]:
    """Return the host and port of each server, by name and by IP address in each network."""
    achieved: dict[str, tuple[str, int]] = {}
    for service, port in PORTS.items():
        achieved[f"{service} by name"] = (service, port)
        for container in stack.containers(service):
            networks = json.loads(
                stack.docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", container)
            )
            for name, network in networks.items():
                achieved[f"{service} in {name}"] = (network["IPAddress"], port)
    return achieved


@contextmanager
def objects_to_attack(stack: Stack) -> Iterator[None]:
    """Create an object for each trust zone in all stores, without a retention lock.

    Without a lock, only the rights of a login decide whether an attack succeeds.
    """
    for conn_id, owner in OWNERS.items():
        _python(stack, owner, TARGET, conn_id, *(zone.service for zone in ZONES.values()))
    try:
        yield
    finally:
        for conn_id, owner in OWNERS.items():
            _python(stack, owner, TARGET, conn_id)


def _python(stack: Stack, service: str, program: str, *words: str) -> str:
    completed = subprocess.run(
        ["docker", "compose", "exec", "-T", service, "python", "-", *words],
        cwd=stack.folder,
        input=program,
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode:
        raise NotShown(f"{service}: {completed.stderr}")
    return completed.stdout
