"""Declarations of the workflows `sample_audit` and `conclude_audit`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg.sql import Identifier

from include.approvals.approvers import group_members
from include.findings.reminders import keep_due_keys
from include.messages import _
from include.sampling import conclusion_report, report
from include.sampling.closing import EVALUATE, FIND_WORKPAPERS
from include.sampling.drawing import DRAW
from include.sampling.following import FOLLOW_UP
from include.sampling.freezing import COMMIT, FREEZE, POPULATIONS
from include.sampling.rules import (
    AUDIT,
    COMMITMENT_WORKFLOW,
    FINDINGS,
    NOTIFICATION_KIND,
    AuditRules,
)
from include.sampling.seed_entry import SEED
from include.workflow.declaration import (
    AccessGroup,
    Cadence,
    DatabaseLogin,
    LoginQuery,
    NotificationKind,
    Workflow,
)
from include.workflow.run_context import RunContext

# The queries may join it. A check of rights needs only its columns, not a real quarter.
_PERIOD = "WITH period (starts, ends) AS (VALUES (now(), now()))"


def login_queries(run: RunContext[AuditRules]) -> Iterator[LoginQuery]:
    """Yield each SQL query of audit.yaml, to check that the database login may run it."""
    rules = run.rules
    for population in rules.populations:
        sql = f"{_PERIOD} {population.sql}"
        yield LoginQuery(rules.connection, population.database, sql)
    if staff := rules.staff:
        holder = run.pack.database_of(staff.collection, staff.database)
        collection = holder.collections[staff.collection]
        table = Identifier(collection.schema_name, collection.table).as_string()
        account = Identifier(staff.account).as_string()
        where = rules.auditors.where or "true"
        sql = f"SELECT p.{account} FROM {table} p WHERE {where}"  # noqa: S608 - of the pack
        yield LoginQuery(rules.connection, holder.name, sql)


def respondents(run: RunContext[AuditRules]) -> list[Sequence[str]]:
    """Return a list with one element: the user ids of the auditors who may enter the random seed.

    The element is empty if the staff table cannot be read.
    """
    rules = run.rules
    if rules.staff is None:
        return [rules.auditors.accounts]
    holder = run.pack.database_of(rules.staff.collection, rules.staff.database)
    with suppress(psycopg.Error), run.services.staff(holder) as connection:
        return [group_members(connection, holder, rules.staff, rules.auditors)]
    return [()]


def still_due(run: RunContext[None], keys: Sequence[str]) -> set[str]:
    """Return the keys of the queued reminders whose findings are open without an accepted risk.

    Args:
        run: context of the run.
        keys: keys of queued reminders. A key begins with the number of the finding.
    """
    with run.state.connect() as conn:
        return keep_due_keys(conn, keys, run.today)


SAMPLE_AUDIT = Workflow[AuditRules](
    id="sample_audit",
    title=_("Audit sample"),
    summary="Freeze populations, commit, ask an auditor for the seed, draw, write workpapers, "
    "seal.",
    topic="audit",
    clauses=("6.1",),
    cadence=Cadence.QUARTERLY,
    owner="management",
    access=AccessGroup.AUDITS,
    asks_people=True,
    steps=(POPULATIONS, FREEZE, COMMIT, SEED, DRAW),
    conclude=report.conclude,
    without_rules=_("The policy pack has no rules for audit samples, so no population is audited."),
    rules=AUDIT,
    login=DatabaseLogin("audit_db", Path(__file__).with_name("sample_grants.sql")),
    queries=login_queries,
    findings_need_retest=True,  # each run is about another quarter
    interim_bundles={COMMITMENT_WORKFLOW: _("Audit sample: commitment")},
    respondents=respondents,
)

CONCLUDE_AUDIT = Workflow[None](
    id="conclude_audit",
    title=_("Audit conclusion"),
    summary="Judge returned workpapers, open findings, mail their owners, seal.",
    topic="audit",
    clauses=("6.1",),
    cadence=Cadence.DAILY,
    owner="management",
    access=AccessGroup.AUDITS,
    steps=(FIND_WORKPAPERS, EVALUATE, FOLLOW_UP),
    conclude=conclusion_report.conclude,
    notifications=(NotificationKind(NOTIFICATION_KIND, _("finding reminder"), still_due),),
    finding_kind=FINDINGS,
)
