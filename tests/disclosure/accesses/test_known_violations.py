"""Violations that an earlier run reported need attention; the control stays failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select, text

from include.disclosure import expiry_report
from include.disclosure.absence_proof import PROVE, AbsenceProof
from include.disclosure.accesses.step import COMPARE
from include.disclosure.expiry import EXPIRE, Expiry
from include.evidence.bundle_reader import BundleReader, SealedRun
from include.evidence.model import ControlState, Finding, Outcome, RunContext, StepRecord
from include.evidence.signing import generate_key
from include.evidence.step_findings import StepFindings
from include.findings.run_findings import EntryRules, follow_ledger
from include.notify.sending import STEP_SEND
from include.orchestration.run_bundle import seal_bundle
from include.policy.rules import Control, FindingRules
from include.reports.i18n import Translator
from include.service_container import Services
from include.services.clock import FixedClock
from include.services.connections import ConnectionSpec
from include.state.findings import finding, finding_report
from include.workflow.run_records import RunRecords
from tests.disclosure.accesses.access_fixtures import DAG, NOON, AccessCompany
from tests.support.contexts import connection, pack_of, step_record

HOUR = timedelta(hours=1)
CONTROLS = tuple(
    Control.model_validate(
        {
            "id": name,
            "clause": clause,
            "title": {"en": name, "zh-CN": name},
            "workflow": DAG,
            "cadence": "PT2H",
            "indicator": {"name": indicator, "target": "= 0"},
            "sources": [{"instrument": "PIPL", "version": "2021-11-01", "article": "6"}],
        }
    )
    for name, clause, indicator in (
        ("use.accesses_approved", "5.3", "accesses_without_approval"),
        ("use.accesses_within_purpose", "4.3", "accesses_outside_purpose"),
    )
)
ENTRY_RULES = EntryRules(
    FindingRules(), lambda _dag, _finding: "information_management", {DAG: False}, ZoneInfo("UTC")
)


@dataclass
class SealingCompany:
    """A company whose runs of `expire_grants` are sealed in an evidence store.

    Attributes:
        company: the access log, the approvals and the state database.
        store: folder of the evidence store.
        key: private key (PEM) that signs bundles.
    """

    company: AccessCompany
    store: Path
    key: str

    @property
    def services(self) -> Services:
        company = self.company
        pack = pack_of({"firm": "firm_db"}, {}, controls=CONTROLS)
        extra = {"path": str(self.store), "signing_key": self.key}
        specs = {
            "firm_db": connection("firm_db", company.source),
            "evidence_store": ConnectionSpec("evidence_store", "fs", extra=extra),
        }
        return Services(
            Path("/nonexistent"),
            pack.folder,
            specs.get,
            FixedClock(company.now),
            load=lambda _: pack,
            open_state=company.state,
        )

    def record(self, run_id: str) -> StepRecord:
        """Execute the comparison in a run that is not sealed, and return its record."""
        return step_record(COMPARE, self.company.context(run_id, self.services))

    def seal(self, run_id: str, *, comparison: StepRecord | None = None) -> SealedRun:
        """Compare and seal a run, and enter its findings in the register of findings.

        Args:
            run_id: id of the run.
            comparison: record of the comparison; by default, of a comparison now.
        """
        run = self.company.context(run_id, self.services)
        records = [
            StepFindings(EXPIRE.name, EXPIRE.clause).record(Expiry(is_configured=False)),
            StepFindings(PROVE.name, PROVE.clause).record(AbsenceProof()),
            comparison or step_record(COMPARE, run),
            StepRecord(step=STEP_SEND, outcome=Outcome.PASS),
        ]
        context = RunContext(
            dag_id=DAG,
            run_id=run_id,
            started_at=self.company.now,
            code_version="1",
            policy_hash="x",
            policy_name="x",
            clock_source="fixed",
            timezone="UTC",
        )
        conclusion = expiry_report.conclude(run, RunRecords(records))  # type: ignore[arg-type] # reads no rules
        sealed = seal_bundle(
            self.services, context, conclusion, {}, records, pdf=False, is_complete=True
        )
        reader = BundleReader(self.services.store("evidence_store"), self.services.trusted)
        assert follow_ledger(self.company.state, reader, ENTRY_RULES).is_complete
        self.company.now += HOUR
        return sealed

    def work_list(self) -> list[tuple[str, str, bool]]:
        """Return code, severity of the newest report, and whether open, of each finding."""
        query = (
            select(finding.c.code, finding_report.c.severity, finding.c.closed_at.is_(None))
            .join(finding_report, finding_report.c.finding_id == finding.c.id)
            .order_by(finding.c.id)
        )
        with self.company.state.connect() as conn:
            return [tuple(row) for row in conn.execute(query)]


@pytest.fixture
def sealing(company: AccessCompany, tmp_path: Path) -> Iterator[SealingCompany]:
    """A company whose first run compares an empty log."""
    yield SealingCompany(company, tmp_path, generate_key().decode())
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        for table in (
            "finding_event", "finding_report", "finding", "finding_progress", "evidence_control",
            "evidence_intent", "evidence_ledger", "policy_control",
        ):  # fmt: skip
            conn.execute(text(f"DELETE FROM {table}"))


def states(sealed: SealedRun) -> dict[str, tuple[ControlState, float | None]]:
    return {control.id: (control.state, control.value) for control in sealed.result.controls}


def severities(findings: list[Finding]) -> dict[str, Outcome]:
    return {reported.code: reported.severity for reported in findings}


def english(reported: Finding) -> str:
    return Translator("en").text(reported.message)


def test_violation_of_an_earlier_run_needs_attention_and_its_control_stays_failed(
    sealing: SealingCompany,
) -> None:
    sealing.company.add_access(1, approval=None)
    first = sealing.seal("r1")
    assert first.result.outcome is Outcome.FAIL
    assert severities(first.result.findings) == {"use.access_without_approval": Outcome.FAIL}
    second = sealing.seal("r2")
    assert second.result.outcome is Outcome.ATTENTION
    assert severities(second.result.findings) == {"use.access_without_approval": Outcome.ATTENTION}
    assert states(second)["use.accesses_approved"] == (ControlState.FAILED, 1)
    assert states(second)["use.accesses_within_purpose"] == (ControlState.PASSED, 0)
    (reported,) = second.result.findings
    assert english(reported).startswith(
        "1 accesses to customer records name no approval that was given to the employee. Earlier "
        "runs reported all of them, and the oldest is open since "
    )
    assert reported.message.values["since"] == NOON


def test_work_list_keeps_one_open_finding_until_the_violation_is_closed(
    sealing: SealingCompany,
) -> None:
    sealing.company.add_access(1, approval=None)
    code = "use.access_without_approval"
    sealing.seal("r1")
    assert sealing.work_list() == [(code, "fail", True)]
    sealing.seal("r2")
    assert sealing.work_list() == [(code, "attention", True)]
    sealing.company.add_access(2, approval=None, at=sealing.company.now)
    sealing.seal("r3")
    assert sealing.work_list() == [(code, "fail", True)]
    sealing.company.add_approval()
    sealing.company.sql("UPDATE seen SET approval = 10 WHERE access = 1")
    sealing.company.parameters = {"full": True}
    assert states(sealing.seal("r4"))["use.accesses_approved"] == (ControlState.FAILED, 1)
    assert sealing.work_list()[0] == (code, "attention", True)
    sealing.company.sql("UPDATE seen SET approval = 10")
    assert states(sealing.seal("r5"))["use.accesses_approved"] == (ControlState.PASSED, 0)
    assert sealing.work_list()[0] == (code, "attention", False)


def test_new_violation_fails_the_run_and_the_text_tells_it_from_the_known_ones(
    sealing: SealingCompany,
) -> None:
    sealing.company.add_access(1, approval=None)
    sealing.seal("r1")
    sealing.company.add_access(2, approval=None, at=sealing.company.now)
    third = sealing.seal("r2")
    assert third.result.outcome is Outcome.FAIL
    (reported,) = third.result.findings
    assert reported.severity is Outcome.FAIL
    assert english(reported).startswith("2 accesses to customer records name no approval")
    assert "Not reported before: 1. Reported by earlier runs: 1, the oldest" in english(reported)
    assert sealing.seal("r3").result.outcome is Outcome.ATTENTION


def test_new_violation_of_another_kind_does_not_hide_behind_a_known_one(
    sealing: SealingCompany,
) -> None:
    sealing.company.add_approval()
    sealing.company.add_access(1, approval=None)
    sealing.seal("r1")
    sealing.company.add_access(2, purpose="marketing", at=sealing.company.now)
    second = sealing.seal("r2")
    assert severities(second.result.findings) == {
        "use.access_without_approval": Outcome.ATTENTION,
        "use.access_outside_purpose": Outcome.FAIL,
    }
    assert second.result.outcome is Outcome.FAIL


def test_violation_that_no_bundle_reports_stays_an_error(sealing: SealingCompany) -> None:
    sealing.seal("r0")
    sealing.company.add_access(1, approval=None, at=sealing.company.now)
    assert severities(sealing.record("killed").findings)["use.access_without_approval"] is (
        Outcome.FAIL
    )
    sealing.company.now += HOUR
    assert sealing.seal("r1").result.outcome is Outcome.FAIL
    assert sealing.seal("r2").result.outcome is Outcome.ATTENTION


def test_violation_of_a_run_that_was_sealed_without_its_comparison_stays_an_error(
    sealing: SealingCompany,
) -> None:
    sealing.company.add_access(1, approval=None)
    sealing.record("r1")  # the worker is killed before it stores the record
    interrupted = StepRecord(step=COMPARE.name, outcome=Outcome.FAIL)
    sealing.seal("r1", comparison=interrupted)
    assert sealing.seal("r2").result.outcome is Outcome.FAIL
    assert sealing.seal("r3").result.outcome is Outcome.ATTENTION


def test_violation_of_a_changed_bundle_stays_an_error(sealing: SealingCompany) -> None:
    sealing.company.add_access(1, approval=None)
    sealed = sealing.seal("r1")
    (sealing.store / sealed.row.bundle / "result.json").write_text("{}")
    assert severities(sealing.record("r2").findings)["use.access_without_approval"] is Outcome.FAIL


def test_repeated_task_reports_its_new_violation_as_an_error_again(sealing: SealingCompany) -> None:
    sealing.seal("r0")
    sealing.company.add_access(1, approval=None, at=sealing.company.now)
    for _try in range(2):
        reported = severities(sealing.record("r1").findings)
        assert reported["use.access_without_approval"] is Outcome.FAIL


def test_reopened_violation_is_an_error_again(sealing: SealingCompany) -> None:
    sealing.company.add_access(1, approval=None)
    sealing.seal("r1")
    sealing.company.add_approval(ends=NOON + timedelta(days=90))
    sealing.company.sql("UPDATE seen SET approval = 10")
    sealing.company.parameters = {"full": True}
    assert states(sealing.seal("r2"))["use.accesses_approved"] == (ControlState.PASSED, 0)
    sealing.company.sql("UPDATE seen SET approval = 11")
    sealed = sealing.seal("r3")
    assert severities(sealed.result.findings)["use.access_without_approval"] is Outcome.FAIL


def test_run_without_any_rule_is_not_a_report(sealing: SealingCompany) -> None:
    """A bundle of a pack without an access log reports no violation."""
    sealing.company.add_access(1, approval=None)
    sealing.record("r1")
    rules, sealing.company.rules = sealing.company.rules, None
    sealing.seal("r2")
    sealing.company.rules = rules
    assert sealing.seal("r3").result.outcome is Outcome.FAIL
