"""A simulated year of sealed runs, and an oracle of the findings register in plain Python."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from include.evidence.bundle import seal
from include.evidence.model import Coverage, Finding, Outcome, Result, RunContext, StepSummary
from include.findings.run_findings import EntryRules
from include.messages import verbatim
from include.policy.rules import FindingRules
from include.services.clock import FixedClock
from include.services.objectstore.base import ObjectVersion, StoredObject
from include.services.objectstore.directory import DirectoryStore
from tests.evidence.support import Evidence

START = datetime(2026, 1, 1, 1, tzinfo=UTC)
ZONE = ZoneInfo("Asia/Shanghai")
DATABASES = ("courier", "billing", "archive")
SUBJECTS = ("customer", "waybill", "address")
WORKFLOWS = ("backup_offsite", "check_quality", "review_partners")
ON_DEMAND = "respond_to_incident"
ENTRY_RULES = EntryRules(
    rules=FindingRules(),
    owner_of=lambda dag_id, finding: f"owner of {dag_id}",
    closes_by_retest={**dict.fromkeys(WORKFLOWS, False), ON_DEMAND: True},
    zone=ZONE,
)

LISTED = 50  # objects; a bundle has five

Key = tuple[str, str, str, str]  # workflow, part, code, subject


class NewestListed(DirectoryStore):
    """A directory store that lists versions of the newest 50 objects only.

    Before each seal, the bundles of seven months are listed and compared with the ledger. In a year
    with 20,000 runs, these lists would take hours. No bundle of the year lacks its ledger row, so
    the comparison would have the same result.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._newest: deque[str] = deque(maxlen=LISTED)

    def put(self, key: str, data: bytes, *, locked_until: datetime | None = None) -> StoredObject:
        self._newest.append(key)
        return super().put(key, data, locked_until=locked_until)

    def list_versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        for key in sorted({key for key in self._newest if key.startswith(prefix)}):
            stored = self.stat(key)
            yield ObjectVersion(key, "", stored.size, stored.modified_at)


@dataclass
class SimulatedRun:
    """A run of the simulation.

    Attributes:
        number: number of the run, from 1.
        workflow: DAG id.
        problems: part, code and subject of each problem that the run reports, with its severity.
        examined: part -> subjects that the run examined completely; None for all subjects. A part
            that is missing was not examined.
        is_complete: whether the run ended completely.
    """

    number: int
    workflow: str
    problems: dict[tuple[str, str, str], Outcome]
    examined: dict[str, tuple[str, ...] | None]
    is_complete: bool

    @property
    def started_at(self) -> datetime:
        """Return the time at which the run started."""
        return START + timedelta(minutes=26 * self.number)

    def result(self) -> Result:
        """Return the content of the run's result.json."""
        findings = [
            Finding(
                code=code,
                severity=severity,
                subject=subject,
                message=verbatim(f"{code} in {part}"),
                action=verbatim("Correct it."),
                clause="4.2",
                step="check",
                part=part,
            )
            for (part, code, subject), severity in self.problems.items()
        ]
        return Result(
            run=RunContext(
                dag_id=self.workflow,
                run_id=f"run {self.number}",
                started_at=self.started_at,
                code_version="v",
                policy_hash="h",
                policy_name="sample",
                clock_source="fixed clock",
            ),
            controls=[],
            outcome=Outcome.worst([Outcome.PASS, *self.problems.values()]),
            finished_at=self.started_at + timedelta(minutes=2),
            metrics=[],
            findings=findings,
            steps=[
                StepSummary(
                    step="check",
                    part=part,
                    outcome=Outcome.PASS,
                    data={},
                    coverage=Coverage(subjects=subjects),
                )
                for part, subjects in self.examined.items()
            ],
            is_complete=self.is_complete,
        )

    def seal(self, evidence: Evidence) -> str:
        """Seal the run, and return the folder of its bundle."""
        clock = FixedClock(self.started_at + timedelta(minutes=5))
        bundle = seal(
            evidence.store,
            evidence.conn,
            evidence.signer,
            result=self.result(),
            files={},
            clock=clock,
        )
        return bundle.path


def simulate(seed: int, runs: int) -> Iterator[SimulatedRun]:
    """Yield runs of a simulated year, in which problems appear and are corrected at random.

    Some runs are interrupted, some examine only a few subjects or databases.

    Args:
        seed: seed of the random generator.
        runs: number of runs.
    """
    chance = random.Random(seed)
    problems: dict[str, dict[tuple[str, str, str], Outcome]] = {name: {} for name in WORKFLOWS}
    for number in range(1, runs + 1):
        workflow = chance.choice([*WORKFLOWS, *WORKFLOWS, ON_DEMAND])
        if workflow == ON_DEMAND:
            key = ("", "late", f"INC-{number}")
            late = {key: Outcome.FAIL} if chance.random() < 0.3 else {}
            yield SimulatedRun(number, workflow, late, {"": None}, chance.random() < 0.9)
            continue
        present = problems[workflow]
        for key in list(present):
            if chance.random() < 0.1:
                del present[key]
            elif chance.random() < 0.05:
                present[key] = chance.choice([Outcome.FAIL, Outcome.ATTENTION])
        if chance.random() < 0.2:
            new = (chance.choice(DATABASES), chance.choice("xyz"), chance.choice(SUBJECTS))
            present[new] = chance.choice([Outcome.FAIL, Outcome.ATTENTION])
        examined: dict[str, tuple[str, ...] | None] = {}
        for database in DATABASES:
            if chance.random() < 0.9:
                some = tuple(subject for subject in SUBJECTS if chance.random() < 0.7)
                examined[database] = None if chance.random() < 0.6 else some
        reported = {
            (part, code, subject): severity
            for (part, code, subject), severity in present.items()
            if part in examined and (examined[part] is None or subject in (examined[part] or ()))
        }
        yield SimulatedRun(number, workflow, reported, examined, chance.random() < 0.8)


@dataclass
class Entry:
    """An entry of the oracle.

    Attributes:
        opened_in: bundle that reported the finding first.
        severity: severity in the newest report.
        reports: number of runs that reported the finding.
        closed_in: bundle that closed the finding; empty if it is open.
    """

    opened_in: str
    severity: Outcome
    reports: int = 1
    closed_in: str = ""


@dataclass
class Oracle:
    """The register as it has to be, by the rules of the documentation."""

    open: dict[Key, Entry] = field(default_factory=dict)
    closed: list[tuple[Key, Entry]] = field(default_factory=list)

    def enter(self, run: SimulatedRun, bundle: str) -> None:
        """Enter the problems of a run, and close those that the run examined and did not report."""
        for (part, code, subject), severity in run.problems.items():
            key = (run.workflow, part, code, subject)
            if key in self.open:
                self.open[key].severity = severity
                self.open[key].reports += 1
            else:
                self.open[key] = Entry(bundle, severity)
        if not run.is_complete or run.workflow == ON_DEMAND:
            return
        for key in list(self.open):
            workflow, part, code, subject = key
            if workflow != run.workflow or (part, code, subject) in run.problems:
                continue
            if part in run.examined:
                subjects = run.examined[part]
                if subjects is None or subject in subjects:
                    entry = self.open.pop(key)
                    entry.closed_in = bundle
                    self.closed.append((key, entry))

    def entries(self) -> list[tuple[Key, Entry]]:
        """Return all entries, in a fixed order."""
        return sorted([*self.open.items(), *self.closed], key=str)
