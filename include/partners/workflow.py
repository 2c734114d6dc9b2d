"""The declaration of the workflow `review_partners`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from include.messages import _
from include.partners import report
from include.partners.check import CHECK
from include.partners.reminders import still_due
from include.partners.reviews import reopen_review
from include.partners.rules import (
    CLAUSE_BOUND,
    CLAUSE_REVIEW,
    CONTACT,
    PARTNERS,
    REMINDER,
    PartnerRules,
)
from include.workflow.declaration import (
    AccessGroup,
    Cadence,
    DatabaseLogin,
    LoginQuery,
    NotificationKind,
    Workflow,
)
from include.workflow.run_context import RunContext


def login_queries(run: RunContext[PartnerRules]) -> Iterator[LoginQuery]:
    """Yield the query that reads the partner register.

    The caller checks whether the database login of the workflow may run it.
    """
    register = run.rules.source
    yield LoginQuery(run.rules.connection, register.database, register.sql)


REVIEW_PARTNERS = Workflow[PartnerRules](
    id="review_partners",
    title=_("Partner reviews"),
    summary="Check the obligations of every partner, remind people once, report, seal.",
    topic="partners",
    clauses=(CLAUSE_REVIEW, CLAUSE_BOUND),
    cadence=Cadence.WEEKLY,
    owner="compliance",
    access=AccessGroup.PEOPLE,
    steps=(CHECK,),
    conclude=report.conclude,
    without_rules=_("The policy pack has no partner rules, so no partner was checked."),
    rules=PARTNERS,
    login=DatabaseLogin("partners_db", Path(__file__).with_name("sample_grants.sql")),
    queries=login_queries,
    on_partner_incident=reopen_review,
    notifications=(
        NotificationKind(REMINDER, _("partner reminder to the owner"), still_due),
        NotificationKind(CONTACT, _("partner reminder to the partner"), still_due),
    ),
)
