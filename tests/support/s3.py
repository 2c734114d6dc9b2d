"""A real S3 server for tests: moto in a process of its own, spoken to over HTTP."""

from __future__ import annotations

import functools
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.services.objectstore.s3 import make_s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret-never-in-messages"
REGION = "us-east-1"
_START_SECONDS = 60


@dataclass
class MotoServer:
    """A running server.

    Attributes:
        endpoint: its URL.
        process: its process, ended by ``stop``.
    """

    endpoint: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        self.process.kill()  # it keeps nothing, and takes its time over a polite request
        self.process.wait(10)


def start_moto() -> MotoServer:
    """Start moto on a free port and wait until it answers."""
    for _ in range(3):
        port = _free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        server = MotoServer(f"http://127.0.0.1:{port}", process)
        if _wait_until_up(server):
            return server
        server.stop()
    raise RuntimeError("moto did not start")


@functools.cache
def client_for(endpoint: str, **settings: Any) -> S3Client:
    """Return our client for a test server; quick to give up unless told otherwise."""
    defaults = {"connect_timeout": 5, "read_timeout": 20, "max_attempts": 4}
    return make_s3_client(endpoint, REGION, ACCESS_KEY, SECRET_KEY, **(defaults | settings))


def new_bucket(client: S3Client, *, lock: bool = True, default_lock_days: int = 0) -> str:
    """Create a bucket of its own for a test; with Object Lock it has versions too."""
    bucket = f"test-{secrets.token_hex(6)}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=lock)
    if default_lock_days:
        client.put_object_lock_configuration(
            Bucket=bucket,
            ObjectLockConfiguration={
                "ObjectLockEnabled": "Enabled",
                "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": default_lock_days}},
            },
        )
    return bucket


def hide_object(client: S3Client, bucket: str, key: str, how: str) -> None:
    """Hide an object behind a delete marker (``delete``) or a newer version (``overwrite``)."""
    if how == "delete":
        client.delete_object(Bucket=bucket, Key=key)
    else:
        client.put_object(Bucket=bucket, Key=key, Body=b"x" * 64)


def unfinished_uploads(client: S3Client, bucket: str) -> int:
    """Count the multipart uploads nobody completed or aborted."""
    return len(client.list_multipart_uploads(Bucket=bucket).get("Uploads", []))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_up(server: MotoServer) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.endpoint}/moto-api/", timeout=5):  # noqa: S310 - our own server
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False
