"""Tests that all faults in incident.yaml are reported together, each with line and path."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.incident.rule_checks import INCIDENT
from include.incident.rules import Lookup
from include.policy import SHIPPED
from include.registry import load_pack
from tests.policy.packs import problems_of, write_pack
from tests.policy.test_chinook import PACK

DATAMAP = (PACK / "datamap" / "chinook.yaml").read_text(encoding="utf-8")
RULES: dict[str, Any] = yaml.safe_load((PACK / "incident.yaml").read_text(encoding="utf-8"))
LOOKUP = {"column": "reports_to", "collection": "employee", "key": "employee_id", "name": "email"}
LOG = {
    "collection": "invoice_line", "subject": "a.track_id", "account": LOOKUP,
    "at": "quantity", "columns": ["invoice_line_id"],
}  # fmt: skip


def written(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Write the example policy pack with a changed incident.yaml, and return its folder."""
    rules = deepcopy(RULES)
    change(rules)
    text = yaml.safe_dump(rules, allow_unicode=True)
    return write_pack(folder, datamap__chinook=DATAMAP, incident=text)


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], object]:
    """Return a function that sets the value at a path of incident.yaml; None deletes the key."""

    def change(rules: dict[str, Any]) -> None:
        target: Any = rules
        for step in path[:-1]:
            target = target[step]
        if value is None:
            del target[path[-1]]
        else:
            target[path[-1]] = value

    return change


def test_example_policy_pack_is_valid(tmp_path: Path) -> None:
    assert load_pack(written(tmp_path, lambda rules: None)).section(INCIDENT) is not None


def test_policy_pack_without_incident_yaml_has_no_incident_rules(tmp_path: Path) -> None:
    assert load_pack(write_pack(tmp_path)).section(INCIDENT) is None


def test_shipped_policy_pack_uses_foreign_key_lookups_for_account_and_department() -> None:
    rules = load_pack(SHIPPED).section(INCIDENT)
    assert rules is not None
    (scope,) = rules.scope
    assert scope.access is not None
    assert isinstance(scope.access.account, Lookup)
    assert isinstance(scope.subject.department, Lookup)


SCOPE = ("scope", 0)
ITEM = ("types", 0, "checklist", 0)


def graded(figure: str, *minimums: int | None) -> list[dict[str, Any]]:
    """Return one grade for each value of `minimums`, least severe grade first.

    In each grade, the key `figure` has this value. For None, the grade does not have the key.

    Args:
        figure: key of a grade in incident.yaml, such as ``people``.
        minimums: smallest numbers with which an incident has the grades.
    """
    return [
        RULES["grades"][0]
        | {"id": f"g{index}"}
        | ({figure: minimum} if minimum is not None else {})
        for index, minimum in enumerate(minimums)
    ]


FAULTS = [
    (put("team", 0, "role", value="nobody"), "team[0].role", "has no role 'nobody'"),
    (put("team", 0, "people", value={}), "team[0].people", "should name accounts"),
    (put("team", 1, "id", value="lead"), "team[1].id", "lead occurs twice"),
    (put("management", value="nobody"), "management", "has no duty 'nobody'"),
    (put("steps", "close", value="nobody"), "steps.close", "has no duty 'nobody'"),
    (put("steps", "close", value=None), "", "steps needs a duty for close"),
    (put("steps", "decide", value="sales"), "steps.decide", "must have different duties"),
    (put("staff", "account", value="badge"), "staff.account", "has no field 'badge'"),
    (put("clocks", 0, "grades", value=["bad"]), "clocks[0].grades", "no grade 'bad'"),
    (put("clocks", 0, "types", value=["bad"]), "clocks[0].types", "no type 'bad'"),
    (put("clocks", 2, "authority", value="king"), "clocks[2].authority", "no authority 'king'"),
    (put("clocks", 2, "authority", value=None), "clocks[2]", "needs `authority`"),
    (put("scenarios", 0, "type", value="bad"), "scenarios[0].type", "no type 'bad'"),
    (put(*SCOPE, "database", value="moon"), "scope[0].database", "maps no database 'moon'"),
    (put(*SCOPE, "subject", "key", value="id"), "scope[0].subject.key", "no field customer.id"),
    (put(*SCOPE, "subject", "mail", value="mx"), "scope[0].subject.mail", "no field customer.mx"),
    (
        put(*SCOPE, "subject", "department", "column", value="rep"),
        "scope[0].subject.department.column",
        "no field customer.rep",
    ),
    (
        put(*SCOPE, "subject", "department", "name", value="nick"),
        "scope[0].subject.department.name",
        "no field employee.nick",
    ),
    (
        put(*SCOPE, "records", 1, "department", value=LOOKUP),
        "scope[0].records[1].department.column",
        "no field invoice.reports_to",
    ),
    (
        put(*SCOPE, "records", 1, "collection", value="customer"),
        "scope[0].records[1].collection",
        "customer occurs twice",
    ),
    (
        put(*SCOPE, "records", 1, "collection", value="moon"),
        "scope[0].records[1].collection",
        "no collection 'moon'",
    ),
    (put(*SCOPE, "access", value=LOG), "scope[0].access.account.column", "invoice_line.reports_to"),
    (
        put(*SCOPE, "access", value=LOG | {"columns": ["who"]}),
        "scope[0].access.columns",
        "no field invoice_line.who",
    ),
    (put(*SCOPE, "records", value=[]), "scope[0].records", "should not be empty"),
    (put("sensitive", value=["health"]), "sensitive[0]", "should"),
    *(
        (put(*ITEM, "id", value=name), "types[0].checklist[0].id", "another field of the form")
        for name in ("notes", "contained_at")
    ),
    *(
        (put("grades", value=graded(figure, 10, None, least)), f"grades[2].{figure}", "(grade g0)")
        for figure in ("people", "sensitive", "minors")
        for least in (10, 9)
    ),
]


@pytest.mark.parametrize(("change", "path", "message"), FAULTS, ids=[fault[1] for fault in FAULTS])
def test_fault_in_incident_yaml_is_reported_with_path_and_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], path: str, message: str
) -> None:
    problems = problems_of(written(tmp_path, change))
    assert any(problem.path == path and message in problem.message for problem in problems), (
        problems
    )
    assert {problem.file for problem in problems} == {"incident.yaml"}
    assert all(problem.line for problem in problems)


def test_unconfirmed_data_categories_of_affected_collections_are_reported(tmp_path: Path) -> None:
    section_line = "parcelseal:\n"
    assert DATAMAP.count(section_line) == 1

    def pack(unconfirmed: str) -> Path:
        changed = DATAMAP.replace(
            section_line, f"{section_line}        unconfirmed: {{{unconfirmed}}}\n"
        )
        text = yaml.safe_dump(RULES, allow_unicode=True)
        return write_pack(tmp_path, datamap__chinook=changed, incident=text)

    (problem,) = problems_of(pack("customer: [email, phone], employee: [title]"))
    assert (problem.file, problem.path) == ("incident.yaml", "scope[0].subject.collection")
    assert "unconfirmed categories of phone, email: check" in problem.message
    (problem,) = problems_of(pack("invoice: [billing_address]"))
    assert (problem.file, problem.path) == ("incident.yaml", "scope[0].records[1].collection")
    assert load_pack(pack("employee: [title]")).section(INCIDENT) is not None
