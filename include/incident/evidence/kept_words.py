"""What is kept as evidence of an incident, in words: list of people, extracts, holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.names import Kind
from include.incident.timeline import last_of
from include.messages import Message, _


def lines(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    """What is kept, a line each; nothing while nothing was secured.

    Args:
        run: the run or command.
        record: the incident.
    """
    found = last_of(record.entries, Kind.PRESERVED)
    if found is None:
        return []
    data = found.data
    said = [
        _(
            "List of {count} affected people, SHA-256 {sha256}",
            count=data["people"],
            sha256=data["list_sha256"],
        )
    ]
    said += [_extract(name, one) for name, one in data["extracts"].items()]
    holds = data["holds"]
    said.append(_("Legal holds in force: {count}", count=sum(holds.values())))
    return [*said, _("Timeline of {count} entries, each with the digest of the one before",
                     count=len(record.entries))]  # fmt: skip


def _extract(name: str, known: Mapping[str, Any]) -> Message:
    values = {
        "database": known.get("database", name),
        "rows": known["rows"],
        "sha256": known["sha256_clear"],
    }
    if known.get("log") == "shares":
        return _(
            "Extract of the log of sharing of {database}: {rows} rows, SHA-256 {sha256}", **values
        )
    return _("Extract of the access log of {database}: {rows} rows, SHA-256 {sha256}", **values)
