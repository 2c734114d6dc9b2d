"""Tests of the report of `sample_audit`, which is built from the records of its steps."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from include.approvals.required_action import InvalidAnswer
from include.evidence.model import Outcome, StepRecord
from include.messages import Message, in_english
from include.reports.i18n import Translator
from include.reports.model import Code, Paragraph, Steps, Table
from include.sampling import commitment
from include.sampling.workflow import SAMPLE_AUDIT
from include.services.errors import ParcelSealError
from tests.sampling.company import SEED, Company, population

ENGLISH = Translator("en", "Asia/Shanghai")


def text_of(concluded: Any, english: Translator = ENGLISH) -> str:
    """Return all texts of a report in one string."""
    texts = [english.text(concluded.title), english.text(concluded.summary)]
    for section in concluded.sections:
        texts.append(english.text(section.heading))
        for block in section.blocks:
            match block:
                case Table():
                    rows = [[column.label for column in block.columns], *block.rows]
                    texts += [english.value(cell) for row in rows for cell in row]
                case Paragraph():
                    texts.append(english.text(block.text))
                case Code():
                    texts += block.lines
                case Steps():
                    texts += map(english.text, block.items)
    return "\n".join(texts)


def metric(concluded: Any, name: str = "populations_without_sample") -> Any:
    (figure,) = [candidate for candidate in concluded.metrics if candidate.name == name]
    return figure.value


def test_report_of_complete_run_shows_seed_and_verification_command(company: Company) -> None:
    """The report also shows populations, files, and the digests of the frames."""
    company.run()
    concluded = company.conclude()
    assert (concluded.outcome, metric(concluded)) == (Outcome.PASS, 0)
    text = text_of(concluded)
    assert "Every population with items in the third quarter of 2026 has a sample" in text
    for words in (SEED, "the exchange's page", "./parcelseal sampling verify BUNDLE",
                  "workpapers.xlsx", "Tomorrow's index"):  # fmt: skip
        assert words in text
    for frame, digest in concluded.stored.items():
        assert f"{digest}  {frame}" in text


def test_report_shows_quarter_and_due_date_of_workpapers(company: Company) -> None:
    """The report also shows the command to return workpapers, and the digest of the commitment."""
    committed = company.run_to_commitment()
    company.now = datetime(
        2026, 10, 5, 15, tzinfo=UTC
    )  # the seed is entered two hours later, on the 6th in Shanghai
    company.enter()
    company.draw()
    concluded = company.conclude()
    (fact,) = [fact for fact in concluded.facts if fact.label.text == "Audited quarter"]
    assert (ENGLISH.value(fact.value), ENGLISH.text(fact.note)) == (
        "third quarter of 2026",
        "2026-07-01 to 2026-09-30",
    )
    text = text_of(concluded)
    assert "to the data engineers by 2026-11-05" in text
    assert "./parcelseal sampling return workpapers.xlsx --by NAME" in text
    digest = hashlib.sha256(committed.to_bytes()).hexdigest()
    assert f"{digest}" in text
    assert hashlib.sha256(company.artifacts()["commitment.json"]).hexdigest() == digest


def test_report_of_staged_plan_shows_both_stages(company: Company) -> None:
    """The report shows the number of items in each stage, and the acceptable deviations."""
    company.use_populations(population(plan="staged"))
    committed = company.run_to_commitment()
    company.enter()
    company.draw()
    plan = committed.populations[0].plan
    assert plan.stages == 2
    text = text_of(company.conclude())
    assert f"{plan.n} + {plan.n}" in text
    assert "0 in the first stage; or 1 in the first stage and 0 in the second" in text


def test_report_contains_number_of_sample_items_in_first_stage(company: Company) -> None:
    committed = company.run_to_commitment()
    company.enter()
    drawn = company.draw().data["drawn"]
    facts = {ENGLISH.text(fact.label): fact.value for fact in company.conclude().facts}
    assert facts["Populations sampled"] == 2
    assert facts["Sample items to test"] == sum(size["items"] for size in drawn.values())
    assert (
        facts["Items in the populations"]
        == sum(frame.items for frame in committed.populations)
        == 400
    )


def test_report_contains_reason_why_a_seed_was_refused(company: Company) -> None:
    """The report does not show the text that was entered, because it may be any text."""
    company.run_to_commitment()
    with pytest.raises(InvalidAnswer):
        company.enter("12")
    company.enter()
    company.draw()
    text = text_of(company.conclude())
    assert "the seed is empty or has fewer than 4 characters" in text


@pytest.mark.parametrize("stage", ["nothing", "begun", "frozen", "committed", "entered"])
def test_report_fails_with_finding_about_missing_draw_step_if_no_sample_was_drawn(
    company: Company, stage: str
) -> None:
    """The report names the missing step, and no figure shows success."""
    if stage != "nothing":
        company.begin()
    if stage in ("frozen", "committed", "entered"):
        for name in ("openings", "branches"):
            company.freeze(name)
    if stage in ("committed", "entered"):
        company.commit()
    if stage == "entered":
        company.enter()
    concluded = company.conclude()
    assert concluded.outcome is Outcome.FAIL
    codes = {finding.code for finding in concluded.findings}
    assert "sampling.draw.missing" in codes
    assert ("sampling.seed.missing" in codes) is (stage == "committed")
    assert metric(concluded) == (None if stage == "nothing" else 2)
    assert "No sample was drawn" in text_of(concluded)
    assert bool(concluded.stored) is (stage in ("committed", "entered"))


def test_report_contains_number_of_populations_without_sample(company: Company) -> None:
    """One of the two populations has a sample; the SQL of the other fails."""
    company.use_populations(population(), population("broken", sql="SELECT id FROM nowhere"))
    company.begin()
    company.freeze("openings")
    with pytest.raises(ParcelSealError):
        company.freeze("broken")
    company.keep_record(StepRecord(step="freeze", part="broken", outcome=Outcome.FAIL))
    company.commit()
    company.enter()
    company.draw()
    concluded = company.conclude()
    assert metric(concluded) == 1
    assert (
        "Populations of the third quarter of 2026 with a sample: 1; without a sample: 1."
        in text_of(concluded)
    )
    assert concluded.facts[0].status is Outcome.FAIL


def test_report_of_second_run_for_quarter_refers_to_earlier_samples(company: Company) -> None:
    company.run("r1")
    company.begin("r2")
    for name in ("openings", "branches"):
        company.freeze(name, "r2")
    company.commit("r2")
    company.draw("r2")
    concluded = company.conclude("r2")
    assert (concluded.outcome, metric(concluded)) == (Outcome.ATTENTION, 0)
    assert (
        "All samples of the third quarter of 2026 were drawn by earlier runs and remain valid."
        in text_of(concluded)
    )
    assert concluded.sections == []


def test_report_fails_if_policy_pack_has_no_audit_rules() -> None:
    failed = StepRecord(step="populations", part="", outcome=Outcome.FAIL)
    concluded = SAMPLE_AUDIT.conclude_without_rules([failed])
    assert concluded.outcome is Outcome.FAIL
    assert "has no rules for audit samples" in text_of(concluded)


def test_commitment_report_contains_sampling_frames_sampling_plans_and_seed_source(
    company: Company,
) -> None:
    """The report also shows the digests of the frames."""
    company.begin()
    for name in ("openings", "branches"):
        company.freeze(name)
    committed = company.commit()
    assert committed is not None
    rules = company.context().rules
    concluded = commitment.commitment_conclusion(committed, "d" * 64, rules)
    text = text_of(concluded)
    assert concluded.outcome is Outcome.PASS
    assert metric(concluded, "sampling.populations_committed") == 2
    for frame in committed.populations:
        for words in (
            in_english(rules.population(frame.population).message),
            frame.sha256,
            str(frame.plan.n),
            commitment.percent_of(frame.plan.achieved_risk),
        ):
            assert words in text
    assert "d" * 64 in text
    assert "Tomorrow's index" in text


@pytest.mark.parametrize(
    ("risk", "percent"), [("0", "0%"), ("0.049123456789", "4.92%"), ("0.000000000001", "0.01%")]
)
def test_risk_as_percentage_is_rounded_up(risk: str, percent: str) -> None:
    assert commitment.percent_of(risk) == percent


def test_chinese_report_has_chinese_titles_of_policy_pack(company: Company) -> None:
    company.run()
    chinese = Translator("zh_CN", "Asia/Shanghai")
    text = text_of(company.conclude(), chinese)
    assert "查阅记录" in text
    assert isinstance(company.conclude().title, Message)


def test_report_fails_and_bundle_contains_edited_file_if_sampling_frame_was_edited_before_sealing(
    company: Company,
) -> None:
    """The run fails, and the evidence bundle contains the edited file."""
    company.run_to_commitment()
    company.enter()
    company.draw()
    with company.context().unsealed_folder.writer("frames/openings.tsv") as writer:
        writer.write(b"1\n2\n")
        writer.commit()
    concluded = company.conclude()
    assert concluded.outcome is Outcome.FAIL
    assert "sampling.frame_changed" in [finding.code for finding in concluded.findings]
    sealed = company.seal()
    assert (company.root / sealed.path / "frames" / "openings.tsv").read_bytes() == b"1\n2\n"


def test_report_fails_if_record_of_freeze_step_is_missing(company: Company) -> None:
    """The record is missing if a person marks the task as successful in Airflow."""
    company.begin()
    company.freeze("openings")
    company.commit()
    company.enter()
    company.draw()
    concluded = company.conclude()
    missing = [
        finding for finding in concluded.findings if finding.code == "sampling.freeze.missing"
    ]
    assert [finding.subject for finding in missing] == ["branches"]
    assert concluded.outcome is Outcome.FAIL


def test_report_contains_finding_if_sampling_frame_was_removed_before_sealing(
    company: Company,
) -> None:
    """The evidence bundle is sealed without the frame."""
    company.run_to_commitment()
    folder = company.context().unsealed_folder
    folder.store.delete(f"{folder.bundle}/frames/openings.tsv")
    assert "sampling.frame_changed" in [finding.code for finding in company.conclude().findings]
    assert company.seal().path
