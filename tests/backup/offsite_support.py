"""What the tests of backup runs share: runs on small databases and stores, and holds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from include.backup import manifest as manifests
from include.backup.manifest import DUMP_NAME
from include.backup.offsite import Offsite, back_up, prune_restore_points
from include.backup.unfinished import Cleared
from include.encryption.recipients import Recipient
from include.evidence.model import StepRecord
from include.evidence.signing import Signer
from include.holds import registry
from include.holds.registry import HoldKind
from include.policy.rules import BackupRules
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.services.objectstore.base import ObjectStore
from tests.backup.support import Taken, mapped
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
    again: bool = False,
) -> tuple[StepRecord, manifests.Manifest]:
    return back_up(
        mapped(), source, offsite, RULES, state,
        dag_id="backup_offsite", run_id=run_id, clock=SystemClock(), again=again,
    )  # fmt: skip


def run_prune(
    offsite: Offsite,
    state: Engine,
    now: datetime = NOW,
    confirm: Callable[[], None] | None = None,
    cleared: Cleared | None = None,
) -> StepRecord:
    return prune_restore_points(
        "courier", offsite, RULES, state,
        zone=ZONE, now=now, dag_id="backup_offsite", run_id="r", confirm=confirm, cleared=cleared,
    )  # fmt: skip


def hold(state: Engine, kind: HoldKind, value: str) -> int:
    """Place a legal hold and return its number."""
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
    made = taken.manifest.model_copy(
        update={"id": point, "dump": dump, "taken_at": at, "expires_at": at + timedelta(days=90)}
    )
    manifests.publish(store, made, signer, locked)
    return point


def end_hold_locks_meanwhile(
    store: ObjectStore, state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End the sessions that keep new holds out while a removal reads the locks of the store."""
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
