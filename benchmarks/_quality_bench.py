"""Server, sample data, state database and Python interpreters of the quality benchmark.

All are temporary, except the interpreter that contains the compared tools.
"""

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

AS_OF = datetime(2025, 11, 24, 12, tzinfo=UTC)  # all changes are later, but not in the future
REQUIREMENTS = Path(__file__).parent / "requirements-quality.txt"
_SEAL = """
INSERT INTO evidence_ledger SELECT coalesce(max(seq), 0) + 1, %(run)s, 'check_quality', %(run)s,
    'pass', '{}', now(), now(), '', '', '', '' FROM evidence_ledger
"""


@dataclass(frozen=True)
class CheckTiming:
    """The measurements of a finished check.

    Attributes:
        process: measurements of the whole process.
        check: seconds of the check itself, without the start of the process and imports.
        imports: seconds of the imports.
        counts: number of violating records by rule.
        looked_at: number of checked records, if the tool reports it.
    """

    process: Run
    check: float
    imports: float
    counts: dict[str, int]
    looked_at: int | None = None


class QualityBench:
    """A PostgreSQL server with a generated database and a state database."""

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
        """Return a connection string of a database on the benchmark's server."""
        return self.server.conninfo(database)

    def create(self, database: str, template: str = "template0") -> None:
        """Create a database, after dropping an existing one with this name."""
        names = sql.Identifier(database), sql.Identifier(template)
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(names[0]))
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))

    def execute(self, database: str, statement: str, **parameters: Any) -> None:
        """Run a statement on a database."""
        with psycopg.connect(self.conninfo(database)) as connection:
            connection.execute(statement.encode(), parameters or None)

    def ours(self, *, full: bool) -> CheckTiming:
        """Measure a check by ParcelSeal.

        Args:
            full: whether all records are checked, with an empty quarantine. Otherwise only the
                records that changed since the last check are checked.
        """
        if full:
            self.create("state", "fresh")
        self._runs += 1
        timing = self._run_tool("_quality_once", "ours", full=full, run_id=f"bench-{self._runs}")
        self.execute("state", _SEAL, run=f"bench-{self._runs}")
        return timing

    def change(self, share: int) -> None:
        """Update one in ``share`` customers as an application would.

        Each call updates other customers, one day later. Afterwards the table is read once, as
        other users would do. The first reader of a written page has to set its hint bits for
        PostgreSQL, and the measured check should not include that time.
        """
        self._changes += 1
        self.execute(
            "source",
            "UPDATE customer SET updated_at = %(at)s"
            " + (hashint8(customer_id) & 65535) * interval '1 second'"  # spread over most of a day
            " WHERE customer_id %% %(share)s = %(number)s",
            at=AS_OF + timedelta(days=self._changes),
            share=share,
            number=self._changes % share,
        )
        self.execute("source", "SELECT count(*) FROM customer")

    def statement(self) -> CheckTiming:
        """Measure the single handwritten statement in psql."""
        output = self.folder / "statement.out"
        options = f"-X -h {self.server.socket_folder} -U postgres -d source -A -F ' '"
        file = self.folder / "statement.sql"
        process = self.run(
            shell(f"{program('psql')} {options} -v ON_ERROR_STOP=1 -f {file} > {output}")
        )
        lines = output.read_text().splitlines()
        header = next(index for index, line in enumerate(lines) if line.startswith("rows "))
        names, values = (line.split() for line in lines[header : header + 2])
        counts = dict(zip(names, map(int, values), strict=True))
        del counts["rows"]
        milliseconds = next(line for line in lines if line.startswith("Time:")).split()[1]
        return CheckTiming(process, float(milliseconds) / 1000, 0.0, counts)

    def great_expectations(self) -> CheckTiming:
        """Measure a check by Great Expectations in ParcelSeal's interpreter."""
        return self._run_tool("_quality_once", "gx")

    def peer(self, tool: str) -> CheckTiming:
        """Measure a check by a tool that has a separate interpreter."""
        assert self.peers is not None
        return self._run_tool("_quality_peers", tool, python=str(self.peers))

    def _run_tool(
        self, module: str, tool: str, python: str = sys.executable, **options: Any
    ) -> CheckTiming:
        file = self.folder / f"{tool}.json"
        file.write_text(json.dumps({**self._parameters(), **options}))
        process = self.run([python, "-W", "ignore", "-m", f"benchmarks.{module}", tool, str(file)])
        result = json.loads(file.read_text())
        return CheckTiming(
            process, result["check"], result["imports"], result["counts"], result.get("looked_at")
        )

    def _parameters(self) -> dict[str, Any]:
        host, password = str(self.server.socket_folder), self.server.password
        user = f"postgres:{quote(password, safe='')}"
        address = f"{user}@localhost/source?host={quote(host, safe='')}"
        return {
            "source": self.conninfo("source"),
            "state": self.conninfo("state"),
            "now": AS_OF.isoformat(),
            "work": str(self.folder),
            "host": host,
            "user": "postgres",
            "password": password,
            "database": "source",
            "url": f"postgresql://{address}",
            "gx_url": f"postgresql+psycopg://{address}".replace("$", "\\$"),
        }

    def run(self, command: list[str]) -> Run:
        """Measure a command after a checkpoint.

        Without the checkpoint, the command would also write dirty pages of the previous command.
        """
        for database in ("source", "state"):
            self.execute(database, "CHECKPOINT")
        return measure(
            command, {"PGPASSWORD": self.server.password, "SODA_CORE_TELEMETRY_ENABLED": "false"}
        )


def shared_buffers() -> str:
    """Return a quarter of the memory, at most 4 GiB, as PostgreSQL's manual recommends (19.4.1)."""
    quarter = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    return f"{min(quarter, 4 * 2**30) // 2**20}MB"


def peers_interpreter(folder: Path) -> Path:
    """Return a Python interpreter with the compared tools.

    At its first use, it is installed from the pinned list of packages.
    """
    digest = sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    path = folder / f"peers-{digest}"
    python = path / "bin" / "python"
    if not (path / "complete").exists():
        console.print(f"Installing the other tools into {path} ...")
        subprocess.run([sys.executable, "-m", "venv", "--clear", path], check=True)
        command = [python, "-m", "pip", "install", "-q", "--require-hashes", "-r", REQUIREMENTS]
        subprocess.run(command, check=True)
        (path / "complete").touch()
    return python
