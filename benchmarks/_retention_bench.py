"""Server, databases and processes of the retention benchmark, all of them temporary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks import _retention_data as data
from benchmarks._measure import Run, measure
from include.holds import registry
from include.local.postgres import EmbeddedPostgres
from include.services.clock import SystemClock
from include.state.connect import engine
from include.state.migrate import migrate
from include.state.tables import erasure, erasure_batch

PER_SECOND = 200  # statements per second of the application
IDLE = 60  # seconds for which the application runs alone, about as long as a deletion
PARCELS = ("parcel", "scan")
# HMAC-SHA-256 by RFC 2104 from sha256(): of the same text that `include.erasure.ledger` takes.
_HMAC = "sha256({outer} || sha256({inner} || convert_to({text}, 'UTF8')))"
_ENTER = """
WITH gone AS (DELETE FROM {table} AS t WHERE {which} RETURNING t.id)
INSERT INTO erasure (key_hmac, key_id, action, batch_id)
SELECT {hmac}, '1', 'delete', {batch} FROM gone
"""
_COUNT = "SELECT count(*) FROM event WHERE happened_at >= '{}'"
_BATCH = """
INSERT INTO erasure_batch (database, collection, action, record_class, rule, dag_id, run_id,
    erased_at, records) VALUES ('bench', %s, 'delete', %s, '', '', '', now(), 0) RETURNING id
