"""Server, sample, state and interpreters of the quality benchmark, all temporary but the peers'."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from benchmarks import _quality_sql
from benchmarks._measure import Run, console, measure, shell
from include.local.postgres import EmbeddedPostgres
from include.sample_company import load
from include.services.programs import program
from include.state.connect import engine
from include.state.migrate import migrate

AS_OF = datetime(2025, 11, 24, 12, tzinfo=UTC)  # changes follow it, and none is in the future
REQUIREMENTS = Path(__file__).parent / "requirements-quality.txt"
_SEAL = """
INSERT INTO evidence_ledger SELECT coalesce(max(seq), 0) + 1, %(run)s, 'check_quality', %(run)s,
    'pass', '{}', now(), now(), '', '', '', '' FROM evidence_ledger
"""


@dataclass(frozen=True)
class Timed:
    """One finished check.

    Attributes:
        process: all of it, as the operating system saw it.
        check: seconds of the check itself, without start and imports.
        imports: seconds of imports.
        counts: broken records by rule.
        looked_at: records, where the tool says so.
    """

    process: Run
    check: float
    imports: float
    counts: dict[str, int]
    looked_at: int | None = None


class QualityBench:
    """A server with a generated database and a state database."""

    def __init__(self, folder: Path, customers: int, peers: Path | None) -> None:
        self.folder, self.customers, self.peers = folder, customers, peers
        self._runs = self._changes = 0
        self.server = EmbeddedPostgres(folder / "pg", {"shared_buffers": shared_buffers()})
        self.server.start()
        for name in ("source", "fresh", "state"):
            self.create(name)
        with psycopg.connect(self.conninfo("source")) as connection:
            load(connection, customers=customers, as_of=AS_OF)
        with psycopg.connect(self.conninfo("source"), autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE) customer, consent, department")
        migrate(engine(self.conninfo("fresh")))
        statement = f"SET work_mem = '64MB';\n\\timing on\n{_quality_sql.statement(AS_OF)};\n"
        (folder / "statement.sql").write_text(statement)

    def conninfo(self, database: str) -> str:
        """Return a connection string of the benchmark's server."""
        return self.server.conninfo(database)

    def create(self, database: str, template: str = "template0") -> None:
        """Create a database, dropping an old one."""
        names = sql.Identifier(database), sql.Identifier(template)
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(names[0]))
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))

    def execute(self, database: str, statement: str, **given: Any) -> None:
        """Run one statement."""
        with psycopg.connect(self.conninfo(database)) as connection:
            connection.execute(statement.encode(), given or None)

    def ours(self, *, full: bool) -> Timed:
        """Check all records with an empty register, or those that changed since the last check."""
        if full:
            self.create("state", "fresh")
        self._runs += 1
        found = self._once("_quality_once", "ours", full=full, run_id=f"bench-{self._runs}")
        self.execute("state", _SEAL, run=f"bench-{self._runs}")
        return found

    def change(self, share: int) -> None:
        """Write one of ``share`` customers, others each time and a day later, as an application.

        They are read once, as others would meanwhile: the first reader of a page that was written
        to tidies it up for PostgreSQL, which no check has to pay for.
        """
        self._changes += 1
        self.execute(
            "source",
            "UPDATE customer SET updated_at = %(at)s"
            " + (hashint8(customer_id) & 65535) * interval '1 second'"  # over most of a day
            " WHERE customer_id %% %(share)s = %(number)s",
            at=AS_OF + timedelta(days=self._changes),
            share=share,
            number=self._changes % share,
        )
        self.execute("source", "SELECT count(*) FROM customer")

    def statement(self) -> Timed:
        """Run the one hand-written statement in psql."""
        output = self.folder / "statement.out"
        words = f"-X -h {self.server.socket_folder} -U postgres -d source -A -F ' '"
        file = self.folder / "statement.sql"
        process = self.run(
            shell(f"{program('psql')} {words} -v ON_ERROR_STOP=1 -f {file} > {output}")
        )
        lines = output.read_text().splitlines()
        head = next(at for at, line in enumerate(lines) if line.startswith("rows "))
        names, values = (one.split() for one in lines[head : head + 2])
        counts = dict(zip(names, map(int, values), strict=True))
        del counts["rows"]
        milliseconds = next(one for one in lines if one.startswith("Time:")).split()[1]
        return Timed(process, float(milliseconds) / 1000, 0.0, counts)

    def great_expectations(self) -> Timed:
        """Check with Great Expectations in our own interpreter."""
        return self._once("_quality_once", "gx")

    def peer(self, tool: str) -> Timed:
        """Check with a tool that has an interpreter of its own."""
        assert self.peers is not None
        return self._once("_quality_peers", tool, python=str(self.peers))

    def _once(self, module: str, tool: str, python: str = sys.executable, **more: Any) -> Timed:
        file = self.folder / f"{tool}.json"
        file.write_text(json.dumps({**self._given(), **more}))
        process = self.run([python, "-W", "ignore", "-m", f"benchmarks.{module}", tool, str(file)])
        found = json.loads(file.read_text())
        return Timed(
            process, found["check"], found["imports"], found["counts"], found.get("looked_at")
        )

    def _given(self) -> dict[str, Any]:
        host, password = str(self.server.socket_folder), self.server.password
        user = f"postgres:{quote(password, safe='')}"
        place = f"{user}@localhost/source?host={quote(host, safe='')}"
        return {
            "source": self.conninfo("source"),
            "state": self.conninfo("state"),
            "now": AS_OF.isoformat(),
            "work": str(self.folder),
            "host": host,
            "user": "postgres",
            "password": password,
            "database": "source",
            "url": f"postgresql://{place}",
            "gx_url": f"postgresql+psycopg://{place}".replace("$", "\\$"),
        }

    def run(self, command: list[str]) -> Run:
        """Measure one command, after writing dirty pages: it must not pay for the one before."""
        for database in ("source", "state"):
            self.execute(database, "CHECKPOINT")
        return measure(
            command, {"PGPASSWORD": self.server.password, "SODA_CORE_TELEMETRY_ENABLED": "false"}
        )


def shared_buffers() -> str:
    """A quarter of the memory, as PostgreSQL's manual has it (19.4.1), and at most 4 GiB."""
    quarter = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    return f"{min(quarter, 4 * 2**30) // 2**20}MB"


def peers_interpreter(folder: Path) -> Path:
    """Return an interpreter with the other tools; made on first use, by their pinned list."""
    digest = sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    place = folder / f"peers-{digest}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        console.print(f"Installing the other tools into {place} ...")
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        words = [python, "-m", "pip", "install", "-q", "--require-hashes", "-r", REQUIREMENTS]
        subprocess.run(words, check=True)
        (place / "complete").touch()
    return python
