"""Tests that the state machine finds defects that the system once had.

Each case is a short sequence of operations. It passes with the current code, and fails if the code
is patched so that a defect is back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.system.machine import SystemMachine

pytestmark = pytest.mark.airflow

Operation = tuple[str, dict[str, Any]]
FIRST = {"pick": 0}
ERASE: list[Operation] = [("request_erasure", FIRST), ("enforce_retention", {})]
# So many restore points that pruning leaves one after the hold on the database is released.
THREE_POINTS: list[Operation] = [
    ("place_hold", {"kind": "database", "pick": 0}),
    ("back_up", {}),
    ("back_up", {}),
    ("release_hold", FIRST),
]
# Operations, and the machine's error message when the defect is brought back.
CASES: dict[str, tuple[list[Operation], str]] = {
    "unsigned_folders_are_cleared": (
        [("damage_restore_point", {"pick": 0, "name": "", "overwrite": False}), ("back_up", {})],
        "a backup passed beside a restore point|lost .*database.dump",
    ),
    "sealed_runs_go_on": (
        [("clear_sealed_run", {"pick": 0, "step": 1, "again": False})],
        "went on in a sealed run",
    ),
    "runs_show_their_newest_conclusion": (
        [
            ("damage_restore_point", {"pick": 0, "name": "manifest.json", "overwrite": False}),
            ("back_up", {}),
            ("repair_restore_point", FIRST),
            ("clear_sealed_run", {"pick": 1, "step": 2, "again": True}),
        ],
        "a sealed run shows another outcome",
    ),
    "views_are_not_refreshed": (
        [
            ("release_application", FIRST),  # adds the materialized view `contacts`
            ("back_up", {}),
            *ERASE,
            ("restore", FIRST),
        ],
        "came back.*public.contacts",
    ),
    "triggers_fire_during_the_replay": (
        [
            ("release_application", {"pick": 2}),  # adds the trigger `keep_history`
            ("back_up", {}),
            *ERASE,
            ("enforce_retention", {}),
            ("restore", FIRST),
        ],
        "came back.*public.customer_history",
    ),
    "lost_registers_are_unnoticed": (
        [*ERASE, ("lose_erasures", {}), ("drill", {})],
        "a drill passed although",
    ),
    "deleted_ledger_rows_are_unnoticed": (
        [
            ("back_up", {}),
            ("lose_ledger_row", {"pick": 0, "recover": True}),
            ("lose_ledger_row", {"pick": 1, "recover": False}),
        ],
        "a run did not notice lost row",
    ),
    "holds_are_read_once": (
        [*THREE_POINTS, ("back_up_while_hold_is_placed", {"pick": 0, "of_database": True})],
        "was removed after a hold on it",
    ),
    "recovered_evidence_is_fresh": (
        [("recover_ledger", {"rows": 1})],
        "evidence of 400 days ago is in time",
    ),
    "seals_fork_the_chain": (
        [
            ("save_state", {}),
            ("back_up", {}),
            ("restore_older_state", {"then": "backup_offsite", "recover": False}),
        ],
        "the chain of evidence broke",
    ),
}


@pytest.mark.parametrize("defect", CASES)
def test_state_machine_test_fails_for_each_past_defect_that_is_reintroduced(
    machine: type[SystemMachine], defect: str
) -> None:
    from tests.system.defects import DEFECTS

    assert set(CASES) == set(DEFECTS)
    operations, complaint = CASES[defect]
    run(machine, operations)
    with DEFECTS[defect](), pytest.raises(AssertionError, match=complaint):
        run(machine, operations)


def run(machine: type[SystemMachine], operations: list[Operation]) -> SystemMachine:
    """Run operations on a new company, check the invariants after each, and return the machine."""
    state = machine()
    try:
        state.open_company(kind="directory")
        for name, arguments in operations:
            getattr(state, name)(**arguments)
            state.held_and_valid_restore_points_are_there()
            state.runs_show_what_is_sealed()
            state.records_of_unsealed_runs_are_there()
    finally:
        state.close()
    return state


@pytest.mark.parametrize("kill_after", [None, 0, 3])
def test_pruning_deletes_no_bundle_on_legal_hold_and_leaves_chain_of_bundles_valid(
    machine: type[SystemMachine], kill_after: int | None
) -> None:
    """Bundles are pruned, but none under a legal hold.

    A cleared task of a pruned run refuses to work, and later bundles continue the chain.
    """
    prune = {"pick": 1, "kill_after": kill_after, "hold": False}
    state = run(
        machine,
        [
            *[("back_up", {})] * 5,
            ("drill", {}),
            ("prune_evidence", prune),
            ("clear_sealed_run", {"pick": 0, "step": 1, "again": True}),
            ("place_hold", {"kind": "subject", "pick": 0}),
            ("prune_evidence", {"pick": 2, "kill_after": None, "hold": False}),
            ("release_hold", FIRST),
            ("kill_backup", {"after": "dump"}),
            ("delete_step_records", {}),
            ("prune_evidence", {"pick": 2, "kill_after": None, "hold": True}),
            ("release_hold", FIRST),
            ("back_up", {}),
            ("lose_ledger_row", {"pick": 0, "recover": False}),
            ("recover_ledger", {"rows": 1}),
        ],
    )
    assert len(state.pruned) == (3 if kill_after is None else 1)
