"""Defects that the system once had. Each function patches the code so that a defect is back.

`tests.system.test_defects` shows that the state machine finds each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from include.backup import operations
from include.backup.operations import Operation
from include.erasure import replay
from include.evidence import ledger_recovery, registers
from include.evidence.bundle import seal
from include.evidence.bundle_reader import BundleReader, SealedRun, read_sealed
from include.evidence.ledger import LedgerRow
from include.evidence.ledger_recovery import Recovery
from include.evidence.model import Result
from include.holds.records import RestorePointGuard
from include.orchestration import run, run_bundle
from include.service_container import Services


class _EveryFolder(dict[str, Collection[Operation]]):
    """Unfinished work by folder. Every folder that is not listed counts as unfinished."""

    def get(self, point: str, _default: Any = None) -> Collection[Operation]:
        return super().get(point, {Operation.PUBLISH})


def unsigned_folders_are_cleared() -> AbstractContextManager[Any]:
    """Restore the defect that a backup deletes every unsigned folder, whoever created it."""
    unfinished = operations.unfinished_operations
    return patch.object(
        operations, "unfinished_operations", lambda *of: _EveryFolder(unfinished(*of))
    )


def sealed_runs_go_on() -> AbstractContextManager[Any]:
    """Restore the defect that a step of a sealed run still does its work."""
    return patch.object(run, "_unsealed", lambda _services: nullcontext())


@contextmanager
def runs_show_their_newest_conclusion() -> Iterator[None]:
    """Restore the defect that a run shows its newest outcome if it is sealed again.

    In addition, a step of a sealed run does its work.
    """
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
        patch.object(run, "read_sealed_run", lambda *_run: None),
        patch.object(run_bundle, "seal", seal_and_remember),
        patch.object(run_bundle, "read_sealed", newest),
    ):
        yield


def views_are_not_refreshed() -> AbstractContextManager[Any]:
    """Restore the defect that materialized views are not refreshed after repeated erasures.

    In addition, the search for erased records is switched off.
    """
    return _patched(
        patch.object(replay, "refresh_materialized_views", lambda _copy: 0), _search_finds_nothing()
    )


def triggers_fire_during_the_replay() -> AbstractContextManager[Any]:
    """Restore the defect that triggers of the application write history during repeated erasures.

    In addition, the search for erased records is switched off.
    """
    return _patched(
        patch.object(replay, "suspend_triggers", lambda _copy: nullcontext()),
        _search_finds_nothing(),
    )


def lost_registers_are_unnoticed() -> AbstractContextManager[Any]:
    """Restore the defect that registers are not compared with the figures in sealed bundles."""
    return patch.object(Services, "require_complete_registers", lambda *_registers: None)


def deleted_ledger_rows_are_unnoticed() -> AbstractContextManager[Any]:
    """Restore the defect that a seal does not notice missing rows of the evidence ledger."""
    return patch.object(registers, "unpruned_gaps", lambda *_of: ())


def holds_are_read_once() -> AbstractContextManager[Any]:
    """Restore the defect that pruning reads the legal holds only before the first deletion."""
    return _patched(
        patch.object(RestorePointGuard, "removing", lambda *_point: nullcontext(False)),
        patch.object(RestorePointGuard, "confirm", lambda _guard: None),
    )


@contextmanager
def recovered_evidence_is_fresh() -> Iterator[None]:
    """Restore the defect that the age of evidence counts from the entry in the ledger."""
    result = BundleReader.result

    def as_entered(bundle_reader: BundleReader, row: LedgerRow) -> Result:
        return result(bundle_reader, row).model_copy(update={"finished_at": row.sealed_at})

    with (
        patch.object(ledger_recovery, "min", lambda _signed, now: now, create=True),
        patch.object(BundleReader, "result", as_entered),
    ):
        yield


def seals_fork_the_chain() -> AbstractContextManager[Any]:
    """Restore the defect that a seal always follows the last row of the evidence ledger.

    Bundles in the evidence store that already follow this row are ignored.
    """
    return patch.object(Recovery, "enter_before_seal", lambda *_of: None)


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
    return patch.object(
        replay, "search", lambda *_of: replay.ReplayResult(0, 0, 0).rows_with_erased_keys
    )


@contextmanager
def _patched(*patches: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield
