"""The state of a control comes from sealed evidence that is valid and recent enough."""

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
from include.evidence.bundle import seal
from include.evidence.bundle_reader import LARGEST, BundleReader
from include.evidence.control_evidence import (
    Age,
    ControlEvidence,
    PruneState,
    by_clause,
    read_control_evidence,
)
from include.evidence.control_reasons import reason_of
from include.evidence.ledger import LedgerRow
from include.evidence.ledger_recovery import recover_ledger
from include.evidence.model import ControlState, Finding, Outcome
from include.evidence.signing import TrustedKeys
from include.evidence.verify import link_before
from include.messages import _
from include.policy.period import Period
from include.policy.rules import Control
from include.reports.i18n import Translator
from include.services.clock import FixedClock
from include.state.tables import evidence_intent, evidence_ledger
from tests.evidence.support import CLOCK, START, Evidence, result_of
from tests.support.damage import flip

ZONE = ZoneInfo("Asia/Shanghai")
SEALED = result_of(number=10).finished_at  # of the newest bundle of a chain
LAW = {"en": "Law", "zh-CN": "法"}


def control(name: str = "BK-1", workflow: str = "backup_offsite", cadence: str = "P1D") -> Control:
    definition = Control.model_validate(
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
    return definition.model_copy(update={"id": name})


def look(
    evidence: Evidence, requested_control: Control, now: datetime = SEALED, pruned: int = 0
) -> ControlEvidence:
    bundle_reader = BundleReader(evidence.store, [evidence.signer.public_pem])
    return read_control_evidence(
        evidence.conn, bundle_reader, [requested_control], now, ZONE, PruneState(pruned)
    )[0]


def test_control_has_state_of_its_newest_bundle(chain: Evidence) -> None:
    """The test checks state, trend (the oldest outcome first), due date, age and outcome."""
    control_evidence = look(chain, control())
    assert control_evidence.row is not None
    assert (control_evidence.row.seq, control_evidence.status.state) == (3, ControlState.PASSED)
    assert control_evidence.trend == (Outcome.ATTENTION, Outcome.ATTENTION)
    assert control_evidence.due_at == SEALED + timedelta(days=1)
    assert (control_evidence.age, control_evidence.outcome) == (Age.IN_TIME, Outcome.PASS)


def test_control_without_evidence_fails_after_its_first_due_date(chain: Evidence) -> None:
    """The workflow of the control never ran, or no bundle is evidence for the control."""
    for tested_control in (control(workflow="never_ran"), control("BK-9")):
        first_due = SEALED - timedelta(days=3) + timedelta(days=1)
        for now, known_since, age, outcome in (
            (SEALED, {}, Age.NEVER, None),
            (first_due, {tested_control.id: SEALED - timedelta(days=3)}, Age.NEVER, None),
            (SEALED, {tested_control.id: SEALED - timedelta(days=3)}, Age.MISSING, Outcome.FAIL),
            (SEALED, {tested_control.id: SEALED + timedelta(days=3)}, Age.NEVER, None),
        ):
            bundle_reader = BundleReader(chain.store, [chain.signer.public_pem])
            (control_evidence,) = read_control_evidence(
                chain.conn, bundle_reader, [tested_control], now, ZONE, known_since=known_since
            )
            assert control_evidence.row is None
            assert (control_evidence.age, control_evidence.outcome) == (age, outcome)


def test_reason_of_a_control_that_was_not_measured_names_the_first_finding_of_its_clause(
    evidence: Evidence,
) -> None:
    result = result_of()
    shown = result.findings[0].model_copy(update={"clause": "6.1", "message": _("Same disk.")})
    status = result.controls[0].model_copy(update={"state": ControlState.NO_EVIDENCE})
    unmeasured = result.model_copy(
        update={"controls": [status], "findings": [*result.findings, shown]}
    )
    seal(evidence.store, evidence.conn, evidence.signer, result=unmeasured, files={}, clock=CLOCK)
    reason = reason_of(look(evidence, control(), unmeasured.finished_at), ZONE)
    assert reason is not None
    assert Translator("en").text(reason).endswith("did not measure this control. Same disk.")


@pytest.mark.parametrize("name", ["result.json", "SHA256SUMS", "SHA256SUMS.sig"])
@pytest.mark.parametrize("harm", ["changed", "removed"])
def test_control_with_damaged_evidence_fails(chain: Evidence, name: str, harm: str) -> None:
    """The state of the control contains the reason."""
    row = look(chain, control()).row
    assert row is not None
    file = chain.root / row.bundle / name
    if harm == "removed":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))
    control_evidence = look(chain, control())
    assert (control_evidence.status, control_evidence.outcome) == (None, Outcome.FAIL)
    assert control_evidence.problem is not None


def test_control_with_edited_ledger_row_fails(chain: Evidence) -> None:
    """The outcome was changed only in the state database, not in the bundle."""
    chain.tamper(text("UPDATE evidence_ledger SET outcome = 'pass' WHERE seq = 3"))
    control_evidence = look(chain, control())
    assert (control_evidence.status, control_evidence.outcome) == (None, Outcome.FAIL)


def test_control_fails_if_its_newest_evidence_bundle_was_pruned(chain: Evidence) -> None:
    """Pruned evidence does not count as manipulated, but it proves nothing."""
    control_evidence = look(chain, control(), pruned=3)
    assert (control_evidence.status, control_evidence.outcome) == (None, Outcome.FAIL)


@given(minutes=st.integers(0, 5 * 24 * 60))
def test_evidence_is_late_after_the_grace_period_and_outdated_after_two_cadences(
    minutes: int,
) -> None:
    """Evidence is late if it is older than the cadence and the grace period of two hours per day.

    It is outdated after two cadences.
    """
    from include.evidence.control_evidence import age_at

    age = age_at(SEALED + timedelta(minutes=minutes), SEALED, control().cadence, ZONE)
    day, grace = 24 * 60, 2 * 60
    expected = (
        Age.IN_TIME if minutes <= day + grace else Age.LATE if minutes <= 2 * day else Age.STALE
    )
    assert age is expected


@pytest.mark.parametrize(("cadence", "hours"), [("P1D", 2), ("P4D", 8), ("P92D", 24)])
def test_evidence_within_grace_period_is_on_time(cadence: str, hours: int) -> None:
    """A daily run may end somewhat later than the last run. The grace period is at most a day."""
    from include.evidence.control_evidence import age_at
    from include.policy.period import add_period

    tested_control = control(cadence=cadence)
    end = add_period(SEALED, Period.parse(cadence), ZONE) + timedelta(hours=hours)
    assert age_at(end, SEALED, tested_control.cadence, ZONE) is Age.IN_TIME
    late = age_at(end + timedelta(seconds=1), SEALED, tested_control.cadence, ZONE)
    assert late is Age.LATE


@pytest.mark.parametrize("harm", ["changed", "added", "removed"])
def test_control_with_changed_report_fails(chain: Evidence, harm: str) -> None:
    """A change of any file makes the control fail, because the bundle is not as it was sealed."""
    row = look(chain, control()).row
    assert row is not None
    file = chain.root / row.bundle / "report.en.html"
    if harm == "changed":
        file.write_bytes(b"<h1>All is well</h1>")
    elif harm == "added":
        file.with_name("added.html").write_bytes(b"<h1>Hello</h1>")
    else:
        file.unlink()
    control_evidence = look(chain, control())
    assert (control_evidence.status, control_evidence.outcome) == (None, Outcome.FAIL)
    assert control_evidence.problem is not None


def test_overview_shows_control_as_failed_as_soon_as_a_full_check_of_its_bundle_has_failed(
    chain: Evidence,
) -> None:
    """Otherwise the overview could show "passed" for ten minutes while the bundle's page warns."""
    bundle_reader = BundleReader(chain.store, [chain.signer.public_pem])

    def outcome() -> Outcome:
        return read_control_evidence(chain.conn, bundle_reader, [control()], SEALED, ZONE)[
            0
        ].outcome

    assert outcome() is Outcome.PASS
    row = look(chain, control()).row
    assert row is not None
    file = chain.root / row.bundle / "report.en.html"
    content = file.read_bytes()
    file.unlink()
    assert outcome() is Outcome.PASS
    assert bundle_reader.check(row, link_before(chain.conn, row)).problem is not None
    assert outcome() is Outcome.FAIL
    file.write_bytes(content)
    assert bundle_reader.check(row, link_before(chain.conn, row)).verified
    assert outcome() is Outcome.PASS


def standing(clause: str, seq: int, *findings: Finding) -> ControlEvidence:
    """Return the evidence of a control that passed, with the findings of its bundle."""
    row = LedgerRow(seq, "b", "w", "r", "pass", [], SEALED, SEALED, "0" * 64, "", "1" * 64)
    status = result_of().controls[0]
    tested_control = control().model_copy(update={"clause": clause})
    due = SEALED + timedelta(days=1)
    return ControlEvidence(tested_control, row, status, None, due, Age.IN_TIME, findings=findings)


def finding(clause: str, severity: Outcome) -> Finding:
    return Finding(
        code="x.y", severity=severity, subject="s", message=_("Seen"), action=_("Look"),
        clause=clause,
    )  # fmt: skip


def test_finding_is_shown_under_clause_of_finding_and_not_of_workflow() -> None:
    """A workflow of clause 4.1 may report records without a reviewer under clause 5.2."""
    failed, noted = finding("5.2", Outcome.FAIL), finding("4.1", Outcome.ATTENTION)
    first, second = by_clause([standing("5.2", 1), standing("4.1", 2, failed, noted)])
    assert (first.clause, first.outcome) == ("4.1", Outcome.ATTENTION)
    assert (second.clause, second.outcome) == ("5.2", Outcome.FAIL)
    assert [(evidence.row.seq, evidence.findings) for evidence in second.findings_by_bundle] == [
        (2, (failed,))
    ]


def test_finding_of_bundle_with_several_controls_is_listed_once() -> None:
    """This also holds if the clause of the finding has no control.

    A finding without a clause has its control's clause.
    """
    findings = [
        finding("6.2", Outcome.ATTENTION),
        finding("9.10", Outcome.FAIL),
        finding("", Outcome.FAIL),
    ]
    clauses = by_clause([standing("6.2", 7, *findings) for _number in range(3)])
    assert [(clause.clause, len(clause.controls)) for clause in clauses] == [
        ("6.2", 3),
        ("9.10", 0),
    ]
    assert [len(bundle.findings) for clause in clauses for bundle in clause.findings_by_bundle] == [
        2,
        1,
    ]
    assert clauses[1].outcome is Outcome.FAIL


def test_clauses_are_sorted_by_number() -> None:
    """Clause 6.10 comes after clause 6.2."""
    clauses = by_clause([standing(clause, 1) for clause in ("6.10", "6.2", "4.1")])
    assert [clause.clause for clause in clauses] == ["4.1", "6.2", "6.10"]


@pytest.fixture
def old(evidence: Evidence) -> Evidence:
    """Return an evidence store with an old bundle and many newer bundles of the same workflow."""
    evidence.seal(1)
    for number in range(2, 25):
        evidence.seal(number, clock=FixedClock(SEALED + timedelta(minutes=number)))
    return evidence


def test_newest_evidence_of_a_control_is_returned_even_if_many_newer_bundles_lack_the_control(
    old: Evidence,
) -> None:
    old.tamper(text("UPDATE evidence_ledger SET controls = '{BK-2}' WHERE seq > 1"))
    control_evidence = look(old, control(cadence="P1Y"), now=START + timedelta(days=60))
    assert control_evidence.row is not None
    assert control_evidence.row.seq == 1


