"""Permissions of Airflow and of the compliance pages, by FAB's names; imports no Airflow.

A permission is an action on a resource. Each compliance page is a resource of its own, which roles
grant and the page asks for.

FAB knows one DAG apart from the others (``DAG:<dag_id>``) but not its parts: a person who may read
logs may read those of every DAG that the person may read, and two roles of one person open more
together than each alone. So everything beyond reading is granted on a part of one DAG,
``<part>:<dag_id>``, which `include.orchestration.access.manager` looks for.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Page(StrEnum):
    """One compliance page; the value is the resource's name in FAB."""

    OVERVIEW = "Compliance Overview"
    EVIDENCE = "Compliance Evidence"
    WAITING = "Compliance Waiting"
    CLOCKS = "Compliance Clocks"
    HOLDS = "Compliance Holds"
    FINDINGS = "Compliance Findings"
    RESTORE_POINTS = "Compliance Restore Points"


class Action(StrEnum):
    """An action, as FAB names it."""

    READ = "can_read"
    CREATE = "can_create"
    EDIT = "can_edit"
    DELETE = "can_delete"
    MENU = "menu_access"


class Permission(NamedTuple):
    """An action on a resource."""

    action: str
    resource: str


class Part(StrEnum):
    """A part of a DAG, as FAB names it where it means those of all DAGs."""

    RUN = "DAG Runs"
    TASK = "Task Instances"
    LOG = "Task Logs"
    XCOM = "XComs"
    CODE = "DAG Code"
    ANSWER = "HITL Detail"


DAG_PREFIX = "DAG:"
RUN_PREFIX = "DAG Run:"  # FAB's own for the runs of one DAG; it has none for other parts


def on_dag(action: Action, dag_id: str) -> Permission:
    """Return the permission on a DAG itself: to see it, or to pause it."""
    return Permission(action, f"{DAG_PREFIX}{dag_id}")


def part_of(part: str, dag_id: str) -> str:
    """Return the name of a part of one DAG."""
    return f"{RUN_PREFIX if part == Part.RUN else f'{part}:'}{dag_id}"


def on_part(action: Action, part: Part, dag_id: str) -> Permission:
    """Return the permission on a part of one DAG."""
    return Permission(action, part_of(part, dag_id))


def to_read(*resources: str) -> Iterable[Permission]:
    """Return the permissions to read resources."""
    return (Permission(Action.READ, one) for one in resources)


def menus(*resources: str) -> Iterable[Permission]:
    """Return the permissions to see entries of Airflow's navigation."""
    return (Permission(Action.MENU, one) for one in resources)
