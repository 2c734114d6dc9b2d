"""What the state database remembers: of two runs, or two tries, at most one draws."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from include.approvals.question import AskAgain
from include.evidence.folder import DiskFolder
from include.evidence.model import Outcome
from include.notify.outbox import Run
from include.sampling import register, samples
from include.sampling.commitment import Sealed
from include.sampling.drawing import DRAW
from include.sampling.rules import SEED_FILE, WORKPAPERS_FILE
from include.sampling.seed_entry import CANCEL, ENTER
from include.sampling.tables import audit_sample, audit_seed
from include.sampling.verify import redraw
from include.services.errors import ControlFailed
from tests.sampling.rig import AUDITOR, DAG, OTHER_AUDITOR, SEED, Rig, by_branch, population
from tests.support.contexts import step_record

OTHER = "3412.05 3407.77"


def refused(rig: Rig, run: str = "r1") -> list[str]:
    with rig.engine.connect() as conn:
        return [one.cause for one in register.refusals_of(conn, Run(DAG, run))]


def drawn_by(rig: Rig) -> dict[str, str]:
    with rig.engine.connect() as conn:
        return {row.population: row.run_id for row in conn.execute(select(audit_sample))}


# -- seeds ----------------------------------------------------------------------------------------


def test_a_seed_that_is_refused_is_kept_and_asked_for_again(rig: Rig) -> None:
    """Every one of them stands in the report, with who entered it."""
    rig.committed()
    for seed, more in (
        ("12", {}),
        (SEED, {"published_at": "2026-10-05T08:00:00+08:00"}),
        (SEED, {"published_at": "2027-01-01T00:00:00+08:00"}),
        (SEED, {"published_at": "today"}),
        (SEED, {"source": "  \n "}),
        ("1" * 201, {}),
    ):
        with pytest.raises(AskAgain, match="The seed was refused: "):
            rig.enter(seed, **more)
    assert refused(rig) == ["none", "older", "future", "no_time", "no_source", "long"]
    rig.enter()
    record = rig.draw()
    assert [one.code for one in record.findings] == ["sampling.seeds_refused"]
    assert record.outcome is Outcome.ATTENTION


@pytest.mark.parametrize(
    "more",
    [
        {"seed": "3391\x0076"},
        {"seed": "3391\ud80076"},
        {"seed": "3391\n76"},
        {"seed": "\x00\x00\x00\x00"},
        {"published_at": "0001-01-01T00:00:00+14:00"},
        {"published_at": "9999-12-31T23:59:59-14:00"},
        {"published_at": "2026-10-05T09:00:00+08:00:30.5", "seed": "1"},
    ],
)
def test_whatever_is_entered_is_refused_in_words_and_kept(rig: Rig, more: dict[str, Any]) -> None:
    """Also what no database takes."""
    rig.committed()
    with pytest.raises(AskAgain, match="The seed was refused: "):
        rig.enter(**({"seed": SEED} | more))
    assert len(refused(rig)) == 1


def test_what_nobody_sees_in_a_source_is_shown(rig: Rig) -> None:
    """It goes into the report; a mark that turns the writing round would forge it."""
    rig.committed()
    rig.enter(source="page\u202e 1\x00\ud800\n of\ttoday")
    with rig.engine.connect() as conn:
        found = register.seed_of(conn, Run(DAG, "r1"))
    assert found is not None
    assert found.source == "page· 1·· of today"


@pytest.mark.parametrize("option", [ENTER, CANCEL])
def test_an_answer_of_somebody_else_counts_for_nothing(rig: Rig, option: str) -> None:
    """An administrator may answer in Airflow; neither a seed nor the end of the run is his."""
    rig.committed()
    with pytest.raises(AskAgain, match="refused: whoever entered it is no auditor"):
        rig.enter(option=option, user="admin")
    assert refused(rig) == ["stranger"]
    assert rig.enter().data["decided_by"] == AUDITOR
    assert rig.draw().outcome is Outcome.ATTENTION


def test_a_seed_that_drew_another_run_is_refused(rig: Rig) -> None:
    """It was known before this run's commitment, whatever is said of its publication."""
    rig.run("r1")
    rig.committed("r2", "2026Q2")
    with pytest.raises(AskAgain, match="was used before"):
        rig.enter(SEED, "r2")
    assert refused(rig, "r2") == ["used"]
    rig.enter(OTHER, "r2")


