"""An audit that was issued, and runs that conclude it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import artifacts_of
from include.findings import register
from include.findings.register import Found
from include.sampling.closing import EVALUATE, LOOK
from include.sampling.following import FOLLOW_UP
from include.sampling.register import of_audit
from include.workflow.step import Step
from tests.sampling.drawn import ISSUED, Draw, committed, concluding, draw, hand_in, returned
from tests.support.contexts import step_record


class Audit:
    """A draw that was issued, and runs that conclude it."""

    def __init__(self, state: Engine) -> None:
        self.state = state
        self.made = draw(committed(), committed("intake", 60, plan="staged"))
        self.rules = self.made.rules
        self.issue(self.made)

    def issue(self, made: Draw) -> None:
        with self.state.begin() as conn:
            made.issue(conn)

    def done(
        self,
        step: Step[None, Any],
        at: datetime,
        run: str,
        part: str = "",
        asked: str | None = None,
    ) -> StepRecord:
        """Do a step of a run at a moment."""
        return step_record(step, concluding(self.state, self.rules, at, run, asked), part)

    def looked(self, at: datetime = ISSUED, asked: str | None = None) -> StepRecord:
        return self.done(LOOK, at, "r1", asked=asked)

    def followed(self, at: datetime = ISSUED, run: str = "r1") -> StepRecord:
        return self.done(FOLLOW_UP, at, run)

    def back(self, deviating: Mapping[str, tuple[int, ...]] | None = None) -> str:
        """Hand the first stage in; its name."""
        return hand_in(self.state, returned(self.made.papers, deviating)).part

    def evaluated(self, part: str, at: datetime = ISSUED, run: str = "r1") -> StepRecord:
        return self.done(EVALUATE, at, run, part)

    def findings(self) -> list[Found]:
        with self.state.connect() as conn:
            return register.listed(conn, closed=True)

    def decisions(self, audit: str = "2026Q3") -> dict[str, str]:
        with self.state.connect() as conn:
            return {name: one.decision for name, one in of_audit(conn, audit).items()}

    def files(self, run: str = "r1") -> dict[str, bytes]:
        with self.state.connect() as conn:
            return artifacts_of(conn, "conclude_audit", run)

    def everything(self) -> dict[str, list[Any]]:
        """What stands in the database."""
        tables = ("audit_workpapers", "audit_result", "finding", "finding_event", "run_artifact")
        with self.state.connect() as conn:
            return {
                one: list(conn.execute(text(f"SELECT t::text FROM {one} t ORDER BY 1")).scalars())
                for one in tables
            }


def codes(record: StepRecord) -> list[tuple[str, Outcome, str]]:
    return [(one.code, one.severity, one.subject) for one in record.findings]


def figure(record: StepRecord, name: str) -> float | None:
    (found,) = [one.value for one in record.metrics if one.name == name]
    return found


def part_of(audit: Audit, stage: int = 1) -> str:
    return f"2026Q3-{stage}-{audit.made.papers.draw_sha256[:6]}"
