"""The grade that counts propose: the worst that any figure reaches, by hand."""

from __future__ import annotations

import pytest

from include.incident.assessing import propose
from include.incident.rule_checks import INCIDENT
from include.incident.scope import Counted, Scope, Unknown, of_scenario
from include.incident.selection import Selection
from include.messages import verbatim
from include.policy import SHIPPED
from include.registry import load_pack
from include.reports.i18n import Translator

_RULES = load_pack(SHIPPED).section(INCIDENT)
assert _RULES is not None
RULES = _RULES
LOST = Unknown(database="lost", reason=verbatim("no answer"))


def scope(*counted: Counted, unknown: tuple[Unknown, ...] = ()) -> Scope:
    return Scope(version=1, selection=Selection(), counted=counted, unknown=unknown)


def counted(
    subjects: int, sensitive: int = 0, minors: int | None = 0, age_unknown: int = 0
) -> Counted:
    return Counted(
        database="courier", subjects=subjects, sensitive=sensitive, minors=minors,
        age_unknown=age_unknown,
    )  # fmt: skip


def said(found: Scope) -> str:
    return Translator("en", "UTC").text(propose(found, RULES).words)


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
def test_the_worst_grade_that_any_figure_reaches(
    people: int, sensitive: int, minors: int, grade: str
) -> None:
    """On both sides of each border."""
    found = propose(scope(counted(people, sensitive, minors)), RULES)
    assert (found.grade, found.certain) == (grade, True)


def test_databases_add_up() -> None:
    """Two halves of a million are a million."""
    halves = [counted(500_000).model_copy(update={"database": name}) for name in ("a", "b")]
    assert propose(scope(*halves), RULES).grade == "larger"


def test_it_says_which_figure_reached_which_border() -> None:
    """All that did."""
    words = said(scope(counted(2_000_000, 150_000, 3)))
    assert "Larger" in words
    assert "2,000,000 people are affected, from 1,000,000 on" in words
    assert "150,000 people is affected, from 100,000 on" in words
    assert "under 14" not in words


@pytest.mark.parametrize(("people", "grade"), [(0, "general"), (1_000_000, "larger")])
def test_what_could_not_be_counted_makes_it_the_least_that_it_can_be(
    people: int, grade: str
) -> None:
    """Never is a database that nobody could reach a zero."""
    found = scope(counted(people), unknown=(LOST,))
    proposed = propose(found, RULES)
    assert (proposed.grade, proposed.certain) == (grade, False)
    assert "AT LEAST" in said(found)
    assert "lost" in said(found)
    assert found.affected() == {"courier": people, "lost": None}
    assert not found.nobody


@pytest.mark.parametrize(
    ("minors", "unknown", "certain"),
    [(None, 20_000, False), (0, 9_999, True), (5_000, 4_999, True), (5_000, 5_000, False)],
)
def test_an_age_that_nobody_knows_is_said_where_it_matters(
    minors: int | None, unknown: int, *, certain: bool
) -> None:
    """So many of unknown age could be minors that the grade could be worse."""
    found = scope(counted(20_000, 0, minors, unknown))
    assert propose(found, RULES).certain is certain
    assert ("Nobody knows how many of them are under 14" in said(found)) is not certain


@pytest.mark.parametrize(("unknown", "certain"), [(0, True), (999, True), (1_000, False)])
def test_who_may_be_under_14_may_be_sensitive_too(unknown: int, *, certain: bool) -> None:
    """All information about people under 14 is sensitive: 100,000 of these are a worse grade."""
    found = scope(counted(200_000, 99_000, 0, unknown))
    assert propose(found, RULES).certain is certain


def test_ages_do_not_matter_where_it_cannot_get_worse_by_them() -> None:
    """Larger already, and no worse grade is about minors."""
    assert propose(scope(counted(1_000_000, 0, None, 1_000_000)), RULES).certain


def test_a_drill_is_graded_by_its_story() -> None:
    """The worst scenario of the shipped pack is the worst grade."""
    story = RULES.scenario("everything_gone")
    found = of_scenario(story, 1, Selection())
    assert propose(found, RULES).grade == "especially_major"
    assert found.categories == dict.fromkeys(sorted(story.counts.categories), 120_000_000)


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_it_can_be_read_in_both_languages(language: str) -> None:
    """Names of grades come from the pack."""
    words = Translator(language, "UTC").text(propose(scope(counted(1_000_000)), RULES).words)
    assert ("Larger" in words) is (language == "en")
    assert ("较大" in words) is (language == "zh_CN")
