"""``parcelseal incident``: clocks and timeline of incidents, without Airflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import (
    english,
    json_row,
    print_json,
    print_line,
    print_note,
    print_result,
    results,
)
from include.cli.options import AsJson, By
from include.cli.stack import local_stack, workplace
from include.cli.table import Columns, fields, print_list, print_table
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.incident.clocks.clock import Clock
    from include.incident.incident_run import IncidentRecord, IncidentRun
    from include.workplace import Workplace

app = typer.Typer(no_args_is_help=True, help="Incidents, their clocks and their timeline.")

Number = Annotated[str, typer.Argument(help="Number of the incident: INC-2026-0001.")]


@app.command("list")
def list_incidents(as_json: AsJson = False) -> int:
    """Show every incident, the newest first, and what is overdue of it."""
    with local_stack(workplace()) as place:
        from include.incident import register
        from include.incident.incident_run import record_in

        run = _context(place)
        with place.state.connect() as conn:
            records = [record_in(conn, one.number) for one in register.listed(conn)]
        found = [_told(run, record) for record in records]
    columns: Columns[dict[str, Any]] = {
        **fields("incident", "type", "state"),
        "grade": lambda incident: incident["grade"] or "not graded",
        "aware": lambda incident: incident["aware_at"][:16],
        "ran out": lambda incident: incident["ran_out"],
        "next due": lambda incident: (incident["next_due_at"] or "")[:16],
    }
    print_list(as_json, {"incidents": found}, found, columns)
    return 0


@app.command("show")
def show(number: Number, as_json: AsJson = False) -> int:
    """Show an incident with its clocks and its timeline."""
    with local_stack(workplace()) as place:
        from include.incident.clocks.clock import ClockState, clocks_of, for_people
        from include.incident.clocks.clock_words import due, state
        from include.incident.incident_run import record_of
        from include.incident.timeline import as_row, in_utc

        run = _context(place)
        record = record_of(run, number)
        clocks = [
            one
            for one in for_people(clocks_of(run, record))
            if one.state is not ClockState.NOT_APPLICABLE
        ]
        told = _told(run, record)
        if as_json:
            rows = [
                as_row(one)
                | {"recorded_at": in_utc(one.recorded_at), "happened_at": in_utc(one.happened_at)}
                | {"sha256": one.sha256}
                for one in record.entries
            ]
            print_json(told | {"clocks": [_clock(one) for one in clocks], "timeline": rows})
            return 0
        print_line(f"{told['incident']}: {record.incident.what}")
        print_table(
            clocks,
            {
                "clock": lambda clock: english(clock.rule.message),
                "due": lambda clock: english(due(clock)),
                "state": lambda clock: english(state(clock)),
            },
        )
        print_table(
            record.entries,
            {
                "entry": lambda entry: entry.place,
                "happened": lambda entry: entry.happened_at.astimezone(run.zone).isoformat(
                    timespec="minutes"
                ),
                "by": lambda entry: entry.by,
                "what": lambda entry: english(entry.words),
            },
        )
    return 0


@app.command("verify")
def verify(number: Number, as_json: AsJson = False) -> int:
    """Work out the digests of timeline and evidence again; exit 1 where one does not hold.

    A chain that was cut off at its end holds by itself: each bundle of the incident and of its
    additions says which entry was the newest when it was sealed. The list of affected people and
    the stored extracts of logs are compared with what the timeline says of them.
    """
    with local_stack(workplace()) as place:
        from include.incident import register, timeline
        from include.incident.evidence import kept as kept_evidence
        from include.incident.incident_run import record_of

        record = record_of(_context(place), number)
        broken = timeline.verify(record.incident.number, record.entries)
        changed = register.changed(record.incident, record.entries)
        with place.state.connect() as conn:
            compared = kept_evidence.compare_bundles(
                conn, record.incident, record.entries, lambda: place.store("evidence_store")
            )
            kept = kept_evidence.check(conn, record, lambda: place.store("evidence_store"))
    verified = broken is None and not changed and compared.holds
    verified = verified and all(one.holds for one in kept)
    told: dict[str, Any] = {
        "incident": record.incident.number,
        "verified": verified,
        "entries": len(record.entries),
        "head": timeline.head(record.entries),
        "first_bad": broken.place if broken else None,
        "reason": broken.reason.text if broken else None,
        "register_changed": changed,
        "bundles": len(compared.bundles),
        "contradicting": list(compared.contradicting),
        "unreadable": list(compared.unreadable),
        "evidence": [
            json_row(evidence, "name", "entry")
            | {"sha256": evidence.expected}
            | json_row(evidence, "found", "holds", "intact_version")
            for evidence in kept
        ],
    }
    if as_json:
        print_json(told)
    elif verified:
        count = f"{told['entries']} entries hold, {told['bundles']} sealed bundles agree"
        count += f", {len(kept)} pieces of evidence are there"
        results.print(f"{told['incident']}: {count}, {told['head']}")
    else:
        faults = [f"entry {broken.place}: {broken.reason.text}"] if broken else []
        faults += [f"the register has another {one} than entry 1" for one in changed]
        faults += [
            f"{one} knows an entry that is not there, or not as it was"
            for one in compared.contradicting
        ]
        faults += [f"{one} cannot be read" for one in compared.unreadable]
        faults += kept_evidence.faults(kept)
        for one in faults:
            print_note(f"{told['incident']}: {one}")
    return 0 if verified else 1


@app.command("note")
def note(
    number: Number,
    words: Annotated[str, typer.Argument(help="What happened; no customer's data.")],
    by: By,
    at: Annotated[str, typer.Option("--at", help="When; now where nothing is said.")] = "",
    as_json: AsJson = False,
) -> int:
    """Add a note to the timeline, where Airflow is down."""
    with local_stack(workplace()) as place:
        from include.incident.form import Action
        from include.incident.updating import Update, enter

        entry = enter(_context(place), number, Update(Action.NOTE, words, at=at), by=by)
    if as_json:
        print_json({"incident": number, "entry": entry.place, "sha256": entry.sha256})
    else:
        results.print(f"Entry {entry.place} of {number}: {entry.sha256}")
    return 0


@app.command("documents")
def documents(
    number: Number,
    out: Annotated[Path, typer.Option("--out", help="The folder to write them into.")],
    as_json: AsJson = False,
) -> int:
    """Write the documents of an incident that were sealed: reports to authorities, the summary."""
    with local_stack(workplace()) as place:
        from include.evidence.folder import StoreFolder
        from include.evidence.ledger import begun_with
        from include.incident.incident_run import record_of
        from include.incident.names import WORKFLOW

        found = record_of(_context(place), number).incident
        store = place.store("evidence_store")
        with place.state.connect() as conn:
            rows = begun_with(conn, f"{WORKFLOW}.", found.run.run_id)
        if not rows:
            raise UsageError(
                f"No document of {found.number} was sealed yet.",
                "Documents are made when their step asks for them.",
            )
        out.mkdir(parents=True, exist_ok=True)
        written: list[str] = []
        for row in reversed(rows):  # the newest of a kind has the plain name
            sealed_as = row.dag_id.removeprefix(f"{WORKFLOW}.")
            name = sealed_as.rpartition("-")[0]
            folder = StoreFolder(store, row.bundle)
            for file in folder.names():
                if not file.startswith(f"{name}."):
                    continue
                target = out / file
                if str(target) in written:
                    target = out / file.replace(name, sealed_as, 1)
                target.write_bytes(folder.read(file))
                written.append(str(target))
    return print_result(as_json, {"incident": found.number, "documents": written}, *written)


def _context(place: Workplace) -> IncidentRun:
    from include.incident.rule_checks import INCIDENT
    from include.workflow.run_context import context_of

    return context_of(INCIDENT, place)


def _told(run: IncidentRun, record: IncidentRecord) -> dict[str, Any]:
    from include.incident.clocks.clock import clocks_of

    incident, clocks = record.incident, clocks_of(run, record)
    due = [clock.due_at for clock in clocks if clock.is_open and clock.due_at]
    return (
        {"incident": incident.number}
        | json_row(incident, "type", "state", "duplicate_of")
        | {"grade": record.grade}
        | json_row(incident, "what", "began_at", "aware_at", "ended_at")
        | {
            "ran_out": sum(clock.is_late for clock in clocks),
            "next_due_at": min(due).isoformat() if due else None,
            "run_id": incident.run.run_id,
        }
    )


def _clock(clock: Clock) -> dict[str, Any]:
    return (
        {"clock": clock.id}
        | json_row(clock, "state", "due_at", "done_at")
        | {"late_by_seconds": clock.lateness.total_seconds()}
    )
