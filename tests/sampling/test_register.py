"""Tests of the audit register: of several runs or attempts, at most one draws a sample."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from include.approvals.required_action import InvalidAnswer
from include.evidence.folder import DiskFolder
from include.evidence.model import Outcome
from include.notify.outbox import Run
from include.sampling import register, samples
from include.sampling.commitment import CommitmentLocation
from include.sampling.drawing import DRAW
from include.sampling.rules import SEED_FILE, WORKPAPERS_FILE
from include.sampling.seed_entry import CANCEL, ENTER
from include.sampling.tables import audit_sample, audit_seed
from include.sampling.verify import redraw
from include.services.errors import ControlFailed
from tests.sampling.company import AUDITOR, DAG, OTHER_AUDITOR, SEED, Company, by_branch, population
from tests.support.contexts import step_record

OTHER = "3412.05 3407.77"


def refused(company: Company, run: str = "r1") -> list[str]:
    with company.engine.connect() as conn:
        return [refusal.cause for refusal in register.refusals_of(conn, Run(DAG, run))]


def drawn_by(company: Company) -> dict[str, str]:
    with company.engine.connect() as conn:
        return {row.population: row.run_id for row in conn.execute(select(audit_sample))}


# -- seeds ----------------------------------------------------------------------------------------


def test_refused_seed_is_recorded_and_another_seed_can_be_entered(company: Company) -> None:
    """The draw reports that seeds were refused."""
    company.run_to_commitment()
    for seed, more in (
        ("12", {}),
        (SEED, {"published_at": "2026-10-05T08:00:00+08:00"}),
        (SEED, {"published_at": "2027-01-01T00:00:00+08:00"}),
        (SEED, {"published_at": "today"}),
        (SEED, {"source": "  \n "}),
        ("1" * 201, {}),
    ):
        with pytest.raises(InvalidAnswer, match="The random seed was refused: "):
            company.enter(seed, **more)
    assert refused(company) == ["none", "older", "future", "no_time", "no_source", "long"]
    company.enter()
    record = company.draw()
    assert [finding.code for finding in record.findings] == ["sampling.seeds_refused"]
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
def test_seed_form_input_with_invalid_characters_or_time_is_refused_and_refusal_is_recorded(
    company: Company, more: dict[str, Any]
) -> None:
    """The input includes characters that a database cannot store."""
    company.run_to_commitment()
    with pytest.raises(InvalidAnswer, match="The random seed was refused: "):
        company.enter(**({"seed": SEED} | more))
    assert len(refused(company)) == 1


def test_invisible_characters_in_source_of_seed_are_made_visible(company: Company) -> None:
    """The report prints the source, and a direction mark could falsify what people read."""
    company.run_to_commitment()
    company.enter(source="page\u202e 1\x00\ud800\n of\ttoday")
    with company.engine.connect() as conn:
        seed = register.seed_of(conn, Run(DAG, "r1"))
    assert seed is not None
    assert seed.source == "page· 1·· of today"


@pytest.mark.parametrize("option", [ENTER, CANCEL])
def test_seed_or_cancellation_by_user_who_is_no_auditor_is_refused(
    company: Company, option: str
) -> None:
    """An administrator may answer in Airflow, but may neither enter a seed nor cancel the draw."""
    company.run_to_commitment()
    with pytest.raises(
        InvalidAnswer, match="refused: the person who entered the random seed is not an auditor"
    ):
        company.enter(option=option, user="admin")
    assert refused(company) == ["stranger"]
    assert company.enter().data["decided_by"] == AUDITOR
    assert company.draw().outcome is Outcome.ATTENTION


def test_seed_that_was_used_in_another_run_is_refused(company: Company) -> None:
    """A seed that an earlier run used was known before this run's commitment."""
    company.run("r1")
    company.run_to_commitment("r2", "2026Q2")
    with pytest.raises(InvalidAnswer, match="an earlier draw used the same seed"):
        company.enter(SEED, "r2")
    assert refused(company, "r2") == ["used"]
    company.enter(OTHER, "r2")


def test_seed_that_was_refused_in_another_run_is_accepted(company: Company) -> None:
    """No sample was drawn with the refused seed."""
    company.run_to_commitment("r1")
    with pytest.raises(InvalidAnswer):
        company.enter(SEED, "r1", source="")
    company.run_to_commitment("r2", "2026Q2")
    assert company.enter(SEED, "r2").data["seed"] is True