"""
_ENTERED = "UPDATE erasure_batch SET records = %s WHERE id = %s"
_LEDGER = """
SELECT count(*), coalesce(bit_xor(hashtextextended(encode(key_hmac, 'hex'), 0)), 0) FROM erasure
"""


class Latencies:
    """Durations of the application's statements, as pairs of due time and seconds."""

    def __init__(self, took: Sequence[tuple[float, float]] = ()) -> None:
        self.took = list(took)

    def within(self, begun: float, ended: float) -> Latencies:
        """Return the durations of the statements that were due between two times."""
        return Latencies([pair for pair in self.took if begun <= pair[0] < ended])

    @property
    def p99(self) -> float:
        """The 99th percentile, in seconds."""
        return sorted(seconds for _due, seconds in self.took)[len(self.took) * 99 // 100]

    @property
    def longest(self) -> float:
        """The longest duration, in seconds."""
        return max(seconds for _due, seconds in self.took)


@dataclass(frozen=True)
class Erased:
    """The measurements of a deletion.

    Attributes:
        records: number of deleted records.
        seconds: duration of the deletion.
        beside: durations of the application's statements during the deletion.
        idle: durations of the application's statements before the deletion.
        answer: result of ParcelSeal's process; empty for the plain statement.
        process: time and memory of ParcelSeal's process; None for the plain statement.
    """

    records: int
    seconds: float
    beside: Latencies
    idle: Latencies
    answer: dict[str, Any] = field(default_factory=dict)
    process: Run | None = None

    @property
    def speed(self) -> float:
        """The number of deleted records per second."""
        return self.records / self.seconds


class RetentionBench:
    """A server like the local profile's, with databases that are copied before each deletion."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.server = EmbeddedPostgres(folder / "pg", settings)
        today = SystemClock().now().date()
        self.as_of = datetime(today.year, today.month, 1, tzinfo=UTC)
        self.cutoff = self.as_of.replace(year=self.as_of.year - 3)
        self.server.start()
        self.create("fresh")
        migrate(engine(self.conninfo("fresh")))

    def conninfo(self, database: str) -> str:
        """Return a connection string of a database on the benchmark's server."""
        return self.server.conninfo(database)

    def create(self, database: str, template: str = "template0") -> None:
        """Create a database after dropping an old one, and write all of its pages to disk."""
        self.drop(database)
        names = sql.Identifier(database), sql.Identifier(template)
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(*names)
            )
            admin.execute("CHECKPOINT")
        os.sync()  # otherwise the application would wait until the copy is written to disk

    def drop(self, database: str) -> None:
        """Drop a database if it exists."""
        name = sql.Identifier(database)
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def fill(self, database: str, make: Callable[..., None], rows: int, moment: datetime) -> None:
        """Create a database and fill its tables with a function."""
        self.create(database)
        with psycopg.connect(self.conninfo(database), autocommit=True) as connection:
            make(connection, rows, moment)

    def state(self, held: Sequence[str]) -> None:
        """Create an empty state database with legal holds on data subjects."""
        self.create("state", "fresh")
        review = date.max
        with engine(self.conninfo("state")).begin() as conn:
            for value in held:
                registry.add(
                    conn,
                    SystemClock(),
                    kind=registry.HoldKind.SUBJECT,
                    value=value,
                    reason="a case",
                    owner="legal",
                    case_ref="1",
                    review_on=review,
                )

    def conditions(self) -> dict[str, str]:
        """Return the SQL condition, by table, of expired records that may be deleted.

        Neither a legal hold nor a record that refers to them keeps these records.
        """
        cutoff = f"'{self.cutoff.isoformat()}'::timestamptz"
        scan = f"t.scanned_at < {cutoff} AND {data.not_held('t')}"
        staying = scan.replace("t.", "c.")
        parcel = (
            f"t.created_at < {cutoff} AND {data.not_held('t')} AND NOT EXISTS (SELECT FROM scan AS "
            f"c WHERE c.parcel_id = t.id AND ({staying}) IS NOT TRUE)"
        )
        return {"parcel": parcel, "scan": scan}

    def one_statement(self, template: str, rows: int) -> Erased:
        """Measure a deletion in one transaction, with the erasure ledger in the same database.

        Children are deleted before their parents. Therefore the condition of the parents need not
        look at children, and PostgreSQL checks the foreign keys.
        """
        self.create("one", template)
        state = engine(self.conninfo("one"))
        erasure_batch.create(state)
        erasure.create(state)
        conditions = self.conditions()
        parcel = conditions["parcel"].split(" AND NOT EXISTS")[0]
        with self.application("updates", "one", rows) as (idle, beside):
            begun = time.monotonic()
            with psycopg.connect(self.conninfo("one")) as connection:
                records = 0
                for table, which in (("scan", conditions["scan"]), ("parcel", parcel)):
                    batch = connection.execute(_BATCH, [table, f"{table}_record"]).fetchone()
                    assert batch is not None
                    query = _ENTER.format(
                        table=table, which=which, hmac=_hmac(table), batch=batch[0]
                    )
                    entered = connection.execute(query.encode()).rowcount
                    connection.execute(_ENTERED, [entered, batch[0]])
                    records += entered
            ended = time.monotonic()
        return Erased(records, ended - begun, beside.within(begun, ended), idle)

    def ours(
        self, template: str, rows: int, kind: str = "updates", held: Sequence[str] = data.HELD
    ) -> Erased:
        """Measure a deletion by the steps of `enforce_retention`.

        Legal holds and erasure ledger are in another database.
        """
        self.create("ours", template)
        self.state(held)
        collections = ["event"] if kind == "reads" else list(PARCELS)
        with self.application(kind, "ours", rows) as (idle, beside):
            process, answer = self.once("erase", "ours", collections=collections)
        records = sum(answer["done"].values())
        if records != answer["planned"] or answer["findings"]:
            sys.exit(f"Not everything went: {answer}")
        beside = beside.within(*answer["window"])
        return Erased(records, answer["execute"], beside, idle, answer, process)

    def ledger(self, database: str) -> tuple[int, int]:
        """Return the number and a digest of an erasure ledger's entries, to compare two ledgers."""
        with psycopg.connect(self.conninfo(database)) as connection:
            row = connection.execute(_LEDGER).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])

    def once(self, measure_name: str, database: str, **more: Any) -> tuple[Run, dict[str, Any]]:
        """Run ParcelSeal's code in a separate process; return its measurements and its result."""
        file = self.folder / f"{measure_name}.json"
        task = {
            "database": self.conninfo(database),
            "state": self.conninfo("state"),
            "as_of": self.as_of.isoformat(),
            **more,
        }
        file.write_text(json.dumps(task))
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks._retention_once", measure_name]
        process = measure([*command, str(file)])
        return process, json.loads(file.read_text())

    @contextmanager
    def application(
        self, kind: str, database: str, rows: int
    ) -> Iterator[tuple[Latencies, Latencies]]:
        """Run the application alone for `IDLE` seconds, then again during the block.

        The two yielded lists of latencies are filled at the end of the block.
        """
        file = self.folder / "load.json"
        newest = self.as_of - timedelta(days=20)
        task = {
            "database": self.conninfo(database),
            "rows": rows,
            "per_second": PER_SECOND,
            "count": _COUNT.format(newest.isoformat()),
        }
        file.write_text(json.dumps(task))
        idle, beside = Latencies(), Latencies()
        with _Process(kind, file) as alone:
            time.sleep(IDLE)
        idle.took += alone.took
        with _Process(kind, file) as process:
            yield idle, beside
        beside.took += process.took


class _Process:
    """The process of the application.

    A thread reads its output, so that the process never waits for it. The block begins when all
    connections of the application are open.
    """

    def __init__(self, kind: str, file: Path) -> None:
        words = [sys.executable, "-m", "benchmarks._retention_load", kind, str(file)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.took: list[tuple[float, float]] = []
        self.connected = threading.Event()
        self.reader = threading.Thread(target=self._read)

    def __enter__(self) -> _Process:
        self.reader.start()
        self.connected.wait()
        if self.process.poll():
            sys.exit("The application beside could not connect.")
        return self

    def __exit__(self, *_error: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self.process.wait():
            sys.exit("The application beside failed.")

    def _read(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:  # the process ended before it had connected
            self.process.wait()
        self.connected.set()
        text = self.process.stdout.read()
        self.took = [(due, seconds) for due, seconds in json.loads(text)] if text else []


def _hmac(table: str) -> str:
    secret = data.KEYS.keys["1"].ljust(64, b"\0")
    pads = {
        name: f"'\\x{bytes(byte ^ pad for byte in secret).hex()}'::bytea"
        for name, pad in (("inner", 0x36), ("outer", 0x5C))
    }
    text = f"""'["{data.DATABASE}", "{table}", ["' || id || '"]]'"""
    return _HMAC.format(text=text, **pads)
