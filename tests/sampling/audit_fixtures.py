"""Fixtures: an audit whose workpapers are issued, and the steps that conclude it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import artifacts_of
from include.findings import register
from include.findings.register import Finding
from include.sampling.closing import EVALUATE, FIND_WORKPAPERS
from include.sampling.following import FOLLOW_UP
from include.sampling.register import verdicts_of
from include.workflow.step import Step
from tests.sampling.draw_fixtures import (
    ISSUED,
    Draw,
    committed_population,
    conclusion_context,
    hand_in,
    make_draw,
    returned_workbook,
)
from tests.support.contexts import step_record


class Audit:
    """An audit whose workpapers are issued, and the steps of the runs that conclude it."""

    def __init__(self, state: Engine) -> None:
        self.state = state
        self.issued_draw = make_draw(
            committed_population(), committed_population("intake", 60, plan="staged")
        )
        self.rules = self.issued_draw.rules
        self.issue(self.issued_draw)

    def issue(self, new_draw: Draw) -> None:
        with self.state.begin() as conn:
            new_draw.issue(conn)

    def run_step(
        self,
        step: Step[None, Any],
        at: datetime,
        run: str,
        part: str = "",
        quarter: str | None = None,
    ) -> StepRecord:
        """Run a step of a run that concludes the audit, and return the step record.

        Args:
            step: the step.
            at: current time of the step.
            run: id of the run.
            part: name of the workpapers, if the step is mapped.
            quarter: quarter to conclude; None for all quarters.
        """
        return step_record(step, conclusion_context(self.state, self.rules, at, run, quarter), part)

    def find_workpapers(self, at: datetime = ISSUED, quarter: str | None = None) -> StepRecord:
        return self.run_step(FIND_WORKPAPERS, at, "r1", quarter=quarter)

    def follow_up(self, at: datetime = ISSUED, run: str = "r1") -> StepRecord:
        return self.run_step(FOLLOW_UP, at, run)

    def return_first_stage(self, deviating: Mapping[str, tuple[int, ...]] | None = None) -> str:
        """Hand in the workpapers of the first stage, and return the name of the workpapers.

        Args:
            deviating: numbers of the items that deviate, by population.
        """
        return hand_in(self.state, returned_workbook(self.issued_draw.papers, deviating)).name

    def evaluate(self, part: str, at: datetime = ISSUED, run: str = "r1") -> StepRecord:
        return self.run_step(EVALUATE, at, run, part)

    def findings(self) -> list[Finding]:
        with self.state.connect() as conn:
            return register.list_findings(conn, closed=True)

    def decisions(self, audit: str = "2026Q3") -> dict[str, str]:
        with self.state.connect() as conn:
            return {name: verdict.decision for name, verdict in verdicts_of(conn, audit).items()}

    def files(self, run: str = "r1") -> dict[str, bytes]:
        with self.state.connect() as conn:
            return artifacts_of(conn, "conclude_audit", run)

    def database_rows(self) -> dict[str, list[Any]]:
        """Return the rows of the tables that the conclusion of an audit writes, by table."""
        tables = ("audit_workpapers", "audit_result", "finding", "finding_event", "run_artifact")
        with self.state.connect() as conn:
            return {
                table: list(
                    conn.execute(text(f"SELECT t::text FROM {table} t ORDER BY 1")).scalars()
                )
                for table in tables
            }


def codes(record: StepRecord) -> list[tuple[str, Outcome, str]]:
    return [(finding.code, finding.severity, finding.subject) for finding in record.findings]


def figure(record: StepRecord, name: str) -> float | None:
    (value,) = [metric.value for metric in record.metrics if metric.name == name]
    return value


def part_of(audit: Audit, stage: int = 1) -> str:
    return f"2026Q3-{stage}-{audit.issued_draw.papers.draw_sha256[:6]}"
