"""Defects that once were in the system, each as a patch that brings it back.

`tests.system.test_defects` shows that the state machine finds each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from include.backup import listing
from include.backup.listing import Work
from include.erasure import replay
from include.evidence import adopt, registers
from include.evidence.adopt import Recovery
from include.evidence.bundle import seal
from include.evidence.ledger import LedgerRow
from include.evidence.model import Result
from include.evidence.shelf import SealedRun, Shelf, read_sealed
from include.holds.records import RestorePointGuard
from include.orchestration import run, run_bundle
from include.workplace import Workplace


class _EveryFolder(dict[str, Collection[Work]]):
    """Unfinished work on restore points, which an unknown folder counts as too."""

    def get(self, point: str, _default: Any = None) -> Collection[Work]:
        return super().get(point, {Work.PUBLISH})


def unsigned_folders_are_cleared() -> AbstractContextManager[Any]:
    """A backup removes every folder without a signature, whoever began it."""
    unfinished = listing.unfinished_work
    return patch.object(listing, "unfinished_work", lambda *of: _EveryFolder(unfinished(*of)))


def sealed_runs_go_on() -> AbstractContextManager[Any]:
    """Steps of a sealed run work on."""
    return patch.object(run, "_unsealed", lambda _services: nullcontext())


@contextmanager
def runs_show_their_newest_conclusion() -> Iterator[None]:
    """A step of a sealed run works on; the run, sealed again, shows its newest conclusion."""
    results: list[Result] = []

    def seal_and_remember(*arguments: Any, result: Result, **more: Any) -> Any:
        results.append(result)
        return seal(*arguments, result=result, **more)

    def newest(*arguments: Any) -> SealedRun:
        sealed = read_sealed(*arguments)
        assert sealed is not None
        return replace(sealed, result=results[-1])

    with (
        sealed_runs_go_on(),
        patch.object(run, "finished_run", lambda *_run: None),
        patch.object(run_bundle, "seal", seal_and_remember),
        patch.object(run_bundle, "read_sealed", newest),
    ):
        yield


def views_are_not_refreshed() -> AbstractContextManager[Any]:
    """A replay leaves materialized views as they were loaded, and no search notices."""
    return _patched(
        patch.object(replay, "refresh_materialized_views", lambda _copy: 0), _search_finds_nothing()
    )


def triggers_fire_during_the_replay() -> AbstractContextManager[Any]:
    """The application's triggers write history during a replay, and no search notices."""
    return _patched(
        patch.object(replay, "suspended", lambda _copy: nullcontext()), _search_finds_nothing()
    )


def lost_registers_are_unnoticed() -> AbstractContextManager[Any]:
    """Nothing compares registers with what bundles sealed of them."""
    return patch.object(Workplace, "require_complete_registers", lambda *_registers: None)


def deleted_ledger_rows_are_unnoticed() -> AbstractContextManager[Any]:
    """A seal does not count the numbers that the evidence ledger lacks."""
    return patch.object(registers, "unpruned_gaps", lambda *_of: ())


def holds_are_read_once() -> AbstractContextManager[Any]:
    """Pruning goes by the holds that it read before the first removal."""
    return _patched(
        patch.object(RestorePointGuard, "removing", lambda *_point: nullcontext(False)),
        patch.object(RestorePointGuard, "confirm", lambda _guard: None),
    )


@contextmanager
def recovered_evidence_is_fresh() -> Iterator[None]:
    """The age of evidence counts from its entry into the ledger."""
    result = Shelf.result

    def as_entered(shelf: Shelf, row: LedgerRow) -> Result:
        return result(shelf, row).model_copy(update={"finished_at": row.sealed_at})

    with (
        patch.object(adopt, "min", lambda _signed, now: now, create=True),
        patch.object(Shelf, "result", as_entered),
    ):
        yield


def seals_fork_the_chain() -> AbstractContextManager[Any]:
    """A seal follows the ledger's last row, whatever follows it in the store already."""
    return patch.object(Recovery, "adopt_before_seal", lambda *_of: None)


DEFECTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    defect.__name__: defect
    for defect in (
        unsigned_folders_are_cleared,
        sealed_runs_go_on,
        runs_show_their_newest_conclusion,
        views_are_not_refreshed,
        triggers_fire_during_the_replay,
        lost_registers_are_unnoticed,
        deleted_ledger_rows_are_unnoticed,
        holds_are_read_once,
        recovered_evidence_is_fresh,
        seals_fork_the_chain,
    )
}


def _search_finds_nothing() -> Any:
    return patch.object(replay, "search", lambda *_of: replay.Replay(0, 0, 0).holding)


@contextmanager
def _patched(*patches: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield
