"""The legal holds that an incident places: what is evidence of it is not deleted meanwhile.

Few people are held one by one, many with their database. Holds of two incidents on the same record
are two holds: the one stays when the other is released.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from itertools import islice

from sqlalchemy import Connection, select

from include.holds import registry
from include.holds.keys import refuse_personal_key
from include.holds.registry import HoldKind
from include.incident.incident_run import IncidentRun
from include.policy.spans import later
from include.services.errors import UsageError
from include.state.tables import legal_hold


def place(
    conn: Connection,
    run: IncidentRun,
    number: str,
    affected: Mapping[str, int | None],
    keys: Iterable[tuple[str, str]],
) -> dict[str, int]:
    """Place the holds that an incident needs and does not have yet; how many of each kind.

    Args:
        conn: the state database, in a transaction; deletions wait until it ends.
        run: the run or command.
        number: of the incident.
        affected: affected people by database; None where nobody could count them: then all of the
            database is held. So it is where a key looks like a person's number, which no registry
            keeps.
        keys: database and key of every affected person; read only where few are affected.

    Raises:
        ServiceError: a deletion in progress did not end; nothing was placed.
    """
    registry.wait_for_deletions(conn, "The holds of the incident were not placed")
    there = _placed(conn, number)
    most = run.rules.hold.each_up_to
    many = {name for name, count in affected.items() if count is None or count > most}
    few, each = set(affected) - many, []
    if few:
        listed = (one for one in keys if one[0] in few)
        each = list(islice(listed, most * len(few)))
        many |= {database for database, key in each if not _may_name(database, key)}
    wanted = [(HoldKind.DATABASE, name) for name in affected if name in many]
    wanted += [
        (HoldKind.SUBJECT, f"{database}/{key}") for database, key in each if database not in many
    ]
    made = dict.fromkeys((str(HoldKind.DATABASE), str(HoldKind.SUBJECT)), 0)
    for kind, value in wanted:
        if (str(kind), value) in there:
            continue
        registry.add(
            conn,
            run.clock,
            kind=kind,
            value=value,
            reason=f"Evidence of incident {number}",
            owner=run.rules.duty(run.rules.steps["close"]).role,
            case_ref=number,
            review_on=_review(run),
        )
        made[str(kind)] += 1
    return made


def _may_name(database: str, key: str) -> bool:
    try:
        refuse_personal_key("A hold's value", f"{database}/{key}")
    except UsageError:
        return False
    return True


def placed(conn: Connection, number: str) -> dict[str, int]:
    """How many holds of each kind an incident has in force."""
    found: dict[str, int] = {}
    for kind, _value in _placed(conn, number):
        found[kind] = found.get(kind, 0) + 1
    return found


def _placed(conn: Connection, number: str) -> set[tuple[str, str]]:
    query = select(legal_hold.c.kind, legal_hold.c.value).where(
        legal_hold.c.case_ref == number, legal_hold.c.released_at.is_(None)
    )
    return {(row.kind, row.value) for row in conn.execute(query)}


def _review(run: IncidentRun) -> date:
    return later(run.clock.now(), run.rules.hold.review_after, run.zone).astimezone(run.zone).date()
