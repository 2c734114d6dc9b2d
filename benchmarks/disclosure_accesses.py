"""Compare accesses with approvals, and measure against queries that a person would write.

``python -m benchmarks.disclosure_accesses [--rows N] [--rounds N]`` uses one embedded PostgreSQL.
It exits with 1 if a target is missed. The queries by hand name the company's own columns. They list
the violations, the approvals that were never used, and the accesses of each person against the
median of the department. Both sides must find the same numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks._measure import (
    Part,
    Run,
    Targets,
    console,
    machine,
    measure,
    parts_row,
    parts_table,
    shell,
)
from include.local.postgres import EmbeddedPostgres
from include.services.programs import program
from include.state.connect import engine
from include.state.migrate import migrate

DATABASE, STATE = "accesses", "accesses_state"
SLOWER = 2.0  # largest duration relative to the queries by hand
HOURLY = 5.0  # seconds of an hourly run
MEMORY = 250  # MiB
SETTINGS = {"max_wal_size": "8GB", "shared_buffers": "512MB"}
NOW = datetime(2026, 6, 1, 4, tzinfo=UTC)
APPROVALS = 50_000
PEOPLE, DEPARTMENTS = 2_000, 40
DAYS = 1_095  # of the log

_TABLES = f"""
CREATE TABLE department (department_id integer PRIMARY KEY, name text NOT NULL);
INSERT INTO department SELECT n, 'Branch ' || n FROM generate_series(1, {DEPARTMENTS}) n;
CREATE TABLE employee (
    employee_id integer PRIMARY KEY, number text NOT NULL, department_id integer NOT NULL);
INSERT INTO employee
SELECT n, 'N' || lpad(n::text, 5, '0'), n % {DEPARTMENTS} + 1 FROM generate_series(1, {PEOPLE}) n;
CREATE TABLE approval (
    approval_id bigint PRIMARY KEY, requester_id integer NOT NULL, approver_id integer NOT NULL,
    purpose text NOT NULL, fields text[] NOT NULL, approved_at timestamptz NOT NULL,
    valid_until timestamptz NOT NULL);
INSERT INTO approval
SELECT n, n % {PEOPLE} + 1, CASE WHEN n % 500 = 0 THEN n % {PEOPLE} + 1 ELSE n % 97 + 1 END,
    'purpose ' || n % 4, '{{name,phone,address}}', starts, starts + interval '7 days'
FROM generate_series(1, {APPROVALS}) n,
    LATERAL (SELECT %(now)s::timestamptz - interval '{DAYS} days'
        + n * interval '{DAYS - 8} days' / {APPROVALS}) AS s (starts);
UPDATE approval SET approver_id = approver_id + 100
WHERE approver_id = requester_id AND approval_id % 500 <> 0;
"""  # noqa: S608 - constants
_LOG = """
CREATE TABLE access_log (
    access_id bigint NOT NULL, employee_id integer NOT NULL, customer_id bigint NOT NULL,
    purpose text NOT NULL, accessed_at timestamptz NOT NULL, approval_id bigint);
INSERT INTO access_log
SELECT n, a.requester_id, n * 7919 %% 1000000,
    CASE WHEN n %% 500 = 1 THEN 'marketing' ELSE a.purpose END,
    a.approved_at + interval '1 hour' * (n %% 168)
        + CASE WHEN n %% 400 = 2 THEN interval '8 days' ELSE interval '0' END,
    CASE WHEN n %% 250 <> 3 THEN a.approval_id END
FROM generate_series(1::bigint, %(rows)s) n
JOIN approval a ON a.approval_id = 1 + (n - 1) * {approvals} / %(rows)s
WHERE a.approval_id %% 1000 <> 7;
ALTER TABLE access_log ADD PRIMARY KEY (access_id);
CREATE INDEX ON access_log (accessed_at);
"""
_BY_HAND = (
    """
