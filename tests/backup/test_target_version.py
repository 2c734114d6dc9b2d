"""Test that a restore begins only with a server and programs that can load the backup."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, select

from include.backup import server_needs
from include.backup.drill import DrillTarget
from include.backup.restore import restore
from include.backup.server_needs import require_reader
from include.encryption.crypto import ContentRefused
from include.encryption.recipients import OpeningKey
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.state.tables import scratch_database
from tests.backup.drill_rig import Rig
from tests.backup.support import Taken, rows
from tests.support.holders import Holder

TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
NEWER = {"server_version": "19.1 (Debian 19.1-1)"}


@pytest.mark.parametrize(
    ("writer", "reader", "fits"),
    [
        *(("18.4", "17.1", True), ("17.1", "18.4", True), ("15.4", "15.9", True)),
        *(("18.4", "16.9", False), ("17.1", "15.4", False), ("16.1", "15.4", False)),
    ],
)
def test_require_reader_raises_usage_error_if_pg_restore_is_too_old_for_the_archive(
    taken: Taken, monkeypatch: pytest.MonkeyPatch, writer: str, reader: str, fits: bool
) -> None:
    """Versions 17 and 18 write the same archive format.

    Older versions have formats of their own.
    """
    monkeypatch.setattr(server_needs, "pg_version", lambda _name: reader)
    manifest = taken.manifest.model_copy(update={"tools": {"pg_dump": writer}})
    if fits:
        require_reader(manifest)
        return
    with pytest.raises(UsageError, match=f"pg_restore {reader} cannot read it") as refused:
        require_reader(manifest)
    assert f"version {writer.partition('.')[0]}" in refused.value.action


def test_restore_raises_usage_error_before_load_if_target_server_is_older_than_original(
    taken: Taken, target: DatabaseAddress, stranger: OpeningKey
) -> None:
    """The version is checked first, so the wrong key is not reported. The target stays empty."""
    newer = Taken(taken.store, taken.manifest.model_copy(update=NEWER))
    with pytest.raises(UsageError, match=r"on PostgreSQL 18, and .* of PostgreSQL 19:") as refused:
        restore(newer.source(stranger), target)
    assert "server of PostgreSQL 19" in refused.value.action
    assert rows(target, TABLES) == [(0,)]


def test_restore_passes_the_version_check_if_target_has_the_version_of_the_original(
    taken: Taken, target: DatabaseAddress, stranger: OpeningKey
) -> None:
    """The check of the version passes.

    The restore fails at the next check, because the key is wrong.
    """
    with pytest.raises(ContentRefused):
        restore(taken.source(stranger), target)


def test_restore_drill_raises_usage_error_and_creates_no_database_on_older_server(
    taken: Taken, operations: Holder, server: DatabaseAddress, state: Engine
) -> None:
    """The advice of the error names the connection of restore drills."""
    newer = Taken(taken.store, taken.manifest.model_copy(update=NEWER))
    target = DrillTarget(server)
    rig = Rig(newer.source(operations.opening), target, server, server, state)
    with pytest.raises(UsageError, match=r"on PostgreSQL 18, and .* of PostgreSQL 19:") as refused:
        rig.drill()
    assert "connection drill_db" in refused.value.action
    assert rig.scratch_left() == []
    with state.connect() as conn:
        assert list(conn.scalars(select(scratch_database.c.name))) == []
