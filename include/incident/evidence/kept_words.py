"""What is kept as evidence of an incident, in words: list of people, extracts, holds."""

from __future__ import annotations

from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.names import Kind
from include.incident.results import KeptExtract, Preserved
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
    evidence = found.as_(Preserved)
    said = [
        _(
            "List of {count} affected people, SHA-256 {sha256}",
            count=evidence.people,
            sha256=evidence.list_sha256,
        )
    ]
    said += [_extract(name, one) for name, one in evidence.extracts.items()]
    said.append(_("Legal holds in force: {count}", count=sum(evidence.holds.values())))
    return [*said, _("Timeline of {count} entries, each with the digest of the one before",
                     count=len(record.entries))]  # fmt: skip


def _extract(name: str, known: KeptExtract) -> Message:
    values = {
        "database": known.database or name,
        "rows": known.rows,
        "sha256": known.sha256_clear,
    }
    if known.log == "shares":
        return _(
            "Extract of the log of sharing of {database}: {rows} rows, SHA-256 {sha256}", **values
        )
    return _("Extract of the access log of {database}: {rows} rows, SHA-256 {sha256}", **values)
