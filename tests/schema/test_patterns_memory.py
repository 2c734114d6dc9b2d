"""Counting patterns in tables with many columns or large values, with limited memory and time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from include.local.postgres import EmbeddedPostgres
from include.schema.live import read_schema
from include.schema.patterns import MOST_KEYS, MOST_VALUES, TableCounts, count_patterns
from tests.schema.support import scratch

MEBIBYTE = 1024  # of /proc/PID/status, which counts kibibytes
BOUND = 64 * MEBIBYTE
STEP = 0.002  # seconds between two measurements


def private_memory(process: int) -> int:
    """Return the private memory of a process in KiB, without PostgreSQL's shared buffers."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.partition("RssAnon:")[2].split()[0])


class Peak:
    """The largest growth of the memory of a server process, in KiB."""

    def __init__(self) -> None:
        self.grown = 0


@contextmanager
def measure_growth(connection: psycopg.Connection[Any]) -> Iterator[Peak]:
    """Measure how much the memory of the connection's server process grows in the block."""
    process, peak, stopped = connection.info.backend_pid, Peak(), threading.Event()
    before = private_memory(process)

    def watch() -> None:
        while not stopped.wait(STEP):
            peak.grown = max(peak.grown, private_memory(process) - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stopped.set()
        thread.join()
        peak.grown = max(peak.grown, private_memory(process) - before)


def count_with_growth(postgres: EmbeddedPostgres, script: str) -> tuple[TableCounts, int]:
    """Return the counts of the table t, and the memory growth of the server process in KiB."""
    with scratch(postgres, script) as connection:
        table = read_schema(connection).tables["public", "t"]
        connection.rollback()
        with measure_growth(connection) as peak:
            counts = count_patterns(connection, table)
    return counts, peak.grown


def wide(columns: int, filling: str = "NULL") -> str:
    """Return a script that creates a table with 20 rows and the given number of text columns."""
    names = ", ".join(f"c{number} text" for number in range(columns))
    values = ", ".join([filling] * columns)
    return f"CREATE TABLE t ({names}); INSERT INTO t SELECT {values} FROM generate_series(1, 20) n;"


def test_memory_of_count_patterns_grows_at_most_linearly_with_columns(
    postgres: EmbeddedPostgres,
) -> None:
    """PostgreSQL allows 1,600 columns. A single statement for all of them took 21.7 GB."""
    grown = {columns: count_with_growth(postgres, wide(columns))[1] for columns in (30, 240, 1600)}
    assert grown[240] <= 8 * max(grown[30], MEBIBYTE)
    assert max(grown.values()) <= BOUND


def test_count_patterns_reads_only_the_beginning_of_large_values(
    postgres: EmbeddedPostgres,
) -> None:
    """The table has compressed and uncompressed texts, and JSON, of 30 MB each."""
    script = """CREATE TABLE t (plain text STORAGE EXTERNAL, packed text, document jsonb, j json);
    INSERT INTO t SELECT repeat(md5(n::text), 1000000), repeat('a', 30000000),
        jsonb_build_object('phone', '13812345678', 'long', repeat(md5(n::text), 1000000)),
        json_build_object('phone', repeat(md5(n::text), 1000000)) FROM generate_series(1, 3) n;
    INSERT INTO t SELECT 'a@b.example', 'x', '{"phone": "13812345678"}', '{"phone": "x"}'
    FROM generate_series(1, 3) n;"""
    counts, grown = count_with_growth(postgres, script)
    assert counts.columns["plain"].filled == counts.columns["packed"].filled == 6
    assert counts.columns["plain"].like["email"] == 3
    assert counts.keys["document"]["phone"].like["mobile"] == 3
    assert grown <= BOUND


def test_count_patterns_reads_fewer_rows_of_table_with_many_columns(
    postgres: EmbeddedPostgres,
) -> None:
    """The time depends on the number of values, so more columns allow fewer rows."""
    script = wide(400, "'x'").replace("generate_series(1, 20)", "generate_series(1, 3000)")
    counts, grown = count_with_growth(postgres, script)
    assert counts.rows == MOST_VALUES // 400
    assert len(counts.columns) == 400
    assert grown <= BOUND


def test_count_patterns_reads_fewer_rows_of_table_with_many_json_columns(
    postgres: EmbeddedPostgres,
) -> None:
    """Each JSON column has up to 60 keys.

    With 100 such columns, 300 rows took more than a minute.
    """
    names = ", ".join(f"c{number} jsonb" for number in range(100))
    document = "jsonb_build_object('phone', '13812345678')"
    values = ", ".join([document] * 100)
    script = (
        f"CREATE TABLE t ({names}); INSERT INTO t SELECT {values} FROM generate_series(1, 300) n;"
    )
    counts, _grown = count_with_growth(postgres, script)
    read = sum(keys["phone"].rows for keys in counts.keys.values())
    assert len(counts.keys) == 100
    assert read * MOST_KEYS <= MOST_VALUES
