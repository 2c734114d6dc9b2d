"""PostgreSQL servers of each supported version. Each starts at its first use in a session."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from include.local.postgres import EmbeddedPostgres
from include.services.programs import SUPPORTED, program_folder

EMBEDDED = 18
SETTINGS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB"}
# Versions before 17 have no built-in locale.
LOCALE = ("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
MARK = "postgres"
WITH_ICU = 17  # Debian's; the embedded server is built without ICU
ICU = ("--encoding", "UTF8", "--locale-provider", "icu", "--icu-locale", "de", "--locale", "C")


def programs_of(version: int) -> Path:
    """Return the folder in which the programs of a PostgreSQL version are expected.

    It is Debian's folder, unless ``TEST_POSTGRES_<version>`` names another. For version 18 it is
    the folder of the embedded PostgreSQL.
    """
    if version == EMBEDDED:
        return program_folder()
    return Path(os.environ.get(f"TEST_POSTGRES_{version}") or f"/usr/lib/postgresql/{version}/bin")


def each_version(*versions: int) -> list[object]:
    """Return pytest parameters for a test that runs once with a server of each version.

    Args:
        versions: major versions; by default all supported ones.
    """
    return [
        pytest.param(version, marks=pytest.mark.postgres(version))
        for version in versions or SUPPORTED
    ]


def deselect_missing(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Deselect the tests that need a PostgreSQL version that this machine does not have.

    Args:
        config: configuration of the session.
        items: the collected tests, changed in place.

    Returns:
        A line of text for each missing version.
    """
    kept, missing = [], []
    counts: dict[int, int] = {}
    for item in items:
        needed = [mark.args[0] for mark in item.iter_markers(MARK)]
        absent = [v for v in needed if not (programs_of(v) / "postgres").exists()]
        for version in absent:
            counts[version] = counts.get(version, 0) + 1
        (missing if absent else kept).append(item)
    if missing:
        config.hook.pytest_deselected(items=missing)
        items[:] = kept
    return [
        f"deselected: PostgreSQL {version}, no programs in {programs_of(version)} ({count} tests)"
        for version, count in sorted(counts.items())
    ]


@dataclass
class Servers:
    """PostgreSQL servers by version.

    Args:
        embedded: the session's server of version 18.
        folder: folder for the data of the other servers.
    """

    embedded: EmbeddedPostgres
    folder: Path
    _started: dict[int, EmbeddedPostgres] = field(default_factory=dict)

    def __getitem__(self, version: int) -> EmbeddedPostgres:
        if version == EMBEDDED:
            return self.embedded
        if version not in self._started:
            server = EmbeddedPostgres(
                self.folder / str(version), SETTINGS, programs_of(version), LOCALE
            )
            server.start()
            self._started[version] = server
        return self._started[version]

    def stop(self) -> None:
        """Stop all servers except the embedded one."""
        for server in self._started.values():
            server.stop()


@contextmanager
def running_servers(embedded: EmbeddedPostgres) -> Iterator[Servers]:
    """Yield the servers. At the end, stop them and delete their data."""
    with _data_folder("parcelseal-versions-") as folder:
        servers = Servers(embedded, folder)
        try:
            yield servers
        finally:
            servers.stop()


@contextmanager
def icu_server() -> Iterator[EmbeddedPostgres]:
    """Start a server of version `WITH_ICU` with the ICU locale ``de``, and stop it at the end."""
    with _data_folder("parcelseal-icu-") as folder:
        settings = {**SETTINGS, "max_connections": "30"}
        server = EmbeddedPostgres(folder / "pg", settings, programs_of(WITH_ICU), ICU)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def _data_folder(prefix: str) -> Iterator[Path]:
    """Create a folder that the system user of the servers can enter, and delete it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