def test_a_seed_that_was_refused_elsewhere_may_be_taken(rig: Rig) -> None:
    """Nothing was drawn by it."""
    rig.committed("r1")
    with pytest.raises(AskAgain):
        rig.enter(SEED, "r1", source="")
    rig.committed("r2", "2026Q2")
    assert rig.enter(SEED, "r2").data["seed"] is True


def test_the_same_answer_twice_is_one_seed(rig: Rig) -> None:
    """A task that was killed after its work takes the same answer again."""
    rig.committed()
    entered = rig.enter()
    published = rig.published()
    rig.now += timedelta(minutes=1)
    given = {"seed": SEED, "source": "another page", "published_at": published}
    again = rig.take(ENTER, given, OTHER_AUDITOR, rig.now)
    assert again == entered
    with rig.engine.connect() as conn:
        (row,) = conn.execute(select(audit_seed)).all()
    assert (row.entered_by, row.source) == (AUDITOR, "the exchange's page")


def test_a_run_has_one_seed(rig: Rig) -> None:
    """The first one stands: another one may draw what somebody likes better."""
    rig.committed()
    rig.enter()
    with pytest.raises(ControlFailed, match="has its seed"):
        rig.enter(OTHER)
    rig.draw()
    assert SEED.encode() in rig.artifacts()[SEED_FILE]


def test_an_answer_that_was_refused_is_not_taken_when_it_is_repeated(rig: Rig) -> None:
    """A seed of the future is not younger an hour later: the auditor has to answer again."""
    rig.committed()
    published = (rig.now + timedelta(hours=3)).isoformat()
    given = {"seed": SEED, "source": "the exchange's page", "published_at": published}
    at = rig.now + timedelta(hours=1)
    for later in (1, 4):
        rig.now += timedelta(hours=later)
        with pytest.raises(AskAgain, match="refused: the time of publication"):
            rig.take(ENTER, given, AUDITOR, at)
    assert refused(rig) == ["future"]
    with rig.engine.connect() as conn:
        assert register.seed_of(conn, Run(DAG, "r1")) is None


def test_of_two_runs_that_enter_one_seed_at_once_one_takes_it(rig: Rig) -> None:
    """The other one is told so; it does not go on without a seed."""
    rig.committed("r1")
    rig.committed("r2", "2026Q2")
    rig.now += timedelta(hours=2)
    given = {"seed": SEED, "source": "s", "published_at": rig.published()}
    told: dict[str, Any] = {}

    def enter(run: str) -> None:
        try:
            told[run] = rig.take(ENTER, given, AUDITOR, rig.now, run)
        except AskAgain as error:
            told[run] = error

    with rig.engine.connect() as blocker:
        blocker.execute(text("LOCK TABLE audit_seed IN SHARE ROW EXCLUSIVE MODE"))
        threads = [threading.Thread(target=enter, args=(run,)) for run in ("r1", "r2")]
        for one in threads:
            one.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while blocker.scalar(waiting) < 2:
            pass
        blocker.rollback()
    for one in threads:
        one.join()
    (loser,) = [run for run, one in told.items() if isinstance(one, AskAgain)]
    (winner,) = set(told) - {loser}
    assert "was used before" in str(told[loser])
    assert refused(rig, loser) == ["used"]
    assert told[winner].data["seed"] is True


# -- runs -----------------------------------------------------------------------------------------


def test_a_second_run_for_the_quarter_draws_nothing_and_says_so(rig: Rig) -> None:
    """Its frames would be others, and its sample one to choose from."""
    first = rig.run("r1")
    rig.fill(400)
    assert rig.begin("r2").findings == []
    for name in ("openings", "branches"):
        record = rig.freeze(name, "r2")
        assert [one.code for one in record.findings] == ["sampling.drawn_before"]
        assert record.data == {"frame": None, "drawn_by": "r1"}
        assert not rig.frame_path(name, "r2").exists()
    assert rig.commit("r2") is None
    assert rig.draw("r2").data["drawn"] == {}
    concluded = rig.conclude("r2")
    assert concluded.outcome is Outcome.ATTENTION
    assert concluded.facts[0].value == 2
    assert concluded.facts[0].status is Outcome.PASS
    assert redraw(DiskFolder(rig.root / first.path)).holds


def test_a_run_that_was_given_up_after_its_commitment_is_told(rig: Rig) -> None:
    """Whoever gives up when the seed is public chooses the sample."""
    rig.committed("r1")
    rig.enter(run="r1", option=CANCEL)
    found = rig.begin("r2")
    assert [one.code for one in found.findings] == ["sampling.committed_before"]
    assert found.data["earlier"] == ["r1"]
    assert rig.begin("r3", "2026Q2").findings == []


