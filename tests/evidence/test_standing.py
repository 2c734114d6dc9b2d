"""How controls stand: by what was sealed, as long as it holds and is young enough."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from include.evidence.model import ControlState, Outcome
from include.evidence.shelf import Shelf
from include.evidence.standing import Age, Standing, standings
from include.policy.period import Period
from include.policy.rules import Control
from include.services.clock import FixedClock
from tests.evidence.support import CLOCK, START, Evidence

ZONE = ZoneInfo("Asia/Shanghai")
SEALED = CLOCK.now()
LAW = {"en": "Law", "zh-CN": "法"}


def control(name: str = "BK-1", workflow: str = "backup_offsite", cadence: str = "P1D") -> Control:
    made = Control.model_validate(
        {
            "id": "backup",
            "clause": "6.1",
            "title": {"en": "Back up", "zh-CN": "备份"},
            "workflow": workflow,
            "cadence": cadence,
            "indicator": {"name": "missing", "target": "= 0"},
            "sources": [
                {
                    "instrument": {"en": "Law", "zh-CN": "法"},
                    "version": "2026-01-01",
                    "article": "1",
                }
            ],
        }
    )
    return made.model_copy(update={"id": name})


def look(evidence: Evidence, one: Control, now: datetime = SEALED, pruned: int = 0) -> Standing:
    shelf = Shelf(evidence.store, [evidence.signer.public_pem])
    return standings(evidence.conn, shelf, [one], now, ZONE, pruned)[0]


def test_a_control_stands_by_its_newest_bundle(chain: Evidence) -> None:
    """State, findings of its clause, the trend with the oldest first, and when it is due."""
    found = look(chain, control())
    assert found.row is not None
    assert (found.row.seq, found.status.state) == (3, ControlState.HELD)
    assert found.trend == (Outcome.ATTENTION, Outcome.ATTENTION)
    assert found.due_at == SEALED + timedelta(days=1)
    assert (found.age, found.outcome) == (Age.IN_TIME, Outcome.PASS)


def test_without_evidence_nothing_is_shown(chain: Evidence) -> None:
    """A workflow that never ran, and a control that no bundle knows, fail."""
    for one in (control(workflow="never_ran"), control("BK-9")):
        found = look(chain, one)
        assert (found.row, found.age, found.outcome) == (None, Age.NEVER, Outcome.FAIL)


@pytest.mark.parametrize("name", ["result.json", "SHA256SUMS", "SHA256SUMS.sig"])
@pytest.mark.parametrize("harm", ["changed", "removed"])
def test_evidence_that_was_harmed_shows_nothing(chain: Evidence, name: str, harm: str) -> None:
    """Whatever it said before, and with the reason."""
    row = look(chain, control()).row
    assert row is not None
    file = chain.root / row.bundle / name
    if harm == "removed":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))
    found = look(chain, control())
    assert (found.status, found.outcome) == (None, Outcome.FAIL)
    assert found.problem is not None


def test_a_ledger_row_that_was_edited_shows_nothing(chain: Evidence) -> None:
    """An outcome that somebody improved in the database alone."""
    chain.tamper(text("UPDATE evidence_ledger SET outcome = 'pass' WHERE seq = 3"))
    found = look(chain, control())
    assert (found.status, found.outcome) == (None, Outcome.FAIL)


def test_evidence_whose_files_are_gone_by_rule_shows_nothing_new(chain: Evidence) -> None:
    """Pruning is no tampering, and no proof."""
    found = look(chain, control(), pruned=3)
    assert (found.status, found.outcome) == (None, Outcome.FAIL)


@given(minutes=st.integers(0, 5 * 24 * 60))
def test_evidence_ages_by_its_cadence(minutes: int) -> None:
    """In time up to one cadence, late up to two, then too old to count."""
    from include.evidence.standing import _age
    from include.policy.spans import later

    one = control()
    due = later(SEALED, Period.parse("P1D"), ZONE)
    age = _age(SEALED + timedelta(minutes=minutes), due, one, ZONE)
    day = 24 * 60
    expected = Age.IN_TIME if minutes <= day else Age.LATE if minutes <= 2 * day else Age.STALE
    assert age is expected


@pytest.fixture
def old(evidence: Evidence) -> Evidence:
    """Much newer evidence of another control of the same workflow stands before its own."""
    evidence.seal(1)
    for number in range(2, 25):
        evidence.seal(number, clock=FixedClock(SEALED + timedelta(minutes=number)))
    return evidence


def test_evidence_is_found_behind_many_bundles_of_other_controls(old: Evidence) -> None:
    """A control that most runs say nothing of has its last evidence nevertheless."""
    old.tamper(text("UPDATE evidence_ledger SET controls = '{BK-2}' WHERE seq > 1"))
    found = look(old, control(cadence="P1Y"), now=START + timedelta(days=60))
    assert found.row is not None
    assert found.row.seq == 1


def test_evidence_of_tomorrow_shows_nothing(evidence: Evidence) -> None:
    """A clock that ran ahead makes no control green until then; the run after it counts."""
    evidence.seal(1, clock=FixedClock(SEALED + timedelta(days=3650)))
    found = look(evidence, control())
    assert (found.status, found.outcome) == (None, Outcome.FAIL)
    assert found.problem is not None
    evidence.seal(2)
    found = look(evidence, control())
    assert found.row is not None
    assert (found.row.seq, found.outcome) == (2, Outcome.PASS)
