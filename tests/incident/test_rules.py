"""incident.yaml: every mistake at once, each with its file, line and path."""

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
    """The example pack with its incident.yaml changed."""
    rules = deepcopy(RULES)
    change(rules)
    text = yaml.safe_dump(rules, allow_unicode=True)
    return write_pack(folder, datamap__chinook=DATAMAP, incident=text)


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], object]:
    """Set a value; None leaves the key out."""

    def change(rules: dict[str, Any]) -> None:
        place: Any = rules
        for step in path[:-1]:
            place = place[step]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


def test_the_example_is_right(tmp_path: Path) -> None:
    """As a base of what follows."""
    assert load_pack(written(tmp_path, lambda rules: None)).section(INCIDENT) is not None


def test_a_pack_without_the_file_leads_no_incidents(tmp_path: Path) -> None:
    """The shipped one never stands in: it names the sample's tables."""
    assert load_pack(write_pack(tmp_path)).section(INCIDENT) is None


def test_the_shipped_scope_looks_names_up() -> None:
    """A subquery for every row of a log would take minutes."""
    rules = load_pack(SHIPPED).section(INCIDENT)
    assert rules is not None
    (scope,) = rules.scope
    assert scope.access is not None
    assert isinstance(scope.access.account, Lookup)
    assert isinstance(scope.subject.department, Lookup)


SCOPE = ("scope", 0)
ITEM = ("types", 0, "checklist", 0)


def graded(figure: str, *least: int | None) -> list[dict[str, Any]]:
    """Grades one after the other, reached by so many; None is reached otherwise."""
    return [
        RULES["grades"][0] | {"id": f"g{at}"} | ({figure: one} if one is not None else {})
        for at, one in enumerate(least)
    ]


FAULTS = [
    (put("team", 0, "role", value="nobody"), "team[0].role", "has no role 'nobody'"),
    (put("team", 0, "people", value={}), "team[0].people", "should name accounts"),
    (put("team", 1, "id", value="lead"), "team[1].id", "lead stands twice"),
    (put("management", value="nobody"), "management", "has no duty 'nobody'"),
    (put("steps", "close", value="nobody"), "steps.close", "has no duty 'nobody'"),
    (put("steps", "close", value=None), "", "steps names nobody for close"),
    (put("steps", "decide", value="sales"), "steps.decide", "must not be who wrote the impact"),
    (put("staff", "account", value="badge"), "staff.account", "has no field 'badge'"),
    (put("clocks", 0, "grades", value=["bad"]), "clocks[0].grades", "no grade 'bad'"),
    (put("clocks", 0, "types", value=["bad"]), "clocks[0].types", "no type 'bad'"),
    (put("clocks", 2, "authority", value="king"), "clocks[2].authority", "no authority 'king'"),
    (put("clocks", 2, "authority", value=None), "clocks[2]", "names its authority"),
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
        "customer stands twice",
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
        (put("grades", value=graded(figure, 10, None, least)), f"grades[2].{figure}", "of g0")
        for figure in ("people", "sensitive", "minors")
        for least in (10, 9)
    ),
]


@pytest.mark.parametrize(("change", "path", "said"), FAULTS, ids=[one[1] for one in FAULTS])
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], path: str, said: str
) -> None:
    """In words."""
    found = problems_of(written(tmp_path, change))
    assert any(one.path == path and said in one.message for one in found), found
    assert {one.file for one in found} == {"incident.yaml"}
    assert all(one.line for one in found)


def test_notices_take_no_category_that_nobody_confirmed(tmp_path: Path) -> None:
    """Of the collections that incident.yaml names; the map of others may wait."""
    ours = "parcelseal:\n"
    assert DATAMAP.count(ours) == 1

    def pack(unconfirmed: str) -> Path:
        changed = DATAMAP.replace(ours, f"{ours}        unconfirmed: {{{unconfirmed}}}\n")
        text = yaml.safe_dump(RULES, allow_unicode=True)
        return write_pack(tmp_path, datamap__chinook=changed, incident=text)

    (problem,) = problems_of(pack("customer: [email, phone], employee: [title]"))
    assert (problem.file, problem.path) == ("incident.yaml", "scope[0].subject.collection")
    assert "unconfirmed categories of phone, email: check" in problem.message
    (problem,) = problems_of(pack("invoice: [billing_address]"))
    assert (problem.file, problem.path) == ("incident.yaml", "scope[0].records[1].collection")
    assert load_pack(pack("employee: [title]")).section(INCIDENT) is not None
