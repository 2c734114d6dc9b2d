"""The step of `update_finding` that records what a person entered in the form."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import Connection, select

from include.evidence.step_findings import StepFindings, StepResult
from include.finding_updates.form import Action
from include.findings import decisions, register
from include.findings.decisions import Deciders, Decision
from include.findings.register import Event, Finding
from include.messages import _
from include.policy import PolicyPack
from include.services.errors import UsageError, refusing_inputs
from include.state.findings import finding_event
from include.workflow.run_context import RunContext
from include.workflow.step import Step

CLAUSE = "6.1"
# Texts about incidents are confidential, and more people read the runs of this workflow.
INCIDENT_FINDINGS = "incident"
INCIDENT_WORKFLOWS = ("respond_to_incident", "update_incident")
VERSIONED = {Action.REASSIGN, Action.ACCEPT, Action.WITHDRAW}
"""Actions that count only for the version of the finding that the person saw."""
_EVENTS = {
    Action.COMMENT: Event.COMMENTED,
    Action.ANSWER: Event.ANSWERED,
    Action.REASSIGN: Event.REASSIGNED,
    Action.ACCEPT: Event.ACCEPTED,
    Action.WITHDRAW: Event.WITHDRAWN,
}


class EnteredUpdate(StepResult):
    """The result of the step: what was recorded.

    Attributes:
        finding: number of the finding.
        action: action that the person chose.
        by: user id of the person.
        owner: role that owns the finding afterwards.
        version: version of the finding afterwards.
    """

    finding: int
    action: Action
    by: str
    owner: str
    version: str


def enter_update(run: RunContext[None], findings: StepFindings) -> EnteredUpdate:
    """Record what a person entered in the form. A repeated task records nothing more.

    Raises:
        CouldNotRun: a field is missing or wrong, or the person may not decide. Nothing was
            recorded.
    """
    del findings
    with refusing_inputs(), run.state.begin() as conn:
        by = run.triggered_by or ""
        if not by:
            raise UsageError(
                "No person triggered this run.", "Trigger the workflow from its form in Airflow."
            )
        action = Action(str(run.parameters.get("action") or Action.COMMENT))
        number = run.parameters.get("finding")
        if not isinstance(number, int):
            raise UsageError("The number of the finding is missing.", "Enter it in the form.")
        finding = register.get_finding(conn, number, locked=True)
        if is_confidential(finding):
            raise UsageError(
                f"Finding {finding.id} belongs to an incident, whose texts are confidential.",
                "Use the workflow “Addition to an incident”, or ask the data engineers.",
            )
        at = run.task.triggered_at or run.now
        if not _is_recorded(conn, finding, action, by, at):
            finding = _record(conn, run, finding, action, by, at)
    return EnteredUpdate(
        finding=finding.id, action=action, by=by, owner=finding.owner, version=finding.version
    )


def is_confidential(finding: Finding) -> bool:
    """Return whether a finding belongs to an incident, whose texts only its team may read."""
    if finding.origin is None:
        return finding.kind == INCIDENT_FINDINGS
    return finding.origin.workflow in INCIDENT_WORKFLOWS


ENTER = Step(
    name="enter",
    title=_("The entry of a comment or decision about a finding"),
    clause=CLAUSE,
    work=enter_update,
    result=EnteredUpdate,
    ends_run="Nothing was recorded. The finding of this run states the reason.",
)


def _is_recorded(conn: Connection, finding: Finding, action: Action, by: str, at: datetime) -> bool:
    """Return whether an earlier attempt of the task recorded the entry before it was killed."""
    event = finding_event.c
    query = select(event.id).where(
        event.finding_id == finding.id,
        event.kind == str(_EVENTS[action]),
        event.by == by,
        event.at == at,
    )
    return conn.execute(query).first() is not None


def _record(
    conn: Connection,
    run: RunContext[None],
    finding: Finding,
    action: Action,
    by: str,
    at: datetime,
) -> Finding:
    deciders = Deciders(run.pack.roles, run.pack.findings, run.zone)
    words, until = _text(run, "words"), _day(_text(run, "until"))
    decision = Decision(finding.id, by, at, words, _text(run, "version") or None)
    if action in VERSIONED and decision.version is None:
        raise UsageError(
            "The version of the finding is missing.", "The page of the finding shows it."
        )
    match action:
        case Action.COMMENT:
            return decisions.comment(conn, deciders, decision)
        case Action.ANSWER:
            return decisions.answer(
                conn, deciders, decision, cause=_text(run, "cause"), due_on=until
            )
        case Action.REASSIGN:
            owner = role_of(run.pack, _text(run, "owner"))
            assignee = _text(run, "assignee")
            return decisions.reassign(conn, deciders, decision, owner=owner, assignee=assignee)
        case Action.ACCEPT:
            if until is None:
                raise UsageError("The last day is missing.", "Enter it in the field “Until”.")
            return decisions.accept_risk(conn, deciders, decision, until=until)
        case Action.WITHDRAW:
            return decisions.withdraw_acceptance(conn, deciders, decision)


def role_of(pack: PolicyPack, name: str) -> str:
    """Return the id of a role of roles.yaml.

    Args:
        pack: the policy pack.
        name: id of the role, or its title in any language.

    Raises:
        UsageError: no role has this id or title.
    """
    for role in pack.roles.values():
        if name.strip() in (role.id, *role.title.values()):
            return role.id
    titles = ", ".join(sorted(role.title["en"] for role in pack.roles.values()))
    raise UsageError("The policy pack has no such department.", f"It has: {titles}.")


def _text(run: RunContext[None], name: str) -> str:
    return str(run.parameters.get(name) or "").strip()


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text} is not a date.", "Write it as 2026-12-31.") from None
