"""``parcelseal incident``: time limits, timelines and documents of incidents.

The commands work without Airflow.
"""

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
from include.cli.stack import command_services, local_stack
from include.cli.table import Columns, fields, print_list, print_table
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.incident.incident_run import IncidentRecord, IncidentRun
    from include.incident.time_limits.time_limit import TimeLimit
    from include.service_container import Services

app = typer.Typer(no_args_is_help=True, help="Incidents, their time limits and their timelines.")

Number = Annotated[str, typer.Argument(help="Number of the incident, such as INC-2026-0001.")]


@app.command("list")
def list_incidents(as_json: AsJson = False) -> int:
    """List all incidents, newest first, with the time limits that were missed."""
    with local_stack(command_services()) as services:
        from include.incident import register
        from include.incident.incident_run import record_in

        run = _context(services)
        with services.state.connect() as conn:
            records = [
                record_in(conn, incident_row.number)
                for incident_row in register.list_incidents(conn)
            ]
        listed = [_row(run, record) for record in records]
    columns: Columns[dict[str, Any]] = {
        **fields("incident", "type", "state"),
        "grade": lambda incident: incident["grade"] or "not graded",
        "aware": lambda incident: incident["aware_at"][:16],
        "missed deadlines": lambda incident: incident["ran_out"],
        "next due": lambda incident: (incident["next_due_at"] or "")[:16],
    }
    print_list(as_json, {"incidents": listed}, listed, columns)
    return 0


