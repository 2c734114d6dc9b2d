"""What the table of roles promises, whatever it is changed to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.orchestration.access.permissions import Action, Page, Part
from include.orchestration.access.roles import (
    ALL,
    DEPARTMENT,
    INCIDENTS,
    ROLES,
    SCHEDULED,
    Role,
    all_roles,
    department_roles,
    table,
)
from include.policy import SHIPPED
from include.registry import load_pack
from include.workplace import ROOT

ROLE = table(ROLES)
CHANGE = {Action.CREATE, Action.EDIT, Action.DELETE}
OWN_PASSWORD = (Action.EDIT, "My Password")


def changes(role: Role) -> set[tuple[str, str]]:
    return {tuple(one) for one in role.permissions if one.action in CHANGE} - {OWN_PASSWORD}


def test_the_roles_of_the_issue_are_there() -> None:
    """Seven for people's duties, one beside them for the seed."""
    assert list(ROLE) == [
        "Data Engineer",
        "Compliance Officer",
        "Information Management Reviewer",
        "Supervisor",
        "On Call",
        "Management",
        "Auditor",
        "Audit Seed",
    ]


@pytest.mark.parametrize("name", ["Auditor", "Supervisor"])
def test_who_only_reads_changes_nothing(name: str) -> None:
    """No permission to create, edit or delete, but of one's own password."""
    assert changes(ROLE[name]) == set()


def test_nobody_reaches_connections_variables_settings_users_or_all_dags() -> None:
    """They are Admin's; so are permissions that mean every DAG."""
    kept_back = {"Connections", "Variables", "Configurations", "Users", "Roles", "DAGs"}
    for role in all_roles(load_pack(SHIPPED)):
        used = {one.resource for one in role.permissions if one.action != Action.MENU}
        assert not used & kept_back
        assert all(":" in resource for _action, resource in changes(role))


def test_nobody_is_given_the_right_to_delete() -> None:
    """Runs and their log of events stay."""
    assert not any(one.action == Action.DELETE for role in ROLES for one in role.permissions)


def test_who_approves_neither_starts_nor_repeats_what_was_approved() -> None:
    """Two pairs of eyes: but on incidents, where everybody of the team does what has to be done."""
    for role in ROLES:
        assert not role.answers & (role.triggers | role.clears | role.pauses) - INCIDENTS


def test_who_runs_airflow_reads_no_incident() -> None:
    """Whoever is suspected of one may be among them."""
    assert not ROLE["Data Engineer"].reads & INCIDENTS
    assert all(role.name == "Data Engineer" for role in ROLES if role.pauses)


def test_two_roles_of_one_person_open_no_more_than_each_alone() -> None:
    """What shows more of a DAG than that it ran is granted on that DAG alone."""
    shared = {one.resource for role in ROLES for one in role.permissions if ":" not in one.resource}
    assert not shared & {Part.LOG, Part.XCOM, Part.CODE}


def test_reading_comes_first() -> None:
    """Airflow refuses whoever may answer a workflow but not read it; so does the table."""
    with pytest.raises(ValueError, match="answers without reading enforce_retention"):
        Role("Nobody", "", answers=frozenset({"enforce_retention"}))


def test_a_department_reads_the_workflows_of_its_controls() -> None:
    """From the pack alone; nothing else of them, and one page."""
    pack = load_pack(SHIPPED)
    found = {one.name.removeprefix(DEPARTMENT): one for one in department_roles(pack)}
    assert found["human_resources"].reads == {"remind_training"}
    assert found["data_engineering"].reads == {"backup_offsite", "drill_restore"}
    assert set(found) == {one.owner for one in pack.controls}
    for role in found.values():
        assert role.pages == {Page.EVIDENCE}
        assert changes(role) == set()


def test_a_control_that_moves_to_another_department_takes_its_evidence_along() -> None:
    """Nothing is typed anywhere else."""
    pack = load_pack(SHIPPED)
    moved = tuple(
        one.model_copy(update={"owner": "human_resources"})
        if one.workflow == "review_partners"
        else one
        for one in pack.controls
    )
    found = table(department_roles(pack.model_copy(update={"controls": moved})))
    assert found[f"{DEPARTMENT}human_resources"].reads == {"remind_training", "review_partners"}
    assert "review_partners" not in found[f"{DEPARTMENT}compliance"].reads


def test_every_page_is_somebodys_and_none_is_everybodys() -> None:
    """A page that nobody may open was forgotten."""
    opened = [role.pages for role in all_roles(load_pack(SHIPPED))]
    assert frozenset().union(*opened) == set(Page)
    assert frozenset(Page).intersection(*opened) <= {Page.EVIDENCE}


def test_the_names_of_roles_fit_into_fab() -> None:
    """64 characters, each once."""
    names = [one.name for one in all_roles(load_pack(SHIPPED))]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 64


def test_the_page_of_documentation_is_the_table() -> None:
    """Each role's line of docs/roles.md names the same workflows and pages."""
    page = (ROOT / "docs" / "roles.md").read_text(encoding="utf-8")
    for role in ROLES:
        assert row(role) in page, row(role)


def row(role: Role) -> str:
    """The line of a role as docs/roles.md has it."""
    known = {ALL: "all", SCHEDULED: "scheduled", INCIDENTS: "incidents", frozenset(): "-"}
    cells = [
        known.get(dags) or ", ".join(f"`{one}`" for one in sorted(dags))
        for dags in (role.reads, role.triggers, role.answers, role.clears, role.logs)
    ]
    pages = [one.removeprefix("Compliance ") for one in Page if one in role.pages]
    opened = "all" if len(pages) == len(Page) else ", ".join(pages)
    return f"| {role.name} | {' | '.join(cells)} | {opened} |"


def test_a_line_of_documentation_shows_each_change() -> None:
    """The comparison above can fail."""
    assert row(replace(ROLE["Supervisor"], pages=frozenset())) != row(ROLE["Supervisor"])
