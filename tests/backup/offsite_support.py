"""Help tests of backup runs: runs on small databases and stores, and legal holds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from include.backup import manifest as manifests
from include.backup.manifest import DUMP_NAME
from include.backup.offsite import BACKUP, PREFLIGHT, PRUNE, Offsite
from include.encryption.recipients import Recipient
from include.evidence.model import StepRecord
from include.evidence.signing import Signer
from include.holds import registry
from include.holds.registry import HoldKind
from include.notify.outbox import Run
from include.policy.datamap import MappedDatabase
from include.policy.rules import BackupRules
from include.services.clock import Clock, FixedClock, SystemClock
from include.services.database import DatabaseAddress
from include.services.objectstore.base import ObjectStore
from include.workflow.run_context import RunContext, TaskState
from tests.backup.support import Taken, mapped
from tests.support.contexts import offsite_services, services_stub, step_record
from tests.support.holders import NOW

RULES = BackupRules()
ZONE = ZoneInfo("Asia/Shanghai")


def make(store: ObjectStore, recipients: list[Recipient], signer: Signer) -> Offsite:
    return Offsite(store, recipients, [], signer, [signer.public_pem])


def run_backup(
    offsite: Offsite,
    source: DatabaseAddress,
    state: Engine,
    run_id: str = "r",
    *,
    dag_id: str = "backup_offsite",
    again: bool = False,
) -> tuple[StepRecord, manifests.Manifest]:
    services = services_stub(
        {"courier": mapped()}, state, SystemClock(), rules=RULES,
        database=lambda _connection: source, **offsite_services(offsite),
    )  # fmt: skip
    task = TaskState(is_repeated=again)
    run = RunContext(services, None, Run(dag_id, run_id), task=task)
    record = step_record(BACKUP, run, "courier")
    return record, manifest_of(run)


def preflight_record(offsite: Offsite, database: MappedDatabase, clock: Clock) -> StepRecord:
    """Return the step record of a preflight."""
    services: Any = services_stub(
        {database.name: database}, None, clock, **offsite_services(offsite)
    )
    return step_record(PREFLIGHT, RunContext(services, None))


def manifest_of(run: RunContext[None]) -> manifests.Manifest:
    """Return the manifest that the step stored for the evidence bundle."""
    (content,) = run.records().artifacts.values()
    return manifests.Manifest.model_validate_json(content)


def run_prune(
    offsite: Offsite, state: Engine, now: datetime = NOW, confirm: Callable[[], None] | None = None
) -> StepRecord:
    """Run the step that prunes restore points, without the check that the clock is plausible.

    Args:
        offsite: off-site store and keys.
        state: state database.
        now: time of the run.
        confirm: function that checks before each removal that the run is still open.
    """
    services = services_stub({}, state, FixedClock(now), rules=RULES, **offsite_services(offsite))
    task = TaskState(confirm_open=confirm or (lambda: None))
    run = RunContext(services, None, Run("backup_offsite", "r"), task=task)
    with patch("include.backup.offsite.require_plausible_clock"):
        return step_record(PRUNE, run, "courier")


def hold(state: Engine, kind: HoldKind, value: str) -> int:
    """Place a legal hold and return its number.

    Args:
        state: state database.
        kind: type of the object that the legal hold names.
        value: id of this object.
    """
    with state.begin() as conn:
        return registry.add(
            conn, SystemClock(), kind=kind, value=value, reason="claim", owner="legal",
            case_ref="C-1", review_on=(NOW + timedelta(days=3650)).date(),
        ).id  # fmt: skip


def publish(
    store: ObjectStore, taken: Taken, signer: Signer, day: int, locked: datetime | None = None
) -> str:
    at = NOW - timedelta(days=day)
    point = f"p{day:03d}"
    key = f"courier/{point}/{DUMP_NAME}"
    stored = store.put(key, point.encode())
    dump = taken.manifest.dump.model_copy(update={"key": key, "size": stored.size})
    manifest = taken.manifest.model_copy(
        update={"id": point, "dump": dump, "taken_at": at, "expires_at": at + timedelta(days=90)}
    )
    manifests.publish(store, manifest, signer, locked)
    return point


def end_hold_locks_meanwhile(
    store: ObjectStore, state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End the sessions that prevent new legal holds, while a removal reads store locks."""
    require_deletable = store.require_deletable

    def lose_lock(key: str, now: datetime) -> None:
        require_deletable(key, now)
        with state.begin() as conn:
            conn.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
                " AND mode = 'ShareLock' AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database())"
            )

    monkeypatch.setattr(store, "require_deletable", lose_lock)
