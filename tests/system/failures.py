"""Legal holds, failures and actions of intruders, as rules of a state machine."""

from __future__ import annotations

import threading
from typing import Any
from unittest.mock import patch

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule,
)

from include.backup.point_folder import DUMP_NAME, SIGNATURE_NAME
from include.backup.point_folder import folder as folder_of
from include.holds import registry
from include.holds.registry import HoldKind
from include.services.clock import FixedClock
from include.services.objectstore.directory import DirectoryStore
from tests.system.company import (
    NAME,
    copy_database,
    name_of,
    query,
)
from tests.system.intruder import Undo
from tests.system.runs import drill_run, sealed_result
from tests.system.world import FILES, LATER, REGISTERS_OF, RUNS, System, choose, picks


class Failures(System):
    """Operations in which something goes wrong, such as damaged or lost data, and legal holds."""

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
        """Release a legal hold.

        Args:
            pick: number that chooses the legal hold.
        """
        self._release_hold(choose(sorted(self.holds), pick))

    def _release_hold(self, hold: int) -> None:
        with self.state.begin() as conn:
            registry.release(conn, self.clock, hold, released_by="E00001", reason="case closed")
        del self.holds[hold]

    # --- Failures and intruders.

    @precondition(lambda self: self._undamaged_points())
    @rule(pick=picks, name=st.sampled_from(["", *FILES]), overwrite=st.booleans())
    def damage_restore_point(self, pick: int, name: str, overwrite: bool) -> None:
        """Let the intruder remove or overwrite an object of a restore point.

        Args:
            pick: number that chooses the restore point.
            name: name of the object; empty for the signature, so that most damage concerns a
                signature.
            overwrite: whether the object is overwritten; otherwise it is removed.
        """
        point = self.points[choose(self._undamaged_points(), pick)]
        name = name or SIGNATURE_NAME
        key = folder_of(NAME, point.id) + name
        point.damage = f"{'overwritten' if overwrite else 'removed'} {name}"
        point.removed = "" if overwrite else name
        point.undo = self.intruder.overwrite(key) if overwrite else self.intruder.remove(key)

    @precondition(lambda self: self._damaged())
    @rule(pick=picks)
    def repair_restore_point(self, pick: int) -> None:
        """Restore the original objects of a damaged restore point.

        Args:
            pick: number that chooses the restore point.
        """
        point = self.points[choose(self._damaged(), pick)]
        assert point.undo is not None
        point.undo()
        point.damage, point.removed, point.undo = "", "", None

    @precondition(lambda self: self._erasures_are_sealed() and not self.lost_registers)
    @rule()
    def lose_erasures(self) -> None:
        """Delete the erasure ledger and its batches, although triggers protect them."""
        with psycopg.connect(self.company.state) as connection:
            connection.execute("SET session_replication_role = replica")
            for table in ("erasure", "erasure_batch"):
                rows = connection.execute(f"DELETE FROM {table} RETURNING *".encode()).fetchall()
                self.lost_registers.insert(0, (table, rows))

    @precondition(lambda self: self.lost_registers)
    @rule()
    def put_erasures_back(self) -> None:
        """Restore the erasure ledger, as from a backup of the state database."""
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
        """Delete the last rows of the evidence ledger, and recover them a year later."""
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

    @precondition(lambda self: len(self.runs) > 1 and not self.lost_registers)
    @rule(pick=picks, recover=st.booleans())
    def lose_ledger_row(self, pick: int, recover: bool) -> None:
        """Delete a row in the middle of the evidence ledger.

        Either an operator recovers the ledger at once, or the next run reports the loss. In both
        cases the ledger contains the row again afterwards.

        Args:
            pick: number that chooses the row.
            recover: whether an operator recovers the ledger before the next run.
        """
        rows = self.company.run_on_state(
            "SELECT seq FROM evidence_ledger WHERE seq > "
            "(SELECT coalesce(max(up_to_seq), 0) FROM evidence_checkpoint) ORDER BY seq"
        )
        lost = choose(rows[:-1], pick)[0]
        with psycopg.connect(self.company.state) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute("DELETE FROM evidence_ledger WHERE seq = %s", [lost])
        if recover:
            self._recover_ledger(self.clock)
        else:
            run = drill_run()
            self._run(run)
            codes = [finding.code for finding in sealed_result(self.company, run.bundle).findings]
            assert "evidence.ledger_lost" in codes, f"a run did not notice lost row {lost}"
        self._check_chain()

    @precondition(lambda self: not self.lost_registers)
    @rule()
    def save_state(self) -> None:
        """Take a backup of the state database."""
        copy_database(self.company.admin, name_of(self.company.state), self._saved_state())
        self.saved_counts = self._counts()

    @precondition(lambda self: self.saved_counts and not self.lost_registers)
    @rule(then=st.sampled_from(sorted(REGISTERS_OF)), recover=st.booleans())
    def restore_older_state(self, then: str, recover: bool) -> None:
        """Restore an older state database.

        The next run or restore notices that entries are missing.

        The evidence bundles still form a single chain, even if nobody recovers the ledger.

        Args:
            then: workflow that runs next, or the restore of a restore point.
            recover: whether an operator recovers the evidence ledger before that.
        """
        current = name_of(self.company.state)
        newest = f"newest_{current}"
        copy_database(self.company.admin, current, newest)
        copy_database(self.company.admin, self._saved_state(), current)
        if recover:
            self._recover_ledger(self.clock)
        saved, sealed = self.saved_counts, self.sealed_counts
        before = self._stored()
        try:
            if then in RUNS:
                run = RUNS[then]()
                failed = run.complete(self.company) == "fail"
                self.runs.append(run)
            elif whole := self._undamaged_points():
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
        self._check_chain()

    @precondition(lambda self: self._undamaged_points() and self.company.bucket is None)
    @rule(pick=picks)
    def swap_during_restore(self, pick: int) -> None:
        """Replace the dump of a restore point after a restore checked it and before it loads it.

        The restore must refuse the dump.
        """
        point = choose(self._undamaged_points(), pick)
        key = folder_of(NAME, point) + DUMP_NAME
        forged = self._forged_dump(point)
        undo: list[Undo] = []
        opened = 0
        open_reader = DirectoryStore.open_reader
        swapping = threading.Lock()  # two loaders open the dump at the same time

        def swap_and_open(store: DirectoryStore, opened_key: str, **version: str) -> Any:
            nonlocal opened
            with swapping:
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
