"""How a human step of an incident asks: what is refused, explained, or asked of nobody."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps

from airflow.sdk.exceptions import AirflowFailException

from include.approvals.question import Question
from include.evidence.model import Outcome, StepRecord
from include.evidence.steps import steps_of
from include.incident.steps.answer import entered_at
from include.orchestration.incident import desk, place
from include.orchestration.run import keep_record, open_run, run_key
from include.orchestration.unforeseen import value_free
from include.policy.incident import HumanStep
from include.services.errors import ParcelSealError, ServiceError
from include.workplace import Workplace

ANSWERED_AT = "answered_at"
"""Key of the data of a step that takes an answer: when it was answered, until the step has a
result."""

Ask = Callable[[str], Question | None]


def explained(ask: Ask) -> Ask:
    """Return a question that fails at once where it is blocked, and names what blocks it.

    Only a failed service is tried again. An unexpected error is reported without its words, which
    may quote a value.
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
            raise ServiceError(f"Nobody foresaw this:\n{value_free(error)}") from None

    return asks


def in_open_run(step_name: HumanStep, ask: Ask) -> Ask:
    """Return a question that is refused in a sealed run.

    Nobody is asked where the answer was entered by a task that was killed afterwards. Where nobody
    is asked for another reason, the failure of an earlier try is replaced.

    Args:
        step_name: of the step.
        ask: makes the question for a part: the incident's number, and the authority of a report.
    """

    @wraps(ask)
    def asks(part: str) -> Question | None:
        found = open_run(place)
        number, _slash, authority = part.partition("/")
        failure = _failure(found, step_name, authority)
        record = _entered(found, number, step_name, failure) if failure else None
        if record is not None:
            keep_record(found, record)
            return None
        question = ask(part)
        if question is None and failure is not None:
            data = {"asked": False}
            passed = StepRecord(step=step_name, part=authority, outcome=Outcome.PASS, data=data)
            keep_record(found, passed)
        return question

    return asks


def _failure(found: Workplace, step_name: HumanStep, authority: str) -> StepRecord | None:
    """Return the record of an earlier try that has no result, None where there is none."""
    with found.state.connect() as conn:
        for record in steps_of(conn, *run_key()):
            if (record.step, record.part) == (step_name, authority):
                return record if record.outcome is Outcome.FAIL else None
    return None


def _entered(
    found: Workplace, number: str, step_name: HumanStep, failure: StepRecord
) -> StepRecord | None:
    """Return the record of the answer that an earlier try entered before it was killed."""
    if ANSWERED_AT not in failure.data:
        return None
    at = datetime.fromisoformat(failure.data[ANSWERED_AT])
    mine = desk(found)
    return entered_at(mine, mine.file(number), step_name, failure.part, at)