COPY (
    SELECT a.access_id, e.number, d.name, a.approval_id, a.accessed_at,
        concat_ws(',',
            CASE WHEN p.approval_id IS NULL OR p.requester_id <> a.employee_id
                THEN 'without_approval' END,
            CASE WHEN p.approver_id = p.requester_id THEN 'approval_by_requester' END,
            CASE WHEN a.accessed_at NOT BETWEEN p.approved_at AND p.valid_until
                THEN 'outside_period' END,
            CASE WHEN a.purpose <> p.purpose THEN 'outside_purpose' END)
    FROM access_log a JOIN employee e USING (employee_id) JOIN department d USING (department_id)
    LEFT JOIN approval p USING (approval_id)
    WHERE p.approval_id IS NULL OR p.requester_id <> a.employee_id
        OR p.approver_id = p.requester_id
        OR a.accessed_at NOT BETWEEN p.approved_at AND p.valid_until OR a.purpose <> p.purpose
) TO STDOUT
""",
    """
COPY (
    SELECT approval_id FROM approval p WHERE valid_until < {now}
    AND NOT EXISTS (SELECT FROM access_log a WHERE a.approval_id = p.approval_id)
) TO STDOUT
""",
    """
COPY (
    SELECT name, count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY n), max(n)
    FROM (SELECT d.name, e.number, count(*) AS n
        FROM access_log a JOIN employee e USING (employee_id)
        JOIN department d USING (department_id)
        WHERE a.accessed_at > {now}::timestamptz - interval '30 days' AND a.accessed_at <= {now}
        GROUP BY 1, 2) AS counted
    GROUP BY name
) TO STDOUT
""",
)
RULES = {
    "database": "bench",
    "log": "SELECT a.access_id AS access, e.number AS person, a.customer_id AS subject, a.purpose, "
    "NULL::text[] AS fields, a.accessed_at AS at, a.approval_id AS approval, d.name AS department "
    "FROM access_log a LEFT JOIN employee e USING (employee_id) "
    "LEFT JOIN department d USING (department_id)",
    "approvals": "SELECT p.approval_id AS approval, r.number AS person, s.number AS approver, "
    "p.purpose, p.fields, p.approved_at AS starts, p.valid_until AS ends "
    "FROM approval p JOIN employee r ON r.employee_id = p.requester_id "
    "LEFT JOIN employee s ON s.employee_id = p.approver_id",
}


@dataclass(frozen=True)
class Round:
    """One round of the queries by hand and of ParcelSeal.

    Attributes:
        by_hand: measurements of psql with the three queries.
        first: the first comparison, which enters all violations.
        full: a later full comparison, which finds the same violations.
        hourly: an incremental comparison.
    """

    by_hand: Run
    first: Part
    full: Part
    hourly: Part


class AccessBench:
    """A PostgreSQL server with an access log and a state database; both are temporary."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder = folder
        self.runs = 0
        (folder / "store").mkdir()
        self.server = EmbeddedPostgres(folder / "pg", SETTINGS)
        try:
            self.server.start()
            with psycopg.connect(self.server.conninfo("postgres"), autocommit=True) as admin:
                for name in (DATABASE, STATE):
                    admin.execute(f"CREATE DATABASE {name}".encode())
            with psycopg.connect(self.server.conninfo(DATABASE), autocommit=True) as connection:
                create_tables(connection, rows)
            migrate(engine(self.server.conninfo(STATE)))
        except BaseException:
            self.server.stop()
            raise

    def by_hand(self) -> tuple[Run, list[int]]:
        """Measure the three queries in one psql, and return the numbers of their rows."""
        words = [program("psql"), "-qXAt", "-c", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"]
        for query in _BY_HAND:
            words += ["-c", query.format(now=f"'{NOW.isoformat()}'"), "-c", "SELECT 'end'"]
        words.append(self.server.conninfo(DATABASE))
        file = self.folder / "by_hand"
        run = measure(shell(f"{shlex.join(words)} > {shlex.quote(str(file))}"))
        counts, count = [], 0
        with file.open() as lines:
            for line in lines:
                count += 1
                if line.strip() == "end":
                    counts.append(count)
                    count = 0
        return run, counts

    def ours(self, *, full: bool, hours: int = 0) -> Part:
        """Measure the step in a separate process."""
        self.runs += 1
        file = self.folder / "parameters.json"
        parameters = {
            "database": self.server.conninfo(DATABASE),
            "state": self.server.conninfo(STATE),
            "store": str(self.folder / "store"),
            "rules": RULES,
            "now": (NOW + timedelta(hours=hours)).isoformat(),
            "run": f"r{self.runs}",
            "full": full,
        }
        file.write_text(json.dumps(parameters))
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks._accesses_once", str(file)]
        run = measure(command)
        return Part(run, json.loads(file.read_text()))

    def round(self) -> Round:
        """Measure each part once, with an empty register at the beginning."""
        with psycopg.connect(self.server.conninfo(STATE), autocommit=True) as connection:
            connection.execute("ALTER TABLE access_violation DISABLE TRIGGER USER")
            connection.execute("TRUNCATE access_violation, access_comparison")
            connection.execute("ALTER TABLE access_violation ENABLE TRIGGER USER")
        first = self.ours(full=False)
        by_hand, _counts = self.by_hand()
        full = self.ours(full=True)
        hourly = self.ours(full=False, hours=1)
        if not first.answer["full"] or hourly.answer["full"]:
            sys.exit("The comparisons were not of the expected kinds.")
        if first.answer["violations"] != full.answer["violations"]:
            sys.exit("The two full comparisons differ.")
        return Round(by_hand, first, full, hourly)


def create_tables(connection: psycopg.Connection[Any], rows: int) -> None:
    """Create the approvals and the access log."""
    cursor = psycopg.ClientCursor(connection)
    cursor.execute(_TABLES.replace("%(now)s", f"'{NOW.isoformat()}'").encode())
    cursor.execute(_LOG.format(approvals=APPROVALS).encode(), {"rows": rows})
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("CHECKPOINT")


def check_counts(bench: AccessBench) -> dict[str, Any]:
    """Compare the numbers of both sides, and return those of ParcelSeal."""
    answer = bench.ours(full=True).answer
    _run, counts = bench.by_hand()
    with psycopg.connect(bench.server.conninfo(STATE)) as connection:
        row = connection.execute(
            "SELECT count(DISTINCT access) FROM access_violation WHERE state = 'open'"
        ).fetchone()
    assert row is not None
    ours = [row[0], answer["never_used"], answer["departments"]]
    by_hand = [count - 1 for count in counts]  # without the line that ends each result
    if ours != by_hand:
        sys.exit(f"The queries by hand and ParcelSeal differ: {by_hand} and {ours}.")
    return answer


def measure_accesses(rows: int, rounds: int, targets: Targets) -> None:
    """Measure comparisons of an access log, and print the results.

    Args:
        rows: number of accesses.
        rounds: number of rounds after a warm-up.
        targets: collects missed targets.
    """
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    bench = None
    try:
        bench = AccessBench(folder, rows)
        answer = check_counts(bench)
        console.print(f"{answer['accesses']:,} accesses; violations: {answer['violations']}")
        measured = [bench.round() for _ in range(rounds)]
    finally:
        if bench is not None:
            bench.server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    table = parts_table(f"Accesses against {APPROVALS:,} approvals")
    hand = [Part(each.by_hand, {"seconds": each.by_hand.seconds}) for each in measured]
    parts_row(table, "queries by hand", hand, "1.00")
    for name in ("first", "full", "hourly"):
        parts = [getattr(each, name) for each in measured]
        ratio = median(
            part.seconds / each.by_hand.seconds for part, each in zip(parts, measured, strict=True)
        )
        parts_row(table, f"ParcelSeal, {name} comparison", parts, f"{ratio:.2f}")
        if name != "hourly":
            targets.most(f"{name} comparison of accesses against queries by hand", ratio, SLOWER)
        else:
            seconds = median(part.seconds for part in parts)
            targets.most("hourly comparison of accesses", seconds, HOURLY, " s")
    console.print(table)
    peak = max(part.run.peak for each in measured for part in (each.first, each.full, each.hourly))
    targets.most("peak memory of a comparison of accesses", peak / 2**20, MEMORY, " MiB")


def main() -> None:
    """Measure comparisons, and exit with 1 if a target is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    targets = Targets()
    console.print(f"{machine()}; load {os.getloadavg()[0]:.1f}; {args.rounds} rounds")
    measure_accesses(args.rows, args.rounds, targets)
    console.print(f"Load at the end: {os.getloadavg()[0]:.1f}")
    sys.exit(1 if targets.missed else 0)


if __name__ == "__main__":
    main()
