"""The declarations of the workflows `use_information` and `expire_grants`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection

from include.disclosure import expiry_report, grants, use_report
from include.disclosure.absence_proof import PROVE
from include.disclosure.accesses.step import COMPARE
from include.disclosure.approval import APPROVE, APPROVE_SECOND
from include.disclosure.delivery import DELIVER
from include.disclosure.expiry import EXPIRE
from include.disclosure.grants import GrantState
from include.disclosure.notification_kinds import APPROVAL, CONFIRM, DELIVERED, ENDING
from include.disclosure.roster import read_roster
from include.disclosure.rules import CLAUSE_PURPOSE, CLAUSE_USE, USE, UseRules
from include.disclosure.tables import use_grant, use_opening, use_request, use_request_run
from include.disclosure.use_check import CHECK
from include.disclosure.use_confirm import CONFIRM_COPIES
from include.disclosure.use_form import use_form
from include.disclosure.use_notifications import (
    approval_still_due,
    confirm_still_due,
    delivered_still_due,
    ending_still_due,
    passwords,
)
from include.disclosure.verification import VERIFY
from include.messages import Message, _
from include.services.errors import ParcelSealError
from include.workflow.declaration import (
    AccessGroup,
    Cadence,
    DatabaseLogin,
    LoginQuery,
    NotificationKind,
    Workflow,
)
from include.workflow.run_context import RunContext

LOGIN = DatabaseLogin("use_db", Path(__file__).with_name("sample_grants.sql"))


def login_queries(run: RunContext[UseRules]) -> Iterator[LoginQuery]:
    """Yield each query of use.yaml, to check that the database login may execute it."""
    source, accesses = run.rules.source, run.rules.accesses
    yield LoginQuery(run.rules.connection, source.database, source.sql)
    if accesses is not None:
        for sql in (accesses.log, accesses.approvals):
            yield LoginQuery(run.rules.connection, accesses.database, sql)


def respondents(run: RunContext[UseRules]) -> list[Sequence[str]]:
    """Return the user ids of all supervisors, and of all second approvers.

    The lists are empty if the roster cannot be read, because the run reports it.
    """
    with suppress(ParcelSealError):
        return [list(group) for group in read_roster(run).every_approver()]
    return [[], []]


def unfinished_grants(conn: Connection) -> Message | None:
    """Return how many extracts nobody deletes without use.yaml; None if there are none."""
    unfinished = grants.grants_in(conn, [state for state in GrantState if state != "ended"])
    if not unfinished:
        return None
    return _(
        "{count} extracts of customer information have not been deleted, and no run deletes them.",
        count=len(unfinished),
    )


USE_INFORMATION = Workflow[UseRules](
    id="use_information",
    title=use_report.TITLE,
    summary="A request: check, approve, deliver an extract; or confirm deleted copies; seal.",
    topic="use",
    clauses=(CLAUSE_PURPOSE, CLAUSE_USE),
    cadence=Cadence.ON_DEMAND,
    owner="information_management",
    access=AccessGroup.USE,
    trigger_form=use_form,
    asks_people=True,
    concurrent_runs=16,
    starts_unpaused=True,
    steps=(CHECK, APPROVE, APPROVE_SECOND, DELIVER, VERIFY, CONFIRM_COPIES),
    conclude=use_report.conclude,
    without_rules=_("The policy pack has no rules for the use of customer information."),
    needs_rules=True,
    rules=USE,
    login=LOGIN,
    queries=login_queries,
    pages_read=(use_request, use_request_run, use_grant, use_opening),
    notifications=(
        NotificationKind(APPROVAL, _("request for an approval of use"), approval_still_due),
        NotificationKind(
            DELIVERED, _("delivery of an extract"), delivered_still_due, secrets=passwords
        ),
        NotificationKind(ENDING, _("reminder that an access ends"), ending_still_due),
        NotificationKind(CONFIRM, _("reminder to confirm deleted copies"), confirm_still_due),
    ),
    findings_need_retest=True,
    respondents=respondents,
)

EXPIRE_GRANTS = Workflow[UseRules](
    id="expire_grants",
    title=expiry_report.TITLE,
    summary="End accesses, delete extracts, prove it; compare accesses with approvals; seal.",
    topic="use",
    clauses=(CLAUSE_PURPOSE, CLAUSE_USE),
    cadence=Cadence.HOURLY,
    owner="information_management",
    access=AccessGroup.RECORDS,
    steps=(EXPIRE, PROVE, COMPARE),
    conclude=expiry_report.conclude,
    without_rules=_("The policy pack has no rules for the use of customer information."),
    unfinished_without_rules=unfinished_grants,
    rules=USE,
    login=LOGIN,
    queries=login_queries,
)
