"""Tests of audit.yaml: all faults are reported together, each with its file, line and path."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.policy import SHIPPED
from include.registry import load_pack
from include.sampling.rules import AUDIT, AuditRules
from include.services.errors import UsageError
from tests.policy.packs import problem_lines, problems_of, write_pack

MAP = """\
fides_key: shop
collections:
  - name: log
    fields:
      - {name: id, fides_meta: {primary_key: true}}
      - {name: seen_at}
  - name: staff
    fields:
      - {name: id, fides_meta: {primary_key: true}}
      - {name: login}
"""
HEAD = """\
auditors: {accounts: [E1]}
seed: {source: {en: An index, zh-CN: 指数}}
populations:
"""
BOTH = {"en": "Openings", "zh-CN": "查阅"}


def population(**more: Any) -> dict[str, Any]:
    fields = {
        "id": "openings",
        "title": BOTH,
        "owner": "management",
        "database": "shop",
        "sql": "SELECT id FROM log",
        "tolerable": "5%",
        "attributes": [{"id": "approved", "question": BOTH, "basis": "business"}],
    } | more
    return {key: value for key, value in fields.items() if value is not None}


def audit(*populations: dict[str, Any], **more: Any) -> dict[str, Any]:
    fields = {
        "auditors": {"accounts": ["E1"]},
        "seed": {"source": BOTH},
        "populations": list(populations) or [population()],
    } | more
    return {key: value for key, value in fields.items() if value is not None}


def write_audit_pack(folder: Path, rules: dict[str, Any] | str) -> Path:
    text = rules if isinstance(rules, str) else yaml.safe_dump(rules, allow_unicode=True)
    return write_pack(folder, datamap__shop=MAP, audit=text)


def load_rules(folder: Path, rules: dict[str, Any] | str) -> AuditRules:
    section = load_pack(write_audit_pack(folder, rules)).section(AUDIT)
    assert section is not None
    return section


def test_minimal_audit_rules_load_with_defaults(tmp_path: Path) -> None:
    rules = load_rules(tmp_path, audit())
    (openings,) = rules.populations
    assert (openings.tolerable, openings.expected, openings.confidence) == (
        Fraction(1, 20), Fraction(0), Fraction(19, 20),
    )  # fmt: skip
    assert (openings.plan, openings.strata, rules.connection) == ("single", None, "audit_db")
    assert rules.seed.response.text == "P14D"
    assert rules.population("openings") == openings
    with pytest.raises(UsageError, match="has no population shares") as caught:
        rules.population("shares")
    assert caught.value.action == "It has: openings."


def test_policy_pack_without_audit_yaml_has_no_audit_rules(tmp_path: Path) -> None:
    """The audit.yaml of the shipped policy pack is not used as a default."""
    assert load_pack(write_pack(tmp_path)).section(AUDIT) is None
    shipped = load_pack(SHIPPED).section(AUDIT)
    assert shipped is not None
    assert len(shipped.populations) == 5


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("7%", Fraction(7, 100)),
        ("'0.07'", Fraction(7, 100)),
        ("1/30", Fraction(1, 30)),
        ("0.5%", Fraction(1, 200)),
        ("７％", Fraction(7, 100)),
    ],
)
def test_rates_are_loaded_without_rounding(tmp_path: Path, text: str, rate: Fraction) -> None:
    """Rates are never converted to float."""
    text_of_population = yaml.safe_dump([population(tolerable="TOLERABLE")], allow_unicode=True)
    rules = load_rules(tmp_path, HEAD + text_of_population.replace("TOLERABLE", text))
    assert rules.populations[0].tolerable == rate


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.07", "should be text, so that it is read exactly"),
        (".nan", "can mean a number that packs do not support"),
        ("7", "should be text"),
        ("1", "should be text"),
        ("0", "should be text"),
        ("true", "should be text"),
        ("[7%]", "should be text"),
        ("0,07", "has a comma"),
        ("7,5%", "has a comma"),
        ("nan", "is not a rate"),
        ("inf", "is not a rate"),
        ("-5%", "is not a rate"),
        ("5 %% ", "is not a rate"),
        ("1e-2", "can mean 0.01 or the text"),
        ("'1e-2'", "is not a rate"),
        ("'1/0'", "is not a rate"),
        ("'7'", "is above 1"),
        ("101%", "is above 1"),
        ("'0'", "should lie between 0 and 1"),
        ("0%", "should lie between 0 and 1"),
        ("'1'", "should lie between 0 and 1"),
        ("100%", "should lie between 0 and 1"),
    ],
)
def test_rate_that_is_a_number_or_ambiguous_text_or_out_of_range_is_reported_with_its_line(
    tmp_path: Path, text: str, why: str
) -> None:
    text_of_population = yaml.safe_dump([population(tolerable="TOLERABLE")], allow_unicode=True)
    lines = (HEAD + text_of_population).split("\n")
    line = next(at for at, content in enumerate(lines, 1) if "TOLERABLE" in content)
    (problem,) = problem_lines(
        write_audit_pack(tmp_path, "\n".join(lines).replace("TOLERABLE", text))
    )
    assert problem.startswith(f"audit.yaml:{line}: populations[0].tolerable: ")
    assert why in problem
    assert "\n" not in problem


@pytest.mark.parametrize("text", ["49%", "0", "100%", "1", "5%"])
def test_confidence_below_50_percent_or_of_100_percent_is_reported_with_key_path(
    tmp_path: Path, text: str
) -> None:
    """A person may write 5% instead of 95%, and then very few items would be drawn."""
    (problem,) = problem_lines(write_audit_pack(tmp_path, audit(population(confidence=text))))
    assert ": populations[0].confidence: should be at least 50% and below 100%" in problem


@pytest.mark.parametrize(
    ("more", "path", "message"),
    [
        ({"expected": "5%"}, "populations[0]", "expected should be below tolerable"),
        ({"expected": "6%"}, "populations[0]", "expected should be below tolerable"),
        (
            {"plan": "staged", "expected": "1%"},
            "populations[0]",
            "plan staged expects no deviation",
        ),
        (
            {"plan": "discovery", "expected": "1%"},
            "populations[0]",
            "plan discovery expects no deviation",
        ),
        ({"plan": "double"}, "populations[0].plan", "staged"),
        ({"database": "shops"}, "populations[0].database", "the pack maps no database 'shops'"),
        ({"owner": "nobody"}, "populations[0].owner", "roles.yaml has no role 'nobody'"),
        ({"id": "Openings"}, "populations[0].id", ""),
        ({"id": "a,b"}, "populations[0].id", ""),
        ({"id": "a/b"}, "populations[0].id", ""),
        ({"id": "x" * 26}, "populations[0].id", ""),
        ({"title": {"en": "Openings"}}, "populations[0].title", "zh-CN"),
        ({"strata": {"zh-CN": "部门"}}, "populations[0].strata", "en"),
        ({"sql": " "}, "populations[0].sql", ""),
        ({"sql": None}, "populations[0].sql", ""),
        ({"tolerable": None}, "populations[0].tolerable", ""),
        ({"attributes": []}, "populations[0].attributes", "should not be empty"),
        ({"tolerabel": "5%"}, "populations[0].tolerabel", ""),
        (
            {"attributes": [{"id": "a", "question": {"en": "?"}, "basis": "business"}]},
            "populations[0].attributes[0].question",
            "zh-CN",
        ),
        (
            {"attributes": [{"id": "a", "question": BOTH, "basis": "law"}]},
            "populations[0].attributes[0].basis",
            "business",
        ),
        (
            {
                "attributes": [
                    {"id": "a", "question": BOTH, "basis": {"article": "6", "instrument": BOTH}}
                ]
            },
            "populations[0].attributes[0].basis.version",
            "is required but missing",
        ),
        (
            {"attributes": [{"id": "a", "question": BOTH, "basis": "business"}] * 2},
            "populations[0]",
            "two attributes have the same id",
        ),
    ],
)
def test_fault_in_population_rule_is_reported_with_file_line_and_key_path(
    tmp_path: Path, more: dict[str, Any], path: str, message: str
) -> None:
    problems = problems_of(write_audit_pack(tmp_path, audit(population(**more))))
    lines = [str(problem) for problem in problems]
    assert len({line.split(": ")[1] for line in lines}) == 1, lines
    assert lines[0].startswith("audit.yaml:")
    assert int(lines[0].split(":")[1]) > 1
    assert f": {path}" in lines[0]
    assert message in " ".join(lines)


@pytest.mark.parametrize(
    ("more", "path", "message"),
    [
        ({"populations": []}, "populations", "should not be empty"),
        ({"auditors": None}, "auditors", ""),
        ({"seed": None}, "seed", ""),
        ({"seed": {"source": {"en": "An index"}}}, "seed.source", "zh-CN"),
        ({"seed": {"source": BOTH, "response": "P0D"}}, "seed.response", ""),
        ({"seed": {"source": BOTH, "response": "a week"}}, "seed.response", ""),
        ({"auditors": {"where": "true"}}, "", "a condition over staff needs the staff table"),
        ({"auditors": {}}, "auditors", "should name an auditor"),
        ({"auditors": {"accounts": []}}, "auditors", "should name an auditor"),
        (
            {"staff": {"collection": "people", "account": "login"}},
            "staff.collection",
            "no data map has a collection 'people'",
        ),
        (
            {"staff": {"collection": "staff", "account": "badge"}},
            "staff.account",
            "badge",
        ),
        (
            {"staff": {"collection": "staff", "account": "login", "database": "office"}},
            "staff.collection",
            "no data map has a collection 'staff'",
        ),
        ({"auditor": {"accounts": ["E1"]}}, "auditor", ""),
        ({"return_within": "P0D"}, "return_within", ""),
        ({"mend_within": "soon"}, "mend_within", ""),
    ],
)
def test_fault_in_audit_yaml_is_reported_with_its_key_path(
    tmp_path: Path, more: dict[str, Any], path: str, message: str
) -> None:
    """Unknown tables and columns are found when the policy pack is loaded, before any run."""
    lines = problem_lines(write_audit_pack(tmp_path, audit(**more)))
    assert len(lines) == 1, lines
    assert lines[0].startswith("audit.yaml")
    assert f": {path}" in lines[0]
    assert message in lines[0]


def test_duplicate_population_id_is_reported_at_its_second_occurrence(tmp_path: Path) -> None:
    """The id must be unique, because it is part of file names in an evidence bundle."""
    (problem,) = problem_lines(
        write_audit_pack(tmp_path, audit(population(), population(tolerable="6%")))
    )
    assert ": populations[1].id: 'openings' occurs twice" in problem


def test_faults_of_several_populations_are_reported_together(tmp_path: Path) -> None:
    rules = audit(
        population(database="shops"),
        population(id="b", owner="nobody"),
        population(id="c", database="others"),
    )
    lines = problem_lines(write_audit_pack(tmp_path, rules))
    assert [line.split(": ")[1] for line in lines] == [
        "populations[0].database", "populations[1].owner", "populations[2].database",
    ]  # fmt: skip
