"""A real S3 server for tests: moto in a separate process, used over HTTP."""

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
    """A running S3 server.

    Attributes:
        endpoint: URL of the server.
        process: process of the server, which ``stop`` ends.
    """

    endpoint: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        self.process.kill()  # moto stores nothing, and SIGTERM would take longer
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
    """Return ParcelSeal's S3 client for a test server, with short timeouts by default."""
    defaults = {"connect_timeout": 5, "read_timeout": 20, "max_attempts": 4}
    return make_s3_client(endpoint, REGION, ACCESS_KEY, SECRET_KEY, **(defaults | settings))


def new_bucket(client: S3Client, *, lock: bool = True, default_lock_days: int = 0) -> str:
    """Create a bucket for a test. A bucket with Object Lock also has versions."""
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
    """Return the number of multipart uploads that are neither completed nor aborted."""
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
