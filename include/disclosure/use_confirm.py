"""The step of `use_information` that records that a requester deleted all local copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import AwareDatetime

from include.disclosure import grants
from include.disclosure.login_expiry import remove_login_now
from include.disclosure.requests import load_request
from include.disclosure.rules import CLAUSE_USE, UseRules
from include.disclosure.use_check import action_of
from include.disclosure.use_form import UseAction
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import _
from include.services.errors import UsageError, refusing_inputs
from include.workflow.run_context import RunContext
from include.workflow.step import Step


class Confirmation(StepResult):
    """The result of the step.

    Attributes:
        request: number of the request.
        confirmed_by: account of the requester.
        confirmed_at: time of the first confirmation.
    """

    request: int
    confirmed_by: str
    confirmed_at: AwareDatetime


def is_confirmation(parameters: Mapping[str, Any]) -> bool:
    """Return whether a run with these parameters confirms that local copies are deleted."""
    return action_of(parameters) is UseAction.CONFIRM


def confirm_copies(run: RunContext[UseRules], findings: StepFindings) -> Confirmation:
    """Record the confirmation of the requester, and end the access. A repeated step adds nothing.

    Raises:
        CouldNotRun: the request is missing, or the person is not the requester.
    """
    del findings
    with refusing_inputs(), run.state.begin() as conn:
        number = run.parameters.get("request")
        if run.triggered_by is None:
            raise UsageError(
                "No person triggered this run.",
                "Trigger the workflow with your own account, or run ./parcelseal access confirm.",
            )
        if not isinstance(number, int):
            raise UsageError("No request number was entered.", "Enter it in the form in Airflow.")
        at = run.task.triggered_at or run.now
        request = load_request(conn, number)
        grant = grants.confirm_deletion(conn, request, run.triggered_by, at)
    remove_login_now(run, grant, request.content.database)
    assert grant.confirmed_at is not None
    assert grant.confirmed_by is not None
    return Confirmation(
        request=number, confirmed_by=grant.confirmed_by, confirmed_at=grant.confirmed_at
    )


CONFIRM_COPIES = Step(
    name="confirm",
    title=_("The confirmation that local copies are deleted"),
    clause=CLAUSE_USE,
    work=confirm_copies,
    result=Confirmation,
    ends_run="Nothing was recorded. The finding of this run states the reason.",
    applies=is_confirmation,
)
