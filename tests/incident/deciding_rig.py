"""What tests of deciding and telling do again and again."""

from __future__ import annotations

from sqlalchemy import text

from include.approvals.question import Answer
from include.incident.clocks.clock import Clock, clocks_of
from include.incident.incident_run import IncidentRun
from include.incident.names import INDIVIDUAL, UPDATES
from include.incident.selection import Selection
from include.incident.steps import decide
from include.incident.steps.closing import open_points
from include.notify.outbox import Run
from include.notify.status import undelivered
from tests.incident.desk_rig import BOSS, Case, Company, english, widen


def asked(company: Company, *keys: int, **form: object) -> Case:
    """An incident in which the decision is asked for."""
    case = company.open(*(keys or (1, 2, 3)), **form).until("impact")
    case.page("decide")
    return case


def later(case: Case) -> IncidentRun:
    """The desk of an addition."""
    run = Run(UPDATES, f"update__{case.number}")
    return case.company.context(run, incident=case.number)


def widened(case: Case, *keys: int) -> IncidentRun:
    """More people are affected, as an addition says; secured too."""
    run = later(case)
    more = Selection(databases=("courier",), keys=tuple(f"courier/{one}" for one in keys))
    widen(run, case.number, more, by="L1")
    case.preserve(run.run)
    return run


def told(case: Case) -> list[str]:
    """Keys of all notices to people that were queued."""
    states = ("pending", "sent", "undeliverable", "in_doubt", "withdrawn")
    with case.company.state.connect() as conn:
        return [
            one.key.removeprefix(f"{case.number}/")
            for one in undelivered(conn, INDIVIDUAL, f"{case.number}/", states=states)
        ]


def given(case: Case, option: str = decide.TELL, **entered: object) -> Answer:
    """An answer of management, now."""
    entered |= {"list_looked_at": True}
    at, content = case.company.clock.now(), case.content("decide")
    return Answer(option, "", BOSS, at, entered=entered, content=content)


def texts(case: Case) -> list[str]:
    """Digests of the letters of an incident, by key."""
    query = text("SELECT text FROM notice WHERE key LIKE :mine AND kind = :kind ORDER BY key")
    with case.company.state.connect() as conn:
        return list(conn.scalars(query, {"mine": f"{case.number}/%", "kind": INDIVIDUAL}))


def open_individuals(case: Case) -> Clock:
    """The clock of telling people."""
    return {one.id: one for one in clocks_of(case.context, case.record)}["individuals"]


def left(case: Case) -> str:
    """The last of what is still open."""
    return english(open_points(case.context, case.record)[-1])
