"""Words about an incident that pages, reports and documents share."""

from __future__ import annotations

from include.incident.desk import Desk, File
from include.incident.timeline import Entry
from include.messages import Message, _, verbatim
from include.policy.rules import in_languages


def told(desk: Desk, file: File) -> Message:
    """What happened; in a drill the story, which the pack has in both languages."""
    if desk.scenario is not None:
        return in_languages(desk.scenario.story)
    return verbatim(file.incident.what)


def action_lines(desk: Desk, reviewed: Entry) -> list[Message]:
    """Corrective actions of a review, a line each: what, who answers for it, which finding.

    Args:
        desk: of the incident.
        reviewed: the entry of the review.
    """
    return [
        _(
            "{action} (finding {finding}, answered for by {owner})",
            action=one["what"],
            finding=one["finding"],
            owner=in_languages(desk.roles[one["owner"]].title)
            if one["owner"] in desk.roles
            else one["owner"],
        )
        for one in reviewed.data["actions"]
    ]


def marked(desk: Desk) -> Message | None:
    """What stands on every page of a drill's documents."""
    if desk.scenario is None:
        return None
    return _("DRILL: this is not a real incident. Do not hand it in.")
