"""Compare backup and restore with common shell pipelines, in alternation.

``./parcelseal bench backup [--size GiB] [--rounds N]``. Needs age, restic and zstd.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql

from benchmarks._measure import Run, console, machine, measure, require, shell, show
from include.encryption.recipients import new_pair
from include.evidence.signing import generate_key
from include.local.postgres import EmbeddedPostgres
from include.sample_company import load
from include.services.programs import program
from include.state.connect import engine
from include.state.migrate import migrate

CUSTOMERS_PER_GIB = 700_000
AS_OF = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Bench:
    """A PostgreSQL server with a generated database, keys and folders, all of them temporary."""

    def __init__(self, folder: Path, size: float) -> None:
        self.folder = folder
        self.server = EmbeddedPostgres(folder / "pg")
        self.server.start()
        for name in ("source", "state"):
            self.create(name)
        customers = int(size * CUSTOMERS_PER_GIB)
        with psycopg.connect(self.conninfo("source")) as connection:
            load(connection, customers=customers, as_of=AS_OF)
            connection.commit()
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row is not None
        self.size = int(row[0])
        migrate(engine(self.conninfo("state")))
        now = datetime.now(UTC)  # noqa: TID251 - keys of a benchmark, valid from now
        for name in ("operations", "escrow"):
            private, certificate = new_pair(name, now)
            (folder / f"{name}.key").write_bytes(private)
            (folder / f"{name}.crt").write_bytes(certificate)
        (folder / "evidence.key").write_bytes(generate_key())
        for name in ("offsite", "evidence"):
            (folder / name).mkdir()
        subprocess.run(["age-keygen", "-o", folder / "age.key"], check=True, capture_output=True)
        text = (folder / "age.key").read_text()
        self.age = text.partition("public key: ")[2].split()[0]
        self.environment = {"PGPASSWORD": self.server.password, "RESTIC_PASSWORD": "bench"}

    def new_repository(self) -> None:
        """Create an empty restic repository; restic would store almost nothing in a used one."""
        shutil.rmtree(self.folder / "restic", ignore_errors=True)
        restic = ["restic", "init", "-q", "-r", str(self.folder / "restic")]
        subprocess.run(restic, check=True, env={**self.environment, "HOME": str(self.folder)})

    def conninfo(self, database: str) -> str:
        """Return a connection string of a database on the benchmark's server."""
        return self.server.conninfo(database)

    def create(self, database: str) -> None:
        """Create a database after dropping an old one."""
        name = sql.Identifier(database)
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(name))
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))

    def checkpoint(self) -> None:
        """Write dirty pages to disk, so that the next measurement does not include them."""
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as admin:
            admin.execute("CHECKPOINT")
        subprocess.run(["sync"], check=True)

    def program(self, name: str, database: str, words: str) -> str:
        """Return a call of one of PostgreSQL's programs as text for a shell."""
        host = shlex.quote(str(self.server.socket_folder))
        return f"{shlex.quote(program(name))} -h {host} -U postgres {words} -d {database}"

    def ours(self, verb: str, database: str, *more: str) -> list[str]:
        """Return the command that runs ParcelSeal's backup or restore in a separate process."""
        words = [sys.executable, "-m", "benchmarks._backup_once", verb, str(self.folder)]
        return [*words, self.conninfo(database), *more]

    def run(self, command: list[str]) -> Run:
        """Measure a command after a checkpoint."""
        self.checkpoint()
        return measure(command, self.environment)


def main() -> None:
    """Measure backups and restores, and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    require("age", "age-keygen", "restic", "zstd")
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-"))
    folder.chmod(0o755)
    try:
        bench = Bench(folder, args.size)
        console.print(f"{machine()}; database {bench.size / 2**30:.2f} GiB; {args.rounds} rounds")
        measure_backups(bench, args.rounds)
        measure_restores(bench, args.rounds)
        bench.server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure_backups(bench: Bench, rounds: int) -> None:
    """Measure backups by ParcelSeal and two pipelines in turn, after a warm-up of each."""
    dump = bench.program("pg_dump", "source", "-Fc --compress=none")
    folder = shlex.quote(str(bench.folder))
    commands = {
        "ParcelSeal": bench.ours("backup", "source", bench.conninfo("state")),
        "pg_dump | zstd -3 -T2 | age": shell(
            f"{dump} | zstd -q -3 -T2 | age -r {bench.age} > {folder}/dump.age"
        ),
        "pg_dump | restic backup --stdin": shell(
            f"{dump} | restic -q -r {folder}/restic --no-cache backup --stdin"
        ),
    }
    show("Backup", _in_turn(bench, commands, rounds, None), "pg_dump | zstd -3 -T2 | age")
    pdf = bench.run(bench.ours("backup", "source", bench.conninfo("state"), "--pdf"))
    console.print(f"ParcelSeal with both PDF reports: {pdf.seconds:.2f} s")


def measure_restores(bench: Bench, rounds: int) -> None:
    """Measure restores into a new empty database, by ParcelSeal and a pipeline in turn."""
    folder = shlex.quote(str(bench.folder))
    # pg_restore -j needs a seekable file, so the pipeline writes an unencrypted one.
    load = bench.program("pg_restore", "target", "-j2")
    pipeline = (
        f"age -d -i {folder}/age.key {folder}/dump.age | zstd -q -d > {folder}/clear.dump "
        f"&& {load} {folder}/clear.dump && rm {folder}/clear.dump"
    )
    commands = {
        "ParcelSeal": bench.ours("restore", "target"),
        "age -d | zstd -d | pg_restore -j2": shell(pipeline),
    }
    show(
        "Restore",
        _in_turn(bench, commands, rounds, "target"),
        "age -d | zstd -d | pg_restore -j2",
    )


def _in_turn(
    bench: Bench, commands: dict[str, list[str]], rounds: int, target: str | None
) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds + 1):  # the first round warms up and is not counted
        for name, command in commands.items():
            if target:
                bench.create(target)
            else:
                bench.new_repository()
            process = bench.run(command)
            if number:
                runs[name].append(process)
    return runs


if __name__ == "__main__":
    main()
