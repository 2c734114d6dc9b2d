"""Versions of what is affected: each count stands beside the ones before it."""

from __future__ import annotations

from sqlalchemy import Connection, select

from include.incident import scope as scoping
from include.incident.incident_run import IncidentRun
from include.incident.scope import Scope
from include.services.errors import ControlFailed
from include.state.incidents import incident_scope


def keep(conn: Connection, run: IncidentRun, incident_id: int, counted: Scope) -> None:
    """Keep a count; one of that version that is there stays as it is.

    Args:
        conn: the state database, in a transaction that holds the incident's lock.
        run: the run or command.
        incident_id: of the incident.
        counted: what is affected.
    """
    conn.execute(
        incident_scope.insert().values(
            incident_id=incident_id,
            version=counted.version,
            made_at=run.clock.now(),
            selection=counted.selection.as_json(),
            counts=counted.as_json(),
        )
    )


def every(conn: Connection, incident_id: int) -> list[Scope]:
    """All counts of an incident, the oldest first."""
    query = (
        select(incident_scope.c.counts)
        .where(incident_scope.c.incident_id == incident_id)
        .order_by(incident_scope.c.version)
    )
    return [scoping.from_json(one) for one in conn.scalars(query)]


def found(run: IncidentRun, incident_id: int) -> Scope | None:
    """What is affected by the newest count; None where nobody counted."""
    with run.state.connect() as conn:
        counted = every(conn, incident_id)
    return counted[-1] if counted else None


def newest(run: IncidentRun, incident_id: int) -> Scope:
    """What is affected by the newest count.

    Raises:
        ControlFailed: nobody counted.
    """
    counted = found(run, incident_id)
    if counted is None:
        raise ControlFailed(
            "Nobody counted what is affected.", "Clear the task `assess` of this run."
        )
    return counted