@app.command("show")
def show(number: Number, as_json: AsJson = False) -> int:
    """Show an incident with its time limits and its timeline."""
    with local_stack(command_services()) as services:
        from include.incident.incident_run import record_of
        from include.incident.time_limits.time_limit import (
            TimeLimitState,
            sort_by_urgency,
            time_limits_of,
        )
        from include.incident.time_limits.time_limit_texts import due_text, state_text
        from include.incident.timeline import as_row, in_utc

        run = _context(services)
        record = record_of(run, number)
        time_limits = [
            time_limit
            for time_limit in sort_by_urgency(time_limits_of(run, record))
            if time_limit.state is not TimeLimitState.NOT_APPLICABLE
        ]
        shown = _row(run, record)
        if as_json:
            rows = [
                as_row(entry)
                | {
                    "recorded_at": in_utc(entry.recorded_at),
                    "happened_at": in_utc(entry.happened_at),
                }
                | {"sha256": entry.sha256}
                for entry in record.entries
            ]
            print_json(
                shown
                | {
                    "clocks": [_time_limit_row(time_limit) for time_limit in time_limits],
                    "timeline": rows,
                }
            )
            return 0
        print_line(f"{shown['incident']}: {record.incident.what}")
        print_table(
            time_limits,
            {
                "clock": lambda time_limit: english(time_limit.rule.message),
                "due": lambda time_limit: english(due_text(time_limit)),
                "state": lambda time_limit: english(state_text(time_limit)),
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
    """Verify the digests of an incident's timeline, list of affected people, and log extracts.

    The digests alone do not show that the last entries of a timeline were deleted. So the command
    also compares the timeline with the incident's evidence bundles, each of which states the newest
    entry at the time of its seal.

    Exit code 1: a timeline entry, an evidence bundle or a log extract is missing, changed or
    unreadable.
    """
    with local_stack(command_services()) as services:
        from include.incident import register, timeline
        from include.incident.evidence import evidence_check
        from include.incident.incident_run import record_of

        record = record_of(_context(services), number)
        broken = timeline.verify_timeline(record.incident.number, record.entries)
        changed = register.changed_fields(record.incident, record.entries)
        with services.state.connect() as conn:
            compared = evidence_check.compare_bundles(
                conn, record.incident, record.entries, lambda: services.store("evidence_store")
            )
            kept = evidence_check.check_evidence(
                conn, record, lambda: services.store("evidence_store")
            )
    verified = broken is None and not changed and compared.is_intact
    verified = verified and all(evidence.is_intact for evidence in kept)
    shown: dict[str, Any] = {
        "incident": record.incident.number,
        "verified": verified,
        "entries": len(record.entries),
        "head": timeline.last_digest(record.entries),
        "first_bad": broken.place if broken else None,
        "reason": broken.reason.text if broken else None,
        "register_changed": changed,
        "bundles": len(compared.bundles),
        "contradicting": list(compared.contradicting),
        "unreadable": list(compared.unreadable),
        "evidence": [
            json_row(evidence, "name", "entry")
            | {"sha256": evidence.expected, "found": evidence.current_sha256}
            | {"holds": evidence.is_intact, "intact_version": evidence.intact_version}
            for evidence in kept
        ],
    }
    if as_json:
        print_json(shown)
    elif verified:
        count = f"{shown['entries']} entries are valid, {shown['bundles']} sealed bundles agree"
        count += f", {len(kept)} pieces of evidence are present"
        results.print(f"{shown['incident']}: {count}, {shown['head']}")
    else:
        faults = [f"entry {broken.place}: {broken.reason.text}"] if broken else []
        faults += [f"the register and entry 1 differ in {name}" for name in changed]
        faults += [
            f"{bundle} has an entry that is missing or different in the timeline"
            for bundle in compared.contradicting
        ]
        faults += [f"{bundle} cannot be read" for bundle in compared.unreadable]
        faults += evidence_check.describe_faults(kept)
        for fault in faults:
            print_note(f"{shown['incident']}: {fault}")
    return 0 if verified else 1


@app.command("note")
def note(
    number: Number,
    words: Annotated[str, typer.Argument(help="Text of the note, without customer data.")],
    by: By,
    at: Annotated[str, typer.Option("--at", help="Time of the event; default: now.")] = "",
    as_json: AsJson = False,
) -> int:
    """Add a note to the timeline of an incident. The command works without Airflow."""
    with local_stack(command_services()) as services:
        from include.incident.form import Action
        from include.incident.updates import Update, record_update

        entry = record_update(_context(services), number, Update(Action.NOTE, words, at=at), by=by)
    if as_json:
        print_json({"incident": number, "entry": entry.place, "sha256": entry.sha256})
    else:
        results.print(f"Entry {entry.place} of {number}: {entry.sha256}")
    return 0


@app.command("documents")
def documents(
    number: Number,
    out: Annotated[
        Path, typer.Option("--out", help="Folder into which the documents are written.")
    ],
    as_json: AsJson = False,
) -> int:
    """Write the sealed documents of an incident to a folder: supervisory reports and a summary."""
    with local_stack(command_services()) as services:
        from include.evidence.folder import StoreFolder
        from include.evidence.ledger import interim_rows
        from include.incident.incident_ids import WORKFLOW
        from include.incident.incident_run import record_of

        incident = record_of(_context(services), number).incident
        store = services.store("evidence_store")
        with services.state.connect() as conn:
            rows = interim_rows(conn, f"{WORKFLOW}.", incident.run.run_id)
        if not rows:
            raise UsageError(
                f"Incident {incident.number} has no sealed documents yet.",
                "The workflow seals each document in the step that needs it.",
            )
        out.mkdir(parents=True, exist_ok=True)
        written: list[str] = []
        for row in reversed(rows):  # the newest document of a kind keeps its file name
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
    return print_result(as_json, {"incident": incident.number, "documents": written}, *written)


def _context(services: Services) -> IncidentRun:
    from include.incident.rule_checks import INCIDENT
    from include.workflow.run_context import context_of

    return context_of(INCIDENT, services)


def _row(run: IncidentRun, record: IncidentRecord) -> dict[str, Any]:
    from include.incident.time_limits.time_limit import time_limits_of

    incident, time_limits = record.incident, time_limits_of(run, record)
    due = [
        time_limit.due_at for time_limit in time_limits if time_limit.is_open and time_limit.due_at
    ]
    return (
        {"incident": incident.number}
        | json_row(incident, "type", "state", "duplicate_of")
        | {"grade": record.grade}
        | json_row(incident, "what", "began_at", "aware_at", "ended_at")
        | {
            "ran_out": sum(time_limit.is_late for time_limit in time_limits),
            "next_due_at": min(due).isoformat() if due else None,
            "run_id": incident.run.run_id,
        }
    )


def _time_limit_row(time_limit: TimeLimit) -> dict[str, Any]:
    return (
        {"clock": time_limit.id}
        | json_row(time_limit, "state", "due_at", "done_at")
        | {"late_by_seconds": time_limit.lateness.total_seconds()}
    )