def test_repeated_entry_of_same_seed_is_recorded_only_once(company: Company) -> None:
    """Airflow repeats the answer if it retries a task that was killed after recording the seed."""
    company.run_to_commitment()
    entered = company.enter()
    published = company.published_at()
    company.now += timedelta(minutes=1)
    form = {"seed": SEED, "source": "another page", "published_at": published}
    repeated = company.submit_answer(ENTER, form, OTHER_AUDITOR, company.now)
    assert repeated == entered
    with company.engine.connect() as conn:
        (row,) = conn.execute(select(audit_seed)).all()
    assert (row.entered_by, row.source) == (AUDITOR, "the exchange's page")


def test_second_seed_of_same_run_raises_control_failed_and_first_seed_is_used(
    company: Company,
) -> None:
    """A second seed would allow a choice between samples."""
    company.run_to_commitment()
    company.enter()
    with pytest.raises(ControlFailed, match="already has a seed"):
        company.enter(OTHER)
    company.draw()
    assert SEED.encode() in company.artifacts()[SEED_FILE]


def test_seed_with_future_publication_time_stays_refused_if_answer_is_repeated_after_that_time(
    company: Company,
) -> None:
    """A time of publication in the future is still refused after that time has passed."""
    company.run_to_commitment()
    published = (company.now + timedelta(hours=3)).isoformat()
    form = {"seed": SEED, "source": "the exchange's page", "published_at": published}
    at = company.now + timedelta(hours=1)
    for later in (1, 4):
        company.now += timedelta(hours=later)
        with pytest.raises(InvalidAnswer, match="refused: the time of publication"):
            company.submit_answer(ENTER, form, AUDITOR, at)
    assert refused(company) == ["future"]
    with company.engine.connect() as conn:
        assert register.seed_of(conn, Run(DAG, "r1")) is None


def test_same_seed_in_concurrent_runs_is_accepted_by_one_run_only(company: Company) -> None:
    """The other run refuses the seed and needs another one."""
    company.run_to_commitment("r1")
    company.run_to_commitment("r2", "2026Q2")
    company.now += timedelta(hours=2)
    form = {"seed": SEED, "source": "s", "published_at": company.published_at()}
    outcomes: dict[str, Any] = {}

    def enter(run: str) -> None:
        try:
            outcomes[run] = company.submit_answer(ENTER, form, AUDITOR, company.now, run)
        except InvalidAnswer as error:
            outcomes[run] = error

    with company.engine.connect() as blocker:
        blocker.execute(text("LOCK TABLE audit_seed IN SHARE ROW EXCLUSIVE MODE"))
        threads = [threading.Thread(target=enter, args=(run,)) for run in ("r1", "r2")]
        for thread in threads:
            thread.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while blocker.scalar(waiting) < 2:
            pass
        blocker.rollback()
    for thread in threads:
        thread.join()
    (loser,) = [run for run, outcome in outcomes.items() if isinstance(outcome, InvalidAnswer)]
    (winner,) = set(outcomes) - {loser}
    assert "an earlier draw used the same seed" in str(outcomes[loser])
    assert refused(company, loser) == ["used"]
    assert outcomes[winner].data["seed"] is True


# -- runs -----------------------------------------------------------------------------------------


def test_second_audit_run_for_quarter_draws_nothing(company: Company) -> None:
    """A second sample of a quarter would allow a choice between samples."""
    first = company.run("r1")
    company.fill_log(400)
    assert company.begin("r2").findings == []
    for name in ("openings", "branches"):
        record = company.freeze(name, "r2")
        assert [finding.code for finding in record.findings] == ["sampling.drawn_before"]
        assert record.data == {"frame": None, "drawn_by": "r1"}
        assert not company.frame_path(name, "r2").exists()
    assert company.commit("r2") is None
    assert company.draw("r2").data["drawn"] == {}
    concluded = company.conclude("r2")
    assert concluded.outcome is Outcome.ATTENTION
    assert concluded.facts[0].value == 2
    assert concluded.facts[0].status is Outcome.PASS
    assert redraw(DiskFolder(company.root / first.path)).matches


def test_run_cancelled_after_commitment_is_reported_by_next_run(company: Company) -> None:
    """By cancelling after the seed is public, a person could choose the sample."""
    company.run_to_commitment("r1")
    company.enter(run="r1", option=CANCEL)
    record = company.begin("r2")
    assert [finding.code for finding in record.findings] == ["sampling.committed_before"]
    assert record.data["earlier"] == ["r1"]
    assert company.begin("r3", "2026Q2").findings == []


