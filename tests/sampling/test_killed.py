"""Killed within its steps and resumed: nothing is drawn twice, lost, or drawn otherwise."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import select

from include.evidence.folder import DiskFolder
from include.evidence.model import Outcome
from include.sampling.tables import audit_sample, audit_seed
from include.sampling.verify import redraw
from tests.sampling.rig import SEED, Rig, by_branch, population
from tests.support.forking import Forked

pytestmark = pytest.mark.fault
ROOT = Path(__file__).parents[2]
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


def child(rig: Rig, *step: str) -> subprocess.Popen[str]:
    places = (rig.source, rig.state, str(rig.root), str(rig.folder), rig.now.isoformat())
    return Forked("tests.sampling.child", *places, *step, cwd=ROOT, stdout=subprocess.PIPE)


def killed_at(rig: Rig, lock: str, *step: str, database: str) -> None:
    """Kill a step where it waits for a lock that we hold."""
    with psycopg.connect(database) as blocker:
        blocker.execute(lock.encode())
        with child(rig, *step) as running:
            end = time.monotonic() + 300
            while True:
                found = blocker.execute(WAITING).fetchone()
                if found and found[0]:
                    break
                assert running.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
            running.kill()
        blocker.execute(b"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
        blocker.rollback()


def test_a_freeze_that_is_killed_is_done_anew(rig: Rig) -> None:
    """What it left is no frame, and is cleared away before the seal."""
    waits = "SELECT id FROM log WHERE id < 500 AND pg_advisory_xact_lock_shared(4711) IS NOT NULL"
    rig.audit(population(sql=waits), by_branch())
    rig.begin()
    lock = "SELECT pg_advisory_lock(4711)"
    killed_at(rig, lock, "freeze", "openings", database=rig.source)
    assert not rig.frame_path("openings").exists()
    for name in ("openings", "branches"):
        rig.freeze(name)
    rig.commit()
    rig.enter()
    rig.draw()
    sealed = rig.seal()
    assert redraw(DiskFolder(rig.root / sealed.path)).holds
    left = [one.name for one in (rig.root / sealed.path).rglob(".*") if "partial" in one.name]
    assert left == []


def test_a_draw_that_is_killed_between_two_samples_begins_anew(rig: Rig) -> None:
    """Nothing of it was kept; the next try draws the same as without a kill."""
    rig.committed()
    rig.enter()
    lock = (
        "INSERT INTO audit_sample VALUES ('2026Q3', 'branches', 'sample_audit', 'r9', '', '', 1, "
        "now())"
    )
    killed_at(rig, lock, "draw", database=rig.state)
    with rig.engine.connect() as conn:
        assert list(conn.execute(select(audit_sample))) == []
    assert not [one for one in rig.artifacts() if one.startswith(("samples/", "workpapers"))]
    assert rig.draw().outcome is Outcome.PASS
    sealed = rig.seal()
    assert redraw(DiskFolder(rig.root / sealed.path)).holds
    assert rig.conclude().outcome is Outcome.PASS


@pytest.mark.parametrize("table", ["audit_commitment", "run_artifact"])
def test_a_commitment_that_is_killed_is_sealed_once(rig: Rig, table: str) -> None:
    """After its seal and before its row: the repeated one finds the same bundle."""
    rig.begin()
    for name in ("openings", "branches"):
        rig.freeze(name)
    killed_at(rig, f"LOCK TABLE {table}", "commit", database=rig.state)
    bundles = [one.parent for one in rig.root.rglob("SHA256SUMS.sig")]
    made = rig.commit()
    assert made is not None
    (bundle,) = (one.parent for one in rig.root.rglob("SHA256SUMS.sig"))
    assert bundles in ([bundle], [])
    assert (bundle / "commitment.json").read_bytes() == made.to_bytes()
    rig.enter()
    assert rig.draw().outcome is Outcome.PASS


def test_an_answer_whose_taking_is_killed_is_taken_again(rig: Rig) -> None:
    """Airflow hands the same answer over to the next try."""
    rig.committed()
    killed_at(rig, "LOCK TABLE audit_seed", "enter", SEED, database=rig.state)
    rig.enter()
    with rig.engine.connect() as conn:
        (row,) = conn.execute(select(audit_seed)).all()
    assert (row.seed, row.refused) == (SEED, None)
    assert rig.draw().outcome is Outcome.PASS
