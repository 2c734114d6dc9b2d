"""Declarations of `respond_to_incident` and `update_incident`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from include.approvals.people import members
from include.evidence.step_findings import StepFindings
from include.incident import report, watching
from include.incident.assessing import assess, widen
from include.incident.entries import (
    AuthoritiesNamed,
    IncidentOpened,
    NoticesQueued,
    Preserved,
    ScopeCounted,
)
from include.incident.evidence.preserving import preserve
from include.incident.form import trigger_form, update_form
from include.incident.incident_run import SCENARIO, IncidentRun, incident_of
from include.incident.names import (
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
from include.incident.opening import open_incident
from include.incident.rule_checks import INCIDENT, incident_queries
from include.incident.rules import IncidentRules
from include.incident.steps import report as report_step
from include.incident.steps.assessment import CONTAIN, GRADING, IMPACT
from include.incident.steps.closing import CLOSING, REVIEW
from include.incident.steps.decide import DECISION
from include.incident.steps.report import REPORT, REPORT_REST, SUMMARY
from include.incident.tables import incident, incident_entry
from include.incident.telling.addresses import addresses, alerts_due, letters_due
from include.incident.telling.notifying import notify
from include.incident.updating import is_widened
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
    """Yield the queries over all columns that incident.yaml names."""
    for connection, database, sql in incident_queries(run.pack, run.rules):
        yield LoginQuery(connection, database, sql)


def respondents(run: IncidentRun) -> list[Sequence[str]]:
    """Return the user ids of everyone who may answer a step, by duty."""
    rules = run.rules
    groups = [group for duty in rules.team for group in (duty.people, duty.deputies)]
    holder = run.pack.database_of(rules.staff.collection, rules.staff.database)
    with suppress(psycopg.Error), run.services.staff(holder) as connection:
        return [members(connection, holder, rules.staff, group) for group in groups]
    return [group.accounts for group in groups]


def is_drill(parameters: Mapping[str, Any]) -> bool:
    """Return whether a run plays a scenario."""
    return bool(parameters.get(SCENARIO))


def name_authorities(run: IncidentRun, findings: StepFindings) -> AuthoritiesNamed:
    """Name the authorities that it is reported to."""
    del findings
    record = incident_of(run)
    named = report_step.authorities(run, record) if record.incident.is_led else []
    return AuthoritiesNamed(authorities=[authority.id for authority in named])


OPEN = Step(
    name=STEP_OPEN,
    title=_("The opening"),
    clause=CLAUSE,
    work=open_incident,
    result=IncidentOpened,
    sends_urgent=True,
)
ASSESS = Step(
    name=STEP_ASSESS,
    title=_("The count of what is affected"),
    clause=CLAUSE,
    work=assess,
    result=ScopeCounted,
)
PRESERVE = Step(
    name=STEP_PRESERVE, title=_("The evidence"), clause=CLAUSE, work=preserve, result=Preserved
)
AUTHORITIES = Step(
    name="authorities",
    title=_("The authorities"),
    clause=CLAUSE,
    work=name_authorities,
    result=AuthoritiesNamed,
    parts=lambda named: named.authorities,
)
NOTIFY = Step(
    name=STEP_NOTIFY,
    title=_("The queueing of notices"),
    clause=CLAUSE,
    work=notify,
    result=NoticesQueued,
)
WATCH = Watch(
    name=STEP_WATCH, look=watching.look, at_most=timedelta(minutes=5), goes_on=watching.goes_on
)
WIDEN = Step(
    name="widen",
    title=_("The count of what is affected besides"),
    clause=CLAUSE,
    work=widen,
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
    trigger_form=trigger_form,
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
    after_sending=watching.settle,
    rules=INCIDENT,
    login=LOGIN,
    reads_while_sealing=True,
    queries=login_queries,
    pages_read=(incident, incident_entry),
    notifications=(
        NotificationKind(ALERT, alerts_due),
        NotificationKind(INDIVIDUAL, letters_due, addresses),
    ),
    finding_kind=FINDING_KIND,
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
    trigger_form=update_form,
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
    after_sending=watching.settle,
    rules=INCIDENT,
    login=LOGIN,
    reads_while_sealing=True,
    respondents=respondents,
)
