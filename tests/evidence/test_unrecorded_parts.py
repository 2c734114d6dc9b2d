"""A search finds bundles of any workflow that lack a ledger row, even with a wrong clock."""

from __future__ import annotations

from datetime import timedelta
from unittest.mock import patch

import pytest

from include.evidence import ledger, unrecorded
from include.services.clock import FixedClock
from tests.evidence.register_fixtures import Company
from tests.evidence.support import START, Evidence
from tests.evidence.test_unrecorded import LATER, restore_older_state

LETTER = "respond_to_incident.first-police-0a1b2c3d"
KNOWN = ["backup_offsite", "drill_restore", "respond_to_incident"]


@pytest.mark.parametrize("workflow", ["update_incident", LETTER, "sample_audit.commitment"])
def test_lost_legal_hold_is_detected_from_bundle_of_workflow_missing_in_policy_pack_and_ledger(
    evidence: Evidence, workflow: str
) -> None:
    """Neither the policy pack nor the restored ledger names the workflow."""
    company = Company(evidence, evidence.engine)
    company.hold()
    company.seal()
    company.hold()
    company.seal(workflow)
    company.harm("DELETE FROM evidence_ledger WHERE seq = 2", "DELETE FROM legal_hold WHERE id = 2")
    assert company.lost() == {"legal_hold"}
    _state, findings = company.seal()
    assert {finding.code for finding in findings} == {
        "evidence.ledger_lost",
        "evidence.register_lost",
    }
    assert evidence.verify().verified


@pytest.mark.parametrize(
    ("number", "workflow"), [(11, LETTER), (11, "update_incident"), (-150, "backup_offsite")]
)
def test_seal_adds_lost_ledger_row_if_workflow_is_unknown_or_run_started_months_ago(
    chain: Evidence, number: int, workflow: str
) -> None:
    """Only one row is lost in each case. The run may have waited for months before its seal."""
    lost = chain.seal(number, dag_id=workflow, clock=LATER)
    restore_older_state(chain, 3)
    assert chain.seal(12, clock=LATER, workflows=KNOWN).seq == 5
    assert lost.path in [row.bundle for row in ledger.rows(chain.conn)]
    assert chain.verify().verified


@pytest.mark.parametrize("days", [-40, -400, 3 * 366])
def test_seal_on_machine_with_wrong_clock_adds_lost_ledger_rows(chain: Evidence, days: int) -> None:
    lost = restore_older_state(chain, 2)
    chain.seal(11, clock=FixedClock(START + timedelta(days=days)))
    assert lost[0].bundle in [row.bundle for row in ledger.rows(chain.conn)]


@pytest.mark.parametrize("days", [-40, 0, 3 * 366])
def test_lost_legal_hold_is_detected_on_machine_with_wrong_clock(
    evidence: Evidence, days: int
) -> None:
    company = Company(evidence, evidence.engine)
    company.hold()
    company.seal()
    company.hold()
    company.seal("enforce_retention")
    company.harm("DELETE FROM evidence_ledger WHERE seq = 2", "DELETE FROM legal_hold WHERE id = 2")
    sealed = company.reader.sealed_states(START + timedelta(days=days))
    assert [loss.register.name for loss in company.reader.losses(sealed)] == ["legal_hold"]


def test_search_counts_folders_beyond_the_limit_as_unchecked(chain: Evidence) -> None:
    """Workflows of the ledger are searched before unknown workflows."""
    lost = restore_older_state(chain, 2)
    for number in range(6):
        chain.store.put(f"a{number}/2026/11/r/x", b"x")
    with patch.object(unrecorded, "MOST_PARTS", 4):
        parts = unrecorded.recent_parts(chain.store, KNOWN, START, START)
        assert "backup_offsite/2026/11/" in parts.prefixes
        assert parts.unlisted >= 3
        assert chain.seal(11, clock=LATER, workflows=KNOWN).seq == 4
    assert lost[0].bundle in [row.bundle for row in ledger.rows(chain.conn)]
