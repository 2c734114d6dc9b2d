"""Open the object store that a connection describes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from include.services.connections import ConnectionSpec
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.transport import Transport, of_url

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from include.services.objectstore.s3 import LockMode

DIRECTORY_TYPES = {"fs", "file", "directory"}
S3_TYPES = {"aws", "s3"}


def open_store(spec: ConnectionSpec, live_paths: Sequence[Path] = ()) -> ObjectStore:
    """Return the object store that an Airflow connection describes.

    For type ``aws`` or ``s3``, login and password are the access key and its secret. The extra has
    ``bucket`` and may have ``prefix``, ``region_name``, ``endpoint_url``, ``verify``,
    ``lock_mode``, ``site``, ``connect_timeout`` and ``read_timeout`` (both in seconds), and
    ``max_attempts``. For type ``fs`` or ``file``, the extra has ``path`` and may have ``site``.

    Args:
        spec: connection.
        live_paths: paths of the live databases' files. With them, the store can detect that it is
            on the same disk.

    Raises:
        UsageError: the connection has another type, or its bucket or path is missing.
    """
    if spec.conn_type in DIRECTORY_TYPES:
        path = spec.text("path") or (f"/{spec.schema}" if spec.schema else "")
        if not path:
            raise UsageError(
                f"Connection {spec.conn_id} has no directory.",
                'Set its extra: {"path": "/mnt/backups", "site": "..."}.',
            )
        return DirectoryStore(Path(path), spec.text("site"), live_paths)
    if spec.conn_type in S3_TYPES:
        return _s3(spec)
    raise UsageError(
        f"Connection {spec.conn_id} is of type {spec.conn_type}, which is not an object store.",
        "Use type aws with a bucket, or type fs with a path.",
    )


def store_transport(spec: ConnectionSpec) -> Transport:
    """Return how the network route to the object store of a connection is protected.

    The endpoint is read from a boto3 client, because the connection may omit it: AWS settings in
    the environment can also name the endpoint.

    Args:
        spec: connection; see `open_store`.
    """
    if spec.conn_type in DIRECTORY_TYPES:
        return Transport.LOCAL
    return of_url(_s3_client(spec).meta.endpoint_url, spec.verify)


def _s3(spec: ConnectionSpec) -> ObjectStore:
    from include.services.objectstore.s3 import S3Store

    bucket = spec.text("bucket") or spec.schema
    if not bucket:
        raise UsageError(
            f"Connection {spec.conn_id} has no bucket.", 'Set its extra: {"bucket": "..."}.'
        )
    client = _s3_client(spec)
    mode = spec.text("lock_mode", "COMPLIANCE").upper()
    if mode not in {"COMPLIANCE", "GOVERNANCE"}:
        raise UsageError(
            f"Connection {spec.conn_id}: lock_mode {mode} is unknown.",
            "Use COMPLIANCE or GOVERNANCE.",
        )
    return S3Store(
        client,
        bucket,
        spec.text("prefix"),
        spec.text("site"),
        lock_mode=cast("LockMode", mode),
        may_delete=spec.text("may_delete") != "false",
    )


def _s3_client(spec: ConnectionSpec) -> S3Client:
    from include.services.objectstore.s3 import make_s3_client

    return make_s3_client(
        endpoint_url=spec.text("endpoint_url") or None,
        region=spec.text("region_name") or None,
        access_key=spec.login or None,
        secret_key=spec.password or None,
        verify=spec.verify,
        connect_timeout=_seconds(spec, "connect_timeout", 10),
        read_timeout=_seconds(spec, "read_timeout", 60),
        max_attempts=_attempts(spec),
    )


def _attempts(spec: ConnectionSpec) -> int:
    text = spec.text("max_attempts", "6")
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(
            f"Connection {spec.conn_id}: max_attempts is not a whole number.", "Write it as 6."
        )
    return int(text)


def _seconds(spec: ConnectionSpec, key: str, default: float) -> float:
    try:
        return float(spec.text(key) or default)
    except ValueError:
        raise UsageError(
            f"Connection {spec.conn_id}: {key} is not a number of seconds.", "Write it as 30."
        ) from None
