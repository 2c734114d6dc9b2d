"""The declaration of the workflow `remind_training`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from include.messages import _
from include.training import report
from include.training.notifications import still_due
from include.training.plan import PLAN
from include.training.rules import TRAINING, TrainingRules
from include.training.training_status import CLAUSE, COPY, DEPARTMENT, REMINDER
from include.workflow.declaration import (
    AccessGroup,
    Cadence,
    DatabaseLogin,
    LoginQuery,
    NotificationKind,
    Workflow,
)
from include.workflow.run_context import RunContext


def login_queries(run: RunContext[TrainingRules]) -> Iterator[LoginQuery]:
    """Yield each SQL query of training.yaml, to check that the database login may execute it."""
    for source in run.rules.sources.values():
        if source.database and source.sql:
            yield LoginQuery(run.rules.connection, source.database, source.sql)


REMIND_TRAINING = Workflow[TrainingRules](
    id="remind_training",
    title=_("Training reminders"),
    summary="Remind people once of each due course, stop on completion, report coverage, seal.",
    topic="training",
    clauses=(CLAUSE,),
    cadence=Cadence.DAILY,
    owner="human_resources",
    access=AccessGroup.PEOPLE,
    steps=(PLAN,),
    conclude=report.conclude,
    without_rules=_("The policy pack has no training rules, so no training reminders were sent."),
    rules=TRAINING,
    login=DatabaseLogin("training_db", Path(__file__).with_name("sample_grants.sql")),
    queries=login_queries,
    notifications=tuple(
        NotificationKind(kind, title, partial(still_due, kind=kind))
        for kind, title in (
            (REMINDER, _("training reminder")),
            (COPY, _("copy of a training reminder to the superior")),
            (DEPARTMENT, _("weekly training summary of a department")),
        )
    ),
)
