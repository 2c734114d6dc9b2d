"""Rules that every version of ParcelSeal's table of roles has to satisfy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.orchestration.access.permissions import Action, Page, Part, on_part
from include.orchestration.access.roles import (
    ALL,
    DEPARTMENT,
    FINDINGS,
    INCIDENTS,
    ROLES,
    SCHEDULED,
    USE,
    USE_OF_ALL,
    Role,
    all_roles,
    department_roles,
    table,
)
from include.policy import SHIPPED
from include.registry import load_pack
from include.service_container import ROOT

ROLE = table(ROLES)
CHANGE = {Action.CREATE, Action.EDIT, Action.DELETE}
OWN_PASSWORD = (Action.EDIT, "My Password")


def changes(role: Role) -> set[tuple[str, str]]:
    return {tuple(permission) for permission in role.permissions if permission.action in CHANGE} - {
        OWN_PASSWORD
    }


def test_roles_table_contains_exactly_the_nine_expected_role_names() -> None:
    assert list(ROLE) == [
        "Data Engineer",
        "Compliance Officer",
        "Information Management Reviewer",
        "Employee",
        "Supervisor",
        "On Call",
        "Management",
        "Auditor",
        "Audit Seed",
    ]


def test_role_auditor_has_no_permission_to_change_data() -> None:
    """The only exception is the permission to change their own password."""
    assert changes(ROLE["Auditor"]) == set()


def test_role_supervisor_may_only_answer_requests_for_information() -> None:
    """The only exception is the permission to change their own password."""
    assert changes(ROLE["Supervisor"]) == {
        tuple(on_part(Action.EDIT, Part.ANSWER, "use_information"))
    }


def test_no_role_has_access_to_connections_settings_users_or_all_dags() -> None:
    """Only Admin has access to them."""
    kept_back = {"Connections", "Variables", "Configurations", "Users", "Roles", "DAGs"}
    for role in all_roles(load_pack(SHIPPED)):
        used = {
            permission.resource
            for permission in role.permissions
            if permission.action != Action.MENU
        }
        assert not used & kept_back
        assert all(":" in resource for _action, resource in changes(role))


def test_no_role_may_delete_anything() -> None:
    assert not any(
        permission.action == Action.DELETE for role in ROLES for permission in role.permissions
    )


def test_role_that_may_answer_a_workflow_may_not_trigger_it_except_incident_workflows() -> None:
    """Incident workflows are an exception: each member of the incident team may do all steps."""
    for role in ROLES:
        assert not role.answers & (role.triggers | role.clears | role.pauses) - INCIDENTS


def test_data_engineer_cannot_read_incidents() -> None:
    """A data engineer may be a suspect of the incident."""
    assert not ROLE["Data Engineer"].reads & INCIDENTS
    assert all(role.name == "Data Engineer" for role in ROLES if role.pauses)


def test_two_roles_together_grant_no_more_than_the_two_roles_separately() -> None:
    shared = {
        permission.resource
        for role in ROLES
        for permission in role.permissions
        if ":" not in permission.resource
    }
    assert not shared & {Part.LOG, Part.XCOM, Part.CODE}


def test_role_with_answer_but_without_read_permission_on_a_dag_raises_value_error() -> None:
    with pytest.raises(ValueError, match="answers without reading enforce_retention"):
        Role("Nobody", "", answers=frozenset({"enforce_retention"}))


def test_department_role_reads_only_workflows_of_its_controls() -> None:
    pack = load_pack(SHIPPED)
    readers = {role.name.removeprefix(DEPARTMENT): role for role in department_roles(pack)}
    assert readers["human_resources"].reads == {"remind_training"}
    assert readers["data_engineering"].reads == {"backup_offsite", "drill_restore"}
    assert set(readers) == {control.owner for control in pack.controls}
    for role in readers.values():
        assert role.pages == {Page.EVIDENCE}
        assert changes(role) == set()


def test_department_role_can_read_workflow_after_department_became_owner_of_its_control() -> None:
    pack = load_pack(SHIPPED)
    moved = tuple(
        control.model_copy(update={"owner": "human_resources"})
        if control.workflow == "review_partners"
        else control
        for control in pack.controls
    )
    roles = table(department_roles(pack.model_copy(update={"controls": moved})))
    assert roles[f"{DEPARTMENT}human_resources"].reads == {"remind_training", "review_partners"}
    assert "review_partners" not in roles[f"{DEPARTMENT}compliance"].reads


def test_every_page_except_evidence_is_open_to_some_but_not_all_roles() -> None:
    opened = [role.pages for role in all_roles(load_pack(SHIPPED))]
    assert frozenset().union(*opened) == set(Page)
    assert frozenset(Page).intersection(*opened) <= {Page.EVIDENCE}


def test_only_roles_that_open_the_page_of_use_may_see_the_requests_of_all_people() -> None:
    for role in all_roles(load_pack(SHIPPED)):
        assert Page.USE in role.pages or not USE_OF_ALL & role.views, role.name
        assert Page.USE not in role.pages or "use_information" in role.reads, role.name
    assert not USE_OF_ALL & (ROLE["Employee"].permissions | ROLE["Supervisor"].permissions)


def test_role_names_are_unique_and_fit_fab_column() -> None:
    names = [role.name for role in all_roles(load_pack(SHIPPED))]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 64


def test_reference_page_of_roles_equals_the_roles_table() -> None:
    page = (ROOT / "docs" / "reference" / "roles.md").read_text(encoding="utf-8")
    for role in ROLES:
        assert row(role) in page, row(role)


def row(role: Role) -> str:
    """Return the table row of a role, as in docs/reference/roles.md."""
    groups = {
        ALL: "all",
        SCHEDULED: "scheduled",
        SCHEDULED | FINDINGS: "scheduled, findings",
        INCIDENTS: "incidents",
        INCIDENTS | FINDINGS: "incidents, findings",
        FINDINGS: "findings",
        USE: "use",
        SCHEDULED | USE: "scheduled, use",
        SCHEDULED | FINDINGS | USE: "scheduled, findings, use",
        frozenset(): "-",
    }
    cells = [
        groups.get(dags) or ", ".join(f"`{dag}`" for dag in sorted(dags))
        for dags in (role.reads, role.triggers, role.answers, role.clears, role.logs)
    ]
    pages = [page.removeprefix("Compliance ") for page in Page if page in role.pages]
    opened = "all" if len(pages) == len(Page) else ", ".join(pages)
    return f"| {role.name} | {' | '.join(cells)} | {opened} |"


def test_row_of_the_reference_page_changes_if_the_role_changes() -> None:
    """This proves that the comparison of the documentation page can fail."""
    assert row(replace(ROLE["Supervisor"], pages=frozenset())) != row(ROLE["Supervisor"])
