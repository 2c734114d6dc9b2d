"""Records of steps that have no result: interrupted, failed or without an answer that counts."""

from __future__ import annotations

from include.evidence.model import Finding, Outcome, StepRecord, failure_finding
from include.messages import Message, _


def failed(
    name: str,
    part: str,
    title: Message,
    reason: Message,
    clause: str,
    action: Message | None = None,
) -> StepRecord:
    """Return the record of a step that failed.

    Args:
        name: of the step.
        part: what it works on; empty when there is one.
        title: the step for people.
        reason: why it failed; no customer data.
        clause: of the policy.
        action: what the reader should do; general advice if None or empty.
    """
    finding = failure_finding(
        code=f"{name}.failed",
        subject=part or name,
        message=_("{step} failed: {reason}", step=title, reason=reason),
        action=action
        if action and action.text
        else _("Open the run's task log in Airflow, remove the cause, run the workflow again."),
        clause=clause,
    )
    return StepRecord(step=name, part=part, outcome=Outcome.FAIL, findings=[finding])


def interrupted(name: str, part: str, title: Message, clause: str) -> StepRecord:
    """Return the record of a step that has not ended; see `failed`."""
    return failed(name, part, title, _("the step was interrupted"), clause)


def interrupted_run() -> Finding:
    """Return the finding about a run that a signal or a crash ended."""
    return failure_finding(
        code="run.interrupted",
        subject="run",
        message=_(
            "The run was interrupted before it ended: somebody stopped it, or its process crashed."
        ),
        action=_("Run the workflow again. Later steps of this run have no result."),
    )


def unanswered(name: str, part: str, title: Message, reason: Message, clause: str) -> StepRecord:
    """Return the record of a step whose last answer did not count.

    Args:
        name: of the step.
        part: what it works on; empty when there is one.
        title: the step for people.
        reason: why the answer did not count; no customer data.
        clause: of the policy.
    """
    finding = failure_finding(
        code=f"{name}.unanswered",
        subject=part or name,
        message=_("{step}: no answer counted. The last one: {reason}", step=title, reason=reason),
        action=_("Answer the question in Airflow. If it is not asked again, start a new run."),
        clause=clause,
    )
    return StepRecord(step=name, part=part, outcome=Outcome.FAIL, findings=[finding])
