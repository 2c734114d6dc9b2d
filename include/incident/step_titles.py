"""The display titles of an incident's steps."""

from __future__ import annotations

from collections.abc import Mapping

from include.incident.incident_ids import (
    STEP_ASSESS,
    STEP_NOTIFY,
    STEP_OPEN,
    STEP_PRESERVE,
    STEP_WATCH,
    UPDATES,
    WORKFLOW,
)
from include.incident.rules import HumanStep
from include.messages import Message, _, verbatim

HUMAN_STEP_TITLES: Mapping[HumanStep, Message] = {
    "contain": _("Containment"),
    "grade": _("Grading"),
    "report": _("First report to an authority"),
    "impact": _("Impact assessment"),
    "decide": _("Decision on notices"),
    "report_rest": _("Follow-up report to an authority"),
    "close": _("Closure of the incident"),
    "review": _("Review of the incident"),
    "summary": _("Summary of the incident"),
}
STEP_TITLES: Mapping[str, Message] = {
    **{str(step): title for step, title in HUMAN_STEP_TITLES.items()},
    STEP_OPEN: _("Registration of the incident"),
    STEP_WATCH: _("Monitoring of deadlines"),
    STEP_ASSESS: _("Count of affected people and records"),
    STEP_PRESERVE: _("Preservation of evidence"),
    "authorities": _("Selection of the authorities"),
    STEP_NOTIFY: _("Queueing of notices"),
    "widen": _("Count of affected people after the scope was widened"),
}


def step_title(step: str) -> Message:
    """Return the display title of a step, or the id itself if the step has no title."""
    return STEP_TITLES.get(step) or verbatim(step)


def recorder_title(recorder: str) -> Message:
    """Return the display name of who recorded a timeline entry.

    Args:
        recorder: user id of a person, or id of the workflow or of the step that made the entry
            without a person.
    """
    if recorder in (WORKFLOW, UPDATES):
        return _("ParcelSeal")
    is_human_step = recorder in HUMAN_STEP_TITLES
    return verbatim(recorder) if is_human_step else step_title(recorder)
