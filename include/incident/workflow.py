"""Declarations of the workflows `respond_to_incident` and `update_incident`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from include.approvals.approvers import group_members
from include.evidence.step_findings import StepFindings
from include.incident import report, watch
from include.incident.communication.addresses import alerts_due, notice_addresses, notices_due
from include.incident.communication.notices import notify_subjects
from include.incident.entries import (
    AuthoritiesNamed,
    IncidentOpened,
    NoticesQueued,
    Preserved,
    ScopeCounted,
)
from include.incident.evidence.preservation import preserve_evidence
from include.incident.form import trigger_form, update_form
from include.incident.incident_ids import (
    ALERT,
    CLAUSE,
    FINDING_KIND,
    INDIVIDUAL,
    STEP_ASSESS,
    STEP_NOTIFY,
    STEP_OPEN,
    STEP_PRESERVE,
    STEP_WATCH,
    UPDATES,
    WORKFLOW,
)
from include.incident.incident_opening import open_incident
from include.incident.incident_run import SCENARIO, IncidentRun, incident_of
from include.incident.rule_checks import INCIDENT, incident_queries
from include.incident.rules import IncidentRules
from include.incident.scope_assessment import assess_scope, widen_scope
from include.incident.step_titles import STEP_TITLES
from include.incident.steps import report as report_step
from include.incident.steps.assessment import CONTAIN, GRADING, IMPACT
from include.incident.steps.closing import CLOSING, REVIEW
from include.incident.steps.decision import DECISION
from include.incident.steps.report import REPORT, REPORT_REST, SUMMARY
from include.incident.tables import incident, incident_entry
from include.incident.updates import is_widened
from include.messages import _
from include.workflow.declaration import (
    AccessGroup,
    Cadence,
    DatabaseLogin,
    LoginQuery,
    NotificationKind,
    Workflow,
)
from include.workflow.step import Step, Watch

LOGIN = DatabaseLogin("incident_db", Path(__file__).with_name("sample_grants.sql"))


def login_queries(run: IncidentRun) -> Iterator[LoginQuery]:
    """Yield the queries of incident.yaml, to check that the logins may read the columns."""
    for connection, database, sql in incident_queries(run.pack, run.rules):
        yield LoginQuery(connection, database, sql)


def respondents(run: IncidentRun) -> list[Sequence[str]]:
    """Return the user ids of the people who may answer steps, as two lists per duty of the team.

    For each duty, a list of the people with the duty is followed by a list of their deputies. If
    the staff table cannot be read, the lists contain only accounts named in the policy pack.
    """
    rules = run.rules
    groups = [group for duty in rules.team for group in (duty.people, duty.deputies)]
    holder = run.pack.database_of(rules.staff.collection, rules.staff.database)
    with suppress(psycopg.Error), run.services.staff(holder) as connection:
        return [group_members(connection, holder, rules.staff, group) for group in groups]
    return [group.accounts for group in groups]


def is_drill(parameters: Mapping[str, Any]) -> bool:
    """Return whether a person chose the scenario of a drill in the trigger form of a run.

    Args:
        parameters: parameters of the run.
    """
    return bool(parameters.get(SCENARIO))


def name_authorities(run: IncidentRun, findings: StepFindings) -> AuthoritiesNamed:
    """Determine the authorities to which the incident has to be reported.

    The result contains their ids. It is empty for a duplicate or cancelled incident.
    """
    del findings
    record = incident_of(run)
    authorities = report_step.authorities(run, record) if record.incident.requires_steps else []
    return AuthoritiesNamed(authorities=[authority.id for authority in authorities])


OPEN = Step(
    name=STEP_OPEN,
    title=STEP_TITLES[STEP_OPEN],
    clause=CLAUSE,
    work=open_incident,
    result=IncidentOpened,
    sends_urgent=True,
)
ASSESS = Step(
    name=STEP_ASSESS,
    title=STEP_TITLES[STEP_ASSESS],
    clause=CLAUSE,
    work=assess_scope,
    result=ScopeCounted,
)
PRESERVE = Step(
    name=STEP_PRESERVE,
    title=STEP_TITLES[STEP_PRESERVE],
    clause=CLAUSE,
    work=preserve_evidence,
    result=Preserved,
)
AUTHORITIES = Step(
    name="authorities",
    title=STEP_TITLES["authorities"],
    clause=CLAUSE,
    work=name_authorities,
    result=AuthoritiesNamed,
    parts=lambda named: named.authorities,
)
NOTIFY = Step(
    name=STEP_NOTIFY,
    title=STEP_TITLES[STEP_NOTIFY],
    clause=CLAUSE,
    work=notify_subjects,
    result=NoticesQueued,
)
WATCH = Watch(
    name=STEP_WATCH,
    check=watch.watch_once,
    max_interval=timedelta(minutes=5),
    keeps_watching=watch.report_failed_tasks,
)
WIDEN = Step(
    name="widen",
    title=STEP_TITLES["widen"],
    clause=CLAUSE,
    work=widen_scope,
    result=ScopeCounted,
    applies=is_widened,
)

RESPOND_TO_INCIDENT = Workflow[IncidentRules](
    id=WORKFLOW,
    title=_("Incident response"),
    summary="Lead an incident from awareness to its summary: deadlines, evidence, reports, "
    "notices, seal.",
    topic="incident",
    clauses=(CLAUSE,),
    cadence=Cadence.ON_DEMAND,
    owner="compliance",
    access=AccessGroup.INCIDENTS,
    asks_people=True,
    concurrent_runs=16,  # incidents may overlap
    trigger_form=lambda pack: trigger_form(pack.section(INCIDENT)),
    starts_unpaused=True,  # the person on call at night could not unpause it
    steps=(
        OPEN,
        WATCH,
        ASSESS,
        CONTAIN,
        GRADING,
        PRESERVE,
        AUTHORITIES,
        REPORT,
        IMPACT,
        DECISION,
        NOTIFY,
        REPORT_REST,
        CLOSING,
        REVIEW,
        SUMMARY,
    ),
    conclude=report.conclude,
    without_rules=report.NOTHING_OPENED,
    needs_rules=True,
    is_drill=is_drill,
    after_sending=watch.settle_notifications,
    rules=INCIDENT,
    login=LOGIN,
    reads_while_sealing=True,
    queries=login_queries,
    pages_read=(incident, incident_entry),
    notifications=(
        NotificationKind(ALERT, _("incident alert"), alerts_due),
        NotificationKind(
            INDIVIDUAL, _("notice to an affected person"), notices_due, notice_addresses
        ),
    ),
    finding_kind=FINDING_KIND,
    findings_need_retest=True,
    respondents=respondents,
)

UPDATE_INCIDENT = Workflow[IncidentRules](
    id=UPDATES,
    title=_("Addition to an incident"),
    summary="Enter a note, a hand-over, people, another grade or a wider scope; seal.",
    topic="incident",
    clauses=(CLAUSE,),
    cadence=Cadence.ON_DEMAND,
    owner="compliance",
    access=AccessGroup.INCIDENTS,
    asks_people=True,
    concurrent_runs=16,
    trigger_form=lambda pack: update_form(pack.section(INCIDENT)),
    starts_unpaused=True,
    steps=(
        report.ENTER,
        WIDEN,
        PRESERVE,
        replace(DECISION, optional=True, follows_skipped=False),
        NOTIFY,
    ),
    conclude=report.conclude_update,
    without_rules=report.NOTHING_ENTERED,
    needs_rules=True,
    after_sending=watch.settle_notifications,
    rules=INCIDENT,
    login=LOGIN,
    reads_while_sealing=True,
    findings_need_retest=True,
    respondents=respondents,
)
