"""The items of the work list: open findings and required actions, overdue items first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from enum import StrEnum

from airflow.utils.session import create_session
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from include.evidence.model import Outcome
from include.findings import register
from include.findings.decisions import Deciders
from include.findings.register import Finding, State
from include.messages import Message, _
from include.orchestration.access.permissions import Page
from include.policy import PolicyPack
from plugins.compliance_ui.access import Visitor, name_of
from plugins.compliance_ui.page_services import PageServices
from plugins.compliance_ui.required_actions import RequiredAction, open_actions
from plugins.compliance_ui.workflow_names import dag_of_findings, title_of

BADGE_CACHED_FOR = 30.0  # seconds
_NEVER = datetime.max.replace(tzinfo=UTC)

_STATES = {
    State.OPEN: _("waits for the owner's answer"),
    State.ANSWERED: _("answered; waits for a retest by another person"),
    State.CLOSED: _("closed"),
}
_WAITS_FOR_RUN = _("open; will be closed by the next complete run that does not report it")
_ANSWERED_WAITS_FOR_RUN = _("answered; waits for the next complete run")
_WAITS_FOR_ANSWER = _("waits for an answer in Airflow")


class View(StrEnum):
    """The part of the work list that a visitor chooses.

    Attributes:
        ALL: all items that the visitor may read.
        DEPARTMENT: items of the visitor's roles, and required actions of the visitor.
        MINE: items for which the visitor is responsible.
    """

    ALL = "all"
    DEPARTMENT = "department"
    MINE = "mine"


@dataclass(frozen=True)
class WorkItem:
    """An item of the work list.

    Attributes:
        title: description of the finding, or subject of the required action.
        source: title of the workflow; None for findings that every workflow reports.
        clause: number of the policy clause; empty if the item has none.
        severity: outcome that the finding causes; None for required actions.
        owner: title of the role that owns the finding; None for required actions.
        people: names of the people who are responsible or may answer.
        due_at: deadline; None if there is none.
        has_time: whether the deadline has a time of day. Otherwise the item is due at the end of
            the day.
        is_overdue: whether the deadline has passed, and the risk is not accepted.
        state: description of the state.
        path: path of the item's page.
        is_in_airflow: whether `path` is relative to Airflow's base URL, instead of that of the
            compliance pages.
        is_mine: whether the visitor is responsible.
        is_department: whether a role of the visitor is responsible.
        finding: the finding; None for required actions.
    """

    title: Message
    source: Message | None
    clause: str
    severity: Outcome | None
    owner: Message | None
    people: tuple[str, ...]
    due_at: datetime | None
    has_time: bool
    is_overdue: bool
    state: Message
    path: str
    is_in_airflow: bool
    is_mine: bool
    is_department: bool
    finding: Finding | None = None

    def is_in(self, view: View) -> bool:
        """Return whether a view of the work list shows the item."""
        match view:
            case View.ALL:
                return True
            case View.DEPARTMENT:
                return self.is_department or self.is_mine
            case View.MINE:
                return self.is_mine


def work_items(
    conn: Connection, session: Session, services: PageServices, visitor: Visitor
) -> list[WorkItem]:
    """Return the open items that a visitor may read: overdue items first, then by deadline.

    Args:
        conn: connection to the state database.
        session: session of Airflow's metadata database.
        services: services for the request.
        visitor: the visitor.
    """
    now, pack = services.now(), services.pack
    actions = open_actions(session, visitor) if Page.WAITING in visitor.pages else []
    items = [_action_item(action, now) for action in actions]
    if Page.FINDINGS in visitor.pages:
        roles = roles_of(pack, visitor)
        items += [
            _finding_item(pack, visitor, roles, finding, now)
            for finding in readable_findings(register.list_findings(conn), visitor)
        ]
    return sorted(items, key=_urgency)


def readable_findings(findings: Sequence[Finding], visitor: Visitor) -> list[Finding]:
    """Return the findings that a visitor may read.

    A visitor may read the findings of a workflow whose DAG the visitor may read. Findings about the
    evidence and the registers belong to no workflow: every visitor may read them.

    Args:
        findings: findings of the register.
        visitor: the visitor.
    """
    dags = visitor.readable(filter(None, {dag_of_finding(finding) for finding in findings}))
    return [
        finding
        for finding in findings
        if is_of_every_workflow(finding) or dag_of_finding(finding) in dags
    ]


def dag_of_finding(finding: Finding) -> str:
    """Return the id of the DAG whose readers may read a finding; empty if there is none."""
    if finding.origin is not None:
        return finding.origin.workflow
    return dag_of_findings().get(finding.kind, "")


def is_of_every_workflow(finding: Finding) -> bool:
    """Return whether the finding is about the evidence or the registers."""
    return finding.origin is not None and not finding.origin.workflow


def roles_of(pack: PolicyPack, visitor: Visitor) -> frozenset[str]:
    """Return the ids of the roles of roles.yaml that list the visitor."""
    deciders = Deciders(pack.roles, pack.findings, pack.calendar.zone)
    return frozenset().union(*(deciders.roles_of(account) for account in visitor.ids))


def source_of(finding: Finding) -> Message | None:
    """Return the title of the workflow that reported a finding; None if every workflow does."""
    dag = dag_of_finding(finding)
    return title_of(dag) if dag else None


def state_of(finding: Finding, today: date) -> Message:
    """Return a description of a finding's state."""
    state = finding.state_on(today)
    if state is State.ACCEPTED:
        assert finding.acceptance is not None
        return _("risk accepted until {day}", day=finding.acceptance.until)
    if finding.closes_by_run and state is State.OPEN:
        return _WAITS_FOR_RUN
    if finding.closes_by_run and state is State.ANSWERED:
        return _ANSWERED_WAITS_FOR_RUN
    return _STATES[state]


