"""The page on which an auditor enters the seed: what was committed to, and what it will be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from include.sampling.commitment import Commitment, Committed, Sealed, plan_for
from include.sampling.register import Refusal
from include.sampling.rules import AuditRules
from include.sampling.samples import Cause
from include.sampling.seed_entry import MOST_NAMES, question
from tests.sampling.rig import ZONE, by_branch, population, rules_of

AT = datetime(2026, 10, 5, 0, 30, tzinfo=UTC)
SEALED = Sealed(bundle="sample_commitment/2026/10/r1", sums_sha256="1" * 64, sealed_at=AT)
DIGEST = "abc" * 21 + "a"
HOSTILE = "x](http://y) ![i](http://z) <b>*e*|# head\u202e"


def rules(**more: Any) -> AuditRules:
    given = rules_of(population(), by_branch(title={"en": HOSTILE, "zh-CN": "查|阅"}))
    return AuditRules.model_validate(given | more)


def commitment(made: AuditRules) -> Commitment:
    frozen = []
    for one in made.populations:
        strata = {"a": 900, "b": 300} if one.strata else {"": 1200}
        plan = plan_for(
            one.plan,
            one.tolerable,
            one.expected,
            one.confidence,
            strata,
            stratified=one.strata is not None,
        )
        frozen.append(
            Committed(
                population=one.id,
                file=f"frames/{one.id}.tsv",
                sha256="0" * 64,
                items=1200,
                strata=strata,
                stratified=one.strata is not None,
                tolerable=one.tolerable,
                expected=one.expected,
                confidence=one.confidence,
                planned_as=one.plan,
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


def asked(auditors: list[str] | None = None, refused: list[Refusal] | None = None) -> Any:
    made = rules()
    people = auditors or ["E00007"]
    return question(commitment(made), DIGEST, SEALED, made, people, refused or [], ZONE)


def test_the_page_names_the_seed_and_the_digest_in_both_languages() -> None:
    """Whoever enters it can write down first what he draws from."""
    found = asked()
    assert "2026Q3" in found.subject
    assert "\n" not in found.subject
    assert found.assigned == ["E00007"]
    for words in ("Tomorrow's index", "明日收盘指数", "### English", "### 中文"):
        assert words in found.body
    assert found.body.count(DIGEST) == 2
    assert found.body.count("E00007") == 2


def test_the_page_says_from_when_on_a_seed_counts() -> None:
    """In the pack's timezone."""
    body = asked().body
    assert "2026-10-05 08:30" in body
    assert "00:30" not in body


def test_the_page_shows_what_will_be_drawn_of_each_population() -> None:
    """Rates, confidence, items: as they were committed to."""
    english = asked().body.partition("### English")[2]
    (row,) = [one for one in english.splitlines() if one.startswith("| Openings")]
    cells = [one.strip() for one in row.strip("|").split("|")]
    plan = commitment(rules()).populations[0].plan
    assert cells == ["Openings", "1,200", "20%", "0%", "95%", str(plan.n), str(plan.acceptable)]


def test_titles_of_a_pack_cannot_change_the_page() -> None:
    """A cell stays a cell, and a link none."""
    body = asked().body
    for sign in ("](", "![", "<b>", "*e*", "\u202e"):
        assert sign not in body
    rows = [one for one in body.splitlines() if one.startswith("|")]
    assert {one.count("|") for one in rows} == {8}


def test_accounts_cannot_change_the_page() -> None:
    """They are data of the staff table; those who may answer are named as they are."""
    found = asked(["wang_li@example.com", HOSTILE])
    assert r"wang\_li@example.com" in found.body
    assert "](" not in found.body
    assert found.assigned == ["wang_li@example.com", HOSTILE]


def test_many_auditors_are_counted() -> None:
    """All may answer; the page names the first ones."""
    people = [f"E{n:05}" for n in range(MOST_NAMES + 3)]
    found = asked(people)
    assert found.assigned == people
    assert f"E{MOST_NAMES - 1:05}" in found.body
    assert f"E{MOST_NAMES:05}" not in found.body
    assert " 3 " in found.body
    assert f"E{MOST_NAMES - 1:05}" in asked(people[:MOST_NAMES]).body


def test_a_refused_seed_is_explained_before_the_next_one_is_asked_for() -> None:
    """The last one; the page does not repeat what was entered."""
    first = Refusal("E1", AT, Cause.OLDER)
    body = asked(refused=[first, replace(first, cause=str(Cause.FUTURE))]).body
    assert "The seed entered last was refused: the time of publication lies in the future" in body
    assert "was known before the commitment was sealed." not in body
    assert "was refused" not in asked().body


def test_every_cause_can_be_explained_on_the_page() -> None:
    """No figure is left open in a sentence."""
    for cause in Cause:
        body = asked(refused=[Refusal("E1", AT, str(cause))]).body
        assert "was refused: " in body
        assert "{" not in body
