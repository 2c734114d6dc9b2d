"""Reading pg_dump's archive in pieces: its entries, a digest per table, refusal of all else."""

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
    return frozenset(one.dump_id for one in read_archive([archive]).tables())


def cut(archive: bytes, places: Sequence[int]) -> Iterator[bytes]:
    edges = [0, *sorted(places), len(archive)]
    for start, end in itertools.pairwise(edges):
        yield archive[start:end]


def test_entries_are_those_that_pg_restore_lists(rich: DatabaseAddress):
    """Every line of ``pg_restore -l``: number, object identifier, kind, schema and name."""
    whole = pg_dump(rich, "--format=custom", "--compress=none")
    listed = subprocess.run(
        [program("pg_restore"), "--list"], input=whole, check=True, capture_output=True
    ).stdout.decode()
    lines = re.findall(r"^(\d+); \d+ (\d+) (.*) \S+$", listed, re.MULTILINE)
    found = [
        (str(one.dump_id), str(one.oid), f"{one.kind} {one.schema or '-'} {one.name}")
        for one in read_archive([whole]).entries
        if one.kind not in {"ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE"}
    ]
    assert lines == found
    assert len(found) > 50


def test_every_table_has_one_digest_that_only_its_rows_decide(small: DatabaseAddress):
    """Two dumps of the same rows agree; one more row changes one digest."""
    first, second = (
        read_archive([pg_dump(small, "--format=custom", "--compress=none")]) for _ in range(2)
    )
    assert first.digests == second.digests
    assert {one.name for one in first.tables()} == {"empty", "line", "t"}
    with small.connect() as conn:
        conn.execute("INSERT INTO line VALUES ('')")
    third = read_archive([pg_dump(small, "--format=custom", "--compress=none")])
    changed = {
        one.name
        for one in first.tables()
        if first.digests[one.dump_id] != third.digests[one.dump_id]
    }
    with small.connect() as conn:
        conn.execute("DELETE FROM line WHERE ctid = (SELECT max(ctid) FROM line)")
    assert changed == {"line"}
    assert rows(small, "SELECT count(*) FROM line") == [(9,)]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_it_does_not_matter_how_the_archive_is_cut(archive: bytes, data: st.DataObject):
    """Pieces of any size, empty ones too, give the same entries, digests and row sums."""
    places = data.draw(st.lists(st.integers(0, len(archive)), max_size=40))
    rows_of = data.draw(st.sampled_from([frozenset(), everything(archive)]))
    whole = read_archive([archive], rows_of)
    pieces = read_archive(cut(archive, places), rows_of)
    assert pieces.entries == whole.entries
    assert pieces.head_size == whole.head_size
    assert pieces.digests == whole.digests
    assert pieces.row_sums == whole.row_sums
    assert pieces.large_objects == whole.large_objects


def test_digest_is_the_same_by_rows_and_as_a_block(archive: bytes):
    """The second reading of a compare is authenticated by the digests of the first."""
    assert read_archive([archive]).digests == read_archive([archive], everything(archive)).digests


@pytest.mark.parametrize("by_rows", [False, True])
def test_a_truncated_archive_is_refused(archive: bytes, by_rows: bool):
    """Wherever it is cut, except where a block ends: there pg_dump's exit code tells."""
    reader = ArchiveReader(rows_of=everything(archive) if by_rows else frozenset())
    head = read_archive([archive]).head_size
    for place in (0, 1, 5, 30, head // 2, head - 1):
        with pytest.raises(ArchiveError, match="ends in the middle"):
            read_archive([archive[:place]])
    reader.feed(archive[:head])
    whole = 0
    for place in range(head, len(archive)):
        ended = len(reader.digests)
        reader.feed(archive[place : place + 1])
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
def test_anything_else_is_no_archive(content: bytes, reason: str):
    """SQL text, compressed bytes, unknown versions and pg_dump's other formats."""
    with pytest.raises(ArchiveError, match=reason):
        read_archive([content])


def as_version(archive: bytes, minor: int) -> bytes:
    """Return an archive as PostgreSQL wrote it when its format was 1.14 or 1.15."""
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
def test_archives_of_earlier_versions_read_the_same(archive: bytes, minor: int) -> None:
    """PostgreSQL 12 to 15 write 1.14, and 16 writes 1.15: less about each entry."""
    newest = read_archive([archive])
    older = read_archive([as_version(archive, minor)])
    assert older.entries == newest.entries
    assert older.digests == newest.digests
    assert older.server_version == newest.server_version != ""


def test_an_unknown_block_is_refused(archive: bytes):
    """A byte that begins no block is damage, not data to skip."""
    head = read_archive([archive]).head_size
    with pytest.raises(ArchiveError, match="unknown block type 9"):
        read_archive([archive[:head] + b"\x09" + archive[head + 1 :]])


def test_row_sums_do_not_depend_on_order_and_notice_every_change(source: DatabaseAddress):
    """The same rows in another order have the same sum; twice the same row is not once."""

    def sum_of(values: str) -> int:
        with source.connect() as conn:
            conn.execute("DROP TABLE IF EXISTS t")
            conn.execute("CREATE TABLE t (a text, b text)")
            conn.execute(f"INSERT INTO t VALUES {values}")
        whole = pg_dump(source, "--format=custom", "--compress=none")
        reader = read_archive([whole], everything(whole))
        (found,) = reader.row_sums.values()
        return found

    base = sum_of("('a', 'b'), ('c', 'd'), ('', NULL)")
    assert sum_of("('', NULL), ('c', 'd'), ('a', 'b')") == base
    others = [
        "('a', 'b'), ('c', 'd')",
        "('a', 'b'), ('c', 'd'), (NULL, '')",
        "('a', 'b'), ('c', 'd'), ('', NULL), ('', NULL)",
        "('a', 'd'), ('c', 'b'), ('', NULL)",
        r"('a', 'b'), ('c', 'd'), ('', E'\\N')",
    ]
    sums = {sum_of(one) for one in others}
    assert base not in sums
    assert len(sums) == len(others)


def test_sums_are_those_of_sha256_modulo_2_to_256(source: DatabaseAddress) -> None:
    """A shorter sum would be the same for other rows; compute it from the rows' COPY text."""
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


def test_large_objects_of_any_size_are_read_with_little_memory(source: DatabaseAddress):
    """An object is not gathered to be hashed: 30 MB pass through 1 MB pieces."""
    with source.connect() as conn:
        conn.execute("SELECT lo_from_bytea(0, decode(repeat('00ff5c2e', 7500000), 'hex'))")
    whole = pg_dump(source, "--format=custom", "--compress=none")
    reader = ArchiveReader()
    tracemalloc.start()
    for place in range(0, len(whole), 1 << 20):
        reader.feed(whole[place : place + (1 << 20)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reader.close()
    assert reader.large_objects.count == 1
    assert reader.large_objects.bytes == 30_000_000
    assert peak < 8 << 20


def test_large_objects_are_known_by_number_and_content(source: DatabaseAddress):
    """Whoever owns them and however pg_dump groups them."""

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
