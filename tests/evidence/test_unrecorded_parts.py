"""A search reaches lost bundles whatever their workflow is called and clocks say."""

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
def test_bundle_of_an_unknown_workflow_shows_a_lost_hold(evidence: Evidence, workflow: str) -> None:
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
def test_seal_enters_a_single_lost_bundle(chain: Evidence, number: int, workflow: str) -> None:
    """Of an unknown workflow, or of a run that waited for months."""
    lost = chain.seal(number, dag_id=workflow, clock=LATER)
    restore_older_state(chain, 3)
    assert chain.seal(12, clock=LATER, workflows=KNOWN).seq == 5
    assert lost.path in [row.bundle for row in ledger.rows(chain.conn)]
    assert chain.verify().verified


@pytest.mark.parametrize("days", [-40, -400, 3 * 366])
def test_seal_with_a_wrong_clock_enters_lost_bundles(chain: Evidence, days: int) -> None:
    lost = restore_older_state(chain, 2)
    chain.seal(11, clock=FixedClock(START + timedelta(days=days)))
    assert lost[0].bundle in [row.bundle for row in ledger.rows(chain.conn)]


@pytest.mark.parametrize("days", [-40, 0, 3 * 366])
def test_lost_hold_is_noticed_with_a_wrong_clock(evidence: Evidence, days: int) -> None:
    company = Company(evidence, evidence.engine)
    company.hold()
    company.seal()
    company.hold()
    company.seal("enforce_retention")
    company.harm("DELETE FROM evidence_ledger WHERE seq = 2", "DELETE FROM legal_hold WHERE id = 2")
    sealed = company.reader.sealed_states(START + timedelta(days=days))
    assert [loss.register.name for loss in company.reader.losses(sealed)] == ["legal_hold"]


def test_more_folders_than_are_listed_are_counted_as_unchecked(chain: Evidence) -> None:
    """Workflows that are known are searched before unknown ones."""
    lost = restore_older_state(chain, 2)
    for number in range(6):
        chain.store.put(f"a{number}/2026/11/r/x", b"x")
    with patch.object(unrecorded, "MOST_PARTS", 4):
        parts = unrecorded.recent_parts(chain.store, KNOWN, START, START)
        assert "backup_offsite/2026/11/" in parts.prefixes
        assert parts.unlisted >= 3
        assert chain.seal(11, clock=LATER, workflows=KNOWN).seq == 4
    assert lost[0].bundle in [row.bundle for row in ledger.rows(chain.conn)]
