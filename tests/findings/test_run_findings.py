"""Findings of sealed runs enter the register once, and only a later complete run closes them."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from include.evidence.bundle_reader import BundleReader
from include.evidence.model import (
    CONTROLS_STEP,
    REGISTERS_STEP,
    Coverage,
    Finding,
    Outcome,
    Result,
    StepSummary,
)
from include.evidence.signing import Signer, generate_key
from include.findings import register, run_findings
from include.findings.register import State
from include.findings.reminders import remind_owners
from include.findings.run_findings import FollowedLedger, follow_ledger, unread_bundles
from include.local.postgres import EmbeddedPostgres
from include.messages import verbatim
from include.notify.outbox import Run
from include.policy.rules import NotificationRules, Role
from include.services.objectstore.base import StoreError
from include.state.tables import evidence_ledger
from tests.evidence.conftest import open_evidence
from tests.evidence.support import Evidence, control
from tests.findings.simulated_year import (
    ENTRY_RULES,
    ON_DEMAND,
    WORKFLOWS,
    Entry,
    Key,
    NewestListed,
    Oracle,
    SimulatedRun,
    simulate,
)
from tests.support.damage import unreadable
from tests.support.databases import temporary_database
from tests.support.registers import unguarded

RUNS = int(os.environ.get("TEST_YEAR_RUNS", "120"))  # 20,000 take half an hour: --timeout=0
WORKFLOW = WORKFLOWS[0]
PROBLEM = ("courier", "x", "customer")
ALL: dict[str, tuple[str, ...] | None] = {"courier": None}


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer.from_pem(generate_key())


@pytest.fixture(scope="module")
def database(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[str]:
    with temporary_database(postgres, migrated_once) as name:
        yield postgres.conninfo(name)


@pytest.fixture
def evidence(database: str, signer: Signer, tmp_path: Path) -> Iterator[Evidence]:
    """Yield an empty evidence store with an empty state database."""
    (tmp_path / "evidence").mkdir()
    with open_evidence(database, signer, tmp_path / "evidence") as made:
        yield made


def follow(evidence: Evidence, most: int = 500) -> FollowedLedger:
    reader = BundleReader(evidence.store, [evidence.signer.public_pem])
    return follow_ledger(evidence.engine, reader, ENTRY_RULES, most)


def findings(evidence: Evidence) -> list[register.Finding]:
    evidence.conn.rollback()
    return register.list_findings(evidence.conn, closed=True)


def entries(evidence: Evidence) -> list[tuple[Key, Entry]]:
    """Return the register in the form of the oracle's entries."""
    listed: list[tuple[Key, Entry]] = []
    for finding in findings(evidence):
        origin = finding.origin
        assert origin is not None
        key = (origin.workflow, origin.part, origin.code, origin.subject)
        entry = Entry(origin.opened_in, origin.severity, origin.reports, finding.closed_in)
        listed.append((key, entry))
    return sorted(listed, key=str)


def run_of(
    number: int,
    problems: dict[tuple[str, str, str], Outcome] | None = None,
    examined: dict[str, tuple[str, ...] | None] | None = None,
    *,
    is_complete: bool = True,
    workflow: str = WORKFLOW,
) -> SimulatedRun:
    coverage = ALL if examined is None else examined
    return SimulatedRun(number, workflow, problems or {}, coverage, is_complete)


def test_finding_of_a_run_is_entered_with_owner_due_date_and_texts(evidence: Evidence) -> None:
    bundle = run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    assert follow(evidence).opened == 1
    [finding] = findings(evidence)
    assert (finding.kind, finding.owner, finding.state) == (
        "run",
        f"owner of {WORKFLOW}",
        State.OPEN,
    )
    opened_on = run_of(1).started_at.date()
    assert finding.due_on == opened_on + timedelta(days=14)
    assert finding.origin is not None
    assert finding.origin.opened_in == finding.origin.reported_in == bundle
    assert finding.origin.details.action == verbatim("Correct it.")
    assert finding.description == verbatim("x in courier")


def test_finding_that_needs_attention_is_due_later(evidence: Evidence) -> None:
    run_of(1, {PROBLEM: Outcome.ATTENTION}).seal(evidence)
    follow(evidence)
    [finding] = findings(evidence)
    assert finding.due_on == run_of(1).started_at.date() + timedelta(days=60)


def test_finding_that_comes_back_is_the_same_entry(evidence: Evidence) -> None:
    run_of(1, {PROBLEM: Outcome.ATTENTION}).seal(evidence)
    second = run_of(2, {PROBLEM: Outcome.FAIL}).seal(evidence)
    assert follow(evidence).opened == 1
    [finding] = findings(evidence)
    assert finding.origin is not None
    assert (finding.origin.reports, finding.origin.reported_in) == (2, second)
    assert finding.severity is Outcome.FAIL
    assert finding.due_on == run_of(1).started_at.date() + timedelta(days=60)


def test_complete_run_without_the_finding_closes_it_with_its_bundle(evidence: Evidence) -> None:
    run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    closing = run_of(2).seal(evidence)
    assert follow(evidence).closed == 1
    [finding] = findings(evidence)
    assert (finding.state, finding.closed_in) == (State.CLOSED, closing)
    assert finding.closed_at == run_of(2).started_at + timedelta(minutes=5)


@pytest.mark.parametrize(
    "run",
    [
        run_of(2, is_complete=False),
        run_of(2, examined={"billing": None}),
        run_of(2, examined={"courier": ("waybill",)}),
        run_of(2, workflow=WORKFLOWS[1]),
    ],
    ids=["interrupted", "other database", "other subject", "other workflow"],
)
def test_run_that_did_not_examine_the_subject_closes_nothing(
    evidence: Evidence, run: SimulatedRun
) -> None:
    run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    run.seal(evidence)
    assert follow(evidence).closed == 0
    [finding] = findings(evidence)
    assert finding.state is State.OPEN


def test_run_that_started_before_the_report_was_sealed_closes_nothing(evidence: Evidence) -> None:
    """Its check may have read the records before the problem appeared."""
    run_of(2, {PROBLEM: Outcome.FAIL}).seal(evidence)
    run_of(1).seal(evidence)
    assert follow(evidence).closed == 0
    run_of(3).seal(evidence)
    assert follow(evidence).closed == 1


def test_finding_that_comes_back_after_it_was_closed_is_a_new_entry(evidence: Evidence) -> None:
    run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    run_of(2).seal(evidence)
    run_of(3, {PROBLEM: Outcome.FAIL}).seal(evidence)
    follow(evidence)
    states = [finding.state for finding in sorted(findings(evidence), key=lambda it: it.id)]
    assert states == [State.CLOSED, State.OPEN]


def test_finding_of_workflow_on_demand_is_closed_by_retest_only(evidence: Evidence) -> None:
    problem = {("", "late", "INC-1"): Outcome.FAIL}
    run_of(1, problem, {"": None}, workflow=ON_DEMAND).seal(evidence)
    run_of(2, {}, {"": None}, workflow=ON_DEMAND).seal(evidence)
    assert follow(evidence).closed == 0
    [finding] = findings(evidence)
    with evidence.engine.begin() as conn:
        at = run_of(3).started_at
        register.answer(conn, finding.id, cause="late", action="train", by="ann", at=at)
        register.retest(conn, finding.id, met=True, by="bob", at=at)
    assert findings(evidence)[0].state is State.CLOSED


def test_settled_part_of_a_mapped_step_closes_its_findings(evidence: Evidence) -> None:
    """The step `find` selected every part that still exists, and the part is not among them."""
    seal_result(evidence, 1, [finding_of(part="b1", step="review")], step("review", "b1"))
    seal_result(evidence, 2, [], step("find", steps=("review",)))
    assert follow(evidence).closed == 1


def test_part_without_record_keeps_its_findings_if_no_step_selects_parts(
    evidence: Evidence,
) -> None:
    seal_result(evidence, 1, [finding_of(part="b1", step="review")], step("review", "b1"))
    seal_result(evidence, 2, [], step("find"))
    assert follow(evidence).closed == 0


@pytest.mark.parametrize(("controls", "closed"), [(["c1"], 1), (["c2"], 0)])
def test_finding_about_a_control_is_closed_only_while_the_pack_has_the_control(
    evidence: Evidence, controls: list[str], closed: int
) -> None:
    seal_result(evidence, 1, [finding_of(step=CONTROLS_STEP, subject="c1")])
    seal_result(evidence, 2, [], step("check"), controls=controls)
    assert follow(evidence).closed == closed


def test_finding_about_registers_is_one_entry_for_all_workflows_and_needs_a_retest(
    evidence: Evidence,
) -> None:
    """Only one run reports a lost row. A later run without the report proves nothing."""
    lost = finding_of(step=REGISTERS_STEP, code="evidence.register_lost", subject="legal_hold")
    seal_result(evidence, 1, [lost])
    seal_result(evidence, 2, [lost], workflow=WORKFLOWS[1])
    assert follow(evidence).opened == 1
    seal_result(evidence, 3, [], workflow=WORKFLOWS[2])
    assert follow(evidence).closed == 0
    [finding] = findings(evidence)
    assert (finding.kind, finding.state) == ("event", State.OPEN)


def test_finding_about_registers_that_a_run_on_demand_reports_does_not_stop_the_register(
    evidence: Evidence,
) -> None:
    lost = finding_of(step=REGISTERS_STEP, code="evidence.register_lost", subject="legal_hold")
    seal_result(evidence, 1, [lost], workflow=ON_DEMAND)
    seal_result(evidence, 2, [finding_of()], workflow=WORKFLOWS[2])
    followed = follow(evidence)
    assert (followed.opened, followed.unread, followed.is_complete) == (2, (), True)


def test_findings_of_two_incidents_with_the_same_subject_are_separate_entries(
    evidence: Evidence,
) -> None:
    for number in (1, 2):
        seal_result(evidence, number, [finding_of()], workflow=ON_DEMAND)
    assert follow(evidence).opened == 2


def test_findings_of_a_drill_do_not_enter_the_register(evidence: Evidence) -> None:
    seal_result(evidence, 1, [finding_of()], workflow=ON_DEMAND, is_drill=True)
    assert follow(evidence).opened == 0


def test_refused_run_on_demand_enters_no_finding(evidence: Evidence) -> None:
    seal_result(evidence, 1, [finding_of()], workflow=ON_DEMAND, could_not_run=True)
    assert follow(evidence).opened == 0


def test_step_without_coverage_closes_nothing(evidence: Evidence) -> None:
    """The step was interrupted, failed or compared only changed records."""
    seal_result(evidence, 1, [finding_of()], step("check", "courier"))
    bare = step("check", "courier").model_copy(update={"coverage": None})
    seal_result(evidence, 2, [], bare)
    assert follow(evidence).closed == 0


def test_finding_of_the_whole_run_is_closed_by_the_next_complete_run(evidence: Evidence) -> None:
    seal_result(evidence, 1, [finding_of(step="", code="quality.missing")])
    seal_result(evidence, 2, [], is_complete=False)
    assert follow(evidence).closed == 0
    seal_result(evidence, 3, [])
    assert follow(evidence).closed == 1


@pytest.mark.parametrize("damage", ["signature", "row"])
def test_findings_of_a_repaired_bundle_are_entered_late(evidence: Evidence, damage: str) -> None:
    """A concurrent seal, for example, stores the signature after the ledger row."""
    bundle = run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    run_of(2).seal(evidence)
    if damage == "signature":
        file = evidence.root / bundle / "SHA256SUMS.sig"
        content = file.read_bytes()
        file.unlink()
    else:
        with evidence.engine.begin() as conn, unguarded(conn, "evidence_ledger"):
            conn.exec_driver_sql("CREATE TABLE lost AS SELECT * FROM evidence_ledger WHERE seq = 1")
            conn.exec_driver_sql("DELETE FROM evidence_ledger WHERE seq = 1")
    assert follow(evidence).opened == 0
    evidence.conn.rollback()
    assert unread_bundles(evidence.conn) == [1]
    if damage == "signature":
        file.write_bytes(content)
    else:
        with evidence.engine.begin() as conn:
            conn.exec_driver_sql("INSERT INTO evidence_ledger SELECT * FROM lost")
            conn.exec_driver_sql("DROP TABLE lost")
    assert follow(evidence).opened == 1
    [finding] = findings(evidence)
    assert finding.state is State.OPEN
    evidence.conn.rollback()
    assert unread_bundles(evidence.conn) == []
    run_of(3).seal(evidence)
    assert follow(evidence).closed == 1


def test_forged_row_with_a_high_number_does_not_make_the_register_skip_later_bundles(
    evidence: Evidence,
) -> None:
    run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    with evidence.engine.begin() as conn:
        forged = evidence_ledger.select().where(evidence_ledger.c.seq == 1)
        row = dict(conn.execute(forged).mappings().one())
        changes = {"seq": 1_000_000, "bundle": "forged", "run_id": "forged"}
        conn.execute(evidence_ledger.insert().values(row | changes))
    followed = follow(evidence)
    assert (followed.opened, followed.is_complete, followed.last_seq) == (1, False, 1)
    evidence.conn.rollback()
    assert evidence.conn.scalar(text("SELECT seq FROM finding_progress")) == 1


def test_findings_with_the_same_cause_in_one_run_are_separate_entries(evidence: Evidence) -> None:
    seal_result(evidence, 1, [finding_of(), finding_of()], step("check", "courier"))
    assert follow(evidence).opened == 2
    seal_result(evidence, 2, [finding_of()], step("check", "courier"))
    assert follow(evidence).closed == 1


def test_bundle_that_is_not_valid_is_skipped_and_named(evidence: Evidence) -> None:
    bundle = run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    run_of(2, {PROBLEM: Outcome.FAIL}).seal(evidence)
    (evidence.root / bundle / "result.json").write_text("{}")
    followed = follow(evidence)
    assert (followed.unread, followed.opened, followed.is_complete) == ((bundle,), 1, True)
    evidence.conn.rollback()
    assert evidence.conn.scalar(text("SELECT unread FROM finding_progress")) == [1]


def test_bundle_whose_findings_cannot_be_stored_does_not_block_later_bundles(
    evidence: Evidence,
) -> None:
    """PostgreSQL cannot store the character NUL."""
    seal_result(evidence, 1, [finding_of(), finding_of(subject="a\x00b")])
    seal_result(evidence, 2, [finding_of()])
    followed = follow(evidence)
    assert (len(followed.unread), followed.opened, followed.is_complete) == (1, 1, True)
    evidence.conn.rollback()
    assert unread_bundles(evidence.conn) == [1]


def test_finding_with_a_very_long_subject_is_entered_once_and_closed(evidence: Evidence) -> None:
    """An index entry of PostgreSQL has at most 2,704 bytes."""
    subjects = ["对象" * 2000, "对象" * 2000 + "x"]
    findings_of_run = [finding_of(subject=subject) for subject in subjects]
    for number in (1, 2):
        seal_result(evidence, number, findings_of_run, step("check", "courier"))
    assert follow(evidence).opened == 2
    seal_result(evidence, 3, [], step("check", "courier", subjects=(subjects[0],)))
    assert follow(evidence).closed == 1
    seal_result(evidence, 4, [], step("check", "courier"))
    assert follow(evidence).closed == 1


def test_bundle_of_an_unknown_workflow_is_skipped(evidence: Evidence) -> None:
    """Interim bundles have ids of their own; the bundle of the run repeats their findings."""
    run_of(1, {PROBLEM: Outcome.FAIL}, workflow="sample_audit_commitment").seal(evidence)
    followed = follow(evidence)
    assert (followed.bundles, followed.opened) == (1, 0)


def test_store_that_does_not_answer_loses_no_finding(evidence: Evidence) -> None:
    bundles = [
        run_of(number, {("courier", "x", f"s{number}"): Outcome.FAIL}).seal(evidence)
        for number in (1, 2, 3)
    ]
    follow(evidence, most=1)
    file = evidence.root / bundles[1] / "result.json"
    with unreadable(file, evidence.root), pytest.raises(StoreError):
        follow(evidence)
    assert follow(evidence).opened == 2
    assert len(findings(evidence)) == 3


def test_store_whose_disk_is_not_mounted_loses_no_finding(evidence: Evidence) -> None:
    run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    mounted = evidence.root.with_name("mounted")
    evidence.root.rename(mounted)
    with pytest.raises(StoreError, match="missing"):
        follow(evidence)
    mounted.rename(evidence.root)
    assert follow(evidence).opened == 1


