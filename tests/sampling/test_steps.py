"""A whole audit without Airflow: what is frozen is drawn, whatever happens in between."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from sqlalchemy import text

from include.approvals.question import Answer, AskAgain
from include.evidence.folder import DiskFolder
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, keep_artifact, record_step
from include.sampling import register
from include.sampling.commitment import Commitment, plan_for
from include.sampling.rules import COMMITMENT_FILE, SEED_FILE, WORKPAPERS_FILE
from include.sampling.samples import Sample
from include.sampling.seed_entry import CANCEL, ENTER, take_seed
from include.sampling.seed_entry import SEED as SEED_STEP
from include.sampling.verify import redraw
from include.sampling.workpapers.form import MOST_ITEMS
from include.services.errors import ControlFailed, ServiceError, UsageError
from include.services.objectstore.base import ObjectMissing
from tests.sampling.rig import AUDITOR, DAG, SEED, Rig, by_branch, population

SAMPLES = {"samples/openings.json", "samples/branches.json"}
FRAMES = {"frames/openings.tsv", "frames/branches.tsv"}


def codes(record: Any) -> list[str]:
    return [one.code for one in record.findings]


def sample_of(rig: Rig, name: str, run: str = "r1") -> Sample:
    return Sample.model_validate_json(rig.artifacts(run)[f"samples/{name}.json"])


def test_a_run_leaves_frames_samples_and_workpapers_in_one_bundle(rig: Rig) -> None:
    """And whoever has that bundle draws the same again."""
    sealed = rig.run()
    folder = DiskFolder(rig.root / sealed.path)
    assert folder.names() == {
        *FRAMES, *SAMPLES, COMMITMENT_FILE, SEED_FILE, WORKPAPERS_FILE,
        "result.json", "signer.pem", "SHA256SUMS", "SHA256SUMS.sig",
    }  # fmt: skip
    found = redraw(folder)
    assert (found.holds, found.audit, found.seed) == (True, "2026Q3", SEED)
    assert {one.population: one.items for one in found.populations} == {
        "openings": 200,
        "branches": 200,
    }
    assert rig.conclude().outcome is Outcome.PASS
    for name in ("openings", "branches"):
        drawn = sample_of(rig, name)
        lines = rig.frame_path(name).read_text().splitlines()
        for one in drawn.items:
            assert lines[one.line - 1].split("\t")[0] == one.key


def test_the_commitment_is_sealed_before_anybody_knows_the_seed(rig: Rig) -> None:
    """In a bundle of its own, which the next one of the chain names."""
    made = rig.committed()
    (bundle,) = (one.parent for one in rig.root.rglob("SHA256SUMS.sig"))
    assert (bundle / COMMITMENT_FILE).read_bytes() == made.to_bytes()
    assert bundle.relative_to(rig.root).as_posix().startswith("sample_commitment/2026/10/")
    assert made.seed_source == "Tomorrow's index"
    rig.enter()
    rig.draw()
    seed = json.loads(rig.artifacts()[SEED_FILE])
    assert seed["commitment"]["bundle"] == bundle.relative_to(rig.root).as_posix()
    assert (seed["entered_by"], seed["source"]) == (AUDITOR, "the exchange's page")


def test_steps_that_are_repeated_change_nothing(rig: Rig) -> None:
    """As Airflow repeats tasks: the same records, rows and files."""
    first: list[Any] = [rig.begin(), rig.freeze("openings"), rig.freeze("branches")]
    assert [rig.begin(), rig.freeze("openings"), rig.freeze("branches")] == first
    made = rig.commit()
    assert rig.commit() == made
    assert len(list(rig.root.rglob("SHA256SUMS.sig"))) == 1
    entered = rig.enter()
    at, published = rig.now, rig.published()
    again = {"seed": SEED, "source": "the exchange's page", "published_at": published}
    repeated = rig.take(ENTER, again, AUDITOR, at)
    assert repeated == entered
    drawn, files, before = rig.draw(), rig.artifacts(), rig.state_of()
    assert rig.draw() == drawn
    assert rig.artifacts() == files
    assert {k: v for k, v in rig.state_of().items() if k != "run_step"} == {
        k: v for k, v in before.items() if k != "run_step"
    }


def test_nothing_is_frozen_after_the_commitment(rig: Rig) -> None:
    """The frame stays the committed one, and the draw goes on."""
    made = rig.committed()
    frame = rig.frame_path("openings").read_bytes()
    rig.fill(50)
    with pytest.raises(ControlFailed, match="nothing can be frozen after it"):
        rig.freeze("openings")
    assert rig.frame_path("openings").read_bytes() == frame
    rig.enter()
    rig.draw()
    assert sample_of(rig, "openings").frame_sha256 == made.populations[0].sha256


def test_what_is_drawn_is_the_frozen_population(rig: Rig) -> None:
    """Whatever becomes of the table between commitment and draw."""
    rig.committed()
    rig.sql("DROP TABLE log")
    try:
        rig.enter()
        assert rig.draw().outcome is Outcome.PASS
        assert len(sample_of(rig, "openings").items) > 10
    finally:
        rig.sql("CREATE TABLE log (id bigint PRIMARY KEY, branch text, seen_at timestamptz)")


def test_a_frame_that_was_edited_is_not_drawn_from(rig: Rig) -> None:
    """Nor does anything of that population count as drawn."""
    rig.committed()
    rig.enter()
    path = rig.frame_path("openings")
    content = path.read_bytes()
    for edited in (content.replace(b"17\n", b"71\n", 1), content[:-4], content + b"201\n"):
        path.write_bytes(edited)
        with pytest.raises(ControlFailed, match="was changed after it was committed to"):
            rig.draw()
    assert "samples/openings.json" not in rig.artifacts()
    path.unlink()
    with pytest.raises(ObjectMissing):
        rig.draw()
    path.write_bytes(content)
    assert rig.draw().outcome is Outcome.PASS


def test_a_commitment_that_was_edited_is_not_drawn_from(rig: Rig) -> None:
    """The state database alone decides nothing: the digest was sealed."""
    made = rig.committed()
    rig.enter()
    edited = made.to_bytes().replace(b'"n": ', b'"n":  ', 1)
    assert edited != made.to_bytes()
    with rig.engine.begin() as conn:
        keep_artifact(conn, DAG, "r1", COMMITMENT_FILE, edited)
    with pytest.raises(ControlFailed, match="not the one that was sealed"):
        rig.draw()


def test_a_commitment_that_was_made_anew_after_the_seed_is_not_drawn_from(rig: Rig) -> None:
    """Frame, commitment and record all edited alike: what was sealed before the seed decides."""
    rig.committed()
    rig.enter()
    folder = rig.context().unsealed_folder
    lines = (rig.root / folder.bundle / "frames" / "openings.tsv").read_bytes().splitlines()[:-10]
    frame = b"\n".join(lines) + b"\n"
    with folder.writer("frames/openings.tsv") as writer:
        writer.write(frame)
        writer.commit()
    made = Commitment.model_validate_json(rig.artifacts()[COMMITMENT_FILE])
    (old,) = [one for one in made.populations if one.population == "openings"]
    strata = {"": len(lines)}
    plan = plan_for("single", old.tolerable, old.expected, old.confidence, strata, stratified=False)
    digest = hashlib.sha256(frame).hexdigest()
    new = old.model_copy(
        update={"sha256": digest, "items": len(lines), "strata": strata, "plan": plan}
    )
    others = tuple(new if one == old else one for one in made.populations)
    content = made.model_copy(update={"populations": others}).to_bytes()
    record = rig.context().records().find("commit")
    assert record is not None
    record.data["sha256"] = hashlib.sha256(content).hexdigest()
    with rig.engine.begin() as conn:
        keep_artifact(conn, DAG, "r1", COMMITMENT_FILE, content)
        record_step(conn, DAG, "r1", record, rig.context().clock)
    with pytest.raises(ControlFailed, match="not the one that was sealed"):
        rig.draw()


def test_a_population_under_another_name_is_not_drawn_again(rig: Rig) -> None:
    """The items are the same, and a second sample would be one to choose from."""
    rig.audit(population("openings"))
    rig.run("r1")
    rig.audit(population("openings2"))
    begun = rig.begin("r2")
    assert [one.code for one in begun.findings] == []
    with pytest.raises(ControlFailed, match="under another name, by the run r1"):
        rig.freeze("openings2", "r2")


def test_a_commitment_read_from_its_file_is_the_same_file(rig: Rig) -> None:
    """The question shows the digest of the one; the answer is compared with that of the other."""
    committed = rig.committed()
    content = rig.artifacts()[COMMITMENT_FILE]
    assert Commitment.model_validate_json(content).to_bytes() == content == committed.to_bytes()


@pytest.mark.parametrize("option", [ENTER, CANCEL])
def test_a_seed_counts_only_for_the_commitment_that_its_form_showed(rig: Rig, option: str) -> None:
    """Neither a seed nor a cancellation; it is asked for again and nothing is kept."""
    rig.committed()
    run = rig.context()
    given = {"seed": SEED, "source": "page", "published_at": rig.published()}
    for content in ("", "0" * 64):
        answer = Answer(option, "", AUDITOR, rig.now, given=given, content=content)
        with pytest.raises(AskAgain, match="not the one that the form showed"):
            take_seed(run, StepFindings(SEED_STEP.name, SEED_STEP.clause), answer)
    with rig.engine.connect() as conn:
        assert register.seed_of(conn, run.run) is None
        assert register.refusals_of(conn, run.run) == []


def test_nothing_is_drawn_without_a_seed(rig: Rig) -> None:
    """Whoever marks the question as done in Airflow wins nothing."""
    rig.committed()
    with pytest.raises(ControlFailed, match="There is no seed"):
        rig.draw()
    assert "drawn" not in str(rig.artifacts().keys())
    assert SAMPLES.isdisjoint(rig.artifacts())


@pytest.mark.parametrize(
    ("option", "user", "code"),
    [
        (CANCEL, AUDITOR, "sampling.cancelled"),
        ("", None, "sampling.no_seed"),
        (ENTER, None, "sampling.no_seed"),
    ],
)
def test_without_an_answer_the_quarter_has_no_sample(
    rig: Rig, option: str, user: str | None, code: str
) -> None:
    """Silence enters no seed, whatever stands in the form; the run is red."""
    rig.committed()
    record = rig.enter(option=option, user=user)
    assert (codes(record), record.outcome) == ([code], Outcome.FAIL)
    assert rig.draw().data["drawn"] == {}
    assert SAMPLES.isdisjoint(rig.artifacts())
    concluded = rig.conclude()
    assert concluded.outcome is Outcome.FAIL
    (metric,) = [one for one in concluded.metrics if one.name == "populations_without_sample"]
    assert metric.value == 2
    assert set(concluded.stored) == FRAMES


def test_a_population_without_items_is_said_and_hinders_no_other(rig: Rig) -> None:
    """Its log may not have been written."""
    none = population("none", sql="SELECT id FROM log WHERE false")
    rig.audit(none, population())
    made = rig.committed()
    record = rig.context().records().find("freeze", "none")
    assert record is not None
    assert (codes(record), record.data["frame"]) == (["sampling.empty"], None)
    assert [one.value for one in record.metrics] == [0]
    assert [one.population for one in made.populations] == ["openings"]
    rig.enter()
    rig.draw()
    sealed = rig.seal()
    assert rig.conclude().outcome is Outcome.ATTENTION
    assert DiskFolder(rig.root / sealed.path).names() & FRAMES == {"frames/openings.tsv"}


def test_where_nothing_is_frozen_nothing_is_committed_to(rig: Rig) -> None:
    """Nobody is asked for a seed, and the draw has nothing to do."""
    rig.audit(population(sql="SELECT id FROM log WHERE false"))
    rig.begin()
    rig.freeze("openings")
    assert rig.commit() is None
    assert rig.draw().data["drawn"] == {}
    assert rig.conclude().outcome is Outcome.ATTENTION


def test_one_population_whose_sql_fails_hinders_no_other(rig: Rig) -> None:
    """It has no sample, and the run is red for that; the other is drawn."""
    rig.audit(population("broken", sql="SELECT id FROM nowhere"), population())
    rig.begin()
    with pytest.raises(UsageError):
        rig.freeze("broken")
    rig.freeze("openings")
    rig.commit()
    rig.enter()
    assert set(rig.draw().data["drawn"]) == {"openings"}
    (metric,) = [one for one in rig.conclude().metrics if one.name == "populations_without_sample"]
    assert metric.value == 1


def test_more_items_than_anybody_could_look_at_are_not_committed_to(rig: Rig) -> None:
    """Before the seed, when the plan can still be changed."""
    many = f"SELECT g AS id FROM generate_series(1, {2 * MOST_ITEMS}) AS g"
    rig.audit(population(sql=many, tolerable="1/1000000"))
    rig.begin()
    rig.freeze("openings")
    with pytest.raises(UsageError, match="would have to be looked at"):
        rig.commit()


def test_two_stages_are_drawn_and_the_first_one_is_issued(rig: Rig) -> None:
    """The second one stands in the sample already, so that nobody chooses it later."""
    rig.audit(by_branch(plan="staged", tolerable="30%"))
    made = rig.committed()
    rig.enter()
    told = rig.draw().data["drawn"]["branches"]
    drawn = sample_of(rig, "branches")
    assert made.populations[0].plan.stages == 2
    assert told["items"] == len(drawn.of_stage(1)) == len(drawn.of_stage(2))
    assert {one.stage for one in drawn.items} == {1, 2}


def test_a_run_has_a_quarter_before_anything_else(rig: Rig) -> None:
    """A task that was started by hand says so."""
    with pytest.raises(ControlFailed, match="The beginning is missing in this run"):
        rig.freeze("openings")
    with pytest.raises(UsageError, match="not over"):
        rig.begin(asked="2026Q4")
    assert rig.begin().data["audit"] == "2026Q3"


def test_a_server_that_goes_away_leaves_the_state_as_it_was(rig: Rig) -> None:
    """The task is repeated."""
    rig.begin()
    before = rig.state_of()
    rig.sql("ALTER TABLE log RENAME TO away")
    try:
        with pytest.raises((UsageError, ServiceError)):
            rig.freeze("openings")
    finally:
        rig.sql("ALTER TABLE away RENAME TO log")
    assert rig.state_of() == before
    with rig.engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM audit_commitment")).scalar() == 0
