"""Helpers for tests of the decision to notify people, and of notices."""

from __future__ import annotations

from sqlalchemy import text

from include.approvals.required_action import Answer
from include.incident.incident_ids import INDIVIDUAL, UPDATES
from include.incident.incident_run import IncidentRun
from include.incident.selection import Selection
from include.incident.steps import decision
from include.incident.steps.closing import open_points
from include.incident.time_limits.time_limit import TimeLimit, time_limits_of
from include.notify.outbox import Run
from include.notify.status import undelivered
from tests.incident.incident_fixtures import BOSS, Case, Company, english, widen


def asked(company: Company, *keys: int, **form: object) -> Case:
    """Return an incident in which the decision whether to notify people is the next step.

    Args:
        company: sample company.
        keys: numbers of the affected customers; default: 1, 2 and 3.
        form: other fields of the trigger form.
    """
    case = company.open(*(keys or (1, 2, 3)), **form).until("impact")
    case.page("decide")
    return case


def later(case: Case) -> IncidentRun:
    """Return the run context of a later run of `update_incident`."""
    run = Run(UPDATES, f"update__{case.number}")
    return case.company.context(run, incident=case.number)


def widened(case: Case, *keys: int) -> IncidentRun:
    """Widen the scope to the given customers by an update, and preserve the evidence.

    Returns:
        The run context of the update.
    """
    run = later(case)
    more = Selection(databases=("courier",), keys=tuple(f"courier/{key}" for key in keys))
    widen(run, case.number, more, by="L1")
    case.preserve(run.run)
    return run


def told(case: Case) -> list[str]:
    """Return the keys of all queued notices to affected people."""
    states = ("pending", "sent", "undeliverable", "in_doubt", "withdrawn")
    with case.company.state.connect() as conn:
        return [
            notice.key.removeprefix(f"{case.number}/")
            for notice in undelivered(conn, INDIVIDUAL, f"{case.number}/", states=states)
        ]


def given(case: Case, option: str = decision.TELL, **entered: object) -> Answer:
    """Return an answer to the decision, given now by a member of the management.

    Args:
        case: incident.
        option: id of the answer.
        entered: values of form fields that differ from the usual values.
    """
    entered |= {"list_looked_at": True}
    at, content = case.company.clock.now(), case.content("decide")
    return Answer(option, "", BOSS, at, entered=entered, content=content)


def texts(case: Case) -> list[str]:
    """Return the digests of the texts of an incident's notices, sorted by notice key."""
    query = text("SELECT text FROM notification WHERE key LIKE :mine AND kind = :kind ORDER BY key")
    with case.company.state.connect() as conn:
        return list(conn.scalars(query, {"mine": f"{case.number}/%", "kind": INDIVIDUAL}))


def notification_time_limit(case: Case) -> TimeLimit:
    """Return the time limit of the notification of affected people."""
    return {time_limit.id: time_limit for time_limit in time_limits_of(case.context, case.record)}[
        "individuals"
    ]


def left(case: Case) -> str:
    """Return the last of the tasks that have to be done before the incident can be closed."""
    return english(open_points(case.context, case.record)[-1])
