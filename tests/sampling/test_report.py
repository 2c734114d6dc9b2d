"""What the report of an audit says, from what the steps of a run left."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from include.approvals.question import AskAgain
from include.evidence.model import Outcome, StepRecord
from include.messages import Message
from include.reports.i18n import Translator
from include.reports.model import Code, Paragraph, Steps, Table
from include.sampling import commitment
from include.sampling.workflow import SAMPLE_AUDIT
from include.services.errors import ParcelSealError
from tests.sampling.rig import SEED, Rig, population

ENGLISH = Translator("en", "Asia/Shanghai")


def said(concluded: Any, english: Translator = ENGLISH) -> str:
    """Every text of a conclusion."""
    texts = [english.text(concluded.title), english.text(concluded.summary)]
    for section in concluded.sections:
        texts.append(english.text(section.heading))
        for block in section.blocks:
            match block:
                case Table():
                    rows = [[one.label for one in block.columns], *block.rows]
                    texts += [english.value(cell) for row in rows for cell in row]
                case Paragraph():
                    texts.append(english.text(block.text))
                case Code():
                    texts += block.lines
                case Steps():
                    texts += map(english.text, block.items)
    return "\n".join(texts)


def metric(concluded: Any, name: str = "populations_without_sample") -> Any:
    (found,) = [one for one in concluded.metrics if one.name == name]
    return found.value


def test_a_whole_run_says_that_nobody_knew_the_seed(rig: Rig) -> None:
    """Populations, plans, seed, what came again, and how to check it."""
    rig.run()
    concluded = rig.conclude()
    assert (concluded.outcome, metric(concluded)) == (Outcome.PASS, 0)
    text = said(concluded)
    assert "Every population of 2026Q3 that has items was sampled" in text
    for words in (SEED, "the exchange's page", "./parcelseal sampling verify BUNDLE",
                  "workpapers.xlsx", "samples/openings.json", "Tomorrow's index"):  # fmt: skip
        assert words in text
    for frame, digest in concluded.stored.items():
        assert f"{digest}  {frame}" in text


def test_the_report_says_what_was_audited_and_by_when_workpapers_are_due(rig: Rig) -> None:
    """The quarter's days, the day and the command of the hand-in, the digest written down."""
    made = rig.committed()
    rig.now = datetime(2026, 10, 5, 15, tzinfo=UTC)  # entered two hours later: the 6th there
    rig.enter()
    rig.draw()
    concluded = rig.conclude()
    (fact,) = [one for one in concluded.facts if one.label.text == "Audited quarter"]
    assert (fact.value, ENGLISH.text(fact.note)) == ("2026Q3", "2026-07-01 to 2026-09-30")
    text = said(concluded)
    assert "by 2026-11-05: ./parcelseal sampling return workpapers.xlsx --by NAME" in text
    digest = hashlib.sha256(made.to_bytes()).hexdigest()
    assert f"{digest}  commitment.json" in text
    assert hashlib.sha256(rig.artifacts()["commitment.json"]).hexdigest() == digest


def test_a_plan_in_two_stages_says_both(rig: Rig) -> None:
    """How many items each stage has, and when the second one decides."""
    rig.audit(population(plan="staged"))
    made = rig.committed()
    rig.enter()
    rig.draw()
    plan = made.populations[0].plan
    assert plan.stages == 2
    text = said(rig.conclude())
    assert f"{plan.n} + {plan.n}" in text
    assert "0, or 1 and then 0" in text


def test_figures_of_the_report_are_those_of_the_samples(rig: Rig) -> None:
    """First stages alone are to be looked at."""
    made = rig.committed()
    rig.enter()
    drawn = rig.draw().data["drawn"]
    facts = {ENGLISH.text(one.label): one.value for one in rig.conclude().facts}
    assert facts["Populations sampled"] == 2
    assert facts["Items to look at"] == sum(one["items"] for one in drawn.values())
    assert facts["Items in the populations"] == sum(one.items for one in made.populations) == 400


def test_refused_seeds_are_listed_with_their_reason(rig: Rig) -> None:
    """Not what was entered, which may be anything."""
    rig.committed()
    with pytest.raises(AskAgain):
        rig.enter("12")
    rig.enter()
    rig.draw()
    text = said(rig.conclude())
    assert "the seed is empty or has fewer than 4 characters" in text


@pytest.mark.parametrize("stage", ["nothing", "begun", "frozen", "committed", "entered"])
def test_a_run_that_came_not_to_its_end_is_red(rig: Rig, stage: str) -> None:
    """Whichever step is missing, it is named; no figure says that all is well."""
    if stage != "nothing":
        rig.begin()
    if stage in ("frozen", "committed", "entered"):
        for name in ("openings", "branches"):
            rig.freeze(name)
    if stage in ("committed", "entered"):
        rig.commit()
    if stage == "entered":
        rig.enter()
    concluded = rig.conclude()
    assert concluded.outcome is Outcome.FAIL
    codes = {one.code for one in concluded.findings}
    assert "sampling.draw.missing" in codes
    assert ("sampling.seed.missing" in codes) is (stage == "committed")
    assert metric(concluded) == (None if stage == "nothing" else 2)
    assert "Nothing was drawn" in said(concluded)
    assert bool(concluded.stored) is (stage in ("committed", "entered"))


