"""Build the records of steps that have no result: failed, interrupted or unanswered steps."""

from __future__ import annotations

from include.evidence.model import (
    Finding,
    Outcome,
    StepRecord,
    attention_finding,
    failure_finding,
)
from include.messages import Message, _
from include.reports.conclusion import ASK_ENGINEERS, TASK_LOG


def failed(
    name: str,
    part: str,
    title: Message,
    reason: Message,
    clause: str,
    action: Message | None = None,
    for_engineers: Message = TASK_LOG,
    *,
    could_not_run: bool = False,
) -> StepRecord:
    """Return the record of a step that failed.

    Args:
        name: name of the step.
        part: item that the mapped step works on, such as a database; empty if the step is not
            mapped.
        title: display name of the step.
        reason: why the step failed, without customer data.
        clause: policy clause of the finding.
        action: advice to the reader; None or an empty text for the advice to ask the data
            engineers.
        for_engineers: where data engineers find the cause.
        could_not_run: whether the step refused the run before any work.
    """
    finding = failure_finding(
        code=f"{name}.failed",
        subject=part or name,
        subject_title=None if part else title,
        message=_("{step} failed: {reason}", step=title, reason=reason),
        action=action if action and action.text else ASK_ENGINEERS,
        clause=clause,
        for_engineers=for_engineers,
        step=name,
        part=part,
    )
    return StepRecord(
        step=name,
        part=part,
        outcome=Outcome.FAIL,
        findings=[finding],
        could_not_run=could_not_run,
    )


def interrupted(name: str, part: str, title: Message, clause: str) -> StepRecord:
    """Return the record of a step that has begun and not ended.

    The record is stored when the step begins, and replaced when the step ends. It therefore remains
    only if the step was interrupted. The arguments are those of `failed`.
    """
    return failed(name, part, title, _("the step was interrupted"), clause)


def interrupted_run() -> Finding:
    """Return the finding that the run was interrupted by a person or by a crash of its process."""
    return failure_finding(
        code="run.interrupted",
        subject="run",
        subject_title=_("This run"),
        message=_(
            "The run was interrupted before its end: a person stopped it, or its process crashed."
        ),
        action=_("Run the workflow again. The later steps of this run have no result."),
    )


def no_rules(title: Message, clause: str, file: str) -> Finding:
    """Return the finding that the policy pack has controls of a workflow, but not its rules.

    Args:
        title: title of the workflow.
        clause: number of the policy clause.
        file: name of the missing file of the policy pack.
    """
    return attention_finding(
        code="run.no_rules",
        subject="run",
        subject_title=_("This run"),
        message=_(
            "The policy pack has controls that “{workflow}” measures, but no rules for it. "
            "Nothing was checked, so the controls have no new evidence.",
            workflow=title,
        ),
        action=_("Add the rules to the policy pack, or remove the controls from it."),
        clause=clause,
        for_engineers=_("The pack has no file `{file}`.", file=file),
    )


def unfinished(problem: Message, title: Message, clause: str, file: str) -> Finding:
    """Return the finding that work remains which a workflow cannot do without its rules.

    Args:
        problem: the work that remains.
        title: title of the workflow.
        clause: number of the policy clause.
        file: name of the missing file of the policy pack.
    """
    return Finding(
        code="run.unfinished",
        severity=Outcome.FAIL,
        subject="run",
        subject_title=_("This run"),
        message=problem,
        action=_("Add the rules of “{workflow}” to the policy pack again.", workflow=title),
        clause=clause,
        for_engineers=_("The pack has no file `{file}`.", file=file),
    )


def unanswered(name: str, part: str, title: Message, reason: Message, clause: str) -> StepRecord:
    """Return the record of a human step whose last answer was invalid.

    Args:
        name: name of the step.
        part: item that the mapped step works on, such as a database; empty if the step is not
            mapped.
        title: display name of the step.
        reason: why the answer was invalid, without customer data.
        clause: policy clause of the finding.
    """
    finding = failure_finding(
        code=f"{name}.unanswered",
        subject=part or name,
        subject_title=None if part else title,
        message=_(
            "{step}: there is no valid decision yet. The last answer to the approval form was "
            "not accepted: {reason}",
            step=title,
            reason=reason,
        ),
        action=_(
            "Decide in the form of the required action in Airflow. If no form is open, "
            "start a new run."
        ),
        clause=clause,
        step=name,
        part=part,
    )
    return StepRecord(step=name, part=part, outcome=Outcome.FAIL, findings=[finding])
