"""Wrap the functions that ask in human steps of an incident: refuse, explain, or skip."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps

from airflow.sdk.exceptions import AirflowFailException

from include.approvals.question import Question
from include.drill_sandbox.workplace import live_of
from include.evidence.model import Outcome, StepRecord
from include.evidence.steps import steps_of
from include.incident.incident_run import record_of
from include.incident.rules import HumanStep
from include.incident.steps.answer import entered_at
from include.orchestration.incident import context, place
from include.orchestration.run import confirm_open, keep_record, run_key
from include.orchestration.run_lock import at_work
from include.orchestration.unforeseen import value_free
from include.services.errors import ParcelSealError, ServiceError
from include.workplace import Workplace

ANSWERED_AT = "answered_at"
"""Key of a step's data: when the answer was given that the step works on."""

Ask = Callable[[str], Question | None]


def explained(ask: Ask) -> Ask:
    """Wrap a question so that an error which no retry can solve fails the task at once.

    Only a failed service is retried. An unexpected error is reported without its text, which may
    quote a value.
    """

    @wraps(ask)
    def asks(part: str) -> Question | None:
        try:
            return ask(part)
        except (ServiceError, AirflowFailException):
            raise
        except ParcelSealError as error:
            raise AirflowFailException(str(error)) from None
        except Exception as error:  # noqa: BLE001 - raised again, without words that may quote a value
            raise ServiceError(f"Unexpected error:\n{value_free(error)}") from None

    return asks


def in_open_run(step_name: HumanStep, ask: Ask) -> Ask:
    """Wrap a question so that a sealed run refuses it.

    The step skips the question if a killed task entered the answer. If the step skips the question
    for another reason, it replaces the failed record of an earlier try.

    Args:
        step_name: of the step.
        ask: returns the question for a part: the incident's number, and the authority of a report.
    """

    @wraps(ask)
    def asks(part: str) -> Question | None:
        services = place()
        with at_work(live_of(services).state, *run_key()):
            confirm_open(services)
            return _question(services, step_name, part, ask)

    return asks


def _question(services: Workplace, step_name: HumanStep, part: str, ask: Ask) -> Question | None:
    number, _slash, authority = part.partition("/")
    failure = _failure(services, step_name, authority)
    record = _entered(services, number, step_name, failure) if failure else None
    if record is not None:
        keep_record(services, record)
        return None
    question = ask(part)
    if question is None and failure is not None:
        data = {"asked": False}
        passed = StepRecord(step=step_name, part=authority, outcome=Outcome.PASS, data=data)
        keep_record(services, passed)
    return question


def _failure(services: Workplace, step_name: HumanStep, authority: str) -> StepRecord | None:
    """Return the failed record of an earlier try, or None."""
    with services.state.connect() as conn:
        for record in steps_of(conn, *run_key()):
            if (record.step, record.part) == (step_name, authority):
                return record if record.outcome is Outcome.FAIL else None
    return None


def _entered(
    services: Workplace, number: str, step_name: HumanStep, failure: StepRecord
) -> StepRecord | None:
    """Return the record of an answer that an earlier try entered before it was killed, or None."""
    if ANSWERED_AT not in failure.data:
        return None
    at = datetime.fromisoformat(failure.data[ANSWERED_AT])
    run = context(services)
    return entered_at(run, record_of(run, number), step_name, failure.part, at)
