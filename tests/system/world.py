"""The state of the whole system in a test, and its invariants.

The operations are in `tests.system.machine`.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
)
from psycopg import sql
from psycopg.conninfo import make_conninfo

from include.backup import manifest as manifests
from include.backup.dump import take_backup
from include.backup.offsite import offsite_of
from include.backup.point_folder import DUMP_NAME, MANIFEST_NAME, SIGNATURE_NAME
from include.cli import backup as backup_commands
from include.evidence import control_evidence, ledger, ledger_recovery
from include.evidence.bundle_reader import BundleReader
from include.evidence.signing import TrustedKeys
from include.evidence.step_findings import steps_of
from include.evidence.verify import verify_all
from include.holds import registry
from include.holds.registry import HoldKind
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.services.errors import ParcelSealError
from include.services.objectstore.directory import DirectoryStore
from tests.system.company import (
    NAME,
    Company,
    copy_database,
    name_of,
    query,
    relations_with,
)
from tests.system.intruder import Intruder, Undo
from tests.system.runs import Run, backup_run, drill_run, retention_run, sealed_result
from tests.system.shortcuts import shortcuts

LATER = timedelta(days=400)
"""Time after which all evidence of today is stale."""

picks = st.integers(0, 1000)
"""A number that `choose` maps to one of the existing items."""


FILES = (MANIFEST_NAME, SIGNATURE_NAME, DUMP_NAME)
RUNS = {
    "backup_offsite": backup_run,
    "drill_restore": drill_run,
    "enforce_retention": retention_run,
}
REGISTERS_OF = {
    "backup_offsite": ["legal_hold"],
    "drill_restore": ["erasure"],
    "enforce_retention": ["erasure", "legal_hold"],
    "restore": ["erasure"],
}
"""The registers that a workflow or command reads."""
PUBLIC_MAY_CONNECT = "SELECT has_database_privilege('public', current_database(), 'CONNECT')"
HOLDS = ("restore_point", "restore_point", "subject", "database")
CLOSED_REQUESTS = (
    "SELECT subject FROM erasure_request WHERE closed_at IS NOT NULL "
    "AND subject NOT IN (SELECT subject FROM erasure_request WHERE closed_at IS NULL)"
)


@dataclass
class Point:
    """A restore point, and its damage by an intruder.

    Attributes:
        damage: description of the intruder's change; empty if the restore point is undamaged.
        removed: name of the object that an intruder removed; empty if no object was removed.
        undo: function that restores the original objects.
    """

    id: str
    damage: str = ""
    removed: str = ""
    undo: Undo | None = None


class System(RuleBasedStateMachine):
    """A company, the history of its restore points, and the invariants.

    Subclasses add operations as rules of the state machine.
    """

    company: Company
    intruder: Intruder

    @staticmethod
    def new_company(folder: Path, kind: str) -> contextlib.AbstractContextManager[Company]:
        """Create the company; tests override this method.

        Args:
            folder: an empty folder.
            kind: type of the off-site store: ``directory`` or ``s3``.
        """
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="parcelseal-system-"))
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.stack.enter_context(shortcuts())
        publish = manifests.publish

        def publish_unlocked(store: Any, manifest: Any, signer: Any, lock_until: Any) -> None:
            publish(store, manifest, signer, lock_until if self.company.bucket else None)

        # A lock of one day, the shortest that a policy pack can set, would prevent the pruning of
        # every restore point in a directory.
        self.stack.enter_context(patch.object(manifests, "publish", publish_unlocked))
        self.customers: set[str] = set()
        self.number = 0
        self.released: set[str] = set()
        self.points: dict[str, Point] = {}
        self.holds: dict[int, tuple[HoldKind, str]] = {}
        self.requested: set[str] = set()
        self.erased: set[str] = set()
        self.runs: list[Run] = []
        self.unsealed: list[Run] = []
        self.pruned: set[str] = set()
        self.lost_registers: list[tuple[str, list[Any]]] = []
        self.saved_counts: dict[str, int] = {}
        self.sealed_counts = {"erasure": 0, "legal_hold": 0}

    def close(self) -> None:
        """Drop the databases of the company."""
        if self.saved_counts:
            query(self.company.admin, f'DROP DATABASE "{self._saved_state()}"')
        self.stack.close()

    # --- Invariants.

    @invariant()
    def held_and_valid_restore_points_are_there(self) -> None:
        """Check that only pruning deletes restore points, and never while they are on hold."""
        stored = self._stored()
        for point in self.points.values():
            removed = {point.removed} if self.company.bucket is None else set()
            missing = {*FILES} - removed - stored.get(point.id, set())
            assert not missing, f"{point.id} lost {sorted(missing)} ({point.damage or 'whole'})"

    @invariant()
    def runs_show_what_is_sealed(self) -> None:
        """Check that each run shows the outcome of its bundle and of the evidence ledger."""
        for run in self.runs[-3:]:
            if run.bundle not in self.pruned:
                assert run.shown == str(sealed_result(self.company, run.bundle).outcome)
            with self.state.connect() as conn:
                row = ledger.find(conn, run.dag_id, run.run_id)
            assert row is not None
            assert row.outcome == run.shown

    @invariant()
    def records_of_unsealed_runs_are_there(self) -> None:
        """Check that the step records of runs without a verified bundle are kept."""
        for run in self.unsealed:
            with self.state.connect() as conn:
                assert steps_of(conn, run.dag_id, run.run_id), f"{run.run_id} lost its records"

    # --- Parts of operations.

    @property
    def state(self) -> Any:
        """The engine of the state database."""
        return self.company.services.state

    @property
    def clock(self) -> Clock:
        """The clock of tasks and commands."""
        return self.company.services.clock

    def _run(self, run: Run) -> str:
        outcome = run.complete(self.company)
        self.runs.append(run)
        for register in REGISTERS_OF[run.dag_id]:
            self.sealed_counts[register] = self._counts()[register]
        return outcome

    def _add_hold(self, conn: Any, kind: HoldKind, value: str) -> int:
        hold = registry.add(
            conn,
            self.clock,
            kind=kind,
            value=value,
            reason="claim",
            owner="legal",
            case_ref="case 1",
            review_on=date(2099, 1, 1),
        )
        return hold.id

    def _stored(self) -> dict[str, set[str]]:
        """Return the names of the objects whose bytes the off-site store has, by restore point."""
        return self.intruder.contents(NAME)

    def _undamaged_points(self) -> list[str]:
        """Return the ids of the undamaged restore points, oldest first.

        Several restore points may be from the same second. Therefore the ids alone do not give the
        order.
        """
        return [key for key, point in self.points.items() if not point.damage]

    def _held_points(self) -> set[str]:
        if any(kind is HoldKind.DATABASE for kind, _value in self.holds.values()):
            return set(self.points)
        return {value for kind, value in self.holds.values() if kind is HoldKind.RESTORE_POINT}

    def _note_points(self, before: dict[str, set[str]], held: set[str]) -> None:
        """Register new restore points, and remove those that pruning was allowed to delete.

        Pruning may delete a restore point that is signed, not on hold and not the newest.

        Args:
            before: names of the stored objects before the operation, by restore point.
            held: ids of the restore points on hold.
        """
        stored = self._stored()
        listed = [key for key, point in self.points.items() if not self._is_hidden(point)]
        for point, names in stored.items():
            if point not in before and names == {*FILES}:
                self.points[point] = Point(point)
                listed.append(point)
        for point in listed[:-1]:
            if point not in stored and point not in held:
                del self.points[point]

    def _is_hidden(self, point: Point) -> bool:
        """Return whether a listing must notice the damage of a restore point.

        A listing does not read the dumps in a directory, so it cannot notice an overwritten dump
        there.
        """
        overwritten_dump = point.damage == f"overwritten {DUMP_NAME}"
        return bool(point.damage) and not (overwritten_dump and self.company.bucket is None)

    def _damaged(self) -> list[str]:
        return [key for key, point in self.points.items() if point.damage]

    def _erased_in(self, conninfo: str) -> dict[str, dict[str, int]]:
        counts = {key: relations_with(conninfo, key) for key in sorted(self.erased)}
        return {key: rows for key, rows in counts.items() if rows}

    def _findings(self, run: Run) -> list[str]:
        findings = sealed_result(self.company, run.bundle).findings
        return [
            f"{finding.severity} {finding.code} {finding.message.text} {finding.message.values}"
            for finding in findings
        ]

    def _erasures_are_sealed(self) -> bool:
        """Return whether a sealed run has recorded the current number of erasures."""
        return 0 < self._counts()["erasure"] == self.sealed_counts["erasure"]

    def _forged_dump(self, point: str) -> bytes:
        """Return a dump of another schema that is encrypted as the dump of a restore point."""
        services = self.company.services
        live = name_of(self.company.live)
        copy_database(self.company.admin, live, f"forged_{live}")
        forged = make_conninfo(self.company.admin, dbname=f"forged_{live}")
        query(forged, "CREATE TABLE forged AS SELECT 1 AS column")
        store = DirectoryStore(self.folder)
        with patch.object(manifests, "new_id", lambda *_moment_and_suffix: point):
            backup = take_backup(
                DatabaseAddress.from_conninfo(forged),
                NAME,
                [],
                store,
                offsite_of(services).recipients,
                expires_after=lambda moment: moment,
            )
        query(self.company.admin, f'DROP DATABASE "forged_{live}"')
        return store.get(backup.manifest.dump.key)

    def _recover_ledger(self, clock: Clock) -> None:
        """Recover the evidence ledger, as `./parcelseal recover-ledger` does."""
        services = self.company.services
        with self.state.connect() as conn:
            ledger_recovery.recover_ledger(
                services.store("evidence_store"),
                conn,
                services.signer,
                TrustedKeys(services.trusted),
                clock,
            )

    def _chain_holds(self) -> bool:
        services = self.company.services
        with self.state.connect() as conn:
            return verify_all(services.store("evidence_store"), conn, services.trusted).verified

    def _check_chain(self) -> None:
        """Check that all bundles of the store form one chain, and that the ledger contains them."""
        services = self.company.services
        with self.state.connect() as conn:
            chain = verify_all(services.store("evidence_store"), conn, services.trusted)
        assert chain.verified, f"the chain of evidence broke at {chain.first_bad}: {chain.reason}"

    def _saved_state(self) -> str:
        return f"saved_{name_of(self.company.state)}"

    def _counts(self) -> dict[str, int]:
        """Return the number of rows of each register, by table."""
        return {
            register: int(self.company.run_on_state(f"SELECT count(*) FROM {register}")[0][0])
            for register in ("erasure", "legal_hold")
        }

    @contextmanager
    def _new_database(self) -> Iterator[str]:
        name = f"copy_{time.monotonic_ns()}"
        with psycopg.connect(self.company.admin, autocommit=True) as connection:
            names = sql.Identifier(name)
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template1 STRATEGY file_copy").format(names)
            )
            try:
                yield make_conninfo(self.company.admin, dbname=name)
            finally:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names))

    def _restore(self, target: str, point: str, *, incomplete_ledger: bool = False) -> int:
        """Run `parcelseal restore`, and return its exit code."""
        services = self.company.services
        with (
            patch.object(backup_commands, "command_services", lambda: services),
            patch.object(backup_commands, "local_stack", contextlib.nullcontext),
            patch.object(backup_commands, "tell", lambda _text: None),
        ):
            try:
                return backup_commands.restore(
                    database=NAME,
                    into=target,
                    key=str(self.company.folder / "operations.key"),
                    point=point,
                    jobs=2,
                    owners=False,
                    into_existing=False,
                    skip_erasures=False,
                    incomplete_ledger=incomplete_ledger,
                    as_json=True,
                )
            except ParcelSealError as error:
                return error.exit_code

    def _check_evidence_is_stale(self, now: datetime) -> None:
        """Check that no control counts evidence as recent that was signed long ago."""
        services = self.company.services
        bundle_reader = BundleReader(services.store("evidence_store"), services.trusted)
        controls = [control for control in services.pack.controls if control.workflow in RUNS]
        with self.state.connect() as conn:
            zone = services.pack.calendar.zone
            current = control_evidence.read_control_evidence(
                conn, bundle_reader, controls, now, zone
            )
        passed = [
            control.control.id
            for control in current
            if control.row and control.age is control_evidence.Age.IN_TIME
        ]
        assert not passed, f"evidence of {LATER.days} days ago is in time for {passed}"


def choose(items: list[Any], pick: int) -> Any:
    """Return the item that a random number selects.

    Args:
        items: items to choose from.
        pick: random number, which may exceed the number of items.
    """
    return items[pick % len(items)]
