"""A server of the distribution's PostgreSQL 17, which has ICU, pgcrypto and uuid-ossp."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from include.local.postgres import EmbeddedPostgres

PROGRAMS = Path("/usr/lib/postgresql/17/bin")
ICU = ("--encoding", "UTF8", "--locale-provider", "icu", "--icu-locale", "de", "--locale", "C")


@contextmanager
def icu_server() -> Iterator[EmbeddedPostgres]:
    """Start a server whose databases have the ICU locale ``de``, and stop it at the end."""
    assert (PROGRAMS / "postgres").exists(), f"Install postgresql-17: {PROGRAMS} has no postgres."
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-test-icu-"))
    folder.chmod(0o755)
    settings = {"fsync": "off", "shared_buffers": "32MB", "max_connections": "30"}
    server = EmbeddedPostgres(folder / "pg", settings, PROGRAMS, ICU)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
