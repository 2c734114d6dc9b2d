"""Tests that the proposed grade is the most severe grade whose numbers the counts reach."""

from __future__ import annotations

import pytest

from include.incident.rule_checks import INCIDENT
from include.incident.scope import DatabaseCount, Scope, UncountedDatabase, scenario_scope
from include.incident.scope_assessment import propose_grade
from include.incident.selection import Selection
from include.messages import verbatim
from include.policy import SHIPPED
from include.registry import load_pack
from include.reports.i18n import Translator

_RULES = load_pack(SHIPPED).section(INCIDENT)
assert _RULES is not None
RULES = _RULES
LOST = UncountedDatabase(database="lost", reason=verbatim("no answer"))


def scope(*counted: DatabaseCount, unknown: tuple[UncountedDatabase, ...] = ()) -> Scope:
    return Scope(version=1, selection=Selection(), counted=counted, unknown=unknown)


def counted(
    subjects: int, sensitive: int = 0, minors: int | None = 0, age_unknown: int = 0
) -> DatabaseCount:
    return DatabaseCount(
        database="courier", subjects=subjects, sensitive=sensitive, minors=minors,
        age_unknown=age_unknown,
    )  # fmt: skip


def proposal_text(scope_: Scope) -> str:
    return Translator("en", "UTC").text(propose_grade(scope_, RULES).words)


# Shipped: larger from 1,000,000 people, 100,000 sensitive, 10,000 minors; major from 10,000,000;
# especially major from 100,000,000.
TABLE = [
    (0, 0, 0, "general"),
    (999_999, 99_999, 9_999, "general"),
    (1_000_000, 0, 0, "larger"),
    (100_000, 100_000, 0, "larger"),
    (10_000, 0, 10_000, "larger"),
    (9_999_999, 9_999_999, 9_999_999, "larger"),
    (10_000_000, 0, 0, "major"),
    (99_999_999, 99_999_999, 0, "major"),
    (100_000_000, 0, 0, "especially_major"),
]


@pytest.mark.parametrize(("people", "sensitive", "minors", "grade"), TABLE)
def test_proposed_grade_is_most_severe_grade_whose_threshold_is_reached(
    people: int, sensitive: int, minors: int, grade: str
) -> None:
    proposal = propose_grade(scope(counted(people, sensitive, minors)), RULES)
    assert (proposal.grade, proposal.certain) == (grade, True)


def test_grade_is_proposed_for_the_sum_of_affected_people_in_all_databases() -> None:
    halves = [counted(500_000).model_copy(update={"database": name}) for name in ("a", "b")]
    assert propose_grade(scope(*halves), RULES).grade == "larger"


def test_text_of_proposed_grade_contains_number_of_people_and_threshold() -> None:
    words = proposal_text(scope(counted(2_000_000, 150_000, 3)))
    assert "Larger" in words
    expected = "2,000,000 people are affected; the threshold of this grade is 1,000,000 people"
    assert expected in words
    assert "150,000 people is affected; the threshold of this grade is 100,000 people" in words
    assert "under 14" not in words


@pytest.mark.parametrize(("people", "grade"), [(0, "general"), (1_000_000, "larger")])
def test_proposed_grade_is_uncertain_and_marked_as_minimum_if_a_database_was_not_counted(
    people: int, grade: str
) -> None:
    counts = scope(counted(people), unknown=(LOST,))
    proposed = propose_grade(counts, RULES)
    assert (proposed.grade, proposed.certain) == (grade, False)
    assert "AT LEAST" in proposal_text(counts)
    assert "lost" in proposal_text(counts)
    assert counts.people_by_database() == {"courier": people, "lost": None}
    assert not counts.is_empty


@pytest.mark.parametrize(
    ("minors", "unknown", "certain"),
    [(None, 20_000, False), (0, 9_999, True), (5_000, 4_999, True), (5_000, 5_000, False)],
)
def test_proposed_grade_is_uncertain_if_unknown_number_of_minors_may_make_grade_more_severe(
    minors: int | None, unknown: int, *, certain: bool
) -> None:
    counts = scope(counted(20_000, 0, minors, unknown))
    assert propose_grade(counts, RULES).certain is certain
    assert ("The number of people under 14 is unknown" in proposal_text(counts)) is not certain


@pytest.mark.parametrize(("unknown", "certain"), [(0, True), (999, True), (1_000, False)])
def test_proposed_grade_is_uncertain_if_unknown_ages_may_add_enough_sensitive_people(
    unknown: int, *, certain: bool
) -> None:
    proposal = scope(counted(200_000, 99_000, 0, unknown))
    assert propose_grade(proposal, RULES).certain is certain


def test_proposed_grade_is_certain_if_unknown_ages_cannot_make_grade_more_severe() -> None:
    assert propose_grade(scope(counted(1_000_000, 0, None, 1_000_000)), RULES).certain


def test_proposed_grade_of_incident_drill_is_computed_from_numbers_of_scenario() -> None:
    story = RULES.scenario("everything_gone")
    counts = scenario_scope(story, 1, Selection())
    assert propose_grade(counts, RULES).grade == "especially_major"
    assert counts.categories == dict.fromkeys(sorted(story.counts.categories), 120_000_000)


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_text_of_proposed_grade_is_translated(language: str) -> None:
    words = Translator(language, "UTC").text(propose_grade(scope(counted(1_000_000)), RULES).words)
    assert ("Larger" in words) is (language == "en")
    assert ("较大" in words) is (language == "zh_CN")