def badge(services: PageServices, visitor: Visitor) -> int:
    """Return the number of items that the visitor is responsible for, from a cache of 30 seconds.

    Args:
        services: services for the request.
        visitor: the visitor.
    """

    def count() -> int:
        with services.read_connection() as conn, create_session() as session:
            items = work_items(conn, session, services, visitor)
        return sum(item.is_in(View.DEPARTMENT) for item in items)

    return services.cache.get(f"badge {visitor.name}", count, visitor.pages, BADGE_CACHED_FOR)


def _action_item(action: RequiredAction, now: datetime) -> WorkItem:
    return WorkItem(
        title=action.subject,
        source=action.workflow,
        clause="",
        severity=None,
        owner=None,
        people=action.people,
        due_at=action.due_at,
        has_time=True,
        is_overdue=action.is_overdue(now),
        state=_WAITS_FOR_ANSWER,
        path=action.path,
        is_in_airflow=True,
        is_mine=action.is_for_visitor,
        is_department=action.is_for_visitor,
    )


def _finding_item(
    pack: PolicyPack, visitor: Visitor, roles: frozenset[str], finding: Finding, now: datetime
) -> WorkItem:
    is_department = finding.owner in roles
    is_named = finding.assignee in visitor.ids
    origin = finding.origin
    return WorkItem(
        title=finding.description,
        source=source_of(finding),
        clause=origin.clause if origin is not None else "",
        severity=finding.severity,
        owner=pack.role_message(finding.owner),
        people=(name_of(finding.assignee),) if finding.assignee else (),
        due_at=datetime.combine(finding.due_on, time.max, now.tzinfo),
        has_time=False,
        is_overdue=finding.overdue(now.date()),
        state=state_of(finding, now.date()),
        path=f"/findings/{finding.id}",
        is_in_airflow=False,
        is_mine=is_named or (is_department and not finding.assignee),
        is_department=is_department,
        finding=finding,
    )


def _urgency(item: WorkItem) -> tuple[bool, datetime, bool]:
    """Return the sort key of an item: overdue items first, then by deadline."""
    return not item.is_overdue, item.due_at or _NEVER, item.finding is not None