def test_unreadable_file_of_a_bundle_does_not_block_later_bundles(evidence: Evidence) -> None:
    """The file is in a damaged sector, for example. The store answers otherwise."""
    bundle = run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    run_of(2, {PROBLEM: Outcome.FAIL}).seal(evidence)
    with unreadable(evidence.root / bundle / "result.json"):
        for unread in ((bundle,), ()):  # the second call reads only the first bundle, again
            followed = follow(evidence)
            assert (followed.unread, followed.is_complete) == (unread, True)
            evidence.conn.rollback()
            assert unread_bundles(evidence.conn) == [1]
    follow(evidence)
    evidence.conn.rollback()
    assert unread_bundles(evidence.conn) == []
    assert len(findings(evidence)) == 1


@pytest.mark.parametrize(("most", "is_complete"), [(1, False), (2, True), (3, True)])
def test_register_is_complete_only_if_no_bundle_is_left(
    evidence: Evidence, most: int, *, is_complete: bool
) -> None:
    for number in (1, 2):
        run_of(number).seal(evidence)
    followed = follow(evidence, most)
    assert (followed.is_complete, followed.last_seq) == (is_complete, min(most, 2))


def test_repaired_bundle_is_read_even_if_many_bundles_before_it_stay_damaged(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_findings, "MAX_READ_AGAIN", 2)
    bundles = [
        run_of(number, {("courier", "x", f"s{number}"): Outcome.FAIL}).seal(evidence)
        for number in range(1, 6)
    ]
    files = [evidence.root / bundle / "result.json" for bundle in bundles]
    with unreadable(*files):
        assert len(follow(evidence).unread) == 5
        assert tried_next(evidence) == [1, 2]
        follow(evidence)
        assert tried_next(evidence) == [3, 4]
    with unreadable(*files[:4]):
        for _call in range(2):
            follow(evidence)
    assert [finding.origin and finding.origin.subject for finding in findings(evidence)] == ["s5"]


def test_newest_unread_bundles_are_kept_if_there_are_too_many(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_findings, "MAX_READ_AGAIN", 2)
    monkeypatch.setattr(run_findings, "MAX_UNREAD", 3)
    bundles = [run_of(number, {PROBLEM: Outcome.FAIL}).seal(evidence) for number in range(1, 5)]
    with unreadable(*[evidence.root / bundle / "result.json" for bundle in bundles]):
        follow(evidence, most=3)
        follow(evidence)
    evidence.conn.rollback()
    assert unread_bundles(evidence.conn) == [3, 2, 4]


def tried_next(evidence: Evidence) -> list[int]:
    evidence.conn.rollback()
    return unread_bundles(evidence.conn)[: run_findings.MAX_READ_AGAIN]


def test_register_refuses_to_close_finding_of_a_run_without_a_later_bundle(
    evidence: Evidence,
) -> None:
    bundle = run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    run_of(2, {PROBLEM: Outcome.FAIL}, workflow=WORKFLOWS[1]).seal(evidence)
    other = run_of(3, workflow=WORKFLOWS[1]).seal(evidence)
    follow(evidence)
    number = next(
        finding.id
        for finding in findings(evidence)
        if finding.origin is not None and finding.origin.workflow == WORKFLOW
    )
    close = text("UPDATE finding SET closed_at = now() WHERE id = :number")
    event = text(
        "INSERT INTO finding_event (finding_id, kind, by, at, bundle)"
        " VALUES (:number, 'closed', 'x', now(), :bundle)"
    )
    for evidence_bundle in (None, bundle, other, "no such bundle"):
        with evidence.engine.connect() as conn:
            if evidence_bundle is not None:
                conn.execute(event, {"number": number, "bundle": evidence_bundle})
            with pytest.raises(IntegrityError, match="complete run"):
                conn.execute(close, {"number": number})


