"""Texts about the evidence of a control, for the pages and the exported lists."""

from __future__ import annotations

from include.evidence.control_evidence import Age, ControlEvidence
from include.messages import Message, _
from include.reports.i18n import CONTROL_STATES

_AGES = {
    Age.IN_TIME: _("in time"),
    Age.LATE: _("late"),
    Age.STALE: _("no longer counts: older than two cadences of the control"),
    Age.NEVER: _("no evidence yet"),
    Age.MISSING: _("no evidence, although it was due"),
}


def age_text(evidence: ControlEvidence) -> Message:
    """Return whether the newest evidence of a control is in time, as text."""
    return _AGES[evidence.age]


def state_text(evidence: ControlEvidence) -> Message:
    """Return the result of a control in its newest bundle, or why there is none, as text."""
    if evidence.problem is not None:
        return _("the evidence is not valid: {reason}", reason=evidence.problem)
    if evidence.status is None:
        return _AGES[evidence.age]
    state = CONTROL_STATES[evidence.status.state]
    if evidence.is_indexed:
        return _("{state}; the files of the evidence were removed since", state=state)
    if evidence.is_checked:
        return state
    return _(
        "{state}; the files of the evidence bundle are too large to be checked here", state=state
    )
