"""Test that the option ``pg_attver`` of newer servers is removed from restores and comparisons."""

from __future__ import annotations

import pytest

from include.backup.archive import read_archive, restored_definitions
from include.backup.archive_entry import Entry, loadable_head, without_column_versions
from include.services.database import DatabaseAddress
from tests.backup.support import pg_dump, run

START = "CREATE TABLE public.t (\n    a integer\n);\n"


def set_options(options: str, column: str = "a", table: str = "public.t") -> str:
    return f"ALTER TABLE ONLY {table} ALTER COLUMN {column} SET ({options});\n"


@pytest.mark.parametrize(
    ("statement", "kept"),
    [
        (set_options("pg_attver=72767744"), ""),
        (set_options("pg_attver=7", '"b""; (c"', '"客户 1"."Ta""ble"'), ""),
        (set_options("pg_attver=7").replace("TABLE", "FOREIGN TABLE"), ""),
        (set_options("pg_attver=7, n_distinct=-1"), set_options("n_distinct=-1")),
        (set_options("n_distinct=5, pg_attver=7"), set_options("n_distinct=5")),
        (set_options("n_distinct=5"), set_options("n_distinct=5")),
        ("-- SET (pg_attver=7);\n", "-- SET (pg_attver=7);\n"),
    ],
)
def test_function_without_column_versions_removes_pg_attver_and_keeps_other_column_options(
    statement: str, kept: str
) -> None:
    """In an archive's head, all other bytes keep their positions."""
    definition = START + statement + set_options("n_distinct=3", "z")
    expected = START + kept + set_options("n_distinct=3", "z")
    assert without_column_versions(definition) == expected
    head = b"before" + definition.encode() + b"after"
    entry = Entry(1, 1, "t", "TABLE", 2, definition, "public", position=len(b"before"))
    loadable = loadable_head(head, [entry])
    assert len(loadable) == len(head)
    assert loadable.startswith(b"before")
    assert loadable.endswith(b"after")
    assert loadable[6:-5].decode().replace(" ", "").split() == expected.replace(" ", "").split()


def test_loadable_head_does_not_change_pg_attver_in_function_bodies() -> None:
    """The body of a function may contain a statement that sets ``pg_attver``."""
    definition = START + set_options("pg_attver=7")
    entry = Entry(1, 1, "f", "FUNCTION", 2, definition, "public", position=0)
    assert loadable_head(definition.encode(), [entry]) == definition.encode()


def test_archive_entry_position_is_the_byte_offset_of_its_definition_in_the_archive(
    source: DatabaseAddress,
) -> None:
    run(source, "CREATE TABLE t (a int); CREATE TABLE 客户 (a text DEFAULT '客户');")
    archive = pg_dump(source, "--format=custom", "--compress=0")
    entries = read_archive([archive]).entries
    assert {"TABLE", "TABLE DATA"} <= {entry.kind for entry in entries}
    for entry in entries:
        definition = entry.definition.encode()
        assert archive[entry.position : entry.position + len(definition)] == definition


def test_restored_definitions_are_equal_if_only_pg_attver_differs() -> None:
    """Each server counts the versions of columns itself, so the numbers differ."""
    tables = [
        Entry(1, 1, "t", "TABLE", 2, START + set_options(f"pg_attver={number}"), "public")
        for number in (7, 8)
    ]
    assert restored_definitions(tables[:1]) == restored_definitions(tables[1:])
