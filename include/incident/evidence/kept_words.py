"""What is kept as evidence of an incident, in words: list of people, extracts, holds."""

from __future__ import annotations

from include.incident.desk import Desk, File
from include.incident.names import Kind
from include.incident.timeline import last_of
from include.messages import Message, _


def lines(desk: Desk, file: File) -> list[Message]:
    """What is kept, a line each; nothing while nothing was secured.

    Args:
        desk: of the incident.
        file: the incident.
    """
    found = last_of(file.entries, Kind.PRESERVED)
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
    said += [
        _(
            "Extract of the access log of {database}: {rows} rows, SHA-256 {sha256}",
            database=name,
            rows=one["rows"],
            sha256=one["sha256_clear"],
        )
        for name, one in data["extracts"].items()
    ]
    holds = data["holds"]
    said.append(_("Legal holds in force: {count}", count=sum(holds.values())))
    return [*said, _("Timeline of {count} entries, each with the digest of the one before",
                     count=len(file.entries))]  # fmt: skip
