"""The first step of `use_information`: check a request before its approval."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime
from sqlalchemy import Connection

from include.disclosure import requests
from include.disclosure.content import DeliveryForm, RequestContent, UsePlan
from include.disclosure.extract_store import check_extract_store
from include.disclosure.planning import open_records, plan_problem
from include.disclosure.requests import UseRequest
from include.disclosure.roster import StaffRoster, read_roster
from include.disclosure.rules import CLAUSE_USE, UseRules
from include.disclosure.use_form import UseAction, read_use_form
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import _, in_english
from include.services.errors import UsageError, refusing_inputs
from include.workflow.run_context import RunContext
from include.workflow.step import Step


class CheckedRequest(StepResult):
    """The result of the step: the request to approve.

    Attributes:
        request: number of the request.
        sha256: digest of the request and its plan.
        content: content of the request.
        plan: figures of the request.
        requested_at: when the request was stored.
        department: department of the requester at the check.
    """

    request: int
    sha256: str
    content: RequestContent
    plan: UsePlan
    requested_at: AwareDatetime
    department: str = ""


def action_of(parameters: Mapping[str, Any]) -> UseAction:
    """Return the action that the parameters of a run name; a request if they name no other."""
    is_confirmation = parameters.get("action") == UseAction.CONFIRM
    return UseAction.CONFIRM if is_confirmation else UseAction.REQUEST


def is_request(parameters: Mapping[str, Any]) -> bool:
    """Return whether a run with these parameters requests information."""
    return action_of(parameters) is UseAction.REQUEST


def check_request(run: RunContext[UseRules], findings: StepFindings) -> CheckedRequest:
    """Check the request, and attach this run to it. A repeated step finds the same request.

    Raises:
        CouldNotRun: the request is wrong, or it names fields that the purpose does not need. No
            approval is requested.
    """
    del findings
    with refusing_inputs():
        check_extract_store(run)
        roster = read_roster(run)
        with run.state.begin() as conn:
            request = requests.request_of_run(conn, run.run) or _request(run, conn, roster)
            check_people(roster, request.content)
            employee = roster.find(request.requester)
            with open_records(
                run, conn, request.content, requests.keys_of(conn, request)
            ) as records:
                require_plan(run, records.plan, request.content.form)
                if records.plan.exceeds(request.plan):
                    raise UsageError(
                        "The data or the policy pack changed since the request was prepared.",
                        "Make a new request.",
                    )
            requests.attach_run(conn, request, run.run, run.triggered_by, run.now)
    return CheckedRequest(
        request=request.id,
        sha256=request.sha256,
        content=request.content,
        plan=request.plan,
        requested_at=request.requested_at,
        department=employee.department if employee else "",
    )


def _request(run: RunContext[UseRules], conn: Connection, roster: StaffRoster) -> UseRequest:
    """Return the prepared request that the form names, or store the request of the form."""
    number = run.parameters.get("request")
    if number is not None:
        return requests.load_request(conn, int(number))
    if run.triggered_by is None:
        raise UsageError(
            "No person triggered this run.",
            "Trigger the workflow from its form in Airflow, or name a prepared request.",
        )
    content, keys = read_use_form(run.pack, run.parameters, run.triggered_by)
    check_people(roster, content)
    return prepare_request(run, conn, content, keys, run.task.triggered_at or run.now)


def prepare_request(
    run: RunContext[UseRules],
    conn: Connection,
    content: RequestContent,
    keys: frozenset[str],
    at: datetime,
) -> UseRequest:
    """Plan a request in a snapshot of the database, and store it with its plan.

    Args:
        run: context of the run or command.
        conn: the state database, in a transaction.
        content: content of the request.
        keys: uploaded keys.
        at: time of the request.

    Raises:
        UsageError: the request is wrong.
    """
    requests.check_keys(content, keys)
    with open_records(run, conn, content, keys) as records:
        plan = records.plan
    return requests.store_request(conn, content, plan, keys, at)


def require_plan(run: RunContext[UseRules], plan: UsePlan, form: DeliveryForm) -> None:
    """Raise UsageError if a plan cannot be approved."""
    problem = plan_problem(run.rules, plan, form)
    if problem is not None:
        raise UsageError(in_english(problem), "Change the request.")


def check_people(roster: StaffRoster, content: RequestContent) -> None:
    """Check that the requester may request information, and that people can approve the request.

    Raises:
        UsageError: the requester is not an active employee with valid training, or the request
            has no approver.
    """
    employee = roster.find(content.requester)
    if employee is None or not employee.active:
        raise UsageError(
            "The requester is not an active employee in the roster.",
            "Only active employees may request customer information.",
        )
    if not employee.trained:
        raise UsageError(
            "The requester has no valid training.",
            "Complete the required courses, then request the information again.",
        )
    if roster.approver_of(content.requester) is None:
        raise UsageError(
            "The requester has no active supervisor in the roster.",
            "Have the supervisor entered in the roster.",
        )


CHECK = Step(
    name="check",
    title=_("The check of the request"),
    clause=CLAUSE_USE,
    work=check_request,
    result=CheckedRequest,
    ends_run="The request was refused. The finding of this run states the reason.",
    applies=is_request,
)
