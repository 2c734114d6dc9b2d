"""Sealed bundles of a company, and inspection packs of them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from include.evidence.bundle import SealedBundle, seal
from include.evidence.bundle_reader import BundleReader
from include.evidence.ledger_recovery import pending_signature
from include.evidence.model import (
    Finding,
    Metric,
    Outcome,
    Result,
    RunContext,
    attention_finding,
    judge,
)
from include.findings.run_findings import EntryRules, follow_ledger
from include.inspection.pack import InspectionPack, PackSources, write_pack
from include.inspection.request import request_of
from include.messages import _
from include.policy import SHIPPED, PolicyPack
from include.policy.rules import Control, FindingRules
from include.registry import bundle_title, load_pack
from include.services.clock import FixedClock
from tests.evidence.support import Evidence

POLICY: PolicyPack = load_pack(SHIPPED)
CLAUSE, WORKFLOW = "5.3", "enforce_retention"
OTHER_WORKFLOW = "backup_offsite"
QUARTER = date(2026, 7, 1), date(2026, 9, 30)
NOW = datetime(2026, 12, 1, 4, tzinfo=UTC)
FILES = {"report.en.html": b"<p>report</p>\n", "plans/plan one.csv": "编号,1\n".encode()}


@dataclass
class PackMaker:
    """Seals bundles and creates inspection packs of them."""

    evidence: Evidence
    folder: Path

    def seal(
        self,
        day: date,
        workflow: str = WORKFLOW,
        files: Mapping[str, bytes] = FILES,
        outcome: Outcome = Outcome.PASS,
        controls: Sequence[Control] | None = None,
        findings: Sequence[Finding] = (),
    ) -> SealedBundle:
        """Seal a bundle at 10 o'clock (UTC) of a day.

        Args:
            day: the day.
            workflow: name of the workflow.
            files: files of the bundle.
            outcome: outcome of the run.
            controls: controls that the bundle names; by default those of the workflow.
            findings: findings of the run; by default one if the run did not pass.
        """
        at = datetime(day.year, day.month, day.day, 10, tzinfo=UTC)
        if controls is None:
            controls = POLICY.controls_of(workflow)
        if outcome is not Outcome.PASS and not findings:
            findings = [
                attention_finding(code="x.y", subject="s", message=_("Seen"), action=_("Look"))
            ]
        result = Result(
            run=RunContext(
                dag_id=workflow,
                run_id=f"manual__{at.isoformat()}",
                started_at=at,
                code_version="abc",
                policy_hash="def",
                policy_name="sample",
                clock_source="fixed clock",
            ),
            controls=judge(
                controls, [Metric(name=c.indicator.name, value=0, unit="1") for c in controls]
            ),
            outcome=outcome,
            finished_at=at + timedelta(minutes=1),
            metrics=[],
            findings=list(findings),
        )
        clock = FixedClock(at + timedelta(minutes=2))
        return seal(
            self.evidence.store,
            self.evidence.conn,
            self.evidence.signer,
            result=result,
            files=files,
            clock=clock,
        )

    def quarter(self) -> list[str]:
        """Seal bundles before, in and after a quarter, and return those of the clause in it."""
        self.seal(date(2026, 6, 20))
        folders = []
        for month in (7, 8, 9):
            self.seal(date(2026, month, 3), OTHER_WORKFLOW)
            outcome = Outcome.ATTENTION if month == 8 else Outcome.PASS
            folders.append(self.seal(date(2026, month, 10), outcome=outcome).path)
        self.seal(date(2026, 10, 5))
        return folders

    def follow(self) -> None:
        """Enter the findings of all sealed bundles in the register of findings."""
        self.evidence.conn.commit()
        reader = BundleReader(self.evidence.store, [self.evidence.signer.public_pem])
        rules = EntryRules(
            rules=FindingRules(),
            owner_of=lambda _dag_id, _finding: "owner",
            closes_by_retest={control.workflow: False for control in POLICY.controls},
            zone=POLICY.calendar.zone,
        )
        follow_ledger(self.evidence.engine, reader, rules)

    def pack(
        self,
        *clauses: str,
        period: tuple[date, date] = QUARTER,
        may_read: Callable[[str], bool] = lambda _name: True,
        **sources: object,
    ) -> InspectionPack:
        """Return an inspection pack that is not written yet."""
        evidence = self.evidence
        evidence.conn.commit()

        def pending(bundle: str) -> bytes | None:
            with evidence.engine.connect() as conn:
                return pending_signature(conn, bundle)

        defaults = {
            "store": evidence.store,
            "connect": evidence.engine.connect,
            "trusted": [evidence.signer.public_pem],
            "policy": POLICY,
            "title_of": bundle_title,
            "may_read": may_read,
            "pending": pending,
            "created_at": NOW,
            "code_version": "abc",
        }
        policy = sources.get("policy", POLICY)
        assert isinstance(policy, PolicyPack)
        chosen = clauses or (CLAUSE,)
        request = request_of(policy, chosen, *period, sealed_clauses=chosen)
        return InspectionPack(request, PackSources(**defaults | sources))  # type: ignore[arg-type]

    def write(self, pack: InspectionPack, name: str = "pack.zip") -> Path:
        """Write a pack to a file."""
        path = self.folder / name
        write_pack(pack, path)
        return path

    def unpacked(self, pack: InspectionPack) -> Path:
        """Write a pack, and unpack it into a folder."""
        folder = self.folder / "unpacked"
        with zipfile.ZipFile(self.write(pack)) as archive:
            archive.extractall(folder)
        return folder
