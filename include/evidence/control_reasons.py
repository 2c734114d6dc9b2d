"""Reasons why a control did not pass, each as one sentence for readers."""

from __future__ import annotations

from datetime import tzinfo

from include.evidence.control_evidence import Age, ControlEvidence
from include.evidence.model import ControlState, Outcome
from include.messages import Message, _


def reason_of(evidence: ControlEvidence, zone: tzinfo) -> Message | None:
    """Return in one sentence why a control did not pass; None if it passed or was not due yet.

    Args:
        evidence: the control with its newest evidence.
        zone: timezone of the dates in the sentence.
    """
    if evidence.outcome in (None, Outcome.PASS):
        return None
    due_on = evidence.due_at.astimezone(zone).date() if evidence.due_at else None
    if evidence.row is None:
        return _("There is no evidence yet. The first evidence was due on {day}.", day=due_on or "")
    sealed_on = (evidence.finished_at or evidence.row.sealed_at).astimezone(zone).date()
    if evidence.problem is not None or evidence.status is None:
        problem = evidence.problem or _("it has no result for this control")
        return _("The evidence of {day} is not valid: {reason}.", day=sealed_on, reason=problem)
    if evidence.status.state is ControlState.FAILED:
        return _(
            "The run of {day} measured {figure}; required: {requirement}.",
            day=sealed_on,
            figure=evidence.status.figure,
            requirement=evidence.status.requirement,
        )
    if evidence.age is not Age.IN_TIME:
        return _(
            "The newest evidence is of {day}; new evidence was due on {due}.",
            day=sealed_on,
            due=due_on or "",
        )
    if evidence.status.state is ControlState.NO_EVIDENCE:
        if cause := _first_finding_about_clause(evidence):
            return _(
                "The run of {day} did not measure this control. {cause}", day=sealed_on, cause=cause
            )
        return _("The run of {day} did not measure this control.", day=sealed_on)
    return _("The evidence of {day} is too large to be checked while you wait.", day=sealed_on)


def _first_finding_about_clause(evidence: ControlEvidence) -> Message | None:
    """Return the text of the newest bundle's first finding about the control's clause, if any."""
    texts = (
        finding.message
        for finding in evidence.findings
        if finding.clause == evidence.control.clause and finding.severity is not Outcome.PASS
    )
    return next(texts, None)
