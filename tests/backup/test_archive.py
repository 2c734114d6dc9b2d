"""Test reading pg_dump archives in pieces: entries, table digests, and refusal of other input."""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.backup.archive import INT_WIDTH, ArchiveError, ArchiveReader, read_archive
from include.services.database import DatabaseAddress
from include.services.programs import program
from tests.backup.support import pg_dump, rows

SMALL = r"""
CREATE TABLE empty (id int);
CREATE TABLE line (line text);
INSERT INTO line VALUES (''), (''), (''), (E'\\.'), (''), (''), (E'\n\n\n'), (NULL), (E'a\\');
CREATE TABLE t (id int, a text, b bytea);
INSERT INTO t SELECT n, E'\t\\.\n\r\\N', decode('00000a5c2e0a0a0a0000000000', 'hex')
FROM generate_series(1, 60) n;
SELECT lo_from_bytea(1111, 'one'),
       lo_from_bytea(2222, decode(repeat('5c2e0a0a0a0000000000', 300), 'hex')),
       lo_from_bytea(3333, '');
"""
MISSING = b"\1\1\0\0\0"  # the size -1 of a string that is not there


@pytest.fixture(scope="module")
def small(new_database: Callable[..., DatabaseAddress]) -> DatabaseAddress:
    return new_database(SMALL)


@pytest.fixture(scope="module")
def archive(small: DatabaseAddress) -> bytes:
    return pg_dump(small, "--format=custom", "--compress=none")


def everything(archive: bytes) -> frozenset[int]:
    return frozenset(table.dump_id for table in read_archive([archive]).tables())


def cut(archive: bytes, places: Sequence[int]) -> Iterator[bytes]:
    edges = [0, *sorted(places), len(archive)]
    for start, end in itertools.pairwise(edges):
        yield archive[start:end]


def test_archive_entries_equal_those_that_pg_restore_lists(rich: DatabaseAddress):
    """The test compares every line of ``pg_restore -l``: dump id, oid, kind, schema and name."""
    whole = pg_dump(rich, "--format=custom", "--compress=none")
    listed = subprocess.run(
        [program("pg_restore"), "--list"], input=whole, check=True, capture_output=True
    ).stdout.decode()
    lines = re.findall(r"^(\d+); \d+ (\d+) (.*) \S+$", listed, re.MULTILINE)
    entries = [
        (str(entry.dump_id), str(entry.oid), f"{entry.kind} {entry.schema or '-'} {entry.name}")
        for entry in read_archive([whole]).entries
        if entry.kind not in {"ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE"}
    ]
    assert lines == entries
    assert len(entries) > 50


def test_table_digest_is_equal_for_same_rows_and_changes_with_an_added_row(small: DatabaseAddress):
    """Two dumps of the same rows have equal digests.

    An added row changes only its table's digest.
    """
    first, second = (
        read_archive([pg_dump(small, "--format=custom", "--compress=none")]) for _ in range(2)
    )
    assert first.digests == second.digests
    assert {table.name for table in first.tables()} == {"empty", "line", "t"}
    with small.connect() as conn:
        conn.execute("INSERT INTO line VALUES ('')")
    third = read_archive([pg_dump(small, "--format=custom", "--compress=none")])
    changed = {
        table.name
        for table in first.tables()
        if first.digests[table.dump_id] != third.digests[table.dump_id]
    }
    with small.connect() as conn:
        conn.execute("DELETE FROM line WHERE ctid = (SELECT max(ctid) FROM line)")
    assert changed == {"line"}
    assert rows(small, "SELECT count(*) FROM line") == [(9,)]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_archive_reader_result_is_independent_of_piece_sizes(archive: bytes, data: st.DataObject):
    """Pieces of any size, also empty pieces, give the same entries, digests and row sums."""
    places = data.draw(st.lists(st.integers(0, len(archive)), max_size=40))
    rows_of = data.draw(st.sampled_from([frozenset(), everything(archive)]))
    whole = read_archive([archive], rows_of)
    pieces = read_archive(cut(archive, places), rows_of)
    assert pieces.entries == whole.entries
    assert pieces.head_size == whole.head_size
    assert pieces.digests == whole.digests
    assert pieces.row_sums == whole.row_sums
    assert pieces.large_objects == whole.large_objects


