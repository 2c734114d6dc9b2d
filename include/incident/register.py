"""The register of incidents: each opens and ends once, by the rules of its opening.

Clocks, grades with their figures, authorities and the incident's type stay as they were when the
incident opened. People, checklists and telephone numbers are those of the pack today.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select, update

from include.frozen import FrozenModel
from include.incident import timeline
from include.incident.form import Form
from include.incident.names import DRILL, Kind, State
from include.incident.rules import Authority, ClockRule, Grade, IncidentRules, IncidentType
from include.incident.selection import Selection
from include.incident.tables import incident
from include.incident.timeline import Entry, canonical, in_utc
from include.messages import _
from include.notify.outbox import Run
from include.policy.period import earlier
from include.policy.rules import Rule, in_languages
from include.services.clock import Clock
from include.services.errors import UsageError


class Kept(Rule):
    """What is kept of incident.yaml beside the clocks.

    Attributes:
        type: of the incident.
        grades: least first.
        authorities: whom incidents are reported to.
    """

    type: IncidentType
    grades: tuple[Grade, ...]
    authorities: tuple[Authority, ...] = ()


def as_opened(
    today: IncidentRules, kept: Kept | None, clocks: tuple[ClockRule, ...]
) -> IncidentRules:
    """The rules of an incident.

    Args:
        today: incident.yaml.
        kept: when it was opened; None of incidents that are older than the keeping.
        clocks: as they were then.
    """
    if kept is None:
        return today.model_copy(update={"clocks": clocks})
    types = [kind for kind in today.types if kind.id == kept.type.id] or [kept.type]
    now = {authority.id: authority for authority in today.authorities}
    authorities = [
        authority.model_copy(update={"how": now[authority.id].how})
        if authority.id in now
        else authority
        for authority in kept.authorities
    ]
    return today.model_copy(
        update={
            "types": tuple(types),
            "grades": kept.grades,
            "authorities": tuple(authorities),
            "clocks": clocks,
        }
    )


def rules_digest(clocks: Any, kept: Any) -> str:
    """SHA-256 (hex) of the rules of an incident, as the register has them.

    Args:
        clocks: the column, JSON.
        kept: the column, JSON; None where it is empty.
    """
    return hashlib.sha256(canonical({"clocks": clocks, "kept": kept})).hexdigest()


def clocks_digest(clocks: Iterable[ClockRule]) -> str:
    """SHA-256 (hex) of clocks as first entries held it before 0020: without what is default."""
    rules = [rule.model_dump(mode="json", exclude_defaults=True) for rule in clocks]
    return hashlib.sha256(canonical({"clocks": rules})).hexdigest()


def _digest(keys: Sequence[str]) -> str:
    """Return the SHA-256 of the lines of keys, each with a line feed."""
    return hashlib.sha256("".join(f"{key}\n" for key in keys).encode()).hexdigest()


_ENDS = {State.CLOSED: Kind.CLOSED, State.CANCELLED: Kind.CANCELLED}
"""States that an entry of the timeline has to say."""


class Incident(FrozenModel):
    """One incident.

    Attributes:
        id: in the state database.
        number: for people, ``INC-2026-0001``.
        run: that leads it.
        type: of incident.yaml.
        what: what happened, value-free.
        noticed_by: who noticed, value-free.
        opened_by: user id of who pressed Trigger; empty where nobody is known.
        opened_at: when it was registered.
        aware_at: when the company became aware.
        began_at: when the leak began; None where nobody knows.
        partner: number of the partner at which it happened.
        selection: what is affected, as it was said first.
        clocks: their rules, as they were when it was opened.
        kept: other rules as they were then; None of incidents that are older than the keeping.
        rules_sha256: of both, as they are stored (`rules_digest`).
        duplicate_of: number of the incident that this one is.
        state: where it stands.
        grade: as a person confirmed it last; None before. For lists: `IncidentRecord.grade` is
            that of the timeline.
        ended_at: when it was closed or cancelled.
    """

    id: int
    number: str
    run: Run
    type: str
    what: str
    noticed_by: str
    opened_by: str
    opened_at: datetime
    aware_at: datetime
    began_at: datetime | None
    partner: str | None
    selection: Selection
    clocks: tuple[ClockRule, ...]
    kept: Kept | None
    rules_sha256: str
    duplicate_of: str | None
    state: State
    grade: str | None
    ended_at: datetime | None

    @property
    def is_led(self) -> bool:
        """Return whether its steps are to be done: it is neither a duplicate nor cancelled."""
        return self.state in (State.OPEN, State.CLOSED)


def open_incident(
    conn: Connection,
    form: Form,
    rules: IncidentRules,
    run: Run,
    *,
    by: str,
    clock: Clock,
    zone: ZoneInfo,
    year: int,
) -> Incident:
    """Register an incident; the same run again is the same incident.

    A form that is equal to that of an incident of the last while is that incident, also where it
    was closed since: it is registered as its duplicate, told on its timeline, and led no further.

    Args:
        conn: the state database, in a transaction.
        form: as it was filled in.
        rules: incident.yaml.
        run: that leads it.
        by: user id of who pressed Trigger; empty where nobody is known.
        clock: when.
        zone: of the pack; the days of a period are those of its calendar.
        year: of the number, in the pack's timezone.
    """
    timeline.lock(conn)
    if (found := of_run(conn, run)) is not None:
        return found
    now = clock.now().astimezone(UTC)
    first = None if form.another else _alike(conn, form, rules, now, zone)
    row = {
        "number": _number(conn, DRILL if form.scenario else rules.numbering, year),
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "type": form.type,
        "what": form.what,
        "noticed_by": form.noticed_by,
        "opened_by": by,
        "opened_at": now,
        "aware_at": form.aware_at,
        "began_at": form.began_at,
        "partner": form.selection.partner,
        "selection": form.selection.as_json(),
        "fingerprint": form.fingerprint,
        "clocks": [one.model_dump(mode="json") for one in rules.clocks],
        "kept": Kept(
            type=rules.type(form.type), grades=rules.grades, authorities=rules.authorities
        ).model_dump(mode="json"),
        "duplicate_of": first.id if first else None,
        "state": str(State.DUPLICATE if first else State.OPEN),
    }
    conn.execute(incident.insert().values(row))
    made = of_run(conn, run)
    assert made is not None
    story = rules.scenario(form.scenario).story if form.scenario else None
    words = _("Opened: {what}", what=in_languages(story) if story else form.what)
    if first is not None:
        words = _("The same as {number}: led there.", number=first.number)
        again = _("Trigger was pressed again: {number}, a duplicate.", number=made.number)
        timeline.append(
            conn, first.id, Kind.PRESSED_AGAIN, again, by=by or run.dag_id, clock=clock,
            data={"number": made.number}, once=f"pressed:{made.number}",
        )  # fmt: skip
    timeline.append(
        conn, made.id, Kind.OPENED, words, by=by or run.dag_id, clock=clock,
        data={"noticed_by": form.noticed_by, "critical": rules.critical, **_begun(made)},
        once="opened",
    )  # fmt: skip
    return made


def of_run(conn: Connection, run: Run) -> Incident | None:
    """The incident that a run leads."""
    return _first(conn, incident.c.dag_id == run.dag_id, incident.c.run_id == run.run_id)


def changed(incident: Incident, entries: Sequence[Entry]) -> list[str]:
    """Return the fields in which the register differs from the first entry: it was changed.

    A field that the version of the entry did not store is not compared.

    Args:
        incident: as the register has it.
        entries: its timeline, oldest entry first.
    """
    if not entries or entries[0].kind is not Kind.OPENED:
        return []
    opened = entries[0].data
    now = timeline.stored(_begun(incident) | {"clocks_sha256": clocks_digest(incident.clocks)})
    fields = [name for name, value in now.items() if name in opened and opened[name] != value]
    end = _ENDS.get(incident.state)
    if end is not None and not timeline.of_kind(entries, end):
        fields.append("state")
    return fields


def get(conn: Connection, number: str) -> Incident:
    """The incident of that number.

    Raises:
        UsageError: there is none.
    """
    found = _first(conn, incident.c.number == number.strip().upper())
    if found is None:
        raise UsageError(f"There is no incident {number}.", "See ./parcelseal incident list.")
    return found


def listed(conn: Connection) -> list[Incident]:
    """All incidents, the newest first."""
    query = select(incident).order_by(incident.c.id.desc())
    return _read(conn, conn.execute(query).mappings().all())


def graded(conn: Connection, incident_id: int, grade: str) -> None:
    """Keep the grade that a person confirmed; what was said before stands on the timeline."""
    conn.execute(update(incident).where(incident.c.id == incident_id).values(grade=grade))


def ended(conn: Connection, incident_id: int, state: State, at: datetime) -> None:
    """Close or cancel an open incident; one that ended stays as it ended.

    Raises:
        UsageError: it ended otherwise before.
    """
    changed = conn.execute(
        update(incident)
        .where(incident.c.id == incident_id, incident.c.state == str(State.OPEN))
        .values(state=str(state), ended_at=at)
    ).rowcount
    now = conn.scalar(select(incident.c.state).where(incident.c.id == incident_id))
    if not changed and now != str(state):
        raise UsageError(f"The incident is {now}: it cannot be {state}.", "Open a new one.")


def _begun(incident: Incident) -> dict[str, Any]:
    """Return the beginning of an incident as JSON; of listed keys their number and digest."""
    selection = incident.selection.as_json()
    if keys := incident.selection.keys:
        selection["keys"] = {"count": len(keys), "sha256": _digest(keys)}
    began_at = incident.began_at
    return {
        "type": incident.type,
        "aware_at": in_utc(incident.aware_at),
        "began_at": in_utc(began_at) if began_at else None,
        "selection": selection,
        "duplicate_of": incident.duplicate_of,
        "rules_sha256": incident.rules_sha256,
    }


def _alike(
    conn: Connection, form: Form, rules: IncidentRules, now: datetime, zone: ZoneInfo
) -> Incident | None:
    return _first(
        conn,
        incident.c.fingerprint == form.fingerprint,
        incident.c.state.in_([str(State.OPEN), str(State.CLOSED)]),
        incident.c.opened_at > earlier(now, rules.duplicate_within, zone),
    )


def _number(conn: Connection, begins: str, year: int) -> str:
    """The next number of a year; the caller holds the lock."""
    stem = f"{begins}-{year}-"
    query = select(func.count()).where(incident.c.number.startswith(stem, autoescape=True))
    return f"{stem}{conn.scalars(query).one() + 1:04d}"


def _first(conn: Connection, *conditions: Any) -> Incident | None:
    query = select(incident).where(*conditions).order_by(incident.c.id).limit(1)
    found = _read(conn, conn.execute(query).mappings().all())
    return found[0] if found else None


def _read(conn: Connection, rows: Sequence[Mapping[Any, Any]]) -> list[Incident]:
    ids = {row["duplicate_of"] for row in rows if row["duplicate_of"] is not None}
    query = select(incident.c.id, incident.c.number).where(incident.c.id.in_(ids))
    numbers: dict[int, str] = {one.id: one.number for one in conn.execute(query)} if ids else {}
    return [
        Incident.model_validate(
            {
                **row,
                "run": Run(row["dag_id"], row["run_id"]),
                "rules_sha256": rules_digest(row["clocks"], row["kept"]),
                "duplicate_of": numbers.get(row["duplicate_of"]),
            }
        )
        for row in rows
    ]