def test_two_quarters_in_flight_do_not_disturb_each_other(rig: Rig) -> None:
    """Each has its frames, its commitment, its seed and its samples."""
    third, second = rig.committed("r1"), rig.committed("r2", "2026Q2")
    rig.enter(OTHER, "r2")
    rig.enter(SEED, "r1")
    rig.draw("r1")
    rig.draw("r2")
    sealed = {run: rig.seal(run) for run in ("r1", "r2")}
    found = {run: redraw(DiskFolder(rig.root / one.path)) for run, one in sealed.items()}
    assert {run: (one.audit, one.seed, one.holds) for run, one in found.items()} == {
        "r1": ("2026Q3", SEED, True),
        "r2": ("2026Q2", OTHER, True),
    }
    assert (third.populations[0].items, second.populations[0].items) == (200, 90)


def test_of_two_runs_for_one_quarter_one_draws(rig: Rig) -> None:
    """Whichever comes first; the other one keeps nothing that looks like a sample."""
    for run in ("r1", "r2"):
        rig.committed(run)
    rig.enter(SEED, "r1")
    rig.enter(OTHER, "r2")
    told: dict[str, Any] = {}

    def draw(run: str) -> None:
        try:
            told[run] = step_record(DRAW, rig.context(run))
        except ControlFailed as error:
            told[run] = error

    with rig.engine.connect() as blocker:
        blocker.execute(text("LOCK TABLE audit_sample IN SHARE ROW EXCLUSIVE MODE"))
        threads = [threading.Thread(target=draw, args=(run,)) for run in ("r1", "r2")]
        for one in threads:
            one.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while blocker.scalar(waiting) < 2:
            pass
        blocker.rollback()
    for one in threads:
        one.join()
    (winner,) = set(drawn_by(rig).values())
    (loser,) = {"r1", "r2"} - {winner}
    assert "drawn by another run meanwhile" in str(told[loser])
    assert told[winner].outcome is Outcome.PASS
    kept = rig.artifacts(loser)
    assert not [one for one in kept if one.startswith(("samples/", "workpapers"))]
    assert rig.draw(winner) == told[winner]


def test_a_population_that_another_run_drew_takes_no_other_with_it(rig: Rig) -> None:
    """What this run drew first can be drawn by nobody else: it needs seed and workpapers."""
    rig.committed("r1")
    rig.enter(SEED, "r1")
    rig.audit(by_branch())
    rig.committed("r2")
    rig.enter(OTHER, "r2")
    rig.draw("r2")
    rig.audit(population(), by_branch())
    record = rig.draw("r1")
    assert record.outcome is Outcome.FAIL
    (finding,) = record.findings
    assert (finding.code, finding.subject) == ("sampling.drawn_meanwhile", "branches")
    assert set(record.data["drawn"]) == {"openings"}
    assert record.data["drawn_by"] == {"branches": "r2"}
    assert drawn_by(rig) == {"openings": "r1", "branches": "r2"}
    files = rig.artifacts("r1")
    assert {SEED_FILE, WORKPAPERS_FILE, "samples/openings.json"} <= set(files)
    assert "samples/branches.json" not in files
    concluded = rig.conclude("r1")
    assert concluded.outcome is Outcome.FAIL
    (metric,) = [one for one in concluded.metrics if one.name == "populations_without_sample"]
    assert metric.value == 0
    assert rig.draw("r1") == record


def test_the_first_commitment_of_a_run_stands(rig: Rig) -> None:
    """Repeated, or told otherwise."""
    at = datetime(2026, 10, 5, 1, tzinfo=UTC)
    first = Sealed(bundle="one", sums_sha256="1" * 64, sealed_at=at)
    run = Run(DAG, "r1")
    with rig.engine.begin() as conn:
        register.remember_commitment(conn, run, "2026Q3", "a" * 64, first)
        other = first.model_copy(update={"bundle": "two", "sealed_at": at + timedelta(days=1)})
        register.remember_commitment(conn, run, "2026Q3", "b" * 64, other)
        assert register.commitment_of(conn, run) is None  # the ledger of evidence decides
        assert register.commitments_before(conn, "2026Q3", run) == []
        (before,) = register.commitments_before(conn, "2026Q3", Run(DAG, "r2"))
    assert (before.run_id, before.at) == ("r1", at)


def test_causes_of_refusals_are_those_that_can_be_said() -> None:
    """The report asks for the words of each."""
    assert {one.value for one in samples.Cause} == {
        "none", "long", "unreadable", "no_source", "no_time", "older", "future", "used",
        "stranger",
    }  # fmt: skip
