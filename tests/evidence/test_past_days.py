"""On a simulated year, the figures for a past day equal the figures that were live on that day.

Most bundles exist only as signed ledger rows and rows of the history index. The bundles that a page
verifies, and some others, are sealed. TEST_YEAR_BUNDLES sets the number of bundles.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert

from include.evidence import control_index
from include.evidence.bundle import seal
from include.evidence.bundle_reader import BundleReader
from include.evidence.checkpoint import newest_checkpoint
from include.evidence.compliance_history import end_of_day, read_history
from include.evidence.control_evidence import (
    PruneState,
    by_clause,
    read_control_evidence,
    worst,
)
from include.evidence.control_history import ControlHistory
from include.evidence.control_index import controls_in, enter_controls, enter_known_controls
from include.evidence.folder import bundle_path
from include.evidence.ledger import LedgerRow, head
from include.evidence.model import (
    ControlState,
    ControlStatus,
    Finding,
    Outcome,
    Result,
    RunContext,
)
from include.evidence.signing import TrustedKeys
from include.findings import register
from include.findings.ages import by_owner_and_age
from include.messages import _
from include.services.clock import FixedClock
from include.state.tables import evidence_ledger
from tests.evidence.support import Evidence
from tests.evidence.test_control_history import BEGIN, FILES, ZONE, control

BUNDLES = int(os.environ.get("TEST_YEAR_BUNDLES", "300"))
DAYS = 12  # past days that are compared
SEALED_SHARE = 0.02  # of the other bundles
CONTROLS = [
    control(f"{workflow}.{number}", workflow, clause, cadence)
    for workflow, clause, cadence, count in (
        ("backups", "4.2", "P1D", 3),
        ("quality", "4.1", "P1D", 3),
        ("trainings", "6.2", "P4D", 2),
        ("partners", "4.3", "P7D", 2),
        ("audits", "6.1", "P3M", 1),
        ("incidents", "6.3", "P9M", 1),  # never runs, and fails after nine months
    )
    for number in range(count)
]
WEIGHTS = {"backups": 40, "quality": 40, "trainings": 10, "partners": 6, "audits": 0.3}


@dataclass(frozen=True)
class Run:
    """A planned run: workflow, end of its checks, and the states of its controls."""

    workflow: str
    at: datetime
    states: tuple[ControlState, ...]
    is_sealed: bool


def plan(chance: random.Random, ends: Sequence[datetime]) -> list[Run]:
    """Return the runs of the year in the order of time."""
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    minutes = sorted(chance.sample(range(365 * 24 * 60), BUNDLES))
    times = [BEGIN + timedelta(minutes=minute) for minute in minutes]
    workflows = chance.choices(names, weights, k=BUNDLES)
    newest: dict[str, int] = {}
    verified: set[int] = set()
    pending = sorted(ends)
    for number, at in enumerate(times):
        while pending and at > pending[0]:
            verified |= set(newest.values())
            pending.pop(0)
        newest[workflows[number]] = number
    verified |= set(newest.values())
    states = list(ControlState)
    return [
        Run(
            workflow,
            at,
            tuple(chance.choices(states, (90, 6, 4), k=3)),
            number in verified or chance.random() < SEALED_SHARE,
        )
        for number, (workflow, at) in enumerate(zip(workflows, times, strict=True))
    ]


def result_of(run: Run, number: int) -> Result:
    controls = [item for item in CONTROLS if item.workflow == run.workflow]
    statuses = [
        ControlStatus(
            id=item.id, clause=item.clause, title=_("Back up"), indicator="missing", target="= 0",
            value=float(state is not ControlState.PASSED), state=state,
        )
        for item, state in zip(controls, run.states, strict=False)
    ]  # fmt: skip
    findings = [
        Finding(
            code="x.y", severity=Outcome.ATTENTION, subject="s", message=_("Seen"),
            action=_("Look"), clause="5.2",
        )
    ]  # fmt: skip
    context = RunContext(
        dag_id=run.workflow, run_id=f"run {number}", started_at=run.at, code_version="-",
        policy_hash="-", policy_name="-", clock_source="-",
    )  # fmt: skip
    return Result(
        run=context, controls=statuses, outcome=Outcome.PASS, finished_at=run.at, metrics=[],
        findings=findings[: number % 2],
    )  # fmt: skip


class Year:
    """The evidence of the simulated year, to which runs are added in the order of time."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.last: LedgerRow | None = None
        self.unstored: list[tuple[LedgerRow, Result]] = []

    def add(self, number: int, run: Run) -> None:
        result = result_of(run, number)
        if run.is_sealed:
            self.flush()
            seal(
                self.evidence.store, self.evidence.conn, self.evidence.signer, result=result,
                files=FILES, clock=FixedClock(run.at),
                pack_controls=[item.id for item in CONTROLS],
            )  # fmt: skip
            self.last = head(self.evidence.conn)
            self.evidence.conn.rollback()
            return
        row = LedgerRow(
            seq=self.last.seq + 1 if self.last else 1,
            bundle=bundle_path(run.workflow, result.run.run_id, run.at),
            dag_id=run.workflow, run_id=result.run.run_id, outcome="pass",
            controls=[status.id for status in result.controls], started_at=run.at,
            sealed_at=run.at, sums_sha256=f"{number:064x}",
            previous_sums_sha256=self.last.sums_sha256 if self.last else "",
            key_fingerprint=self.evidence.signer.fingerprint,
        )  # fmt: skip
        signature = self.evidence.signer.sign(row.signed_content())
        self.last = LedgerRow(**asdict(row) | {"row_signature": signature})
        self.unstored.append((self.last, result))

    def flush(self) -> None:
        """Insert the rows of the bundles that are not stored."""
        conn = self.evidence.conn
        if self.unstored:
            rows = [vars(row) for row, _result in self.unstored]
            conn.execute(insert(evidence_ledger), rows)
            for row, result in self.unstored:
                enter_controls(conn, row.seq, controls_in(result.model_dump_json().encode()))
            first = self.unstored[0][0].sealed_at
            enter_known_controls(conn, [item.id for item in CONTROLS], first)
            conn.commit()
            self.unstored.clear()

    def figures(self, now: datetime, as_of: datetime | None) -> dict[str, Any]:
        """Return every figure of the overview."""
        conn = self.evidence.conn
        keys = TrustedKeys([self.evidence.signer.public_pem])
        since = control_index.known_since(conn)
        evidence = read_control_evidence(
            conn, BundleReader(self.evidence.store, [self.evidence.signer.public_pem]), CONTROLS,
            now, ZONE, PruneState.at(newest_checkpoint(conn, keys), as_of), as_of=as_of,
            known_since=since,
        )  # fmt: skip
        clauses = by_clause(evidence)
        history = ControlHistory()
        history.refresh(conn)
        moment = as_of or now
        current = [item.outcome for item in evidence]
        (indexed,) = history.outcomes_at(CONTROLS, [moment], since, ZONE)
        assert list(indexed) == current, "the index differs from the verified bundles"
        findings = register.list_findings(conn, as_of=moment)
        figures = {
            "counts": Counter(current),
            "problems": [item.problem for item in evidence],
            "overall": worst(clause.outcome for clause in clauses),
            "clauses": {clause.clause: clause.outcome for clause in clauses},
            "due": [item.due_at for item in evidence],
            "trends": [item.trend for item in evidence],
            "history": read_history(history, CONTROLS, current, moment, since, ZONE),
            "findings": by_owner_and_age(findings, moment),
            "overdue": sum(item.overdue(moment.date()) for item in findings),
        }
        conn.rollback()
        return figures


