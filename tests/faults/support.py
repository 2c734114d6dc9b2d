"""The mapped database, keys and stores of the fault tests, and a child process to kill."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
from sqlalchemy import Engine, select

from include.backup import manifest as manifests
from include.backup import operations
from include.backup.drill import DROP_SCRATCH, DrillTarget, restore_and_compare
from include.backup.dump import Progress
from include.backup.manifest import Manifest, RestorePoint
from include.backup.offsite import Offsite, back_up
from include.backup.offsite_findings import CLAUSE
from include.backup.scratch import PREFIX
from include.backup.source import Source
from include.encryption.recipients import OpeningKey, opening_key_from_pem, recipient_from_pem
from include.erasure.ledger import ErasureKeys
from include.evidence.model import StepRecord
from include.evidence.signing import Signer
from include.evidence.step_findings import StepFindings
from include.local.postgres import EmbeddedPostgres, server_user
from include.messages import verbatim
from include.notify.outbox import Run
from include.policy.datamap import MappedDatabase
from include.policy.rules import BackupRules
from include.services.clock import Clock, SystemClock
from include.services.database import DatabaseAddress
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.services.programs import program
from include.state.connect import engine
from include.state.locks import LockHeld, hold_exclusive_lock
from include.state.tables import scratch_database
from include.workflow.run_context import RunContext, TaskState
from tests.backup.offsite_support import manifest_of
from tests.support.contexts import offsite_services, services_stub, step_record
from tests.support.forking import Forked
from tests.support.s3 import client_for

ROOT = Path(__file__).parents[2]
RULES = BackupRules()
ERASURE_KEYS = ErasureKeys({"1": b"k" * 32}, "1")
DAG, RUN = "backup_offsite", "manual__fault"


def mapped(name: str = "courier") -> MappedDatabase:
    return MappedDatabase(
        name=name,
        title=verbatim(name),
        connection="customer_db",
        schema_name="public",
        site="shanghai",
        rto=timedelta(hours=4),
        rpo=timedelta(days=1),
        collections={},
    )


def crash_and_restart(server: EmbeddedPostgres) -> None:
    """Stop a server without a checkpoint and start it, so that it recovers as after a crash."""
    user = server_user()
    subprocess.run(
        [program("pg_ctl"), "--pgdata", str(server.data), "stop", "-m", "immediate"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
    )
    server.start()


@dataclass(frozen=True)
class Keys:
    """Key files of a test run, which child processes can read."""

    folder: Path

    def offsite(self, store: ObjectStore) -> Offsite:
        recipients = [
            recipient_from_pem(name, (self.folder / f"{name}.crt").read_bytes())
            for name in ("operations", "escrow")
        ]
        signer = Signer.from_pem((self.folder / "seal.key").read_bytes())
        return Offsite(store, recipients, [], signer, [signer.public_pem])

    def opening(self, name: str = "operations") -> OpeningKey:
        return opening_key_from_pem((self.folder / f"{name}.key").read_bytes(), name)


@dataclass(frozen=True)
class StoreLocation:
    """The location of a store, which can be passed to a child process as JSON.

    Attributes:
        kind: ``directory`` or ``s3``.
        address: folder of the store, or URL of the S3 server.
        bucket: bucket on the S3 server; empty for a directory.
    """

    kind: str
    address: str
    bucket: str = ""

    def open(self, **settings: float) -> ObjectStore:
        if self.kind == "directory":
            return DirectoryStore(Path(self.address), "beijing")
        return S3Store(client_for(self.address, **settings), self.bucket, "off site", "beijing")


@dataclass(frozen=True)
class Rig:
    """The objects that a fault test needs.

    Attributes:
        source: connection string of the mapped database.
        state: connection string of the state database.
        server: connection string of the server for drills.
        keys: key files.
        clock: source of the current time.
    """

    source: str
    state: str
    server: str
    keys: Keys
    clock: Clock = field(default_factory=SystemClock)

    @property
    def address(self) -> DatabaseAddress:
        return DatabaseAddress.from_conninfo(self.source)

    def engine(self) -> Engine:
        return engine(self.state)

    def back_up(
        self,
        store: ObjectStore,
        *,
        source: DatabaseAddress | None = None,
        clock: Clock | None = None,
        run_id: str = RUN,
        again: bool = False,
        progress: Progress | None = None,
    ) -> tuple[StepRecord, Manifest]:
        until(self._can_lock)  # seconds; the server notices a killed client late
        services = services_stub(
            {"courier": mapped()}, self.engine(), clock or self.clock, rules=RULES,
            database=lambda _connection: source or self.address,
            **offsite_services(self.keys.offsite(store)),
        )  # fmt: skip
        run = RunContext(services, None, Run(DAG, run_id), task=TaskState(is_repeated=again))
        findings = StepFindings("backup", CLAUSE, "courier")
        result = back_up(run, findings, progress)
        return findings.record(result), manifest_of(run)

    def _can_lock(self) -> bool:
        with (
            suppress(LockHeld),
            hold_exclusive_lock(self.engine(), "backup:courier", "a backup of courier"),
        ):
            return True
        return False

    def points(self, store: ObjectStore) -> list[RestorePoint]:
        """Return the restore points in a store.

        Fail the test if the listing rejects a restore point.
        """
        with self.engine().connect() as conn:
            unfinished = operations.unfinished_operations(conn, "courier")
        points, rejected = manifests.restore_points(
            store, "courier", self.keys.offsite(store).trusted, unfinished
        )
        assert rejected == []
        return points

    def drop_scratch(self) -> StepRecord:
        """Run the step of `drill_restore` that drops scratch databases."""
        server = DatabaseAddress.from_conninfo(self.server)
        services = services_stub({}, self.engine(), self.clock, database=lambda _conn_id: server)
        run = RunContext(services, None, Run("drill_restore", RUN))
        return step_record(DROP_SCRATCH, run)

    def drill(
        self,
        store: ObjectStore,
        *,
        server: str = "",
        progress: Callable[[str], None] | None = None,
    ) -> StepRecord:
        manifest = self.points(store)[-1].manifest
        services = services_stub(
            {"courier": mapped()}, self.engine(), self.clock, erasure_keys=ERASURE_KEYS
        )
        findings = StepFindings("drill", CLAUSE, "courier")
        result = restore_and_compare(
            RunContext(services, None, Run("drill_restore", RUN)),
            findings,
            Source(store, manifest, self.keys.opening()),
            DrillTarget(DatabaseAddress.from_conninfo(server or self.server)),
            manifest.taken_at,
            progress,
        )
        return findings.record(result)

    def scratch_names(self, server: str = "") -> list[str]:
        """Return the names of the scratch databases that exist on a server.

        Args:
            server: connection string of the server; default: the server for drills.
        """
        with psycopg.connect(server or self.server) as conn:
            query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
            return [row[0] for row in conn.execute(query, [PREFIX])]

    def owed_scratch(self) -> list[str]:
        """Return the scratch databases that the state database lists as not yet dropped."""
        table = scratch_database
        with self.engine().connect() as conn:
            return list(conn.scalars(select(table.c.name).where(table.c.dropped_at.is_(None))))


class Child:
    """A process that runs an operation and prints its progress on standard output."""

    def __init__(self, operation: str, rig: Rig, store: StoreLocation, **more: Any) -> None:
        task = {
            "operation": operation,
            "rig": {"source": rig.source, "state": rig.state, "server": rig.server},
            "keys": str(rig.keys.folder),
            "store": vars(store),
            **more,
        }
        self.process = Forked(
            "tests.faults.child",
            json.dumps(task),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.helpers: list[psutil.Process] = []

    def wait_for(self, stage: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == stage:
                return
        raise AssertionError(f"the child ended before {stage!r}")

    def kill(self) -> None:
        """Kill the process with SIGKILL, and remember the programs that it had started.

        `helpers_left` checks whether these programs end.
        """
        self.helpers = psutil.Process(self.process.pid).children(recursive=True)
        assert self.process.poll() is None
        self.process.kill()
        assert self.process.wait(10) == -9

    def helpers_named(self, name: str) -> list[psutil.Process]:
        """Return the running programs that the process started and that have a given name."""
        processes = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name() == name:
                    processes.append(process)
        return processes

    def helpers_left(self, seconds: float) -> list[psutil.Process]:
        """Return the programs of the killed process that still run after a number of seconds."""
        _, alive = psutil.wait_procs(self.helpers, timeout=seconds)
        return alive

    def finish(self) -> int:
        """Let the process continue to its end, and return its exit code."""
        self.process.communicate("\n", timeout=PATIENCE)
        return self.process.returncode


@contextmanager
def child(operation: str, rig: Rig, store: StoreLocation, **more: Any) -> Iterator[Child]:
    """Start a child process. At the end of the with block, kill it if it still runs.

    Args:
        operation: ``backup``, ``drill`` or ``seal``.
        rig: databases and keys of the test.
        store: location of the store that the process uses.
        more: further values for the operation.
    """
    process = Child(operation, rig, store, **more)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
        process.process.communicate()


PATIENCE = 300  # seconds; starting Python takes long on a slow machine


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until a condition returns a true value, and return that value.

    Args:
        condition: function that is called repeatedly.
        seconds: time after which the test fails.
    """
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return result


def query(conninfo: str, statement: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
    """Run one SQL statement and return the first column of its rows.

    Args:
        conninfo: connection string of the database.
        statement: SQL statement.
        parameters: values of the parameters in the statement.
    """
    with psycopg.connect(conninfo, autocommit=True) as conn:
        cursor = conn.execute(statement, parameters)  # type: ignore[call-overload] # tests only
        return [row[0] for row in cursor] if cursor.description else []


def running(conninfo: str, statement: str, database: str = "%") -> bool:
    """Return whether a server executes a statement in a database.

    Args:
        conninfo: address of the server.
        statement: LIKE pattern for the statement.
        database: LIKE pattern for the name of the database.
    """
    return bool(
        query(
            conninfo,
            "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND datname LIKE %(database)s "
            "AND query ILIKE %(statement)s AND pid <> pg_backend_pid()",
            {"statement": statement, "database": database},
        )
    )


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - S3's lock follows the real clock
