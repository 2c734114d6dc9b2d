"""An audit that was issued, and runs that conclude it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from include.evidence.model import Outcome, StepRecord
from include.evidence.steps import artifacts_of
from include.findings import register
from include.findings.register import Found
from include.sampling import closing, results
from include.sampling.desk import Desk
from tests.sampling.drawn import ISSUED, Draw, committed, desk_of, draw, hand_in, returned


class Audit:
    """A draw that was issued, and runs that conclude it."""

    def __init__(self, state: Engine, folder: Path) -> None:
        self.state, self.folder = state, folder
        self.made = draw(committed(), committed("intake", 60, plan="staged"))
        self.rules = self.made.rules
        self.issue(self.made)

    def issue(self, made: Draw) -> None:
        with self.state.begin() as conn:
            made.issue(conn)

    def desk(self, at: datetime = ISSUED, run: str = "r1") -> Desk:
        return desk_of(self.state, self.rules, self.folder, at, run)

    def back(self, deviating: Mapping[str, tuple[int, ...]] | None = None) -> str:
        """Hand the first stage in; its name."""
        return hand_in(self.state, returned(self.made.papers, deviating)).part

    def evaluated(self, part: str, at: datetime = ISSUED, run: str = "r1") -> StepRecord:
        return closing.evaluate_returned(self.desk(at, run), part)

    def findings(self) -> list[Found]:
        with self.state.connect() as conn:
            return register.listed(conn, closed=True)

    def decisions(self, audit: str = "2026Q3") -> dict[str, str]:
        with self.state.connect() as conn:
            return {name: one.decision for name, one in results.of_audit(conn, audit).items()}

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