def test_register_of_a_simulated_year_equals_the_oracle(evidence: Evidence) -> None:
    """Two processes follow the ledger while runs are sealed, and lose or double no finding."""
    oracle = Oracle()
    evidence = replace(evidence, store=NewestListed(evidence.root))
    for run in simulate(seed=28, runs=RUNS):
        oracle.enter(run, run.seal(evidence))
        if run.number % 7 == 0:
            at_once(lambda: follow(evidence, most=3), lambda: follow(evidence, most=5))
    while not follow(evidence).is_complete:
        pass
    assert entries(evidence) == oracle.entries()
    open_causes = Counter(key for key, entry in entries(evidence) if not entry.closed_in)
    assert set(open_causes.values()) <= {1}


def at_once(*functions: Callable[[], object]) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def reminded(evidence: Evidence, run: str, now: datetime) -> list[int]:
    """Remind the owner of the workflow's findings, and return the numbers of the findings."""
    title = {"en": "Owner", "zh-CN": "责任部门"}
    role = Role(id="owner", title=title, mail=("a@b.example",))
    with evidence.engine.begin() as conn:
        return remind_owners(
            conn,
            "audit.finding",
            roles={f"owner of {WORKFLOW}": role},
            rules=NotificationRules(),
            run=Run("conclude_audit", run),
            now=now,
        )


def test_owner_is_reminded_of_a_finding_of_a_run_once_a_week_until_a_run_closes_it(
    evidence: Evidence,
) -> None:
    run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    follow(evidence)
    days: list[date] = []
    for day in range(40):
        now = run_of(1).started_at.astimezone(ENTRY_RULES.zone) + timedelta(days=day)
        if day == 30:
            run_of(24 * 60 // 26 * 30).seal(evidence)
            follow(evidence)
        for _attempt in range(2):
            days += [now.date()] * len(reminded(evidence, str(day), now))
    opened_on = run_of(1).started_at.date()
    assert days == [opened_on + timedelta(days=days) for days in (7, 14, 21, 28)]
    evidence.conn.rollback()
    queued = evidence.conn.scalar(text("SELECT count(*) FROM notification"))
    assert queued == len(days)


def test_owner_is_not_reminded_of_findings_of_runs_while_the_register_is_far_behind_the_ledger(
    evidence: Evidence,
) -> None:
    """The state database was lost, and the register follows the recovered ledger again."""
    run_of(1, {PROBLEM: Outcome.FAIL}).seal(evidence)
    for number in range(2, 23):
        run_of(number, {PROBLEM: Outcome.FAIL}).seal(evidence)
    run_of(23).seal(evidence)
    now = run_of(1).started_at.astimezone(ENTRY_RULES.zone) + timedelta(days=20)
    audit = {"kind": "audit", "reference": "2026Q1/1", "owner": f"owner of {WORKFLOW}"}
    with evidence.engine.begin() as conn:
        number = register.open_finding(
            conn, description=verbatim("no"), opened_at=now, due_on=now.date(), **audit
        )
    follow(evidence, most=2)
    assert reminded(evidence, "behind", now) == [number]
    follow(evidence, most=1)  # concurrent seals may have added the other 20 bundles
    assert len(reminded(evidence, "nearly complete", now)) == 1
    follow(evidence)
    assert reminded(evidence, "complete", now + timedelta(days=7)) == [number]


def finding_of(**more: Any) -> Finding:
    fields = {
        "code": "x",
        "severity": Outcome.FAIL,
        "subject": "customer",
        "message": verbatim("x"),
        "action": verbatim("Correct it."),
        "step": "check",
        "part": "courier" if more.get("step", "check") == "check" else "",
    }
    return Finding(**fields | more)


def step(name: str, part: str = "", **coverage: Any) -> StepSummary:
    return StepSummary(
        step=name, part=part, outcome=Outcome.PASS, data={}, coverage=Coverage(**coverage)
    )


def seal_result(
    evidence: Evidence,
    number: int,
    reported: list[Finding],
    *steps: StepSummary,
    workflow: str = WORKFLOW,
    controls: list[str] | None = None,
    **more: bool,
) -> None:
    class Run(SimulatedRun):
        def result(self) -> Result:
            statuses = [control(name, "4.2", verbatim(name)) for name in controls or ()]
            update = {"findings": reported, "steps": list(steps), "controls": statuses, **more}
            return super().result().model_copy(update=update)

    Run(number, workflow, {}, {}, is_complete=True).seal(evidence)
