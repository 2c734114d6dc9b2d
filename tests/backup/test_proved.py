"""What drills prove: of the database and the restore point that they looked at, and for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
from sqlalchemy import Connection, Engine

from include.backup.proved import LOOKED_AT, STEPS, WORKFLOW, Proof, State, proofs
from include.evidence.adopt import recover_ledger
from include.evidence.bundle import seal
from include.evidence.ledger import rows
from include.evidence.model import Finding, Metric, Outcome, Result, RunContext, StepSummary, judge
from include.evidence.shelf import LARGEST, Shelf
from include.evidence.signing import Signer, TrustedKeys
from include.messages import verbatim
from include.policy import SHIPPED
from include.policy.period import later
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
    """The steps of a drill; one that fails names no restore point, as in a real run."""
    return [
        StepSummary(
            step=one,
            part=database,
            outcome=Outcome.FAIL if one == failing else Outcome.PASS,
            data={} if one == failing else {"restore_point": point},
        )
        for one in STEPS[:reached]
    ]


@dataclass
class Drills:
    """An evidence store of drills."""

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
        """Seal a run with these steps; returns the bundle's folder."""
        bad = [one for one in done if one.outcome is Outcome.FAIL]
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
        shelf = Shelf(DirectoryStore(self.root), [self.signer.public_pem])
        return proofs(self.conn, shelf, {database, "another"}, CONTROLS, now, ZONE)[database]


@pytest.fixture
def drills(state: Engine, signer: Signer, tmp_path: Path) -> Iterator[Drills]:
    folder = tmp_path / "evidence"
    folder.mkdir()
    with state.connect() as conn:
        yield Drills(conn, folder, signer)


def test_a_drill_that_held_proves_its_restore_point_and_no_other(drills: Drills):
    """With the point and the bundle that says so."""
    drills.seal(steps())
    found = drills.proof()
    assert (found.state, found.outcome) == (State.HELD, Outcome.PASS)
    assert found.newest is not None
    assert (found.newest.point, found.newest.row.seq) == (POINT, 1)
    assert {name: one.held for name, one in found.points.items()} == {POINT: True}


@pytest.mark.parametrize("lacking", ["billing", "shop"])
def test_failure_of_another_database_proves_nothing_of_this_one(
    drills: Drills, lacking: str
) -> None:
    """Whether its name sorts before this one's or after it."""
    drills.seal(steps())
    drills.seal([], at=NOW + timedelta(minutes=1), lacking=lacking)
    assert drills.proof().state is State.HELD
    assert drills.proof(database=lacking).state is State.FAILED


@pytest.mark.parametrize("newer", [False, True])
def test_recovered_drill_is_as_old_as_its_signature_states(
    drills: Drills, state: Engine, newer: bool
):
    """Its ledger rows were lost and entered again a year later; it proves nothing any more."""
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


def test_drill_too_large_to_check_proves_nothing_here(drills: Drills):
    """It is never shown as proved while nobody looked at its files."""
    folder = drills.seal(steps(), files={"comparison.csv": b"1"})
    os.truncate(folder / "comparison.csv", LARGEST + 1)
    proof = drills.proof()
    assert (proof.state, proof.outcome) == (State.UNCHECKED, Outcome.ATTENTION)


@pytest.mark.parametrize("failing", STEPS)
def test_a_drill_that_failed_fails_the_database_whatever_held_before(drills: Drills, failing: str):
    """In whichever step; a point that was proved and failed since is proved no more."""
    drills.seal(steps(), at=NOW - timedelta(days=1))
    drills.seal(steps(failing=failing, reached=STEPS.index(failing) + 1))
    found = drills.proof()
    assert (found.state, found.outcome) == (State.FAILED, Outcome.FAIL)
    assert found.newest is not None
    assert found.newest.point == ("" if failing == "choose" else POINT)
    assert [one.held for one in found.points.values()] == [failing == "choose"]


def test_a_restore_point_that_failed_is_known_as_failed_after_another_one_held(drills: Drills):
    """The database counts as proved, that point does not."""
    drills.seal(steps(failing="drill"), at=NOW - timedelta(days=1))
    drills.seal(steps(OTHER))
    found = drills.proof()
    assert found.state is State.HELD
    assert {name: one.held for name, one in found.points.items()} == {POINT: False, OTHER: True}


