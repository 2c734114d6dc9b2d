"""Tests of a complete audit without Airflow: samples come only from frozen populations."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from sqlalchemy import text

from include.approvals.required_action import Answer, InvalidAnswer
from include.evidence.folder import DiskFolder
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, keep_artifact, record_step
from include.sampling import register
from include.sampling.commitment import Commitment, plan_for
from include.sampling.rules import COMMITMENT_FILE, SEED_FILE, WORKPAPERS_FILE
from include.sampling.samples import Sample
from include.sampling.seed_entry import CANCEL, ENTER, store_seed
from include.sampling.seed_entry import SEED as SEED_STEP
from include.sampling.verify import redraw
from include.sampling.workpapers.form import MOST_ITEMS
from include.services.errors import ControlFailed, ServiceError, UsageError
from include.services.objectstore.base import ObjectMissing
from tests.sampling.company import AUDITOR, DAG, SEED, Company, by_branch, population

SAMPLES = {"samples/openings.json", "samples/branches.json"}
FRAMES = {"frames/openings.tsv", "frames/branches.tsv"}


def codes(record: Any) -> list[str]:
    return [finding.code for finding in record.findings]


def sample_of(company: Company, name: str, run: str = "r1") -> Sample:
    return Sample.model_validate_json(company.artifacts(run)[f"samples/{name}.json"])


def test_sealed_bundle_of_run_contains_sampling_frames_and_samples_and_workpapers(
    company: Company,
) -> None:
    """The draw can be repeated from the evidence bundle."""
    sealed = company.run()
    folder = DiskFolder(company.root / sealed.path)
    assert folder.names() == {
        *FRAMES, *SAMPLES, COMMITMENT_FILE, SEED_FILE, WORKPAPERS_FILE,
        "result.json", "signer.pem", "SHA256SUMS", "SHA256SUMS.sig",
    }  # fmt: skip
    result = redraw(folder)
    assert (result.matches, result.audit, result.seed) == (True, "2026Q3", SEED)
    assert {redrawn.population: redrawn.items for redrawn in result.populations} == {
        "openings": 200,
        "branches": 200,
    }
    assert company.conclude().outcome is Outcome.PASS
    for name in ("openings", "branches"):
        drawn = sample_of(company, name)
        lines = company.frame_path(name).read_text().splitlines()
        for item in drawn.items:
            assert lines[item.line - 1].split("\t")[0] == item.key


def test_commitment_is_sealed_before_seed_is_entered(company: Company) -> None:
    """The commitment has a separate bundle, which the next bundle of the chain references."""
    commitment = company.run_to_commitment()
    (bundle,) = (path.parent for path in company.root.rglob("SHA256SUMS.sig"))
    assert (bundle / COMMITMENT_FILE).read_bytes() == commitment.to_bytes()
    assert bundle.relative_to(company.root).as_posix().startswith("sample_commitment/2026/10/")
    assert commitment.seed_source == "Tomorrow's index"
    company.enter()
    company.draw()
    seed = json.loads(company.artifacts()[SEED_FILE])
    assert seed["commitment"]["bundle"] == bundle.relative_to(company.root).as_posix()
    assert (seed["entered_by"], seed["source"]) == (AUDITOR, "the exchange's page")


def test_repetition_of_each_audit_step_gives_the_same_records_and_files(company: Company) -> None:
    """If Airflow retries tasks, the records, rows and files are the same."""
    first: list[Any] = [company.begin(), company.freeze("openings"), company.freeze("branches")]
    assert [company.begin(), company.freeze("openings"), company.freeze("branches")] == first
    commitment = company.commit()
    assert company.commit() == commitment
    assert len(list(company.root.rglob("SHA256SUMS.sig"))) == 1
    entered = company.enter()
    at, published = company.now, company.published_at()
    form = {"seed": SEED, "source": "the exchange's page", "published_at": published}
    repeated = company.submit_answer(ENTER, form, AUDITOR, at)
    assert repeated == entered
    drawn, files, before = company.draw(), company.artifacts(), company.state_rows()
    assert company.draw() == drawn
    assert company.artifacts() == files
    assert {k: v for k, v in company.state_rows().items() if k != "run_step"} == {
        k: v for k, v in before.items() if k != "run_step"
    }


def test_freeze_raises_control_failed_after_commitment_and_sampling_frame_is_unchanged(
    company: Company,
) -> None:
    """The committed frame is kept, and the run can draw from it."""
    commitment = company.run_to_commitment()
    frame = company.frame_path("openings").read_bytes()
    company.fill_log(50)
    with pytest.raises(ControlFailed, match="no population can be frozen"):
        company.freeze("openings")
    assert company.frame_path("openings").read_bytes() == frame
    company.enter()
    company.draw()
    assert sample_of(company, "openings").frame_sha256 == commitment.populations[0].sha256


def test_draw_succeeds_if_table_is_dropped_after_commitment(company: Company) -> None:
    """The draw works even if the table is dropped after the commitment."""
    company.run_to_commitment()
    company.sql("DROP TABLE log")
    try:
        company.enter()
        assert company.draw().outcome is Outcome.PASS
        assert len(sample_of(company, "openings").items) > 10
    finally:
        company.sql("CREATE TABLE log (id bigint PRIMARY KEY, branch text, seen_at timestamptz)")


def test_draw_raises_error_if_sampling_frame_was_edited_or_deleted_after_commitment(
    company: Company,
) -> None:
    """No sample of the population with the edited frame is stored."""
    company.run_to_commitment()
    company.enter()
    path = company.frame_path("openings")
    content = path.read_bytes()
    for edited in (content.replace(b"17\n", b"71\n", 1), content[:-4], content + b"201\n"):
        path.write_bytes(edited)
        with pytest.raises(ControlFailed, match="was changed after the commitment"):
            company.draw()
    assert "samples/openings.json" not in company.artifacts()
    path.unlink()
    with pytest.raises(ObjectMissing):
        company.draw()
    path.write_bytes(content)
    assert company.draw().outcome is Outcome.PASS


def test_draw_raises_control_failed_if_commitment_in_state_database_was_edited(
    company: Company,
) -> None:
    """The digest in the sealed bundle decides, and not the file in the state database."""
    commitment = company.run_to_commitment()
    company.enter()
    edited = commitment.to_bytes().replace(b'"n": ', b'"n":  ', 1)
    assert edited != commitment.to_bytes()
    with company.engine.begin() as conn:
        keep_artifact(conn, DAG, "r1", COMMITMENT_FILE, edited)
    with pytest.raises(ControlFailed, match="differs from the one that was sealed"):
        company.draw()


def test_draw_raises_control_failed_if_frame_and_commitment_were_replaced_consistently(
    company: Company,
) -> None:
    """The draw is refused even if frame, commitment and step record were changed consistently."""
    company.run_to_commitment()
    company.enter()
    folder = company.context().unsealed_folder
    lines = (
        (company.root / folder.bundle / "frames" / "openings.tsv").read_bytes().splitlines()[:-10]
    )
    frame = b"\n".join(lines) + b"\n"
    with folder.writer("frames/openings.tsv") as writer:
        writer.write(frame)
        writer.commit()
    commitment = Commitment.model_validate_json(company.artifacts()[COMMITMENT_FILE])
    (old,) = [item for item in commitment.populations if item.population == "openings"]
    strata = {"": len(lines)}
    plan = plan_for("single", old.tolerable, old.expected, old.confidence, strata, stratified=False)
    digest = hashlib.sha256(frame).hexdigest()
    new = old.model_copy(
        update={"sha256": digest, "items": len(lines), "strata": strata, "plan": plan}
    )
    populations = tuple(new if item == old else item for item in commitment.populations)
    content = commitment.model_copy(update={"populations": populations}).to_bytes()
    record = company.context().records().find("commit")
    assert record is not None
    record.data["sha256"] = hashlib.sha256(content).hexdigest()
    with company.engine.begin() as conn:
        keep_artifact(conn, DAG, "r1", COMMITMENT_FILE, content)
        record_step(conn, DAG, "r1", record, company.context().clock)
    with pytest.raises(ControlFailed, match="differs from the one that was sealed"):
        company.draw()


def test_freeze_raises_control_failed_if_same_items_were_drawn_under_another_population_id(
    company: Company,
) -> None:
    """A second sample of the same items would allow a choice between samples."""
    company.use_populations(population("openings"))
    company.run("r1")
    company.use_populations(population("openings2"))
    record = company.begin("r2")
    assert [finding.code for finding in record.findings] == []
    with pytest.raises(ControlFailed, match="The run r1 drew exactly these items"):
        company.freeze("openings2", "r2")


def test_commitment_is_unchanged_after_it_is_written_and_read(company: Company) -> None:
    """The form and the check of its answer therefore compute the same digest."""
    committed = company.run_to_commitment()
    content = company.artifacts()[COMMITMENT_FILE]
    assert Commitment.model_validate_json(content).to_bytes() == content == committed.to_bytes()


@pytest.mark.parametrize("option", [ENTER, CANCEL])
def test_seed_answer_raises_invalid_answer_if_form_showed_another_commitment(
    company: Company, option: str
) -> None:
    """Nothing is stored, and the form is shown again. The same applies to a cancellation."""
    company.run_to_commitment()
    run = company.context()
    form = {"seed": SEED, "source": "page", "published_at": company.published_at()}
    for content in ("", "0" * 64):
        answer = Answer(option, "", AUDITOR, company.now, texts=form, content=content)
        with pytest.raises(InvalidAnswer, match="differs from the commitment of this run"):
            store_seed(run, StepFindings(SEED_STEP.name, SEED_STEP.clause), answer)
    with company.engine.connect() as conn:
        assert register.seed_of(conn, run.run) is None
        assert register.refusals_of(conn, run.run) == []


def test_draw_raises_control_failed_if_run_has_no_seed(company: Company) -> None:
    """The draw is refused even if a person marks the seed task as successful in Airflow."""
    company.run_to_commitment()
    with pytest.raises(ControlFailed, match="no random seed"):
        company.draw()
    assert "drawn" not in str(company.artifacts().keys())
    assert SAMPLES.isdisjoint(company.artifacts())


@pytest.mark.parametrize(
    ("option", "user", "code"),
    [
        (CANCEL, AUDITOR, "sampling.cancelled"),
        ("", None, "sampling.no_seed"),
        (ENTER, None, "sampling.no_seed"),
    ],
)
def test_run_without_seed_draws_nothing_and_fails(
    company: Company, option: str, user: str | None, code: str
) -> None:
    """Nobody answered in time, or an auditor cancelled. The texts in the form do not matter."""
    company.run_to_commitment()
    record = company.enter(option=option, user=user)
    assert (codes(record), record.outcome) == ([code], Outcome.FAIL)
    assert company.draw().data["drawn"] == {}
    assert SAMPLES.isdisjoint(company.artifacts())
    concluded = company.conclude()
    assert concluded.outcome is Outcome.FAIL
    (metric,) = [
        metric for metric in concluded.metrics if metric.name == "populations_without_sample"
    ]
    assert metric.value == 2
    assert set(concluded.stored) == FRAMES


def test_empty_population_is_reported_and_samples_of_other_populations_are_drawn(
    company: Company,
) -> None:
    """A population without items may mean that its log was not written."""
    empty = population("none", sql="SELECT id FROM log WHERE false")
    company.use_populations(empty, population())
    commitment = company.run_to_commitment()
    record = company.context().records().find("freeze", "none")
    assert record is not None
    assert (codes(record), record.data["frame"]) == (["sampling.empty"], None)
    assert [metric.value for metric in record.metrics] == [0]
    assert [frame.population for frame in commitment.populations] == ["openings"]
    company.enter()
    company.draw()
    sealed = company.seal()
    assert company.conclude().outcome is Outcome.ATTENTION
    assert DiskFolder(company.root / sealed.path).names() & FRAMES == {"frames/openings.tsv"}


def test_run_with_only_empty_populations_seals_no_commitment_and_draws_no_sample(
    company: Company,
) -> None:
    company.use_populations(population(sql="SELECT id FROM log WHERE false"))
    company.begin()
    company.freeze("openings")
    assert company.commit() is None
    assert company.draw().data["drawn"] == {}
    assert company.conclude().outcome is Outcome.ATTENTION


def test_other_populations_are_drawn_if_sql_of_one_population_fails(company: Company) -> None:
    """The report counts the population among the populations without a sample."""
    company.use_populations(population("broken", sql="SELECT id FROM nowhere"), population())
    company.begin()
    with pytest.raises(UsageError):
        company.freeze("broken")
    company.freeze("openings")
    company.commit()
    company.enter()
    assert set(company.draw().data["drawn"]) == {"openings"}
    (metric,) = [
        metric
        for metric in company.conclude().metrics
        if metric.name == "populations_without_sample"
    ]
    assert metric.value == 1


def test_commitment_raises_usage_error_if_samples_would_have_too_many_items(
    company: Company,
) -> None:
    """The refusal comes before the seed is known, while the sampling plan can still be changed."""
    many = f"SELECT g AS id FROM generate_series(1, {2 * MOST_ITEMS}) AS g"
    company.use_populations(population(sql=many, tolerable="1/1000000"))
    company.begin()
    company.freeze("openings")
    with pytest.raises(UsageError, match="The samples would have"):
        company.commit()


def test_items_of_both_stages_are_drawn_in_one_step(company: Company) -> None:
    """The items of the second stage are fixed together with those of the first stage."""
    company.use_populations(by_branch(plan="staged", tolerable="30%"))
    commitment = company.run_to_commitment()
    company.enter()
    size = company.draw().data["drawn"]["branches"]
    drawn = sample_of(company, "branches")
    assert commitment.populations[0].plan.stages == 2
    assert size["items"] == len(drawn.of_stage(1)) == len(drawn.of_stage(2))
    assert {item.stage for item in drawn.items} == {1, 2}


def test_freeze_raises_control_failed_if_record_of_populations_step_is_missing(
    company: Company,
) -> None:
    """The first step is missing if a person starts the task by hand."""
    with pytest.raises(
        ControlFailed, match="The choice of quarter and populations is missing in this run"
    ):
        company.freeze("openings")
    with pytest.raises(UsageError, match="has not ended"):
        company.begin(quarter="2026Q4")
    assert company.begin().data["audit"] == "2026Q3"


def test_failed_freeze_leaves_state_database_unchanged(company: Company) -> None:
    """Airflow can therefore retry the task."""
    company.begin()
    before = company.state_rows()
    company.sql("ALTER TABLE log RENAME TO away")
    try:
        with pytest.raises((UsageError, ServiceError)):
            company.freeze("openings")
    finally:
        company.sql("ALTER TABLE away RENAME TO log")
    assert company.state_rows() == before
    with company.engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM audit_commitment")).scalar() == 0