def test_control_passes_if_new_evidence_follows_evidence_that_was_dated_in_the_future(
    evidence: Evidence,
) -> None:
    """The clock of the sealing machine was ahead. The evidence of the next run is accepted."""
    evidence.seal(1, clock=FixedClock(SEALED + timedelta(days=3650)))
    control_evidence = look(evidence, control())
    assert (control_evidence.status, control_evidence.outcome) == (None, Outcome.FAIL)
    assert control_evidence.problem is not None
    evidence.seal(9)
    control_evidence = look(evidence, control(cadence="P2D"))
    assert control_evidence.row is not None
    assert (control_evidence.row.seq, control_evidence.outcome) == (2, Outcome.PASS)


def test_control_fails_if_evidence_is_dated_in_the_future(evidence: Evidence) -> None:
    """The signed time in the bundle decides, not the time in the ledger."""
    evidence.seal(11)
    control_evidence = look(evidence, control())
    assert (control_evidence.status, control_evidence.outcome) == (None, Outcome.FAIL)
    assert look(evidence, control(), SEALED + timedelta(days=1)).outcome is Outcome.PASS


@pytest.mark.parametrize("way", ["recover", "intent", "row entered later"])
def test_age_of_evidence_is_unchanged_after_its_ledger_row_was_added_again(
    chain: Evidence, way: str
) -> None:
    """The row is lost and entered again after thirteen months: the evidence is outdated."""
    much_later = FixedClock(SEALED + timedelta(days=396))
    newest = ledger.head(chain.conn)
    assert newest is not None
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq == newest.seq))
    if way == "recover":
        keys = TrustedKeys([chain.signer.public_pem])
        entered = recover_ledger(chain.store, chain.conn, chain.signer, keys, much_later)
        assert entered == [newest.bundle]
    elif way == "intent":
        chain.execute(evidence_intent.insert().values(bundle=newest.bundle, started_at=SEALED))
        chain.seal(11, dag_id="drill_restore", clock=much_later)
    else:  # as older versions entered it
        row = replace(newest, sealed_at=much_later.now())
        ledger.append(chain.conn, chain.signer, row)
        chain.conn.commit()
    control_evidence = look(chain, control(), much_later.now())
    assert control_evidence.row is not None
    assert (control_evidence.row.seq, control_evidence.age, control_evidence.outcome) == (
        newest.seq,
        Age.STALE,
        Outcome.FAIL,
    )
    assert control_evidence.finished_at == SEALED
    assert control_evidence.due_at == SEALED + timedelta(days=1)
    if way != "row entered later":
        assert control_evidence.row.sealed_at == SEALED


def test_control_fails_if_large_file_was_added_to_bundle(chain: Evidence) -> None:
    """A file that was added makes the bundle invalid, whatever its size."""
    row = look(chain, control()).row
    assert row is not None
    large = chain.root / row.bundle / "large.bin"
    large.touch()
    os.truncate(large, LARGEST + 1)
    control_evidence = look(chain, control())
    assert (control_evidence.status, control_evidence.outcome) == (None, Outcome.FAIL)
    assert control_evidence.problem is not None
    assert control_evidence.problem.values == {"name": "large.bin"}


@pytest.mark.parametrize("harmed", [False, True])
def test_control_with_bundle_too_large_to_check_needs_attention(
    evidence: Evidence, harmed: bool
) -> None:
    """The control is never shown as passed.

    It fails if a file was changed that is checked despite the limit on size.
    """
    large = {"frame.csv": b"x" * 1000, "report.en.html": b"<p>"}
    evidence.seal(10, files=large)
    row = look(evidence, control()).row
    assert row is not None
    if harmed:
        flip(evidence.root / row.bundle / "report.en.html")
    os.truncate(evidence.root / row.bundle / "frame.csv", LARGEST)
    control_evidence = look(evidence, control())
    assert control_evidence.outcome is (Outcome.FAIL if harmed else Outcome.ATTENTION)
    assert control_evidence.is_checked is harmed
