"""How controls stand: by what was sealed, as long as it holds and is young enough."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from include.evidence import ledger
from include.evidence.adopt import recover_ledger
from include.evidence.ledger import LedgerRow
from include.evidence.model import ControlState, Finding, Outcome
from include.evidence.shelf import LARGEST, Shelf
from include.evidence.signing import TrustedKeys
from include.evidence.standing import Age, Standing, by_clause, standings
from include.evidence.verify import link_before
from include.messages import _
from include.policy.period import Period
from include.policy.rules import Control
from include.services.clock import FixedClock
from include.state.tables import evidence_intent, evidence_ledger
from tests.evidence.support import START, Evidence, result_of
from tests.support.damage import flip

ZONE = ZoneInfo("Asia/Shanghai")
SEALED = result_of(number=10).finished_at  # of the newest bundle of a chain
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
    """In time up to one cadence and two hours of a day, late up to two, then too old to count."""
    from include.evidence.standing import _age

    age = _age(SEALED + timedelta(minutes=minutes), SEALED, control(), ZONE)
    day, grace = 24 * 60, 2 * 60
    expected = (
        Age.IN_TIME if minutes <= day + grace else Age.LATE if minutes <= 2 * day else Age.STALE
    )
    assert age is expected


@pytest.mark.parametrize(("cadence", "hours"), [("P1D", 2), ("P4D", 8), ("P92D", 24)])
def test_a_run_may_take_longer_than_the_last_one(cadence: str, hours: int) -> None:
    """A daily run is sealed a minute later than yesterday's now and then; a day at most."""
    from include.evidence.standing import _age
    from include.policy.period import later

    one = control(cadence=cadence)
    end = later(SEALED, Period.parse(cadence), ZONE) + timedelta(hours=hours)
    assert _age(end, SEALED, one, ZONE) is Age.IN_TIME
    assert _age(end + timedelta(seconds=1), SEALED, one, ZONE) is Age.LATE


@pytest.mark.parametrize("harm", ["changed", "added", "removed"])
def test_a_report_that_was_harmed_makes_its_control_fail(chain: Evidence, harm: str) -> None:
    """Whatever file it is: the bundle is not what was sealed."""
    row = look(chain, control()).row
    assert row is not None
    file = chain.root / row.bundle / "report.en.html"
    if harm == "changed":
        file.write_bytes(b"<h1>All is well</h1>")
    elif harm == "added":
        file.with_name("added.html").write_bytes(b"<h1>Hello</h1>")
    else:
        file.unlink()
    found = look(chain, control())
    assert (found.status, found.outcome) == (None, Outcome.FAIL)
    assert found.problem is not None


def test_what_was_seen_on_its_page_counts_at_once(chain: Evidence) -> None:
    """Else the overview would say Pass for ten minutes beside a page that says do not rely."""
    shelf = Shelf(chain.store, [chain.signer.public_pem])

    def outcome() -> Outcome:
        return standings(chain.conn, shelf, [control()], SEALED, ZONE)[0].outcome

    assert outcome() is Outcome.PASS
    row = look(chain, control()).row
    assert row is not None
    file = chain.root / row.bundle / "report.en.html"
    content = file.read_bytes()
    file.unlink()
    assert outcome() is Outcome.PASS
    assert shelf.check(row, link_before(chain.conn, row)).problem is not None
    assert outcome() is Outcome.FAIL
    file.write_bytes(content)
    assert shelf.check(row, link_before(chain.conn, row)).verified
    assert outcome() is Outcome.PASS


def standing(clause: str, seq: int, *findings: Finding) -> Standing:
    """A control that held, and what its bundle found."""
    row = LedgerRow(seq, "b", "w", "r", "pass", [], SEALED, SEALED, "0" * 64, "", "1" * 64)
    status = result_of().controls[0]
    one = control().model_copy(update={"clause": clause})
    due = SEALED + timedelta(days=1)
    return Standing(one, row, status, None, due, Age.IN_TIME, findings=findings)


def finding(clause: str, severity: Outcome) -> Finding:
    return Finding(
        code="x.y", severity=severity, subject="s", message=_("Seen"), action=_("Look"),
        clause=clause,
    )  # fmt: skip


