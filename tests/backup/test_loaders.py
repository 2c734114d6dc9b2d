"""Loaders of a restore: how they share the tables, and how one stops when another fails."""

from __future__ import annotations

import pytest

from include.backup import restore_program as module
from include.backup.archive import SECTION_DATA
from include.backup.archive_entry import Entry
from include.backup.manifest import TableRecord
from include.backup.restore_program import RestoreTarget, share_out
from include.services.database import DatabaseAddress
from tests.backup.support import Taken
from tests.support.holders import Holder


def test_loader_that_is_cancelled_before_it_starts_loads_nothing(
    taken: Taken, target: DatabaseAddress, operations: Holder
) -> None:
    """Neither the stream is read, nor a failure reported: another loader has it already."""
    head = b"other than in the archive, so that reading it is an error"
    load_target = RestoreTarget(target)
    source = taken.source(operations.opening)
    loader = module._Loader(source, head, load_target, ["--format=c"], [1])
    loader.cancel()
    loader.run(on_failure=lambda: pytest.fail("no pg_restore failed"))


def entry(dump_id: int, kind: str, name: str, section: int = SECTION_DATA) -> Entry:
    return Entry(dump_id, dump_id, name, kind, section, "", "public")


def test_largest_tables_go_to_the_least_loaded_loader() -> None:
    """All else belongs to the first loader, and each share keeps the archive's order."""
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
    assert share_out(entries, tables, 1) == [[1, 2, 3, 4, 6, 7]]
    assert share_out(entries, tables, 2) == [[1, 2, 6, 7], [3, 4]]
    assert share_out(entries, tables, 3) == [[2, 6, 7], [3], [1, 4]]
