"""Words that incidents write into the state database and into evidence."""

from __future__ import annotations

from enum import StrEnum

CLAUSE = "6.3"
WORKFLOW = "respond_to_incident"
DRILL = "DRILL"
"""Begins the numbers of drills: none of them is that of an incident."""
UPDATES = "update_incident"

ALERT = "incident.alert"
"""Kind of the notices that wake and call the team."""
INDIVIDUAL = "incident.individual"
"""Kind of the notices to affected people; keys are ``INC-2026-0001/courier/123``."""
FINDING_KIND = "incident"
"""Kind of corrective actions in the register of findings."""

STEP_OPEN, STEP_ASSESS, STEP_PRESERVE = "open_incident", "assess", "preserve"
STEP_NOTIFY, STEP_WATCH = "notify", "watch"


TIMELINE_FILE = "timeline.jsonl"
"""File of a bundle: one entry a line, with the digests that chain them."""


class Phase(StrEnum):
    """Which of an authority's reports it is."""

    FIRST = "first"
    REST = "rest"


class State(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    DUPLICATE = "duplicate"


class Kind(StrEnum):
    """What an entry of the timeline is about."""

    OPENED = "opened"  # data: the moments that clocks start from
    PRESSED_AGAIN = "pressed_again"  # the same form, by a second run
    TEAM_CALLED = "team_called"
    SCOPED = "scoped"  # counted, or why it could not be; data: version, counts, unknown
    PRESERVED = "preserved"
    GRADED = "graded"  # data: grade
    CONTAINED = "contained"  # data: items done
    REPORTED = "reported"  # data: authority, phase (first, rest), complete (false: not needed)
    IMPACT = "impact"  # data: what reports and notices say
    DECIDED = "decided"  # data: tell (bool), sha256, bound (what that is the digest of)
    QUEUED = "queued"  # individual notices
    TOLD = "told"  # all that could be sent was
    TOLD_OTHERWISE = "told_otherwise"  # people without a usable address
    NOTE = "note"
    HANDED_OVER = "handed_over"  # data: to
    TAKEN_OFF = "taken_off"  # data: account
    ASSIGNED = "assigned"  # data: account, duty
    REFUSED = "refused"  # an answer that did not count; data: step, cause, given
    UNANSWERED = "unanswered"  # data: step
    WOKEN = "woken"  # data: clock, rung
    CORRECTED = "corrected"  # data: voids, places of entries that were made by mistake
    CLOSED = "closed"
    CANCELLED = "cancelled"
    REVIEWED = "reviewed"
    SUMMARISED = "summarised"
