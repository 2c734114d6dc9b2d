"""audit.yaml: every mistake at once, each with its file, line and path."""

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
from tests.policy.packs import problems_of, said, write_pack

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
    given = {
        "id": "openings",
        "title": BOTH,
        "owner": "management",
        "database": "shop",
        "sql": "SELECT id FROM log",
        "tolerable": "5%",
        "attributes": [{"id": "approved", "question": BOTH, "basis": "business"}],
    } | more
    return {key: value for key, value in given.items() if value is not None}


def audit(*populations: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = {
        "auditors": {"accounts": ["E1"]},
        "seed": {"source": BOTH},
        "populations": list(populations) or [population()],
    } | more
    return {key: value for key, value in given.items() if value is not None}


def written(folder: Path, rules: dict[str, Any] | str) -> Path:
    text = rules if isinstance(rules, str) else yaml.safe_dump(rules, allow_unicode=True)
    return write_pack(folder, datamap__shop=MAP, audit=text)


def loaded(folder: Path, rules: dict[str, Any] | str) -> AuditRules:
    found = load_pack(written(folder, rules)).section(AUDIT)
    assert found is not None
    return found


def test_another_companys_audit_loads_with_its_defaults(tmp_path: Path) -> None:
    """Nothing of the sample's names is needed."""
    found = loaded(tmp_path, audit())
    (one,) = found.populations
    assert (one.tolerable, one.expected, one.confidence) == (
        Fraction(1, 20), Fraction(0), Fraction(19, 20),
    )  # fmt: skip
    assert (one.plan, one.strata, found.connection) == ("single", None, "audit_db")
    assert found.seed.response.text == "P14D"
    assert found.population("openings") == one
    with pytest.raises(UsageError, match="has no population shares") as caught:
        found.population("shares")
    assert caught.value.action == "It has: openings."


def test_without_the_file_nothing_is_audited(tmp_path: Path) -> None:
    """The shipped one is for the sample and stands in for nobody."""
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
def test_rates_are_read_exactly(tmp_path: Path, text: str, rate: Fraction) -> None:
    """No float is between the file and the plan."""
    given = yaml.safe_dump([population(tolerable="TOLERABLE")], allow_unicode=True)
    found = loaded(tmp_path, HEAD + given.replace("TOLERABLE", text))
    assert found.populations[0].tolerable == rate


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
        ("nan", "is no rate"),
        ("inf", "is no rate"),
        ("-5%", "is no rate"),
        ("5 %% ", "is no rate"),
        ("1e-2", "can mean 0.01 or the text"),
        ("'1e-2'", "is no rate"),
        ("'1/0'", "is no rate"),
        ("'7'", "is above 1"),
        ("101%", "is above 1"),
        ("'0'", "should lie between 0 and 1"),
        ("0%", "should lie between 0 and 1"),
        ("'1'", "should lie between 0 and 1"),
        ("100%", "should lie between 0 and 1"),
    ],
)
def test_a_rate_that_could_be_read_otherwise_is_refused(
    tmp_path: Path, text: str, why: str
) -> None:
    """With file, line and path; one line each."""
    given = yaml.safe_dump([population(tolerable="TOLERABLE")], allow_unicode=True)
    lines = (HEAD + given).split("\n")
    line = next(at for at, one in enumerate(lines, 1) if "TOLERABLE" in one)
    (problem,) = said(written(tmp_path, "\n".join(lines).replace("TOLERABLE", text)))
    assert problem.startswith(f"audit.yaml:{line}: populations[0].tolerable: ")
    assert why in problem
    assert "\n" not in problem


@pytest.mark.parametrize("text", ["49%", "0", "100%", "1", "5%"])
def test_a_confidence_is_at_least_a_half(tmp_path: Path, text: str) -> None:
    """5% for 95% is a slip that would draw next to nothing."""
    (problem,) = said(written(tmp_path, audit(population(confidence=text))))
    assert ": populations[0].confidence: should be at least 50% and below 100%" in problem


@pytest.mark.parametrize(
    ("more", "place", "message"),
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
            "is required and missing",
        ),
        (
            {"attributes": [{"id": "a", "question": BOTH, "basis": "business"}] * 2},
            "populations[0]",
            "two attributes have the same id",
        ),
    ],
)
def test_every_fault_of_a_population_names_its_place(
    tmp_path: Path, more: dict[str, Any], place: str, message: str
) -> None:
    """File, line and path, and what should stand there."""
    found = problems_of(written(tmp_path, audit(population(**more))))
    lines = [str(one) for one in found]
    assert len({line.split(": ")[1] for line in lines}) == 1, lines
    assert lines[0].startswith("audit.yaml:")
    assert int(lines[0].split(":")[1]) > 1
    assert f": {place}" in lines[0]
    assert message in " ".join(lines)


@pytest.mark.parametrize(
    ("more", "place", "message"),
    [
        ({"populations": []}, "populations", "should not be empty"),
        ({"auditors": None}, "auditors", ""),
        ({"seed": None}, "seed", ""),
        ({"seed": {"source": {"en": "An index"}}}, "seed.source", "zh-CN"),
        ({"seed": {"source": BOTH, "response": "P0D"}}, "seed.response", ""),
        ({"seed": {"source": BOTH, "response": "a week"}}, "seed.response", ""),
        ({"auditors": {"where": "true"}}, "", "a condition over staff needs the staff table"),
        ({"auditors": {}}, "auditors", "should name somebody"),
        ({"auditors": {"accounts": []}}, "auditors", "should name somebody"),
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
def test_every_fault_of_the_file_names_its_place(
    tmp_path: Path, more: dict[str, Any], place: str, message: str
) -> None:
    """People, seed, staff: an unknown table or column is found before any run."""
    lines = said(written(tmp_path, audit(**more)))
    assert len(lines) == 1, lines
    assert lines[0].startswith("audit.yaml")
    assert f": {place}" in lines[0]
    assert message in lines[0]


def test_an_id_that_stands_twice_is_named_where_it_comes_again(tmp_path: Path) -> None:
    """Files of a bundle have the id as their name."""
    (problem,) = said(written(tmp_path, audit(population(), population(tolerable="6%"))))
    assert ": populations[1].id: 'openings' stands twice" in problem


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """One for each population."""
    rules = audit(
        population(database="shops"),
        population(id="b", owner="nobody"),
        population(id="c", database="others"),
    )
    lines = said(written(tmp_path, rules))
    assert [line.split(": ")[1] for line in lines] == [
        "populations[0].database", "populations[1].owner", "populations[2].database",
    ]  # fmt: skip
