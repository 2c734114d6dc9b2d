"""The register of incidents.

An incident is opened once and ends once. Its type, grades, authorities and time limits are stored
when it is opened, and apply until it ends. Team members, checklists and contact details of
authorities are always those of the current policy pack.
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
from include.incident.incident_ids import DRILL, Kind, State
from include.incident.rules import Authority, Grade, IncidentRules, IncidentType, TimeLimitRule
from include.incident.selection import Selection
from include.incident.tables import incident
from include.incident.timeline import Entry, canonical, in_utc
from include.messages import _
from include.notify.outbox import Run
from include.policy.period import subtract_period
from include.policy.rules import Rule, translated_message
from include.services.clock import Clock
from include.services.errors import UsageError


class RulesSnapshot(Rule):
    """The rules of incident.yaml, except time limits, that are stored when an incident is opened.

    Attributes:
        type: type of the incident.
        grades: grades, least severe first.
        authorities: authorities to which incidents are reported.
    """

    type: IncidentType
    grades: tuple[Grade, ...]
    authorities: tuple[Authority, ...] = ()


def apply_snapshot(
    current_rules: IncidentRules, snapshot: RulesSnapshot | None, clocks: tuple[TimeLimitRule, ...]
) -> IncidentRules:
    """Return the current rules, with parts replaced by the rules stored with an incident.

    Grades, authorities and time limits are those that were stored when the incident was opened. The
    way to contact an authority is the current one.

    Args:
        current_rules: current content of incident.yaml.
        snapshot: rules stored with the incident; None if the version of ParcelSeal that opened the
            incident did not store rules.
        clocks: time limits stored with the incident.
    """
    if snapshot is None:
        return current_rules.model_copy(update={"clocks": clocks})
    types = [
        incident_type
        for incident_type in current_rules.types
        if incident_type.id == snapshot.type.id
    ] or [snapshot.type]
    current = {authority.id: authority for authority in current_rules.authorities}
    authorities = [
        authority.model_copy(update={"how": current[authority.id].how})
        if authority.id in current
        else authority
        for authority in snapshot.authorities
    ]
    return current_rules.model_copy(
        update={
            "types": tuple(types),
            "grades": snapshot.grades,
            "authorities": tuple(authorities),
            "clocks": clocks,
        }
    )


def rules_digest(clocks: Any, kept: Any) -> str:
    """Return the SHA-256 (hex) of the stored rules of an incident.

    Args:
        clocks: JSON value of the column ``clocks``.
        kept: JSON value of the column ``kept``; None if the column is empty.
    """
    return hashlib.sha256(canonical({"clocks": clocks, "kept": kept})).hexdigest()


def time_limits_digest(clocks: Iterable[TimeLimitRule]) -> str:
    """Return the SHA-256 (hex) of the rules of time limits.

    Keys with their default value are not included in the digest. Before migration 0020, the first
    timeline entry of an incident contained this digest.

    Args:
        clocks: rules of the time limits.
    """
    rules = [rule.model_dump(mode="json", exclude_defaults=True) for rule in clocks]
    return hashlib.sha256(canonical({"clocks": rules})).hexdigest()


def _digest(keys: Sequence[str]) -> str:
    return hashlib.sha256("".join(f"{key}\n" for key in keys).encode()).hexdigest()


_ENDS = {State.CLOSED: Kind.CLOSED, State.CANCELLED: Kind.CANCELLED}
"""State -> kind of the timeline entry that it requires."""


class Incident(FrozenModel):
    """A row of the register of incidents.

    Attributes:
        id: id in the state database.
        number: display number, such as ``INC-2026-0001``.
        run: run of `respond_to_incident` that handles the incident.
        type: id of the incident type in incident.yaml.
        what: description of the incident, without customer data.
        noticed_by: person or system that noticed the incident, without customer data.
        opened_by: user id of the person who triggered the run; empty if unknown.
        opened_at: time at which the incident was registered.
        aware_at: time at which the company became aware of the incident.
        began_at: time at which the leak started; None if unknown.
        partner: number of the partner that the form named, or None.
        selection: criteria of affected records in the form that opened the incident.
        clocks: time limits that were in incident.yaml when the incident was opened.
        kept: other rules that were in incident.yaml when the incident was opened; None if the
            version that opened it did not store rules.
        rules_sha256: digest (hex) of the stored ``clocks`` and ``kept``, calculated by
            `rules_digest`.
        duplicate_of: number of the incident that this incident duplicates; None if it is not a
            duplicate.
        state: state of the incident.
        grade: last confirmed grade; None before the first confirmation. Use it only for lists of
            incidents: `IncidentRecord.grade` reads the grade from the signed timeline.
        ended_at: time at which the incident was closed or cancelled; None if it has not ended.
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
    clocks: tuple[TimeLimitRule, ...]
    kept: RulesSnapshot | None
    rules_sha256: str
    duplicate_of: str | None
    state: State
    grade: str | None
    ended_at: datetime | None

    @property
    def requires_steps(self) -> bool:
        """Whether the incident's steps have to be done.

        False for a duplicate or a cancelled incident.
        """
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
    """Register an incident, or return the incident that an earlier attempt of the run registered.

    If the same form was submitted within the period `duplicate_within` of incident.yaml, the new
    incident is registered as a duplicate of the earlier incident. The steps of the duplicate are
    skipped, even if the earlier incident is already closed. An entry on the timeline of the earlier
    incident records the duplicate.

    Args:
        conn: connection to the state database, in a transaction.
        form: completed form.
        rules: content of incident.yaml.
        run: run that handles the incident.
        by: user id of the person who triggered the run; empty if unknown.
        clock: source of the current time.
        zone: timezone of the policy pack, which defines the length of a day.
        year: year in the incident number, in the policy pack's timezone.
    """
    timeline.lock_register(conn)
    if (existing := find_by_run(conn, run)) is not None:
        return existing
    now = clock.now().astimezone(UTC)
    original = None if form.another else _find_duplicate(conn, form, rules, now, zone)
    row = {
        "number": _next_number(conn, DRILL if form.scenario else rules.numbering, year),
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
        "clocks": [clock.model_dump(mode="json") for clock in rules.clocks],
        "kept": RulesSnapshot(
            type=rules.type(form.type), grades=rules.grades, authorities=rules.authorities
        ).model_dump(mode="json"),
        "duplicate_of": original.id if original else None,
        "state": str(State.DUPLICATE if original else State.OPEN),
    }
    conn.execute(incident.insert().values(row))
    opened = find_by_run(conn, run)
    assert opened is not None
    story = rules.scenario(form.scenario).story if form.scenario else None
    words = _(
        "Incident opened: {description}",
        description=translated_message(story) if story else form.what,
    )
    if original is not None:
        words = _(
            "This incident is a duplicate of {number} and is handled under that number.",
            number=original.number,
        )
        duplicate_words = _(
            "The form of this incident was submitted again. The second submission was "
            "registered as the duplicate {number}.",
            number=opened.number,
        )
        timeline.append(
            conn, original.id, Kind.PRESSED_AGAIN, duplicate_words, by=by or run.dag_id,
            clock=clock,
            data={"number": opened.number}, once=f"pressed:{opened.number}",
        )  # fmt: skip
    timeline.append(
        conn, opened.id, Kind.OPENED, words, by=by or run.dag_id, clock=clock,
        data={"noticed_by": form.noticed_by, "critical": rules.critical}
        | _first_entry_data(opened),
        once="opened",
    )  # fmt: skip
    return opened


