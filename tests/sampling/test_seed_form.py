"""Tests of the form in which an auditor enters the seed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from include.sampling.commitment import (
    Commitment,
    CommitmentLocation,
    CommittedPopulation,
    plan_for,
)
from include.sampling.register import SeedRefusal
from include.sampling.rules import AuditRules
from include.sampling.samples import SeedRefusalCause
from include.sampling.seed_entry import MOST_NAMES, seed_form
from tests.sampling.company import ZONE, by_branch, population, rules_of

AT = datetime(2026, 10, 5, 0, 30, tzinfo=UTC)
SEALED = CommitmentLocation(
    bundle="sample_commitment/2026/10/r1", sums_sha256="1" * 64, sealed_at=AT
)
DIGEST = "abc" * 21 + "a"
HOSTILE = "x](http://y) ![i](http://z) <b>*e*|# head\u202e"


def rules(**more: Any) -> AuditRules:
    fields = rules_of(population(), by_branch(title={"en": HOSTILE, "zh-CN": "查|阅"}))
    return AuditRules.model_validate(fields | more)


def commitment(rules: AuditRules) -> Commitment:
    frozen = []
    for audited in rules.populations:
        strata = {"a": 900, "b": 300} if audited.strata else {"": 1200}
        plan = plan_for(
            audited.plan,
            audited.tolerable,
            audited.expected,
            audited.confidence,
            strata,
            stratified=audited.strata is not None,
        )
        frozen.append(
            CommittedPopulation(
                population=audited.id,
                file=f"frames/{audited.id}.tsv",
                sha256="0" * 64,
                items=1200,
                strata=strata,
                stratified=audited.strata is not None,
                tolerable=audited.tolerable,
                expected=audited.expected,
                confidence=audited.confidence,
                planned_as=audited.plan,
                plan=plan,
                attributes=("approved",),
            )
        )
    return Commitment(
        audit="2026Q3",
        starts=AT,
        ends=AT,
        seed_source="x",
        policy_hash="p",
        code_version="c",
        populations=tuple(frozen),
    )


def form_for(auditors: list[str] | None = None, refused: list[SeedRefusal] | None = None) -> Any:
    audit_rules = rules()
    people = auditors or ["E00007"]
    return seed_form(
        commitment(audit_rules), DIGEST, SEALED, audit_rules, people, refused or [], ZONE
    )


def test_seed_form_shows_seed_source_and_commitment_digest_in_english_and_chinese() -> None:
    """The auditor can write down the digest of the commitment before entering the seed."""
    form = form_for()
    assert "third quarter of 2026" in form.subject
    assert "2026 年第三季度" in form.subject
    assert "\n" not in form.subject
    assert form.assigned == ["E00007"]
    for words in ("Tomorrow's index", "明日收盘指数", "### English", "### 中文"):
        assert words in form.body
    assert form.body.count(DIGEST) == 2
    assert form.body.count("E00007") == 2


def test_seed_form_shows_earliest_publication_time_of_seed_in_policy_pack_timezone() -> None:
    body = form_for().body
    assert "2026-10-05 08:30" in body
    assert "00:30" not in body


def test_seed_form_shows_sampling_plan_of_each_population() -> None:
    english = form_for().body.partition("### English")[2]
    (row,) = [line for line in english.splitlines() if line.startswith("| Openings")]
    cells = [part.strip() for part in row.strip("|").split("|")]
    plan = commitment(rules()).populations[0].plan
    assert cells == ["Openings", "1,200", "20%", "0%", "95%", str(plan.n), str(plan.acceptable)]


def test_seed_form_contains_no_markup_from_titles_of_policy_pack() -> None:
    """Titles of the policy pack must not add table cells, links or markup."""
    body = form_for().body
    for sign in ("](", "![", "<b>", "*e*", "\u202e"):
        assert sign not in body
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {8}


def test_seed_form_contains_no_markup_from_account_names() -> None:
    """Account names come from the staff table. The list of assigned users is not escaped."""
    form = form_for(["wang_li@example.com", HOSTILE])
    assert r"wang\_li@example.com" in form.body
    assert "](" not in form.body
    assert form.assigned == ["wang_li@example.com", HOSTILE]


def test_seed_form_contains_only_the_first_auditors_and_the_number_of_other_auditors() -> None:
    """All auditors may answer, but the form names only the first auditors."""
    people = [f"E{n:05}" for n in range(MOST_NAMES + 3)]
    form = form_for(people)
    assert form.assigned == people
    assert f"E{MOST_NAMES - 1:05}" in form.body
    assert f"E{MOST_NAMES:05}" not in form.body
    assert " 3 " in form.body
    assert f"E{MOST_NAMES - 1:05}" in form_for(people[:MOST_NAMES]).body


def test_seed_form_shows_only_the_reason_of_the_last_seed_refusal() -> None:
    """Only the last refusal is shown, and the form does not repeat the refused seed."""
    first = SeedRefusal("E1", AT, SeedRefusalCause.BEFORE_SEAL)
    body = form_for(refused=[first, replace(first, cause=str(SeedRefusalCause.FUTURE))]).body
    assert "The last random seed was refused: the time of publication is in the future" in body
    assert "was published before the commitment was sealed." not in body
    assert "was refused" not in form_for().body


def test_seed_form_shows_a_reason_for_every_cause_of_seed_refusal() -> None:
    """No sentence contains an unreplaced placeholder."""
    for cause in SeedRefusalCause:
        body = form_for(refused=[SeedRefusal("E1", AT, str(cause))]).body
        assert "was refused: " in body
        assert "{" not in body