def test_table_digest_is_the_same_with_and_without_calculation_of_row_sums(archive: bytes):
    """A comparison reads the archive twice, and calculates row sums only the second time.

    Therefore, the digests of both times must be equal.
    """
    assert read_archive([archive]).digests == read_archive([archive], everything(archive)).digests


@pytest.mark.parametrize("by_rows", [False, True])
def test_archive_reader_raises_archive_error_if_archive_is_truncated(archive: bytes, by_rows: bool):
    """Truncation at the end of a block is not detected here; pg_dump's exit code shows it."""
    reader = ArchiveReader(rows_of=everything(archive) if by_rows else frozenset())
    head = read_archive([archive]).head_size
    for offset in (0, 1, 5, 30, head // 2, head - 1):
        with pytest.raises(ArchiveError, match="ends in the middle"):
            read_archive([archive[:offset]])
    reader.feed(archive[:head])
    whole = 0
    for offset in range(head, len(archive)):
        ended = len(reader.digests)
        reader.feed(archive[offset : offset + 1])
        if len(reader.digests) > ended:
            reader.close()
            whole += 1
        else:
            with pytest.raises(ArchiveError, match="ends in the middle"):
                reader.close()
    assert whole == len(reader.digests) > 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"--\n-- PostgreSQL database dump\n", "not a pg_dump archive"),
        (b"PGDMQ", "not a pg_dump archive"),
        (b"\x28\xb5\x2f\xfd", "not a pg_dump archive"),
        (b"PGDMP\x01\x20\x00\x04\x08\x01", "version 1.32"),
        (b"PGDMP\x01\x10\x00\x08\x08\x01", "custom format"),
        (b"PGDMP\x01\x10\x00\x04\x08\x03", "custom format"),
    ],
)
def test_archive_reader_raises_archive_error_for_other_archive_formats_or_versions(
    content: bytes, reason: str
):
    """Cases: SQL text, compressed bytes, unknown versions and pg_dump's other formats."""
    with pytest.raises(ArchiveError, match=reason):
        read_archive([content])


def as_version(archive: bytes, minor: int) -> bytes:
    """Return an archive in the older format 1.14 or 1.15."""
    position = 0

    def take(size: int) -> bytes:
        nonlocal position
        position += size
        return archive[position - size : position]

    def integer() -> tuple[bytes, int]:
        data = take(INT_WIDTH)
        return data, int.from_bytes(data[1:], "little") * (-1 if data[0] else 1)

    def string() -> bytes:
        data, size = integer()
        return data + take(max(size, 0))

    head = [take(5), bytes([1, minor]), take(6)[2:]]  # magic, version, revision and sizes
    head.append(take(1) if minor >= 15 else bytes(1) + take(1) + bytes(3))  # compression
    head += [integer()[0] for _ in range(7)] + [string() for _ in range(3)]
    data, entries = integer()
    head.append(data)
    for _ in range(entries):
        head += [integer()[0], integer()[0], *(string() for _ in range(4))]
        head += [integer()[0], *(string() for _ in range(6))]
        integer()  # the kind of relation, which 1.16 brought
        head += [string(), string()]
        while (dependency := string()) != MISSING:
            head.append(dependency)
        head += [MISSING, take(9)]
    return b"".join(head) + archive[position:]


@pytest.mark.parametrize("minor", [14, 15])
def test_archive_reader_reads_same_entries_from_earlier_archive_versions(
    archive: bytes, minor: int
) -> None:
    """PostgreSQL 12 to 15 write version 1.14, and 16 writes 1.15.

    Their entries have fewer fields.
    """
    newest = read_archive([archive])
    older = read_archive([as_version(archive, minor)])
    assert older.entries == newest.entries
    assert older.digests == newest.digests
    assert older.server_version == newest.server_version != ""


def test_archive_reader_raises_archive_error_for_unknown_block_type(archive: bytes):
    """An unknown block type means damage. The reader must not skip the block."""
    head = read_archive([archive]).head_size
    with pytest.raises(ArchiveError, match="unknown block type 9"):
        read_archive([archive[:head] + b"\x09" + archive[head + 1 :]])