def find_by_run(conn: Connection, run: Run) -> Incident | None:
    """Return the incident that a run of `respond_to_incident` registered, or None."""
    return _find_first(conn, incident.c.dag_id == run.dag_id, incident.c.run_id == run.run_id)


def changed_fields(incident: Incident, entries: Sequence[Entry]) -> list[str]:
    """Return the names of the fields whose value in the register was changed after the opening.

    The values in the register are compared with the first timeline entry, which has a copy of them.
    Fields that this entry lacks, because an older version of ParcelSeal wrote it, are not compared.
    ``state`` is returned if the register says that the incident was closed or cancelled, but no
    timeline entry records it.

    Args:
        incident: incident in the register.
        entries: entries of the incident's timeline, oldest first.
    """
    if not entries or entries[0].kind is not Kind.OPENED:
        return []
    opened = entries[0].data
    current = timeline.to_jsonb(
        _first_entry_data(incident) | {"clocks_sha256": time_limits_digest(incident.clocks)}
    )
    fields = [name for name, value in current.items() if name in opened and opened[name] != value]
    end = _ENDS.get(incident.state)
    if end is not None and not timeline.of_kind(entries, end):
        fields.append("state")
    return fields


def get_incident(conn: Connection, number: str) -> Incident:
    """Return the incident with a number such as ``INC-2026-0001``.

    Raises:
        UsageError: the incident does not exist.
    """
    existing = _find_first(conn, incident.c.number == number.strip().upper())
    if existing is None:
        raise UsageError(
            f"The incident {number} does not exist.", "List incidents: ./parcelseal incident list."
        )
    return existing


