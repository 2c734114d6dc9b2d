"""A state machine that checks invariants of the whole system after each operation.

`SystemMachine` runs backups, drills, retention, restores and seals on a small company. Between them
operators, customers, releases of the application, failures and intruders change what the runs work
on. docs/architecture.md lists the invariants ("Where packages meet").
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
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
    initialize,
    invariant,
    precondition,
    rule,
)
from psycopg import sql
from psycopg.conninfo import make_conninfo

import include.reports.render as rendering
from include.backup import manifest as manifests
from include.backup import scratch
from include.backup.dump import take_backup
from include.backup.point_folder import DUMP_NAME, MANIFEST_NAME, SIGNATURE_NAME
from include.backup.point_folder import folder as folder_of
from include.cli import backup as backup_commands
from include.erasure import requests
from include.evidence import adopt, ledger, standing
from include.evidence.shelf import Shelf
from include.evidence.signing import TrustedKeys
from include.holds import registry
from include.holds.registry import HoldKind
from include.services.clock import Clock, FixedClock
from include.services.database import DatabaseAddress
from include.services.errors import ParcelSealError
from include.services.objectstore.directory import DirectoryStore
from tests.system.company import (
    NAME,
    RELEASES,
    Company,
    copy_database,
    name_of,
    query,
    relations_with,
)
from tests.system.intruder import Undo, intruder_of
from tests.system.runs import Killed, Run, backup_run, drill_run, retention_run, sealed_result

LATER = timedelta(days=400)
"""So much later that no evidence of today is in time."""

picks = st.integers(0, 1000)
"""Chooses among whatever there is at that moment."""


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
    """A restore point, and the damage that an intruder did to it.

    Attributes:
        damage: how an intruder changed its objects; empty while it is whole.
        removed: the object that an intruder removed; empty when there is none.
        undo: puts the objects back as they were.
    """

    id: str
    damage: str = ""
    removed: str = ""
    undo: Undo | None = None


class SystemMachine(RuleBasedStateMachine):
    """Operations of the whole system, as rules."""

    @staticmethod
    def new_company(folder: Path, kind: str) -> contextlib.AbstractContextManager[Company]:
        """Make the company; a test overrides this.

        Args:
            folder: an empty one.
            kind: of its off-site store, ``directory`` or ``s3``.
        """
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="parcelseal-system-"))
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        render = rendering.render_all
        self.stack.enter_context(  # a PDF takes longer than all the rest of a run
            patch.object(rendering, "render_all", lambda report, **_of: render(report, pdf=False))
        )
        publish = manifests.publish

        def publish_unlocked(store: Any, manifest: Any, signer: Any, lock_until: Any) -> None:
            publish(store, manifest, signer, lock_until if self.company.bucket else None)

        # A lock of a day, the shortest that a pack can ask for, would keep every restore point of
        # a directory from being pruned.
        self.stack.enter_context(patch.object(manifests, "publish", publish_unlocked))
        self.customers: set[str] = set()
        self.number = 0
        self.released: set[str] = set()
        self.points: dict[str, Point] = {}
        self.holds: dict[int, tuple[HoldKind, str]] = {}
        self.requested: set[str] = set()
        self.erased: set[str] = set()
        self.runs: list[Run] = []
        self.lost_registers: list[tuple[str, list[Any]]] = []
        self.saved_counts: dict[str, int] = {}
        self.sealed_counts = {"erasure": 0, "legal_hold": 0}

    @initialize(kind=st.sampled_from(["directory", "directory", "s3"]))
    def open_company(self, kind: str) -> None:
        """The company has two customers and a restore point."""
        self.company = self.stack.enter_context(self.new_company(self.folder, kind))
        self.intruder = intruder_of(self.company)
        self.add_customer()
        self.add_customer()
        self.back_up()

    def teardown(self) -> None:
        """Drop the company."""
        if self.saved_counts:
            query(self.company.admin, f'DROP DATABASE "{self._saved_state()}"')
        self.stack.close()

    # --- The application and its customers.

    @rule()
    def add_customer(self) -> None:
        """A customer registers, and sends a parcel."""
        self.number += 1
        key = f"cus-{self.number:04}-x"
        self.company.run_sql(
            "INSERT INTO address (id, street) VALUES (%s, %s)", [f"adr-{key}", "s"]
        )
        self.company.run_sql(
            "INSERT INTO customer (id, name, address_id) VALUES (%s, %s, %s)",
            [key, f"name of {key}", f"adr-{key}"],
        )
        self.company.run_sql(
            "INSERT INTO parcel (number, customer_id) VALUES (%s, %s)", [f"par-{key}", key]
        )
        self.customers.add(key)

    @precondition(lambda self: len(self.released) < len(RELEASES))
    @rule(pick=picks)
    def release_application(self, pick: int) -> None:
        """A release of the application adds a trigger, a view or a partitioned table."""
        release = choose(sorted(set(RELEASES) - self.released), pick)
        self.company.run_sql(RELEASES[release])
        self.released.add(release)

    @precondition(lambda self: self.customers - self.erased)
    @rule(pick=picks)
    def rename_customer(self, pick: int) -> None:
        """A customer changes name; the application's trigger may keep the old one."""
        key = choose(sorted(self.customers - self.erased), pick)
        self.company.run_sql("UPDATE customer SET name = name || '.' WHERE id = %s", [key])

    @precondition(lambda self: self.customers - self.requested)
    @rule(pick=picks)
    def request_erasure(self, pick: int) -> None:
        """A customer asks to be erased."""
        key = choose(sorted(self.customers - self.requested), pick)
        with self.state.begin() as conn:
            requests.add(
                conn,
                self.clock,
                database=NAME,
                subject=key,
                reference=f"case {key}",
                received_on=self.clock.now().date(),
                entered_by="E00001",
            )
        self.requested.add(key)

    # --- Runs of workflows.

    @rule()
    def back_up(self) -> None:
        """Run `backup_offsite`, which prunes too; it fails while a restore point is damaged."""
        before = self._stored()
        held = self._held_points()
        outcome = self._run(backup_run())
        self._note_points(before, held)
        if hidden := [point.damage for point in self.points.values() if self._is_hidden(point)]:
            assert outcome == "fail", f"a backup passed beside a restore point with {hidden}"
        elif not self._damaged():
            assert outcome != "fail", self._findings(self.runs[-1])

    @rule(after=st.sampled_from(["dump", "manifest"]))
    def kill_backup(self, after: str) -> None:
        """Kill a backup after it stored the dump, or the manifest; its run is never sealed."""

        def publish(store: Any, manifest: Any, *_signer_and_lock: Any) -> None:
            if after == "manifest":
                key = folder_of(manifest.database, manifest.id) + MANIFEST_NAME
                store.put(key, manifest.as_bytes())
            raise Killed

        with patch.object(manifests, "publish", publish), contextlib.suppress(Killed):
            backup_run().work(self.company)

    @precondition(lambda self: len(self.points) > 1)
    @rule(pick=picks, of_database=st.booleans())
    def back_up_while_hold_is_placed(self, pick: int, of_database: bool) -> None:
        """Place a hold while pruning removes restore points: it protects those that remain."""
        target = choose([*self.points], pick)
        kind = HoldKind.DATABASE if of_database else HoldKind.RESTORE_POINT
        value = NAME if of_database else target
        placed: list[tuple[int, float]] = []
        removals: dict[str, float] = {}

        def place() -> None:
            with self.state.begin() as conn:
                hold = self._add_hold(conn, kind, value)
            placed.append((hold, time.monotonic()))

        placing = threading.Thread(target=place, daemon=True)
        delete = DirectoryStore.delete

        def watched(store: DirectoryStore, key: str) -> None:
            point = key.split("/")[1]
            if not removals:
                removals[point] = time.monotonic()
                placing.start()
                placing.join(0.3)  # it has committed, or it waits for this removal to end
            removals.setdefault(point, time.monotonic())
            delete(store, key)

        before = self._stored()
        held = self._held_points()
        with patch.object(DirectoryStore, "delete", watched):
            self._run(backup_run())
        if not removals:
            self._note_points(before, held)
            return
        placing.join(30)
        [(hold, placed_at)] = placed
        self.holds[hold] = (kind, value)
        for point, removed_at in removals.items():
            if point in self.points and (of_database or point == target):
                assert removed_at <= placed_at, f"{point} was removed after a hold on it"
        self._note_points(before, held)

    @rule()
    def enforce_retention(self) -> None:
        """Run `enforce_retention`; the application refreshes its views afterwards."""
        self._run(retention_run())
        for view in ("contacts", "counts"):
            if view in self.released:
                self.company.run_sql(f"REFRESH MATERIALIZED VIEW {view}")
        closed = {row[0] for row in self.company.run_on_state(CLOSED_REQUESTS)}
        self.erased |= closed & self.requested
        for key in sorted(closed & self.customers):
            rows = relations_with(self.company.live, key)
            assert not rows, f"the request of {key} is closed, and these hold it: {rows}"

    @precondition(lambda self: self.points)
    @rule()
    def drill(self) -> None:
        """Run `drill_restore`; when it passes, no erased customer is in the restored database."""
        left: dict[str, dict[str, int]] = {}
        drop = scratch.drop

        def search_and_drop(server: Any, name: str, *more: Any) -> None:
            left.update(self._erased_in(server.with_database(name).conninfo()))
            drop(server, name, *more)

        with patch.object(scratch, "drop", search_and_drop):
            outcome = self._run(drill_run())
        if left:
            assert outcome == "fail", f"a drill passed although these came back: {left}"
        if self.lost_registers:
            assert outcome == "fail", "a drill passed although erasures were lost"
        elif not self._damaged() and not left:
            assert outcome != "fail", self._findings(self.runs[-1])

    @precondition(lambda self: self.runs)
    @rule(pick=picks, step=st.integers(1, 3), again=st.booleans())
    def clear_sealed_run(self, pick: int, step: int, again: bool) -> None:
        """Clear a task of a sealed run: the task refuses, and the run shows the sealed outcome."""
        run = choose(self.runs, pick)
        before = self._stored()
        worked = run.repeat(self.company, min(step, len(run.steps) - 1))
        if again:
            shown = run.shown
            assert run.seal(self.company) == shown, "a sealed run shows another outcome"
        assert not worked, f"{run.dag_id} went on in a sealed run"
        assert self._stored() == before, "a sealed run changed the off-site store"

    @rule()
    def kill_seal(self) -> None:
        """Kill a seal before it writes its row of the ledger, then repeat it."""
        run = retention_run()
        run.work(self.company)

        def killed(*_arguments: Any, **_keywords: Any) -> None:
            raise Killed

        with patch.object(ledger, "append", killed), contextlib.suppress(Killed):
            run.seal(self.company)
        run.seal(self.company)
        self.runs.append(run)

    # --- Restores.

    @precondition(lambda self: self._whole())
    @rule(pick=picks)
    def restore(self, pick: int) -> None:
        """Restore an undamaged restore point by the command; no erased customer comes back."""
        point = choose(self._whole(), pick)
        with self._new_database() as target:
            code = self._restore(target, point)
            if self.lost_registers:
                assert code != 0, "a restore went through although erasures were lost"
                assert self._restore(target, point, incomplete_ledger=True) == 0
                [(is_open,)] = query(target, PUBLIC_MAY_CONNECT)
                assert not is_open, "a copy without lost erasures was opened"
                return
            assert code == 0, f"a restore ended with exit code {code}"
            left = self._erased_in(target)
            assert not left, f"these came back: {left}"

    # --- Holds.

    @precondition(lambda self: self.points)
    @rule(
        kind=st.sampled_from(["restore_point", "restore_point", "subject", "database"]), pick=picks
    )
    def place_hold(self, kind: str, pick: int) -> None:
        """Place a legal hold."""
        value = {
            "restore_point": choose([*self.points], pick),
            "subject": choose(sorted(self.customers), pick),
            "database": NAME,
        }[kind]
        with self.state.begin() as conn:
            hold = self._add_hold(conn, HoldKind(kind), value)
        self.holds[hold] = (HoldKind(kind), value)

    @precondition(lambda self: self.holds)
    @rule(pick=picks)
    def release_hold(self, pick: int) -> None:
        """Release a legal hold."""
        hold = choose(sorted(self.holds), pick)
        with self.state.begin() as conn:
            registry.release(conn, self.clock, hold, released_by="E00001", reason="case closed")
        del self.holds[hold]

    # --- Failures and intruders.

    @precondition(lambda self: self._whole())
    @rule(pick=picks, name=st.sampled_from(["", *FILES]), overwrite=st.booleans())
    def damage_restore_point(self, pick: int, name: str, overwrite: bool) -> None:
        """Remove or overwrite an object of a restore point; most often its signature."""
        point = self.points[choose(self._whole(), pick)]
        name = name or SIGNATURE_NAME
        key = folder_of(NAME, point.id) + name
        point.damage = f"{'overwritten' if overwrite else 'removed'} {name}"
        point.removed = "" if overwrite else name
        point.undo = self.intruder.overwrite(key) if overwrite else self.intruder.remove(key)

    @precondition(lambda self: self._damaged())
    @rule(pick=picks)
    def repair_restore_point(self, pick: int) -> None:
        """Put the objects of a restore point back."""
        point = self.points[choose(self._damaged(), pick)]
        assert point.undo is not None
        point.undo()
        point.damage, point.removed, point.undo = "", "", None

    @precondition(lambda self: self._erasures_are_sealed() and not self.lost_registers)
    @rule()
    def lose_erasures(self) -> None:
        """Delete the erasure ledger with its batches, past the triggers."""
        with psycopg.connect(self.company.state) as connection:
            connection.execute("SET session_replication_role = replica")
            for table in ("erasure", "erasure_batch"):
                rows = connection.execute(f"DELETE FROM {table} RETURNING *".encode()).fetchall()
                self.lost_registers.insert(0, (table, rows))

    @precondition(lambda self: self.lost_registers)
    @rule()
    def put_erasures_back(self) -> None:
        """Restore the erasure ledger from a backup of the state database."""
        with psycopg.connect(self.company.state) as connection:
            connection.execute("SET session_replication_role = replica")
            for table, rows in self.lost_registers:
                for row in rows:
                    marks = ", ".join(["%s"] * len(row))
                    connection.execute(
                        f"INSERT INTO {table} OVERRIDING SYSTEM VALUE VALUES ({marks})".encode(),
                        row,
                    )
        self.lost_registers = []

    @precondition(lambda self: self.runs)
    @rule(rows=st.integers(1, 3))
    def recover_ledger(self, rows: int) -> None:
        """Lose the last rows of the evidence ledger and recover them a year later."""
        with psycopg.connect(self.company.state) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(
                "DELETE FROM evidence_ledger WHERE seq > "
                "(SELECT max(seq) - %s FROM evidence_ledger)",
                [rows],
            )
        now = self.clock.now() + LATER
        self._recover_ledger(FixedClock(now))
        self._check_evidence_is_stale(now)

    @precondition(lambda self: not self.lost_registers)
    @rule()
    def save_state(self) -> None:
        """Take a backup of the state database."""
        copy_database(self.company.admin, name_of(self.company.state), self._saved_state())
        self.saved_counts = self._counts()

    @precondition(lambda self: self.saved_counts and not self.lost_registers)
    @rule(then=st.sampled_from(sorted(REGISTERS_OF)))
    def restore_older_state(self, then: str) -> None:
        """Restore an older state database: the next run or restore notices lost entries."""
        current = name_of(self.company.state)
        newest = f"newest_{current}"
        copy_database(self.company.admin, current, newest)
        copy_database(self.company.admin, self._saved_state(), current)
        self._recover_ledger(self.clock)
        saved, sealed = self.saved_counts, self.sealed_counts
        before = self._stored()
        try:
            if then in RUNS:
                run = RUNS[then]()
                failed = run.complete(self.company) == "fail"
                self.runs.append(run)
            elif whole := self._whole():
                with self._new_database() as target:
                    failed = self._restore(target, whole[-1]) != 0
            else:
                return
            if any(saved[register] < sealed[register] for register in REGISTERS_OF[then]):
                assert failed, f"{then} passed although {sealed} were sealed, and {saved} are left"
                assert not set(before) - set(self._stored()), "restore points were removed"
            self._note_points(before, set())  # a hold that was never sealed is lost for good
        finally:
            copy_database(self.company.admin, newest, current)
            query(self.company.admin, f'DROP DATABASE "{newest}"')
            self._recover_ledger(self.clock)

    @precondition(lambda self: self._whole() and self.company.bucket is None)
    @rule(pick=picks)
    def swap_during_restore(self, pick: int) -> None:
        """Swap the dump between its check and its load: the restore refuses it."""
        point = choose(self._whole(), pick)
        key = folder_of(NAME, point) + DUMP_NAME
        forged = self._forged_dump(point)
        undo: list[Undo] = []
        opened = 0
        open_reader = DirectoryStore.open_reader

        def swap_and_open(store: DirectoryStore, opened_key: str, **version: str) -> Any:
            nonlocal opened
            if opened_key == key:
                if opened == pick % 3:
                    undo.append(self.intruder.overwrite(key))
                    self.intruder.replace(key, forged)
                opened += 1
            return open_reader(store, opened_key, **version)

        with (
            self._new_database() as target,
            patch.object(DirectoryStore, "open_reader", swap_and_open),
        ):
            code = self._restore(target, point)
            [(is_forged,)] = query(target, "SELECT to_regclass('public.forged') IS NOT NULL")
        if undo:
            undo[0]()
            assert code != 0, "a restore of a forged dump went through"
            assert not is_forged, "a restore executed a forged schema"

    # --- Invariants.

    @invariant()
    def held_and_valid_restore_points_are_there(self) -> None:
        """A restore point disappears by the pruning rule alone, and never while it is held."""
        stored = self._stored()
        for point in self.points.values():
            removed = {point.removed} if self.company.bucket is None else set()
            missing = {*FILES} - removed - stored.get(point.id, set())
            assert not missing, f"{point.id} lost {sorted(missing)} ({point.damage or 'whole'})"

    @invariant()
    def runs_show_what_is_sealed(self) -> None:
        """A run shows the outcome that its bundle and the ledger have."""
        for run in self.runs[-3:]:
            assert run.shown == str(sealed_result(self.company, run.bundle).outcome)
            with self.state.connect() as conn:
                row = ledger.find(conn, run.dag_id, run.run_id)
            assert row is not None
            assert row.outcome == run.shown

    # --- Parts of operations.

    @property
    def state(self) -> Any:
        """The state database's engine."""
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
        """Names of the objects whose bytes the off-site store has, by restore point."""
        return self.intruder.contents(NAME)

    def _whole(self) -> list[str]:
        """Ids of the restore points that are whole, oldest first.

        Several may be of the same second, so that their ids do not sort by time.
        """
        return [key for key, point in self.points.items() if not point.damage]

    def _held_points(self) -> set[str]:
        if any(kind is HoldKind.DATABASE for kind, _value in self.holds.values()):
            return set(self.points)
        return {value for kind, value in self.holds.values() if kind is HoldKind.RESTORE_POINT}

    def _note_points(self, before: dict[str, set[str]], held: set[str]) -> None:
        """Remember new restore points; forget those that pruning was allowed to remove.

        Pruning may remove a restore point that is signed, not held and not the newest.
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
        """Whether a listing must notice the damage: it does not read the dump of a directory."""
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
            f"{one.severity} {one.code} {one.message.text} {one.message.values}" for one in findings
        ]

    def _erasures_are_sealed(self) -> bool:
        """Whether every erasure was there when a run that reads them was sealed."""
        return 0 < self._counts()["erasure"] == self.sealed_counts["erasure"]

    def _forged_dump(self, point: str) -> bytes:
        """Return a dump of another schema, encrypted as that of a restore point."""
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
                services.offsite().recipients,
                expires_after=lambda moment: moment,
            )
        query(self.company.admin, f'DROP DATABASE "forged_{live}"')
        return store.get(backup.manifest.dump.key)

    def _recover_ledger(self, clock: Clock) -> None:
        """Recover the evidence ledger, as `parcelseal evidence recover-ledger` does."""
        services = self.company.services
        with self.state.connect() as conn:
            adopt.recover_ledger(
                services.store("evidence_store"),
                conn,
                services.signer,
                TrustedKeys(services.trusted),
                clock,
            )

    def _saved_state(self) -> str:
        return f"saved_{name_of(self.company.state)}"

    def _counts(self) -> dict[str, int]:
        """Return the number of rows of each register."""
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
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 STRATEGY file_copy").format(names)
            )
            try:
                yield make_conninfo(self.company.admin, dbname=name)
            finally:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names))

    def _restore(self, target: str, point: str, *, incomplete_ledger: bool = False) -> int:
        """Run `parcelseal restore` and return its exit code."""
        services = self.company.services
        with (
            patch.object(backup_commands, "workplace", lambda: services),
            patch.object(backup_commands, "local_stack", lambda _of: contextlib.nullcontext()),
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
        """Check that no control passes by evidence that was signed long ago."""
        services = self.company.services
        shelf = Shelf(services.store("evidence_store"), services.trusted)
        controls = [control for control in services.pack.controls if control.workflow in RUNS]
        with self.state.connect() as conn:
            zone = services.pack.calendar.zone
            current = standing.standings(conn, shelf, controls, now, zone)
        passed = [
            control.control.id
            for control in current
            if control.row and control.age is standing.Age.IN_TIME
        ]
        assert not passed, f"evidence of {LATER.days} days ago is in time for {passed}"


def choose(items: list[Any], pick: int) -> Any:
    """Choose one of some items by a number."""
    return items[pick % len(items)]
