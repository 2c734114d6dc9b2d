"""Operations at the end of the retention period of evidence, as rules of a state machine."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from include.evidence import ledger
from include.evidence.prune import Pruning, delete_step_records
from include.holds.registry import HoldKind
from include.services.objectstore.directory import DirectoryStore
from tests.system.company import NAME
from tests.system.runs import Killed
from tests.system.world import System, picks

NEWEST = 3  # bundles that are never pruned, because other operations lose and recover their rows


class EvidenceTerms(System):
    """Operations that prune evidence or delete step records.

    Legal holds are placed and processes are killed during the pruning.
    """

    @precondition(lambda self: len(self.runs) > NEWEST)
    @rule(pick=picks, kill_after=st.sampled_from([None, None, 0, 1, 5, 20]), hold=st.booleans())
    def prune_evidence(self, pick: int, kill_after: int | None, *, hold: bool) -> None:
        """Prune the oldest evidence at the end of its retention period.

        A legal hold prevents the pruning.

        Args:
            pick: number that chooses how many of the oldest bundles are pruned.
            kill_after: number of deletions after which the process is killed; None if it is not
                killed.
            hold: whether a legal hold is placed during the pruning.
        """
        chain_held = self._chain_holds()
        held = bool(self.holds)
        left = [kill_after]
        placing = threading.Thread(target=self._hold_database, daemon=True) if hold else None
        delete = DirectoryStore.delete

        def watched(store: DirectoryStore, key: str) -> None:
            if placing is not None and placing.ident is None:
                placing.start()
                placing.join(0.1)
                assert placing.is_alive(), "a hold was placed while evidence was being removed"
            if left[0] == 0:
                raise Killed
            left[0] = None if left[0] is None else left[0] - 1
            delete(store, key)

        before = self._bundles()
        with patch.object(DirectoryStore, "delete", watched), suppress(Killed):
            self._prune(pick)
        self.pruned |= before - self._bundles()
        if placing is not None and placing.ident is not None:
            placing.join(30)
        if held:
            assert self._bundles() == before, "evidence was pruned under a legal hold"
        assert self._chain_holds() or not chain_held, "pruning broke the chain of evidence"
        if placing is not None and placing.ident is not None:
            kept = self._bundles()
            self._prune(pick)
            assert self._bundles() == kept, "evidence was pruned under a legal hold"

    def _prune(self, pick: int) -> None:
        services = self.company.services
        pruning = Pruning(
            services.store("evidence_store"),
            self.state,
            services.signer,
            services.trusted,
            self.clock,
            newest=NEWEST,
        )
        with self.state.connect() as conn:
            last = ledger.head(conn)
        limit = 2 + pick % last.seq if last else 0
        pruning.prune(lambda row: row.seq < limit)

    def _hold_database(self) -> None:
        with self.state.begin() as conn:
            hold = self._add_hold(conn, HoldKind.DATABASE, NAME)
        self.holds[hold] = (HoldKind.DATABASE, NAME)

    def _bundles(self) -> set[str]:
        """Return the bundles in the evidence ledger whose result.json is in the evidence store."""
        store = self.company.services.store("evidence_store")
        with self.state.connect() as conn:
            rows = ledger.rows(conn)
        keys = {stored.key for stored in store.list()}
        return {row.bundle for row in rows if f"{row.bundle}/result.json" in keys}

    @rule()
    def delete_step_records(self) -> None:
        """Delete the step records of sealed runs. Records of other runs are kept."""
        services = self.company.services
        store: Any = services.store("evidence_store")
        delete_step_records(store, self.state, services.trusted, most=100)