def change_findings(conn: Connection, chance: random.Random, now: datetime) -> None:
    """Open a finding, and let the owner postpone the open findings or another person close them."""
    register.open_finding(
        conn, kind="audit", reference=f"{now:%Y-%m-%d}", description=_("Look"),
        owner=chance.choice(["a", "b"]), opened_at=now - timedelta(hours=3),
        due_on=(now + timedelta(days=chance.randrange(1, 60))).date(),
    )  # fmt: skip
    for open_finding in register.list_findings(conn):
        if chance.random() < 0.5:
            due_on = max(open_finding.due_on, now.date()) + timedelta(days=30)
            register.answer(
                conn, open_finding.id, cause="cause", action="action", by="E1",
                at=now - timedelta(hours=2), due_on=due_on,
            )  # fmt: skip
            if chance.random() < 0.4:
                at = now - timedelta(hours=1)
                register.retest(conn, open_finding.id, met=True, by="E2", at=at)
    conn.commit()


def test_figures_for_past_days_equal_those_shown_on_that_day(evidence: Evidence) -> None:
    chance = random.Random(28)
    first = BEGIN.astimezone(ZONE).date()
    days = [first + timedelta(days=day) for day in sorted(chance.sample(range(2, 364), DAYS))]
    ends = [end_of_day(day, ZONE) for day in days]
    runs = plan(chance, ends)
    year, live = Year(evidence), {}
    pending = list(ends)
    for number, run in enumerate(runs):
        while pending and run.at > pending[0]:
            year.flush()
            change_findings(evidence.conn, chance, pending[0])
            live[pending[0]] = year.figures(now=pending[0], as_of=None)
            pending.pop(0)
        year.add(number, run)
    year.flush()
    change_findings(evidence.conn, chance, BEGIN + timedelta(days=365))
    assert len(live) == DAYS - len(pending)
    assert len(live) >= DAYS - 1
    assert len({repr(figures["counts"]) for figures in live.values()}) > 2, "the days should differ"
    assert not any(problem for figures in live.values() for problem in figures["problems"])
    now = BEGIN + timedelta(days=366)
    for moment, figures in live.items():
        assert year.figures(now, as_of=moment) == figures, moment
