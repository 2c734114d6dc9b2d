"""Declarations of `respond_to_incident` and `update_incident`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psycopg

from include.approvals.people import members
from include.incident.login_queries import incident_queries
from include.incident.names import ALERT, CLAUSE, FINDING_KIND, INDIVIDUAL, UPDATES, WORKFLOW
from include.incident.rule_checks import INCIDENT
from include.incident.rules import IncidentRules
from include.incident.telling.still_due import addresses, alerts_due, letters_due
from include.messages import _
from include.state.incidents import incident, incident_entry
from include.workflow.declaration import (
    AccessGroup,
    Cadence,
    DatabaseLogin,
    LoginQuery,
    NotificationKind,
    Workflow,
)
from include.workflow.run_context import RunContext

LOGIN = DatabaseLogin("incident_db", Path(__file__).with_name("sample_grants.sql"))


def login_queries(run: RunContext[IncidentRules]) -> Iterator[LoginQuery]:
    """Yield the queries over all columns that incident.yaml names."""
    for connection, database, sql in incident_queries(run.pack, run.rules):
        yield LoginQuery(connection, database, sql)


def respondents(run: RunContext[IncidentRules]) -> list[Sequence[str]]:
    """Return the user ids of everyone who may answer a step, by duty."""
    rules = run.rules
    groups = [group for duty in rules.team for group in (duty.people, duty.deputies)]
    holder = run.pack.database_of(rules.staff.collection, rules.staff.database)
    with suppress(psycopg.Error), run.services.staff(holder) as connection:
        return [members(connection, holder, rules.staff, group) for group in groups]
    return [group.accounts for group in groups]


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
    starts_unpaused=True,  # the person on call at night could not unpause it
    rules=INCIDENT,
    login=LOGIN,
    seals_during_run=True,
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
    starts_unpaused=True,
    rules=INCIDENT,
    login=LOGIN,
    seals_during_run=True,
    respondents=respondents,
)
