"""Attacks of somebody who controls a container of the stack: `python - < tests/compose/attacks.py`.

It runs inside the container and prints what succeeded as JSON; `tests.compose.zones` judges it. The
first argument is JSON: addresses to connect to. The second is the name of an object to attack.
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
ADDRESS_OUTSIDE = ("192.0.2.1", 443)  # of nobody: RFC 5737
PLACES = ("/run/secrets", "/etc/parcelseal", "/tmp", "/var/lib/parcelseal-logs")  # noqa: S108
MOST_BYTES = 1 << 20  # of a file that is searched


def readable_keys() -> list[str]:
    """Return the names of files with a private key or an erasure key, wherever they are."""
    found = set()
    for place in PLACES:
        for path in Path(place).rglob("*"):
            try:
                content = path.read_bytes()[:MOST_BYTES] if path.is_file() else b""
            except OSError:
                continue
            if b"PRIVATE KEY-----" in content or path.name == "erasure_keys":
                found.add(path.name)
    return sorted(found)


def can_connect(host: str, port: int) -> bool:
    """Return whether something answers there."""
    try:
        socket.create_connection((host, port), TIMEOUT).close()
    except OSError:
        return False
    return True


def ways_out() -> list[str]:
    """Return what leads outside: a default route, a name that resolves, a route to an address."""
    found = []
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    if any(line.split()[1] == "00000000" for line in routes):
        found.append("default route")
    try:
        socket.getaddrinfo(NAME_OUTSIDE, 80)
        found.append("name")
    except OSError:
        pass
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect(ADDRESS_OUTSIDE)  # sends nothing
        found.append("route to an address")
    except OSError:
        pass
    finally:
        probe.close()
    return found


def services() -> Any:
    """Return the services of this container's connections."""
    from include.composition import workplace_of

    return workplace_of(os.environ)


def opened_backups(place: Any) -> list[str]:
    """Return how a backup in the store was decrypted, with any file of this container."""
    from include.encryption.recipients import opening_key_from_pem
    from include.services.errors import UsageError

    found = []
    try:
        place.drill_key()
        found.append("drill_key")
    except UsageError:
        pass
    for path in SECRETS.iterdir():
        try:
            opening_key_from_pem(path.read_bytes(), path.name)
            found.append(path.name)
        except (UsageError, OSError):
            pass
    return found


def signed_evidence(place: Any) -> list[str]:
    """Return with which files a signature was made that readers of evidence trust."""
    from include.evidence.signing import Signer, TrustedKeys

    trusted = TrustedKeys(place.trusted)
    found = []
    for path in SECRETS.iterdir():
        try:
            signature = Signer.from_pem(path.read_bytes()).sign(b"forged")
        except Exception:  # noqa: BLE001, S112 - it is no key
            continue
        if trusted.who_signed(signature, b"forged"):
            found.append(path.name)
    return found


def rights_on_store(place: Any, conn_id: str) -> list[str]:
    """Return what the login of a store may do: read, write, hide, delete."""
    from botocore.exceptions import ClientError

    from include.services.objectstore.s3 import make_s3_client

    spec = place.lookup(conn_id)
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
    found = []
    for name, attempt in attempts.items():
        try:
            attempt()
            found.append(name)
        except ClientError:
            pass
    return found


def rights_on_customers(place: Any) -> list[str]:
    """Return what logins to the sample customer database may do; changes nothing."""
    import psycopg

    from include.services.errors import ServiceError, UsageError

    attempts = {
        "read": "SELECT count(*) FROM customer",
        "delete": "DELETE FROM customer WHERE false",
        "update": "UPDATE customer SET customer_id = customer_id WHERE false",
    }
    found = set()
    for conn_id in json.loads((SECRETS / "connections.json").read_text()):
        spec = place.lookup(conn_id)
        if spec is None or spec.host != "customers":
            continue
        for name, statement in attempts.items():
            try:
                with place.database(conn_id).connect() as connection:
                    connection.execute(statement)
                    connection.rollback()
                found.add(name)
            except (psycopg.Error, ServiceError, UsageError):
                pass
    return sorted(found)


def main() -> None:
    targets: dict[str, tuple[str, int]] = json.loads(sys.argv[1])
    found: dict[str, Any] = {
        "keys": readable_keys(),
        "reached": sorted(name for name, target in targets.items() if can_connect(*target)),
        "ways_out": ways_out(),
    }
    if (SECRETS / "connections.json").exists():
        place = services()
        found |= {
            "connections": sorted(json.loads((SECRETS / "connections.json").read_text())),
            "opened_backups": opened_backups(place),
            "signed_evidence": signed_evidence(place),
            "offsite_store": rights_on_store(place, "offsite_store"),
            "evidence_store": rights_on_store(place, "evidence_store"),
            "customers": rights_on_customers(place),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
