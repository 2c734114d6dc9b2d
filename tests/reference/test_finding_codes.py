"""Tests of the finding codes that are collected from the source code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.reference.finding_codes import FindingCode, finding_codes
from include.registry import workflows
from include.service_container import ROOT


def read(tmp_path: Path, source: str) -> list[FindingCode]:
    """Return the finding codes of a module in a package ``scales`` with the given source."""
    package = tmp_path / "include" / "scales"
    package.mkdir(parents=True)
    (package / "check.py").write_text(source, encoding="utf-8")
    return finding_codes(tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "def f(x):\n    x.fail('scales.off', _('Off: {n}.', n=1), _('Switch on.'))\n",
            FindingCode("scales.off", "scales", ("fail",), "Off: {n}.", "Switch on."),
        ),
        (
            "def f(x):\n    x.find('scales.off', Outcome.ATTENTION, text(), _('Switch on.'))\n",
            FindingCode("scales.off", "scales", ("attention",), "", "Switch on."),
        ),
        (
            "def f(x):\n    why = _('Off.')\n    x.warn(f'scales.{x.name}.off', why, _('On.'))\n",
            FindingCode("scales.<x>.off", "scales", ("attention",), "Off.", "On."),
        ),
        (
            "_FAIL = Outcome.FAIL\n"
            "CHECKS = {'scales.off': Check(_FAIL, _('Off.'), _('Switch on.'))}\n",
            FindingCode("scales.off", "scales", ("fail",), "Off.", "Switch on."),
        ),
        (
            "def lost(step, code):\n"
            "    return failure_finding(code=code, message=_('Lost.'), action=_('Search.'))\n"
            "def f():\n    return lost('weigh', 'scales.lost')\n",
            FindingCode("scales.lost", "scales", ("fail",), "Lost.", "Search."),
        ),
    ],
    ids=["literal", "variable message", "filled-in code", "table", "wrapper"],
)
def test_finding_codes_returns_outcome_message_and_action_of_each_code_in_the_source(
    tmp_path: Path, source: str, expected: FindingCode
) -> None:
    assert read(tmp_path, source) == [expected]


def test_finding_codes_returns_both_codes_of_a_conditional_expression(tmp_path: Path) -> None:
    source = "def f(x):\n    x.fail('scales.a' if x else 'scales.b', _('M.'), _('A.'))\n"
    assert [each.code for each in read(tmp_path, source)] == ["scales.a", "scales.b"]


def test_finding_codes_does_not_return_metric_names_or_data_categories(tmp_path: Path) -> None:
    source = "def f(x):\n    x.measure('scales.kg', 3, '1')\nTITLES = {'user.name': _('name')}\n"
    assert read(tmp_path, source) == []


def test_every_finding_code_on_handwritten_pages_exists_in_the_code() -> None:
    """Pages that people write must not name finding codes that the code no longer has."""
    patterns = [
        re.compile(re.sub(r"<\w+>", r"[a-z_.]+", re.escape(each.code))) for each in finding_codes()
    ]
    topics = {each.code.partition(".")[0] for each in finding_codes() if each.code[0] != "<"}
    unknown = set()
    for page in (ROOT / "docs" / "reference").glob("*-findings.md"):
        for code in re.findall(r"^\| `([a-z_]+(?:\.[a-z_]+)+)`", page.read_text("utf-8"), re.M):
            if code.partition(".")[0] in topics and not any(
                each.fullmatch(code) for each in patterns
            ):
                unknown.add(code)
    assert unknown == set()


def test_every_workflow_with_a_conclude_function_has_finding_codes() -> None:
    packages = {each.package for each in finding_codes()}
    concluding = [each.conclude for each in workflows() if each.conclude]
    without = {"finding_updates"}  # a refused entry has the codes of failed steps
    assert {conclude.__module__.split(".")[1] for conclude in concluding} - without <= packages
