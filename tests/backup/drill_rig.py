"""A restore point, and a server to drill it on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from include.backup.drill import DrillPlace, drill
from include.backup.manifest import Manifest
from include.backup.scratch import PREFIX
from include.backup.source import Source
from include.erasure.ledger import Action, ErasureKeys
from include.evidence.model import StepRecord
from include.policy.datamap import MappedDatabase
from include.policy.rules import Drill as DrillRules
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from tests.backup.support import mapped, rows
from tests.erasure.support import record
from tests.support.holders import NOW

KEYS = ErasureKeys({"1": b"k" * 32}, "1")


@dataclass
class Rig:
    """One restore point of a courier and a place to drill it."""

    source: Source
    place: DrillPlace
    server: DatabaseAddress
    live: DatabaseAddress

    def drill(
        self,
        database: MappedDatabase | None = None,
        *,
        manifest: Manifest | None = None,
        latest: datetime = NOW,
        window: int = 26,
    ) -> StepRecord:
        return drill(
            database or mapped(),
            replace(self.source, manifest=manifest or self.source.manifest),
            self.place,
            DrillRules(newest_record_window_hours=window),
            latest_taken_at=latest,
            dag_id="drill_restore",
            run_id="r1",
            clock=SystemClock(),
        )

    def scratch_left(self) -> list[tuple[object, ...]]:
        query = f"SELECT datname FROM pg_database WHERE datname LIKE '{PREFIX}%'"
        return rows(self.server, query)

    def erase(self, collection: str, *keys: str, action: Action = "delete") -> None:
        with self.place.state.begin() as conn:
            record(
                conn,
                KEYS,
                database="courier",
                collection=collection,
                record_keys=[[one] for one in keys],
                record_class="c",
                rule="retention",
                dag_id="d",
                run_id="r",
                erased_at=NOW,
                action=action,
            )
