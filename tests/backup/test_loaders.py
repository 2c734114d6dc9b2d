"""Test the processes that load rows: how they share the tables, and how they stop together."""

from __future__ import annotations

import pytest

from include.backup import restore_program as module
from include.backup.archive import SECTION_DATA
from include.backup.archive_entry import Entry
from include.backup.manifest import TableRecord
from include.backup.restore_program import RestoreTarget, distribute_entries
from include.services.database import DatabaseAddress
from tests.backup.support import Taken
from tests.support.holders import Holder


def test_loader_cancelled_before_start_loads_nothing(
    taken: Taken, target: DatabaseAddress, operations: Holder
) -> None:
    """It neither reads a stream nor reports a failure. The process that failed has reported it."""
    head = b"other than in the archive, so that reading it is an error"
    load_target = RestoreTarget(target)
    source = taken.source(operations.opening)
    loader = module._Loader(source, head, load_target, ["--format=c"], [1])
    loader.cancel()
    loader.run(on_failure=lambda: pytest.fail("no pg_restore failed"))


def entry(dump_id: int, kind: str, name: str, section: int = SECTION_DATA) -> Entry:
    return Entry(dump_id, dump_id, name, kind, section, "", "public")


def test_distribute_entries_gives_largest_table_to_least_loaded_loader() -> None:
    """The first process loads all other entries. Each list keeps the order of the archive."""
    sizes = {"a": 10, "b": 50, "c": 30, "d": 25}
    tables = [
        TableRecord(schema_name="public", name=name, rows=1, bytes=size, sha256="")
        for name, size in sizes.items()
    ]
    entries = [
        entry(9, "TABLE", "a", 2),
        *(entry(at, "TABLE DATA", name) for at, name in enumerate(sizes, start=1)),
        entry(6, "SEQUENCE SET", "s"),
        entry(7, "BLOBS", ""),
    ]
    assert distribute_entries(entries, tables, 1) == [[1, 2, 3, 4, 6, 7]]
    assert distribute_entries(entries, tables, 2) == [[1, 2, 6, 7], [3, 4]]
    assert distribute_entries(entries, tables, 3) == [[2, 6, 7], [3], [1, 4]]