def list_incidents(conn: Connection) -> list[Incident]:
    """Return all incidents, newest first."""
    query = select(incident).order_by(incident.c.id.desc())
    return _read_rows(conn, conn.execute(query).mappings().all())


def set_grade(conn: Connection, incident_id: int, grade: str) -> None:
    """Replace the grade of an incident in the register.

    The earlier grades remain on the timeline.

    Args:
        conn: connection to the state database, in a transaction.
        incident_id: id of the incident.
        grade: id of the grade that a person has just confirmed.
    """
    conn.execute(update(incident).where(incident.c.id == incident_id).values(grade=grade))


def end_incident(conn: Connection, incident_id: int, state: State, at: datetime) -> None:
    """Set the state of an open incident to closed or cancelled.

    If the incident already has the state `state`, nothing is changed.

    Args:
        conn: connection to the state database, in a transaction.
        incident_id: id of the incident.
        state: new state.
        at: time at which the incident ended.

    Raises:
        UsageError: the incident is not open and has another state.
    """
    changed = conn.execute(
        update(incident)
        .where(incident.c.id == incident_id, incident.c.state == str(State.OPEN))
        .values(state=str(state), ended_at=at)
    ).rowcount
    current_state = conn.scalar(select(incident.c.state).where(incident.c.id == incident_id))
    if not changed and current_state != str(state):
        raise UsageError(
            f"The incident is {current_state}, so it cannot become {state}.",
            "Open a new incident.",
        )


def _first_entry_data(incident: Incident) -> dict[str, Any]:
    """Return, as JSON values, the fields of an incident that its first timeline entry copies.

    The list of entered keys is replaced by the number of keys and the digest of the list.

    Args:
        incident: incident in the register.
    """
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


def _find_duplicate(
    conn: Connection, form: Form, rules: IncidentRules, now: datetime, zone: ZoneInfo
) -> Incident | None:
    return _find_first(
        conn,
        incident.c.fingerprint == form.fingerprint,
        incident.c.state.in_([str(State.OPEN), str(State.CLOSED)]),
        incident.c.opened_at > subtract_period(now, rules.duplicate_within, zone),
    )


def _next_number(conn: Connection, prefix: str, year: int) -> str:
    """Return the next unused incident number of a year.

    The caller must have locked the register.
    """
    stem = f"{prefix}-{year}-"
    query = select(func.count()).where(incident.c.number.startswith(stem, autoescape=True))
    return f"{stem}{conn.scalars(query).one() + 1:04d}"


def _find_first(conn: Connection, *conditions: Any) -> Incident | None:
    query = select(incident).where(*conditions).order_by(incident.c.id).limit(1)
    incidents = _read_rows(conn, conn.execute(query).mappings().all())
    return incidents[0] if incidents else None


def _read_rows(conn: Connection, rows: Sequence[Mapping[Any, Any]]) -> list[Incident]:
    ids = {row["duplicate_of"] for row in rows if row["duplicate_of"] is not None}
    query = select(incident.c.id, incident.c.number).where(incident.c.id.in_(ids))
    numbers: dict[int, str] = {row.id: row.number for row in conn.execute(query)} if ids else {}
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
