"""Permissions of Airflow and of the compliance pages, with the names that FAB uses.

This module does not import Airflow. A permission is an action on a resource. Each compliance page
is a separate resource.

FAB has permissions on a single DAG (``DAG:<dag_id>``), but not on a part of one DAG, such as its
logs. In FAB, a user with the permission to read logs can read the logs of every DAG that the user
may read. Suppose that a user has two roles: the first role may read one DAG, and the second role
may read another DAG and its logs. This user could then read the logs of both DAGs. Therefore every
right beyond reading is granted on a part of a DAG, ``<part>:<dag_id>``, which
`include.orchestration.access.manager` checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Page(StrEnum):
    """A compliance page. The value is the page's resource name in FAB."""

    OVERVIEW = "Compliance Overview"
    EVIDENCE = "Compliance Evidence"
    WAITING = "Compliance Waiting"
    CLOCKS = "Compliance Clocks"
    HOLDS = "Compliance Holds"
    FINDINGS = "Compliance Findings"
    USE = "Compliance Use"
    RESTORE_POINTS = "Compliance Restore Points"


class PageScope(StrEnum):
    """A right to see more on a compliance page. The value is its resource name in FAB.

    Attributes:
        USE_OF_ALL: see the requests of all people on the page `Page.USE`. Without this right, the
            page shows only the visitor's own requests.
    """

    USE_OF_ALL = "Compliance Use Of All"


class Action(StrEnum):
    """An action that a permission allows. The value is the action's name in FAB."""

    READ = "can_read"
    CREATE = "can_create"
    EDIT = "can_edit"
    DELETE = "can_delete"
    MENU = "menu_access"


class Permission(NamedTuple):
    """A permission in FAB: an action, and the resource on which the action is allowed.

    Attributes:
        action: name of the action, such as ``can_read``.
        resource: name of the resource, such as ``DAG:sample_audit``.
    """

    action: str
    resource: str


class Part(StrEnum):
    """A part of a DAG. The value is the name of the FAB resource for this part of every DAG."""

    RUN = "DAG Runs"
    TASK = "Task Instances"
    LOG = "Task Logs"
    XCOM = "XComs"
    CODE = "DAG Code"
    ANSWER = "HITL Detail"


DAG_PREFIX = "DAG:"
RUN_PREFIX = "DAG Run:"  # FAB's own prefix for the runs of a DAG; other parts have none in FAB


def on_dag(action: Action, dag_id: str) -> Permission:
    """Return the permission for an action, such as reading or pausing, on a whole DAG."""
    return Permission(action, f"{DAG_PREFIX}{dag_id}")


def part_of(part: str, dag_id: str) -> str:
    """Return the FAB resource name for a part of one DAG, such as ``Task Logs:sample_audit``.

    Args:
        part: FAB resource name of this part for all DAGs, such as ``Task Logs``.
        dag_id: DAG id of the workflow.
    """
    return f"{RUN_PREFIX if part == Part.RUN else f'{part}:'}{dag_id}"


def on_part(action: Action, part: Part, dag_id: str) -> Permission:
    """Return the permission for an action on a part of one DAG, such as reading its logs."""
    return Permission(action, part_of(part, dag_id))


def to_read(*resources: str) -> Iterable[Permission]:
    """Return, for each resource, the permission to read it."""
    return (Permission(Action.READ, resource) for resource in resources)


def menus(*resources: str) -> Iterable[Permission]:
    """Return, for each resource, the permission to see its entry in Airflow's navigation."""
    return (Permission(Action.MENU, resource) for resource in resources)
