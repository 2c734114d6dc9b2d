"""A state machine that checks invariants of the whole system after and during its operations.

`SystemMachine` runs backups, drills, retention, restores and seals on a small company. Between
these operations, the actions of operators, customers, developers, failures and intruders change the
data that the runs use. The section "Invariants between packages" of
docs/explanation/architecture.md lists the invariants.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Collection
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
)

from include.backup import manifest as manifests
from include.backup import scratch
from include.backup.point_folder import MANIFEST_NAME
from include.backup.point_folder import folder as folder_of
from include.erasure import requests
from include.evidence import ledger
from include.holds.registry import HoldKind
from include.services.errors import ControlFailed
from include.services.objectstore.directory import DirectoryStore
from tests.system.company import (
    NAME,
    RELEASES,
    query,
    relations_with,
)
from tests.system.evidence_terms import EvidenceTerms
from tests.system.failures import Failures
from tests.system.intruder import intruder_of
from tests.system.runs import Killed, backup_run, drill_run, retention_run
from tests.system.world import CLOSED_REQUESTS, PUBLIC_MAY_CONNECT, choose, picks


class SystemMachine(EvidenceTerms, Failures):
    """All operations of the system, as rules of a state machine."""

    @initialize(
        kind=st.sampled_from(["directory", "directory", "s3"]),
        releases=st.sets(st.sampled_from(sorted(RELEASES))),
    )
    def open_company(self, kind: str, releases: Collection[str] = ()) -> None:
        """Create a company with two customers, releases of its application and a restore point.

        Args:
            kind: type of the off-site store: ``directory`` or ``s3``.
            releases: names of the releases.
        """
        self.company = self.stack.enter_context(self.new_company(self.folder, kind))
        self.intruder = intruder_of(self.company)
        for release in sorted(releases):
            self._release(release)
        self.add_customer()
        self.add_customer()
        self.back_up()

    def teardown(self) -> None:
        """Restore the oldest undamaged restore point, and then make a backup.

        The oldest restore point contains most of the customers who were erased later. The backup
        prunes restore points, and must work although some of them are damaged. If the test has
        already failed, neither is done.
        """
        try:
            if sys.exc_info()[0] is None and self.points:
                if self._undamaged_points():
                    self.restore(0)
                self.back_up()
                self.held_and_valid_restore_points_are_there()
        finally:
            self.close()

    # --- The application and its customers.

    @rule()
    def add_customer(self) -> None:
        """Register a customer who sends a parcel."""
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
        """Release an application version that adds a trigger, a view or a partitioned table."""
        self._release(choose(sorted(set(RELEASES) - self.released), pick))

    def _release(self, release: str) -> None:
        self.company.run_sql(RELEASES[release])
        self.released.add(release)

    @precondition(lambda self: self.customers - self.erased)
    @rule(pick=picks)
    def rename_customer(self, pick: int) -> None:
        """Change a customer's name. A trigger of the application may keep the old name."""
        key = choose(sorted(self.customers - self.erased), pick)
        self.company.run_sql("UPDATE customer SET name = name || '.' WHERE id = %s", [key])

    @precondition(lambda self: self.customers - self.requested)
    @rule(pick=picks)
    def request_erasure(self, pick: int) -> None:
        """Let a customer request the erasure of their data."""
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

    @precondition(lambda self: self.customers - self.requested)
    @rule(pick=picks)
    def erase_customer(self, pick: int) -> None:
        """Request the erasure of a customer, and run retention until the request is closed.

        A trigger may write rows while the first run erases. The next run erases these rows.
        """
        self.request_erasure(pick)
        for _run in range(2):
            self.enforce_retention()
            if self.requested <= self.erased:
                break

    # --- Runs of workflows.

    @rule()
    def back_up(self) -> None:
        """Run `backup_offsite`, which prunes old restore points.

        The run must fail while a restore point is damaged.
        """
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
        """Kill a backup. Its run is never sealed.

        Args:
            after: object that the backup has stored last: ``dump`` or ``manifest``.
        """

        def publish(store: Any, manifest: Any, *_signer_and_lock: Any) -> None:
            if after == "manifest":
                key = folder_of(manifest.database, manifest.id) + MANIFEST_NAME
                store.put(key, manifest.as_bytes())
            raise Killed

        with patch.object(manifests, "publish", publish), contextlib.suppress(Killed):
            self.unsealed.append(backup_run())
            self.unsealed[-1].work(self.company)

    @precondition(lambda self: self.points)
    @rule(pick=picks, of_database=st.booleans())
    def back_up_while_hold_is_placed(self, pick: int, of_database: bool) -> None:
        """Place a legal hold while a backup prunes restore points.

        The hold must protect the restore points that are not pruned yet. Before that, two backups
        are made under another legal hold, so that there are restore points to prune.

        Args:
            pick: number that chooses a restore point.
            of_database: whether the hold is on the whole database; otherwise it is on the restore
                point.
        """
        if len(self._undamaged_points()) < 3:
            self.place_hold("database", 0)
            hold = max(self.holds)
            self.back_up()
            self.back_up()
            self._release_hold(hold)
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
                # By then it has committed, or it waits for the end of this removal.
                placing.join(0.3)
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
        """Run `enforce_retention`. Afterwards the application refreshes its views."""
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
        """Run `drill_restore`.

        If it passes, the restored database must contain no erased customer.
        """
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
        """Clear a task of a sealed run.

        The task must refuse, and the run must show the sealed outcome.

        Args:
            pick: number that chooses the run.
            step: index of the step whose task is cleared.
            again: whether the task `seal` is cleared too.
        """
        run = choose(self.runs, pick)
        before = self._stored()
        worked = run.repeat(self.company, min(step, len(run.steps) - 1))
        if again and run.bundle in self.pruned:
            with contextlib.suppress(ControlFailed):
                run.seal(self.company)
                raise AssertionError("a pruned run was sealed again")
        elif again:
            shown = run.shown
            assert run.seal(self.company) == shown, "a sealed run shows another outcome"
        assert not worked, f"{run.dag_id} went on in a sealed run"
        assert self._stored() == before, "a sealed run changed the off-site store"

    @rule()
    def kill_seal(self) -> None:
        """Kill a seal before it writes its row of the evidence ledger, then repeat the seal."""
        run = retention_run()
        run.work(self.company)

        def killed(*_arguments: Any, **_keywords: Any) -> None:
            raise Killed

        with patch.object(ledger, "append", killed), contextlib.suppress(Killed):
            run.seal(self.company)
        run.seal(self.company)
        self.runs.append(run)

    # --- Restores.

    @precondition(lambda self: self._undamaged_points())
    @rule(pick=picks, copied=st.booleans())
    def restore(self, pick: int, *, copied: bool = False) -> None:
        """Restore an undamaged restore point with the command.

        The restore must repeat all erasures.

        Half of the restores read a copy of the off-site store, as after a move to another store.
        """
        point = choose(self._undamaged_points(), pick)
        store = self.company.offsite_copied() if copied else contextlib.nullcontext()
        with store, self._new_database() as target:
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
