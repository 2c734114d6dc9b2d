"""Names and ids that incident workflows store in the state database and in evidence bundles."""

from __future__ import annotations

from enum import StrEnum

CLAUSE = "6.3"
WORKFLOW = "respond_to_incident"
DRILL = "DRILL"
"""Prefix of the numbers of drills, which no incident has."""
UPDATES = "update_incident"

ALERT = "incident.alert"
"""Kind of notifications that call the team and escalate deadlines."""
INDIVIDUAL = "incident.individual"
"""Kind of the notices to affected people; keys are ``INC-2026-0001/courier/123``."""
FINDING_KIND = "incident"
"""Kind of corrective actions in the register of findings."""

STEP_OPEN, STEP_ASSESS, STEP_PRESERVE = "open_incident", "assess", "preserve"
STEP_NOTIFY, STEP_WATCH = "notify", "watch"


TIMELINE_FILE = "timeline.jsonl"
"""File of a bundle: one timeline entry per line, with the chain of digests."""


class Phase(StrEnum):
    """The phase of a report to an authority: the first report or the follow-up report."""

    FIRST = "first"
    REST = "rest"


class State(StrEnum):
    """The state of an incident in the register."""

    OPEN = "open"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    DUPLICATE = "duplicate"


class Kind(StrEnum):
    """The kind of event that a timeline entry records."""

    OPENED = "opened"  # data: the times at which time limits start
    PRESSED_AGAIN = "pressed_again"  # the same form was sent by a second run
    TEAM_CALLED = "team_called"
    SCOPED = "scoped"  # counts; data: version, people, unknown databases, proposed grade
    PRESERVED = "preserved"
    GRADED = "graded"  # data: grade
    CONTAINED = "contained"  # data: items done
    REPORTED = "reported"  # data: authority, phase (first, rest), complete (false: not needed)
    IMPACT = "impact"  # data: texts of reports and notices
    DECIDED = "decided"  # data: tell (bool), bound, sha256 (digest of bound)
    QUEUED = "queued"  # notices to affected people
    TOLD = "told"  # no notice is waiting any more
    TOLD_OTHERWISE = (
        "told_otherwise"  # people without a usable address were notified in another way
    )
    NOTE = "note"
    HANDED_OVER = "handed_over"  # data: to
    TAKEN_OFF = "taken_off"  # data: account
    ASSIGNED = "assigned"  # data: account, duty
    REFUSED = "refused"  # a refused answer; data: step, cause, given
    UNANSWERED = "unanswered"  # data: step
    WOKEN = "woken"  # data: key, clock
    CORRECTED = "corrected"  # data: voids, positions of entries that were mistakes
    CLOSED = "closed"
    CANCELLED = "cancelled"
    REVIEWED = "reviewed"
    SUMMARISED = "summarised"