def test_row_sums_are_equal_for_reordered_rows_and_differ_for_changed_rows(source: DatabaseAddress):
    """The same rows in another order have the same sum; a duplicated row changes the sum."""

    def sum_of(values: str) -> int:
        with source.connect() as conn:
            conn.execute("DROP TABLE IF EXISTS t")
            conn.execute("CREATE TABLE t (a text, b text)")
            conn.execute(f"INSERT INTO t VALUES {values}")
        whole = pg_dump(source, "--format=custom", "--compress=none")
        reader = read_archive([whole], everything(whole))
        (row_sum,) = reader.row_sums.values()
        return row_sum

    base = sum_of("('a', 'b'), ('c', 'd'), ('', NULL)")
    assert sum_of("('', NULL), ('c', 'd'), ('a', 'b')") == base
    others = [
        "('a', 'b'), ('c', 'd')",
        "('a', 'b'), ('c', 'd'), (NULL, '')",
        "('a', 'b'), ('c', 'd'), ('', NULL), ('', NULL)",
        "('a', 'd'), ('c', 'b'), ('', NULL)",
        r"('a', 'b'), ('c', 'd'), ('', E'\\N')",
    ]
    sums = {sum_of(other) for other in others}
    assert base not in sums
    assert len(sums) == len(others)


def test_row_sum_of_table_equals_sum_of_sha256_digests_of_its_rows_modulo_2_power_256(
    source: DatabaseAddress,
) -> None:
    """The test computes the expected sum from the COPY text of the rows."""
    numbers = range(1, 41)
    with source.connect() as conn:
        conn.execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 40) n")
        conn.execute("SELECT lo_from_bytea(n, n::text::bytea) FROM generate_series(1, 40) n")
    whole = pg_dump(source, "--format=custom", "--compress=none")
    reader = read_archive([whole], everything(whole))

    def total(contents: Iterable[bytes]) -> int:
        digests = (hashlib.sha256(content).digest() for content in contents)
        return sum(int.from_bytes(digest) for digest in digests) % 2**256

    copied = [str(n).encode() for n in numbers]
    assert list(reader.row_sums.values()) == [total([*copied, b"\\.", b"", b""])]  # COPY's end
    assert reader.large_objects.sum == total(
        b"\0" + n.to_bytes(4, "little") + str(n).encode() for n in numbers
    )


def test_archive_reader_needs_less_than_8_mib_of_memory_for_large_object_of_30_mb(
    source: DatabaseAddress,
):
    """The test reads a large object of 30 MB in pieces of 1 MiB."""
    with source.connect() as conn:
        conn.execute("SELECT lo_from_bytea(0, decode(repeat('00ff5c2e', 7500000), 'hex'))")
    whole = pg_dump(source, "--format=custom", "--compress=none")
    reader = ArchiveReader()
    tracemalloc.start()
    for offset in range(0, len(whole), 1 << 20):
        reader.feed(whole[offset : offset + (1 << 20)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reader.close()
    assert reader.large_objects.count == 1
    assert reader.large_objects.bytes == 30_000_000
    assert peak < 8 << 20


def test_sum_of_large_objects_changes_only_with_their_oids_and_contents(source: DatabaseAddress):
    """The sum does not depend on the owners of large objects, although pg_dump groups by owner."""

    def seen(statement: str) -> object:
        with source.connect() as conn:
            conn.execute(statement)
        return read_archive([pg_dump(source, "--format=custom", "--compress=none")]).large_objects

    nothing = seen("SELECT 1")
    first = seen("SELECT lo_from_bytea(5001, 'one'), lo_from_bytea(5002, 'two')")
    assert seen("SELECT 1") == first != nothing
    assert seen("DO 'BEGIN PERFORM lo_put(5002, 0, ''tw0''); END'") != first
    assert seen("DO 'BEGIN PERFORM lo_put(5002, 0, ''two''); END'") == first
    assert seen("SELECT lo_unlink(5002), lo_from_bytea(5003, 'two')") != first
