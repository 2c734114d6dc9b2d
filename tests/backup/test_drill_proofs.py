"""Test what a passed restore drill proves about a database and a restore point, and how long."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
from sqlalchemy import Connection, Engine

from include.backup.drill_proofs import MAX_BUNDLES, STEPS, WORKFLOW, Proof, State, proofs
from include.evidence.bundle import seal
from include.evidence.bundle_reader import LARGEST, BundleReader
from include.evidence.ledger import rows
from include.evidence.ledger_recovery import recover_ledger
from include.evidence.model import Finding, Metric, Outcome, Result, RunContext, StepSummary, judge
from include.evidence.signing import Signer, TrustedKeys
from include.messages import verbatim
from include.policy import SHIPPED
from include.policy.period import add_period
from include.registry import load_pack
from include.services.clock import FixedClock
from include.services.objectstore.base import StoreError
from include.services.objectstore.directory import DirectoryStore
from include.state.tables import evidence_ledger
from tests.support.holders import NOW
from tests.support.registers import unguarded

PACK = load_pack(SHIPPED)
CONTROLS = PACK.controls_of(WORKFLOW)
ZONE = PACK.calendar.zone
NO_FILES: Mapping[str, bytes] = MappingProxyType({})
DATABASE, POINT, OTHER = "courier", "20261120T020000Z-aaa", "20261121T020000Z-bbb"


def steps(
    point: str = POINT, database: str = DATABASE, failing: str = "", reached: int = 3
) -> list[StepSummary]:
    """Return the steps of a restore drill.

    Args:
        point: id of the restore point. A failed step does not name it, as in a real run.
        database: name of the database.
        failing: name of the step that fails; empty if no step fails.
        reached: number of steps that are recorded.
    """
    return [
        StepSummary(
            step=step,
            part=database,
            outcome=Outcome.FAIL if step == failing else Outcome.PASS,
            data={} if step == failing else {"restore_point": point},
        )
        for step in STEPS[:reached]
    ]


@dataclass
class Drills:
    """An evidence store with the bundles of restore drills."""

    conn: Connection
    root: Path
    signer: Signer

    def seal(
        self,
        done: list[StepSummary],
        at: datetime = NOW,
        lacking: str = "",
        run: str = "",
        files: Mapping[str, bytes] = NO_FILES,
    ) -> Path:
        """Seal the bundle of a run with these steps, and return the folder of the bundle.

        Args:
            done: recorded steps.
            at: time of the run.
            lacking: name of a database whose steps a finding reports as missing; empty for none.
            run: id of the run; if empty, the id is derived from the time.
            files: content of further files of the bundle, by name.
        """
        bad = [record for record in done if record.outcome is Outcome.FAIL]
        findings = [
            Finding(
                code="drill.drill.missing", severity=Outcome.FAIL, subject=lacking,
                message=verbatim("gone"), action=verbatim("look"), clause="4.2",
            )
        ] if lacking else []  # fmt: skip
        metrics = [Metric(name=CONTROLS[0].indicator.name, value=len(bad), unit="1")]
        context = RunContext(
            dag_id=WORKFLOW, run_id=run or f"manual__{at.isoformat()}", started_at=at,
            code_version="1", policy_hash="1", policy_name="p", clock_source="test",
        )  # fmt: skip
        result = Result(
            run=context, controls=judge(CONTROLS, metrics), finished_at=at, metrics=metrics,
            outcome=Outcome.FAIL if bad or findings else Outcome.PASS, findings=findings,
            steps=done,
        )  # fmt: skip
        store = DirectoryStore(self.root)
        seal(store, self.conn, self.signer, result=result, files=files, clock=FixedClock(at))
        return self.root / rows(self.conn)[-1].bundle

    def proof(self, now: datetime = NOW, database: str = DATABASE) -> Proof:
        bundle_reader = BundleReader(DirectoryStore(self.root), [self.signer.public_pem])
        return proofs(self.conn, bundle_reader, {database, "another"}, CONTROLS, now, ZONE)[
            database
        ]


@pytest.fixture
def drills(state: Engine, signer: Signer, tmp_path: Path) -> Iterator[Drills]:
    folder = tmp_path / "evidence"
    folder.mkdir()
    with state.connect() as conn:
        yield Drills(conn, folder, signer)


def test_passed_restore_drill_is_proof_for_its_own_restore_point_only(drills: Drills):
    """The proof names the restore point and the evidence bundle."""
    drills.seal(steps())
    proof = drills.proof()
    assert (proof.state, proof.outcome) == (State.PASSED, Outcome.PASS)
    assert proof.newest is not None
    assert (proof.newest.point, proof.newest.row.seq) == (POINT, 1)
    assert {name: drill.passed for name, drill in proof.points.items()} == {POINT: True}


@pytest.mark.parametrize("lacking", ["billing", "shop"])
def test_drill_state_stays_passed_after_failed_drill_of_another_database(
    drills: Drills, lacking: str
) -> None:
    """The name of the other database may sort before or after the name of this database."""
    drills.seal(steps())
    drills.seal([], at=NOW + timedelta(minutes=1), lacking=lacking)
    assert drills.proof().state is State.PASSED
    assert drills.proof(database=lacking).state is State.FAILED


@pytest.mark.parametrize("newer", [False, True])
def test_drill_has_the_time_of_its_sealed_bundle_after_recovery_of_evidence_ledger(
    drills: Drills, state: Engine, newer: bool
):
    """The entry of the evidence ledger was lost, and was recovered a year later.

    Nevertheless, the drill counts as too old, because its bundle has the original time.
    """
    drills.seal(steps())
    if newer:  # a drill of another database lies before it
        drills.seal(steps(database="another"), at=NOW + timedelta(minutes=1))
    with state.begin() as conn, unguarded(conn, "evidence_ledger"):
        conn.execute(evidence_ledger.delete())
    now = NOW + timedelta(days=366)
    store, keys = DirectoryStore(drills.root), TrustedKeys([drills.signer.public_pem])
    entered = recover_ledger(store, drills.conn, drills.signer, keys, FixedClock(now))
    assert len(entered) == 1 + newer
    proof = drills.proof(now)
    assert (proof.state, proof.outcome) == (State.LATE, Outcome.ATTENTION)
    assert proof.newest is not None
    assert proof.newest.finished_at == NOW


def test_drill_state_is_unchecked_if_its_evidence_bundle_is_too_large_to_verify(drills: Drills):
    """The files of the bundle were not verified, so they must not count as proof."""
    folder = drills.seal(steps(), files={"comparison.csv": b"1"})
    os.truncate(folder / "comparison.csv", LARGEST + 1)
    proof = drills.proof()
    assert (proof.state, proof.outcome) == (State.UNCHECKED, Outcome.ATTENTION)


@pytest.mark.parametrize("failing", STEPS)
def test_drill_state_is_failed_if_newest_drill_failed_after_a_passed_drill(
    drills: Drills, failing: str
):
    """A failed step decides, even if an earlier drill proved the same restore point."""
    drills.seal(steps(), at=NOW - timedelta(days=1))
    drills.seal(steps(failing=failing, reached=STEPS.index(failing) + 1))
    proof = drills.proof()
    assert (proof.state, proof.outcome) == (State.FAILED, Outcome.FAIL)
    assert proof.newest is not None
    assert proof.newest.point == ("" if failing == "choose" else POINT)
    assert [point.passed for point in proof.points.values()] == [failing == "choose"]


def test_restore_point_stays_failed_after_passed_drill_of_another_restore_point(drills: Drills):
    """The later drill proves the database, but not the restore point that failed."""
    drills.seal(steps(failing="drill"), at=NOW - timedelta(days=1))
    drills.seal(steps(OTHER))
    proof = drills.proof()
    assert proof.state is State.PASSED
    assert {name: drill.passed for name, drill in proof.points.items()} == {
        POINT: False,
        OTHER: True,
    }


@pytest.mark.parametrize("reached", [1, 2])
def test_drill_without_record_of_its_last_step_counts_as_failed(drills: Drills, reached: int):
    """All recorded steps passed, but a later step was not recorded."""
    drills.seal(steps(reached=reached))
    assert drills.proof().state is State.FAILED


def test_drill_killed_before_its_first_step_counts_as_failed(drills: Drills):
    """The bundle has no step record of the database, only a finding about it."""
    drills.seal(steps(), at=NOW - timedelta(days=1))
    drills.seal([], lacking=DATABASE)
    assert drills.proof().state is State.FAILED


def test_database_that_was_never_drilled_needs_attention(drills: Drills):
    proof = drills.proof()
    assert (proof.state, proof.outcome) == (State.NEVER, Outcome.ATTENTION)
    assert proof.newest is None


@pytest.mark.parametrize("failing", ["", "drill"])
def test_drill_of_another_database_with_same_restore_point_id_is_ignored(
    drills: Drills, failing: str
):
    """Both drills are in the same store and use restore points with the same id."""
    drills.seal(steps(database="another", failing=failing))
    assert drills.proof().state is State.NEVER
    assert drills.proof(database="another").state is (State.FAILED if failing else State.PASSED)


def test_passed_drill_state_is_late_if_drill_is_older_than_the_cadence(drills: Drills):
    """The cadence of the control decides when a drill is outdated. A failed drill stays failed."""
    drills.seal(steps())
    due = add_period(NOW, CONTROLS[0].cadence, ZONE)
    assert drills.proof(due).state is State.PASSED
    proof = drills.proof(due + timedelta(days=2))
    assert (proof.state, proof.outcome) == (State.LATE, Outcome.ATTENTION)
    drills.seal(steps(failing="drill"), at=NOW + timedelta(seconds=1))
    assert drills.proof(due + timedelta(days=2)).state is State.FAILED


def test_drill_state_becomes_late_although_other_databases_have_newer_drills(drills: Drills):
    """Newer evidence of the same control does not renew the proof of this database."""
    drills.seal(steps())
    due = add_period(NOW, CONTROLS[0].cadence, ZONE)
    drills.seal(steps(database="another"), at=due)
    assert drills.proof(due).state is State.PASSED
    assert drills.proof(due + timedelta(minutes=1)).state is State.LATE
    assert drills.proof(due + timedelta(minutes=1), "another").state is State.PASSED


@pytest.mark.parametrize("name", ["result.json", "SHA256SUMS.sig"])
@pytest.mark.parametrize("harm", ["changed", "removed"])
def test_drill_state_is_refused_if_newest_evidence_bundle_was_altered(
    drills: Drills, name: str, harm: str
):
    """Before it was altered, the bundle may have recorded a failed drill."""
    drills.seal(steps(), at=NOW - timedelta(days=1))
    file = drills.seal(steps(OTHER, failing="drill")) / name
    if harm == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-2] + b"\n\n")
    proof = drills.proof()
    assert (proof.state, proof.outcome) == (State.REFUSED, Outcome.FAIL)
    assert proof.refused is not None
    assert proof.refused[0].seq == 2
    assert OTHER not in proof.points
    drills.seal(steps(OTHER), at=NOW + timedelta(seconds=1))
    assert drills.proof().state is State.PASSED


def test_drill_state_is_refused_if_drill_has_a_future_time(drills: Drills):
    """The clock of the run was ahead of the actual time."""
    drills.seal(steps(), at=NOW + timedelta(days=30))
    assert drills.proof().state is State.REFUSED


def test_drill_state_is_unread_if_evidence_store_is_unreachable(drills: Drills):
    """Evidence that cannot be read must not be reported as missing."""

    class Away(DirectoryStore):
        def open_reader(self, key: str, *, version_id: str = ""):
            raise StoreError("The store does not answer.")

    drills.seal(steps())
    bundle_reader = BundleReader(Away(drills.root), [drills.signer.public_pem])
    proof = proofs(drills.conn, bundle_reader, {DATABASE}, CONTROLS, NOW, ZONE)[DATABASE]
    assert (proof.state, proof.outcome) == (State.UNREAD, Outcome.ATTENTION)


def test_only_the_newest_bundles_of_restore_drills_are_read(drills: Drills):
    """The page must load quickly, however many drills were sealed."""
    drills.seal(steps(), at=NOW - timedelta(hours=1))
    for number in range(MAX_BUNDLES):
        at = NOW - timedelta(minutes=MAX_BUNDLES - number)
        drills.seal(steps(database="another"), at=at)
    assert drills.proof().state is State.NEVER