def test_a_population_that_failed_is_counted(rig: Rig) -> None:
    """One of two has its sample."""
    rig.audit(population(), population("broken", sql="SELECT id FROM nowhere"))
    rig.begin()
    rig.freeze("openings")
    with pytest.raises(ParcelSealError):
        rig.freeze("broken")
    rig.kept(StepRecord(step="freeze", part="broken", outcome=Outcome.FAIL))
    rig.commit()
    rig.enter()
    rig.draw()
    concluded = rig.conclude()
    assert metric(concluded) == 1
    assert "1 populations of 2026Q3 have their sample; 1 have none." in said(concluded)
    assert concluded.facts[0].status is Outcome.FAIL


def test_a_run_after_the_draw_says_that_it_stands(rig: Rig) -> None:
    """It has nothing to check and nothing to do next."""
    rig.run("r1")
    rig.begin("r2")
    for name in ("openings", "branches"):
        rig.freeze(name, "r2")
    rig.commit("r2")
    rig.draw("r2")
    concluded = rig.conclude("r2")
    assert (concluded.outcome, metric(concluded)) == (Outcome.ATTENTION, 0)
    assert "All samples of 2026Q3 were drawn before; they stand." in said(concluded)
    assert concluded.sections == []


def test_without_audit_yaml_the_report_says_so() -> None:
    """The beginning failed with it already."""
    failed = StepRecord(step="populations", part="", outcome=Outcome.FAIL)
    concluded = SAMPLE_AUDIT.conclude_without_rules([failed])
    assert concluded.outcome is Outcome.FAIL
    assert "has no audit.yaml" in said(concluded)


def test_the_commitment_says_what_can_be_drawn_before_anybody_can_know_it(rig: Rig) -> None:
    """Frames, digests, plans, and which public value will be the seed."""
    rig.begin()
    for name in ("openings", "branches"):
        rig.freeze(name)
    made = rig.commit()
    assert made is not None
    rules = rig.context().rules
    concluded = commitment.commitment_conclusion(made, "d" * 64, rules)
    text = said(concluded)
    assert concluded.outcome is Outcome.PASS
    assert metric(concluded, "sampling.populations_committed") == 2
    for one in made.populations:
        for words in (
            one.file,
            one.sha256,
            str(one.plan.n),
            commitment.percent_of(one.plan.achieved_risk),
        ):
            assert words in text
    assert "d" * 64 in text
    assert "Tomorrow's index" in text


@pytest.mark.parametrize(
    ("risk", "told"), [("0", "0%"), ("0.049123456789", "4.92%"), ("0.000000000001", "0.01%")]
)
def test_a_risk_is_never_told_too_low(risk: str, told: str) -> None:
    """Rounded up in the last place that is shown."""
    assert commitment.percent_of(risk) == told


def test_the_report_is_complete_in_chinese(rig: Rig) -> None:
    """Titles of the pack stand in its own words."""
    rig.run()
    chinese = Translator("zh_CN", "Asia/Shanghai")
    text = said(rig.conclude(), chinese)
    assert "查阅记录" in text
    assert isinstance(rig.conclude().title, Message)


def test_a_frame_that_was_edited_before_the_seal_is_sealed_as_it_is_and_told(rig: Rig) -> None:
    """The run is red with a bundle that says why, and the edited file is in it."""
    rig.committed()
    rig.enter()
    rig.draw()
    with rig.context().unsealed_folder.writer("frames/openings.tsv") as writer:
        writer.write(b"1\n2\n")
        writer.commit()
    concluded = rig.conclude()
    assert concluded.outcome is Outcome.FAIL
    assert "sampling.frame_changed" in [one.code for one in concluded.findings]
    sealed = rig.seal()
    assert (rig.root / sealed.path / "frames" / "openings.tsv").read_bytes() == b"1\n2\n"


def test_a_freezing_that_left_no_record_is_told(rig: Rig) -> None:
    """Somebody marked it as done; its population has no sample."""
    rig.begin()
    rig.freeze("openings")
    rig.commit()
    rig.enter()
    rig.draw()
    concluded = rig.conclude()
    missing = [one for one in concluded.findings if one.code == "sampling.freeze.missing"]
    assert [one.subject for one in missing] == ["branches"]
    assert concluded.outcome is Outcome.FAIL


def test_a_frame_that_was_removed_before_the_seal_is_told(rig: Rig) -> None:
    """What is gone is in no bundle, and the run is red."""
    rig.committed()
    folder = rig.context().unsealed_folder
    folder.store.delete(f"{folder.bundle}/frames/openings.tsv")
    assert "sampling.frame_changed" in [one.code for one in rig.conclude().findings]
    assert rig.seal().path
