"""Attacks by an intruder who controls a container: `python - < tests/compose/attacks.py`.

The program runs inside the container and prints the successful attacks as JSON.
`tests.compose.zones` compares them with the results that are allowed. The first argument is a JSON
object of addresses to which the program tries to connect. The second argument is the name of an
object in the stores that the program tries to read, write and delete.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

SECRETS = Path("/run/secrets")
TIMEOUT = 3  # seconds
NAME_OUTSIDE = "deb.debian.org"
ADDRESS_OUTSIDE = ("192.0.2.1", 443)  # not in use: RFC 5737
PLACES = ("/run/secrets", "/etc/parcelseal", "/tmp", "/var/lib/parcelseal-logs")  # noqa: S108
MOST_BYTES = 1 << 20  # largest part of a file that is searched


def readable_keys() -> list[str]:
    """Return the names of readable files in the container with a private key or an erasure key."""
    results = set()
    for services in PLACES:
        for path in Path(services).rglob("*"):
            try:
                content = path.read_bytes()[:MOST_BYTES] if path.is_file() else b""
            except OSError:
                continue
            if b"PRIVATE KEY-----" in content or path.name == "erasure_keys":
                results.add(path.name)
    return sorted(results)


def can_connect(host: str, port: int) -> bool:
    """Return whether a server answers at an address."""
    try:
        socket.create_connection((host, port), TIMEOUT).close()
    except OSError:
        return False
    return True


def ways_out() -> list[str]:
    """Return the ways in which the container can reach the internet.

    The possible ways are a default route, the resolution of a DNS name, and a route to an address.
    """
    results = []
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    if any(line.split()[1] == "00000000" for line in routes):
        results.append("default route")
    try:
        socket.getaddrinfo(NAME_OUTSIDE, 80)
        results.append("name")
    except OSError:
        pass
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect(ADDRESS_OUTSIDE)  # sends nothing
        results.append("route to an address")
    except OSError:
        pass
    finally:
        probe.close()
    return results


def container_services() -> Any:
    """Return ParcelSeal's services with the connections of this container."""
    from include.composition import services_from

    return services_from(os.environ)


def opened_backups(services: Any) -> list[str]:
    """Return the names of the keys in this container that can decrypt backups."""
    from include.encryption.recipients import opening_key_from_pem
    from include.services.errors import UsageError

    results = []
    try:
        services.drill_key()
        results.append("drill_key")
    except UsageError:
        pass
    for path in SECRETS.iterdir():
        try:
            opening_key_from_pem(path.read_bytes(), path.name)
            results.append(path.name)
        except (UsageError, OSError):
            pass
    return results


def signed_evidence(services: Any) -> list[str]:
    """Return the names of files in this container with a key whose signatures readers trust."""
    from include.evidence.signing import Signer, TrustedKeys

    trusted = TrustedKeys(services.trusted)
    results = []
    for path in SECRETS.iterdir():
        try:
            signature = Signer.from_pem(path.read_bytes()).sign(b"forged")
        except Exception:  # noqa: BLE001, S112 - it is no key
            continue
        if trusted.signer_of(signature, b"forged"):
            results.append(path.name)
    return results


def rights_on_store(services: Any, conn_id: str) -> list[str]:
    """Return the rights that a connection's login has on an object of the store.

    Possible rights are read, write, hide (delete without a version id) and delete (delete a
    version).
    """
    from botocore.exceptions import ClientError

    from include.services.objectstore.s3 import make_s3_client

    spec = services.lookup(conn_id)
    if spec is None:
        return []
    client = make_s3_client(
        spec.text("endpoint_url"),
        spec.text("region_name"),
        spec.login,
        spec.password,
        verify=spec.text("verify"),
    )
    bucket = spec.text("bucket")
    target = {"Bucket": bucket, "Key": f"attack/{sys.argv[2]}"}
    versions = client.list_object_versions(Bucket=bucket, Prefix=target["Key"])["Versions"]
    version = next(each["VersionId"] for each in versions if each["Key"] == target["Key"])
    attempts = {
        "read": lambda: client.get_object(**target),
        "write": lambda: client.put_object(Bucket=bucket, Key="attack/written", Body=b"x"),
        "hide": lambda: client.delete_object(**target),
        "delete": lambda: client.delete_object(**target, VersionId=version),
    }
    results = []
    for name, attempt in attempts.items():
        try:
            attempt()
            results.append(name)
        except ClientError:
            pass
    return results


def rights_on_customers(services: Any) -> list[str]:
    """Return the rights that this container's logins have on the sample customer database.

    The attempts do not change data.
    """
    import psycopg

    from include.services.errors import ServiceError, UsageError

    attempts = {
        "read": "SELECT count(*) FROM customer",
        "delete": "DELETE FROM customer WHERE false",
        "update": "UPDATE customer SET customer_id = customer_id WHERE false",
    }
    results = set()
    for conn_id in json.loads((SECRETS / "connections.json").read_text()):
        spec = services.lookup(conn_id)
        if spec is None or spec.host != "customers":
            continue
        for name, statement in attempts.items():
            try:
                with services.database(conn_id).connect() as connection:
                    connection.execute(statement)
                    connection.rollback()
                results.add(name)
            except (psycopg.Error, ServiceError, UsageError):
                pass
    return sorted(results)


def main() -> None:
    targets: dict[str, tuple[str, int]] = json.loads(sys.argv[1])
    results: dict[str, Any] = {
        "keys": readable_keys(),
        "reached": sorted(name for name, target in targets.items() if can_connect(*target)),
        "ways_out": ways_out(),
    }
    if (SECRETS / "connections.json").exists():
        services = container_services()
        results |= {
            "connections": sorted(json.loads((SECRETS / "connections.json").read_text())),
            "opened_backups": opened_backups(services),
            "signed_evidence": signed_evidence(services),
            "offsite_store": rights_on_store(services, "offsite_store"),
            "evidence_store": rights_on_store(services, "evidence_store"),
            "extract_store": rights_on_store(services, "extract_store"),
            "customers": rights_on_customers(services),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
