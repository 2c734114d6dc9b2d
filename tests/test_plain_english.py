"""Tests that code and docs have few sentences that are hard to read, per 1,000 lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import plain_english

ROOT = Path(__file__).resolve().parent.parent
LIMITS = {  # places per 1,000 lines
    ("include", "plugins", "dags"): 3,
    ("benchmarks", "tests"): 5,
    ("docs", "README.md", "CONTRIBUTING.md", "SECURITY.md"): 40,
}
CODE = ("include", "plugins", "dags")


@pytest.mark.parametrize("roots", LIMITS, ids="-".join)
def test_number_of_hard_to_read_sentences_in_each_folder_is_within_its_limit(
    roots: tuple[str, ...],
):
    paths = [path for root in roots for path in plain_english.files(ROOT / root)]
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
    places = [place for path in paths for place in plain_english.places(path)]
    most = LIMITS[roots] * lines // 1000
    listing = "\n".join(map(str, places))
    assert len(places) <= most, (
        f"{', '.join(roots)}: {len(places)} places are hard to read; {most} are allowed. "
        f"Rewrite some of them; docs/glossary.md has the terms.\n{listing}"
    )


@pytest.mark.parametrize("root", CODE)
def test_code_uses_no_name_from_the_list_of_meaningless_names(root: str):
    """Some columns of the state database and fields of sealed records may keep such names."""
    allowed = {
        ("include/findings/register.py", "what"),  # columns of the state database
        ("include/incident/register.py", "what"),
        ("include/incident/timeline.py", "place"),
        ("include/incident/time_limits/milestones.py", "place"),
        ("include/incident/entries.py", "given"),  # fields of sealed and step records
        ("include/incident/entries.py", "asked"),
        ("include/incident/entries.py", "told"),
        ("include/incident/entries.py", "what"),
        ("include/incident/form.py", "what"),
        ("include/incident/time_limits/response_times.py", "known"),
        ("include/partners/check.py", "what"),
        ("include/partners/questionnaire.py", "asked"),
        ("include/retention/results.py", "asked"),
        ("include/sampling/closing.py", "asked"),
        ("include/sampling/following.py", "what"),
        ("include/schema/json_keys.py", "place"),
        ("include/training/plan.py", "told"),
        ("include/incident/rules.py", "place"),  # a key of the policy pack
        ("include/cli/roles.py", "asked"),  # a command
    }
    names = {rule.name for rule in plain_english.NAMES}
    nameless = [
        place
        for path in plain_english.files(ROOT / root)
        for place in plain_english.places(path)
        if place.rule in names and (path.relative_to(ROOT).as_posix(), place.text) not in allowed
    ]
    assert not nameless, "\n".join(map(str, nameless))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('def f(x):\n    """What is over is deleted."""\n', "a pronoun is the subject"),
        ("# the newest one stays\n", "'one' is a noun"),
        ("# the owner is told\n", "a passive without an actor"),
        ("# there is no key\n", "a noun is negated"),
        ("# the key lies in the store\n", "a thing stands or lies somewhere"),
        ("# records of whom a run knows\n", "a literary relative clause"),
        ("# the task asks anew\n", "a literary adverb"),
        ("for one in []:\n    pass\n", "a name without meaning"),
        ("x = [found for found in []]\n", "a name without meaning"),
        ("def f(told): ...\n", "a name without meaning"),
        ("if seen := 1:\n    pass\n", "a name without meaning"),
        ("# " + "word " * 33 + "\n", "a long sentence"),
    ],
)
def test_python_checker_returns_the_style_rule_that_a_text_violates(
    tmp_path: Path, text: str, rule: str
):
    path = tmp_path / "example.py"
    path.write_text(text)
    places = list(plain_english.places(path))
    assert [place.rule for place in places] == [rule]
    assert f"{path}:" in str(places[0])
    assert places[0].example in str(places[0])


def test_markdown_checker_skips_code_and_reports_long_lines(tmp_path: Path):
    path = tmp_path / "page.md"
    path.write_text("```\nWhat is over is deleted.\n```\n" + "wide " * 40 + "\n")
    rules = {place.rule for place in plain_english.places(path)}
    assert rules == {"a long line", "a long sentence"}


def test_checker_reports_nothing_for_plain_sentences_and_names(tmp_path: Path):
    path = tmp_path / "example.py"
    path.write_text(
        '"""Delete expired records that are not under legal hold."""\nfor record in []:\n    pass\n'
    )
    assert not list(plain_english.places(path))