def test_what_is_found_counts_for_its_own_clause() -> None:
    """A check of clause 4.1 that finds records without a reviewer says so under 5.2."""
    failed, noted = finding("5.2", Outcome.FAIL), finding("4.1", Outcome.ATTENTION)
    first, second = by_clause([standing("5.2", 1), standing("4.1", 2, failed, noted)])
    assert (first.clause, first.outcome) == ("4.1", Outcome.ATTENTION)
    assert (second.clause, second.outcome) == ("5.2", Outcome.FAIL)
    assert [(one.row.seq, one.findings) for one in second.found] == [(2, (failed,))]


def test_a_finding_counts_once_however_many_controls_its_bundle_shows() -> None:
    """And under a clause that has no control here too; one of no clause goes to its control's."""
    found = [
        finding("6.2", Outcome.ATTENTION),
        finding("9.10", Outcome.FAIL),
        finding("", Outcome.FAIL),
    ]
    clauses = by_clause([standing("6.2", 7, *found) for _number in range(3)])
    assert [(one.clause, len(one.controls)) for one in clauses] == [("6.2", 3), ("9.10", 0)]
    assert [len(bundle.findings) for one in clauses for bundle in one.found] == [2, 1]
    assert clauses[1].outcome is Outcome.FAIL


def test_clauses_stand_in_the_order_of_their_numbers() -> None:
    """6.10 comes after 6.2."""
    found = by_clause([standing(clause, 1) for clause in ("6.10", "6.2", "4.1")])
    assert [one.clause for one in found] == ["4.1", "6.2", "6.10"]


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
    evidence.seal(9)
    found = look(evidence, control(cadence="P2D"))
    assert found.row is not None
    assert (found.row.seq, found.outcome) == (2, Outcome.PASS)


def test_control_fails_if_evidence_is_dated_in_the_future(evidence: Evidence) -> None:
    """The moment that its signature states counts, whatever the ledger says."""
    evidence.seal(11)
    found = look(evidence, control())
    assert (found.status, found.outcome) == (None, Outcome.FAIL)
    assert look(evidence, control(), SEALED + timedelta(days=1)).outcome is Outcome.PASS


@pytest.mark.parametrize("way", ["recover", "intent", "row entered later"])
def test_recovered_evidence_is_as_old_as_its_signature_states(chain: Evidence, way: str) -> None:
    """Thirteen months later its row is lost and entered again: it is too old to count."""
    much_later = FixedClock(SEALED + timedelta(days=396))
    newest = ledger.head(chain.conn)
    assert newest is not None
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq == newest.seq))
    if way == "recover":
        keys = TrustedKeys([chain.signer.public_pem])
        entered = recover_ledger(chain.store, chain.conn, chain.signer, keys, much_later)
        assert entered == [newest.bundle]
    elif way == "intent":
        chain.execute(evidence_intent.insert().values(bundle=newest.bundle, begun_at=SEALED))
        chain.seal(11, dag_id="drill_restore", clock=much_later)
    else:  # as older versions entered it
        row = replace(newest, sealed_at=much_later.now())
        ledger.append(chain.conn, chain.signer, row)
        chain.conn.commit()
    found = look(chain, control(), much_later.now())
    assert found.row is not None
    assert (found.row.seq, found.age, found.outcome) == (newest.seq, Age.STALE, Outcome.FAIL)
    assert found.finished_at == SEALED
    assert found.due_at == SEALED + timedelta(days=1)
    if way != "row entered later":
        assert found.row.sealed_at == SEALED


def test_control_fails_if_large_file_was_added_to_bundle(chain: Evidence) -> None:
    """An added file is a failure, however large it makes the bundle."""
    row = look(chain, control()).row
    assert row is not None
    large = chain.root / row.bundle / "large.bin"
    large.touch()
    os.truncate(large, LARGEST + 1)
    found = look(chain, control())
    assert (found.status, found.outcome) == (None, Outcome.FAIL)
    assert found.problem is not None
    assert found.problem.values == {"name": "large.bin"}


@pytest.mark.parametrize("harmed", [False, True])
def test_bundle_too_large_to_check_needs_attention(evidence: Evidence, harmed: bool) -> None:
    """It is never shown as passed; what fits is checked, and fails when it was changed."""
    large = {"frame.csv": b"x" * 1000, "report.en.html": b"<p>"}
    evidence.seal(10, files=large)
    row = look(evidence, control()).row
    assert row is not None
    if harmed:
        flip(evidence.root / row.bundle / "report.en.html")
    os.truncate(evidence.root / row.bundle / "frame.csv", LARGEST)
    found = look(evidence, control())
    assert found.outcome is (Outcome.FAIL if harmed else Outcome.ATTENTION)
    assert found.is_checked is harmed
