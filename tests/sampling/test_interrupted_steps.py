"""Tests of steps that are killed and repeated: no sample is lost, or drawn again."""

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
from tests.sampling.company import SEED, Company, by_branch, population
from tests.support.forking import Forked

pytestmark = pytest.mark.fault
ROOT = Path(__file__).parents[2]
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


def start_step(company: Company, *step: str) -> subprocess.Popen[str]:
    arguments = (
        company.source,
        company.state,
        str(company.root),
        str(company.folder),
        company.now.isoformat(),
    )
    return Forked(
        "tests.sampling.step_process", *arguments, *step, cwd=ROOT, stdout=subprocess.PIPE
    )


def kill_at_lock(company: Company, lock: str, *step: str, database: str) -> None:
    """Kill the process of a step while it waits for a database lock that the test holds.

    Args:
        company: the company.
        lock: SQL statement that takes the lock.
        step: name of the step, and its arguments.
        database: connection string of the database of the lock.
    """
    with psycopg.connect(database) as blocker:
        blocker.execute(lock.encode())
        with start_step(company, *step) as process:
            end = time.monotonic() + 300
            while True:
                row = blocker.execute(WAITING).fetchone()
                if row and row[0]:
                    break
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
            process.kill()
        blocker.execute(b"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
        blocker.rollback()


def test_freeze_step_can_be_repeated_after_its_process_was_killed(company: Company) -> None:
    """The partial file of the killed step is removed before the bundle is sealed."""
    waits = "SELECT id FROM log WHERE id < 500 AND pg_advisory_xact_lock_shared(4711) IS NOT NULL"
    company.use_populations(population(sql=waits), by_branch())
    company.begin()
    lock = "SELECT pg_advisory_lock(4711)"
    kill_at_lock(company, lock, "freeze", "openings", database=company.source)
    assert not company.frame_path("openings").exists()
    for name in ("openings", "branches"):
        company.freeze(name)
    company.commit()
    company.enter()
    company.draw()
    sealed = company.seal()
    assert redraw(DiskFolder(company.root / sealed.path)).matches
    left = [
        path.name for path in (company.root / sealed.path).rglob(".*") if "partial" in path.name
    ]
    assert left == []


def test_killed_draw_step_stores_no_sample_and_its_retry_draws_verifiable_samples(
    company: Company,
) -> None:
    """The killed step stored no sample."""
    company.run_to_commitment()
    company.enter()
    lock = (
        "INSERT INTO audit_sample VALUES ('2026Q3', 'branches', 'sample_audit', 'r9', '', '', 1, "
        "now())"
    )
    kill_at_lock(company, lock, "draw", database=company.state)
    with company.engine.connect() as conn:
        assert list(conn.execute(select(audit_sample))) == []
    assert not [
        artifact
        for artifact in company.artifacts()
        if artifact.startswith(("samples/", "workpapers"))
    ]
    assert company.draw().outcome is Outcome.PASS
    sealed = company.seal()
    assert redraw(DiskFolder(company.root / sealed.path)).matches
    assert company.conclude().outcome is Outcome.PASS


@pytest.mark.parametrize("table", ["audit_commitment", "run_artifact"])
def test_commitment_is_sealed_only_once_if_its_step_is_killed_and_repeated(
    company: Company, table: str
) -> None:
    """If the step is killed before it records the seal, the next attempt finds the bundle."""
    company.begin()
    for name in ("openings", "branches"):
        company.freeze(name)
    kill_at_lock(company, f"LOCK TABLE {table}", "commit", database=company.state)
    bundles = [path.parent for path in company.root.rglob("SHA256SUMS.sig")]
    commitment = company.commit()
    assert commitment is not None
    (bundle,) = (path.parent for path in company.root.rglob("SHA256SUMS.sig"))
    assert bundles in ([bundle], [])
    assert (bundle / "commitment.json").read_bytes() == commitment.to_bytes()
    company.enter()
    assert company.draw().outcome is Outcome.PASS


def test_seed_is_recorded_only_once_if_its_step_is_killed_and_repeated(company: Company) -> None:
    """Airflow passes the same answer to the next attempt of the task."""
    company.run_to_commitment()
    kill_at_lock(company, "LOCK TABLE audit_seed", "enter", SEED, database=company.state)
    company.enter()
    with company.engine.connect() as conn:
        (row,) = conn.execute(select(audit_seed)).all()
    assert (row.seed, row.refused) == (SEED, None)
    assert company.draw().outcome is Outcome.PASS
