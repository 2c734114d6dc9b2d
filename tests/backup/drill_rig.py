"""Provide a restore point and a server for restore drills."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Engine

from include.backup.drill import DrillTarget, restore_and_compare
from include.backup.manifest import Manifest
from include.backup.offsite_findings import CLAUSE
from include.backup.scratch import PREFIX
from include.backup.source import Source
from include.erasure.ledger import Action, ErasureKeys
from include.evidence.model import StepRecord
from include.evidence.step_findings import StepFindings
from include.notify.outbox import Run
from include.policy.datamap import MappedDatabase
from include.policy.rules import BackupRules, Drill
from include.services.clock import Clock, SystemClock
from include.services.database import DatabaseAddress
from include.workflow.run_context import RunContext
from tests.backup.support import mapped, rows
from tests.erasure.support import record
from tests.support.contexts import services_stub
from tests.support.holders import NOW

KEYS = ErasureKeys({"1": b"k" * 32}, "1")


@dataclass
class Rig:
    """A restore point of the database courier, and a server for its restore drill."""

    source: Source
    target: DrillTarget
    server: DatabaseAddress
    live: DatabaseAddress
    state: Engine
    erasure_keys: ErasureKeys = KEYS

    def drill(
        self,
        database: MappedDatabase | None = None,
        *,
        manifest: Manifest | None = None,
        latest: datetime = NOW,
        window: int = 26,
        clock: Clock | None = None,
    ) -> StepRecord:
        rules = BackupRules(drill=Drill(newest_record_window_hours=window))
        services = services_stub(
            {"courier": database or mapped()}, self.state, clock or SystemClock(),
            rules=rules, erasure_keys=self.erasure_keys,
        )  # fmt: skip
        source = replace(self.source, manifest=manifest or self.source.manifest)
        run = RunContext(services, None, Run("drill_restore", "r1"))
        findings = StepFindings("drill", CLAUSE, "courier")
        result = restore_and_compare(run, findings, source, self.target, latest)
        return findings.record(result)

    def scratch_left(self) -> list[tuple[object, ...]]:
        query = f"SELECT datname FROM pg_database WHERE datname LIKE '{PREFIX}%'"
        return rows(self.server, query)

    def erase(self, collection: str, *keys: str, action: Action = "delete") -> None:
        with self.state.begin() as conn:
            record(
                conn,
                KEYS,
                database="courier",
                collection=collection,
                record_keys=[[key] for key in keys],
                record_class="c",
                rule="retention",
                dag_id="d",
                run_id="r",
                erased_at=NOW,
                action=action,
            )