@pytest.mark.parametrize("reached", [1, 2])
def test_a_drill_that_did_not_come_to_its_end_proves_nothing(drills: Drills, reached: int):
    """Every step that there is passed, and the restore is not among them."""
    drills.seal(steps(reached=reached))
    assert drills.proof().state is State.FAILED


def test_a_drill_that_was_killed_before_it_began_counts_as_failed(drills: Drills):
    """It left no step of the database, and a finding about it."""
    drills.seal(steps(), at=NOW - timedelta(days=1))
    drills.seal([], lacking=DATABASE)
    assert drills.proof().state is State.FAILED


def test_without_a_drill_nothing_is_proved(drills: Drills):
    """It asks to be looked at."""
    found = drills.proof()
    assert (found.state, found.outcome) == (State.NEVER, Outcome.ATTENTION)
    assert found.newest is None


@pytest.mark.parametrize("failing", ["", "drill"])
def test_a_drill_of_another_database_says_nothing_of_this_one(drills: Drills, failing: str):
    """Neither good nor bad, though both stand in the same store, under the same point's name."""
    drills.seal(steps(database="another", failing=failing))
    assert drills.proof().state is State.NEVER
    assert drills.proof(database="another").state is (State.FAILED if failing else State.HELD)


def test_a_drill_that_is_too_old_proves_nothing_any_more(drills: Drills):
    """By the cadence of its control, as the overview has it; a failure does not get better."""
    drills.seal(steps())
    due = later(NOW, CONTROLS[0].cadence, ZONE)
    assert drills.proof(due).state is State.HELD
    found = drills.proof(due + timedelta(days=2))
    assert (found.state, found.outcome) == (State.LATE, Outcome.ATTENTION)
    drills.seal(steps(failing="drill"), at=NOW + timedelta(seconds=1))
    assert drills.proof(due + timedelta(days=2)).state is State.FAILED


def test_a_database_that_newer_drills_passed_by_is_due_by_its_own_drill(drills: Drills):
    """Newer evidence of the control does not make it younger."""
    drills.seal(steps())
    due = later(NOW, CONTROLS[0].cadence, ZONE)
    drills.seal(steps(database="another"), at=due)
    assert drills.proof(due).state is State.HELD
    assert drills.proof(due + timedelta(minutes=1)).state is State.LATE
    assert drills.proof(due + timedelta(minutes=1), "another").state is State.HELD


@pytest.mark.parametrize("name", ["result.json", "SHA256SUMS.sig"])
@pytest.mark.parametrize("harm", ["changed", "removed"])
def test_an_altered_bundle_proves_nothing_and_hides_nothing(drills: Drills, name: str, harm: str):
    """What it said may be what somebody wanted gone: an older one does not stand in for it."""
    drills.seal(steps(), at=NOW - timedelta(days=1))
    file = drills.seal(steps(OTHER, failing="drill")) / name
    if harm == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-2] + b"\n\n")
    found = drills.proof()
    assert (found.state, found.outcome) == (State.REFUSED, Outcome.FAIL)
    assert found.refused is not None
    assert found.refused[0].seq == 2
    assert OTHER not in found.points
    drills.seal(steps(OTHER), at=NOW + timedelta(seconds=1))
    assert drills.proof().state is State.HELD


def test_a_drill_of_tomorrow_proves_nothing(drills: Drills):
    """A clock that ran ahead keeps nothing green."""
    drills.seal(steps(), at=NOW + timedelta(days=30))
    assert drills.proof().state is State.REFUSED


def test_a_store_that_does_not_answer_is_said_to_be_unread(drills: Drills):
    """Nobody knows then, which is not the same as never."""

    class Away(DirectoryStore):
        def open_reader(self, key: str, *, version_id: str = ""):
            raise StoreError("The store does not answer.")

    drills.seal(steps())
    shelf = Shelf(Away(drills.root), [drills.signer.public_pem])
    found = proofs(drills.conn, shelf, {DATABASE}, CONTROLS, NOW, ZONE)[DATABASE]
    assert (found.state, found.outcome) == (State.UNREAD, Outcome.ATTENTION)


def test_no_more_than_the_newest_bundles_are_read(drills: Drills):
    """The page stays quick however many drills there were."""
    drills.seal(steps(), at=NOW - timedelta(hours=1))
    for number in range(LOOKED_AT):
        at = NOW - timedelta(minutes=LOOKED_AT - number)
        drills.seal(steps(database="another"), at=at)
    assert drills.proof().state is State.NEVER