def test_concurrent_audits_of_two_quarters_have_separate_seeds_and_verifiable_samples(
    company: Company,
) -> None:
    """Each quarter has its own frames, commitment, seed and samples."""
    third, second = company.run_to_commitment("r1"), company.run_to_commitment("r2", "2026Q2")
    company.enter(OTHER, "r2")
    company.enter(SEED, "r1")
    company.draw("r1")
    company.draw("r2")
    sealed = {run: company.seal(run) for run in ("r1", "r2")}
    redraws = {
        run: redraw(DiskFolder(company.root / bundle.path)) for run, bundle in sealed.items()
    }
    assert {
        run: (result.audit, result.seed, result.matches) for run, result in redraws.items()
    } == {
        "r1": ("2026Q3", SEED, True),
        "r2": ("2026Q2", OTHER, True),
    }
    assert (third.populations[0].items, second.populations[0].items) == (200, 90)


def test_only_one_of_two_concurrent_runs_for_a_quarter_draws_samples(company: Company) -> None:
    """The run that draws later stores no sample."""
    for run in ("r1", "r2"):
        company.run_to_commitment(run)
    company.enter(SEED, "r1")
    company.enter(OTHER, "r2")
    outcomes: dict[str, Any] = {}

    def draw(run: str) -> None:
        try:
            outcomes[run] = step_record(DRAW, company.context(run))
        except ControlFailed as error:
            outcomes[run] = error

    with company.engine.connect() as blocker:
        blocker.execute(text("LOCK TABLE audit_sample IN SHARE ROW EXCLUSIVE MODE"))
        threads = [threading.Thread(target=draw, args=(run,)) for run in ("r1", "r2")]
        for thread in threads:
            thread.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while blocker.scalar(waiting) < 2:
            pass
        blocker.rollback()
    for thread in threads:
        thread.join()
    (winner,) = set(drawn_by(company).values())
    (loser,) = {"r1", "r2"} - {winner}
    assert "Another run has drawn all samples" in str(outcomes[loser])
    assert outcomes[winner].outcome is Outcome.PASS
    files = company.artifacts(loser)
    assert not [name for name in files if name.startswith(("samples/", "workpapers"))]
    assert company.draw(winner) == outcomes[winner]


def test_run_draws_samples_of_remaining_populations_if_another_run_drew_one_sample(
    company: Company,
) -> None:
    """No other run can draw this run's remaining populations."""
    company.run_to_commitment("r1")
    company.enter(SEED, "r1")
    company.use_populations(by_branch())
    company.run_to_commitment("r2")
    company.enter(OTHER, "r2")
    company.draw("r2")
    company.use_populations(population(), by_branch())
    record = company.draw("r1")
    assert record.outcome is Outcome.FAIL
    (finding,) = record.findings
    assert (finding.code, finding.subject) == ("sampling.drawn_meanwhile", "branches")
    assert set(record.data["drawn"]) == {"openings"}
    assert record.data["drawn_by"] == {"branches": "r2"}
    assert drawn_by(company) == {"openings": "r1", "branches": "r2"}
    files = company.artifacts("r1")
    assert {SEED_FILE, WORKPAPERS_FILE, "samples/openings.json"} <= set(files)
    assert "samples/branches.json" not in files
    concluded = company.conclude("r1")
    assert concluded.outcome is Outcome.FAIL
    (metric,) = [
        metric for metric in concluded.metrics if metric.name == "populations_without_sample"
    ]
    assert metric.value == 0
    assert company.draw("r1") == record


def test_first_commitment_of_run_is_kept_if_second_commitment_is_recorded(company: Company) -> None:
    at = datetime(2026, 10, 5, 1, tzinfo=UTC)
    first = CommitmentLocation(bundle="one", sums_sha256="1" * 64, sealed_at=at)
    run = Run(DAG, "r1")
    with company.engine.begin() as conn:
        register.record_commitment(conn, run, "2026Q3", "a" * 64, first)
        other = first.model_copy(update={"bundle": "two", "sealed_at": at + timedelta(days=1)})
        register.record_commitment(conn, run, "2026Q3", "b" * 64, other)
        assert register.commitment_of(conn, run) is None  # the evidence ledger has no such bundle
        assert register.commitments_before(conn, "2026Q3", run) == []
        (before,) = register.commitments_before(conn, "2026Q3", Run(DAG, "r2"))
    assert (before.run_id, before.at) == ("r1", at)


def test_causes_of_seed_refusal_are_exactly_the_nine_expected_values() -> None:
    """The test fails if a cause is added, because the report needs a message for each cause."""
    assert {cause.value for cause in samples.SeedRefusalCause} == {
        "none", "long", "unreadable", "no_source", "no_time", "older", "future", "used",
        "stranger",
    }  # fmt: skip
