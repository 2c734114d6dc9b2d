"""Tasks of `review_intake`: services in, step records out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from include.approvals import registry
from include.approvals.answer import Answer
from include.approvals.question import AskAgain, Question
from include.evidence.model import Outcome, StepRecord
from include.evidence.steps import steps_of
from include.intake import report, review
from include.intake import settle as settlement
from include.intake.checks import Key, OwnChecks, SuiteChecks
from include.intake.desk import Desk, Quarantine
from include.intake.names import (
    CLAUSE,
    STEP_BATCHES,
    STEP_CHECK,
    STEP_REVIEW,
    STEP_SETTLE,
    STEP_VERIFY,
    Incoming,
    rule_and_batch,
)
from include.messages import _, verbatim
from include.orchestration.human import wait
from include.orchestration.run import confirm_open, run_key, seal_run, step
from include.orchestration.workflow import policy
from include.policy.expectations import Expectation
from include.policy.intake import IntakeRule
from include.quarantine import register
from include.quarantine.keys import KeyNames
from include.reports.conclusion import Conclusion
from include.services.errors import ControlFailed, ServiceError
from include.state.locks import exclusive
from include.workplace import Workplace

_DEFAULT_WAIT = timedelta(hours=20)


def response_timeout() -> timedelta:
    """Return how long a run waits for its reviewers: the shortest of the pack's intakes."""
    waits = [wait(one.months, one.days, one.seconds) for one in _responses()]
    return min(waits, default=_DEFAULT_WAIT)


def _responses() -> list[Any]:
    return [one.response for one in policy().intake]


def find() -> list[str]:
    """Find the batches that wait for review; returns those to ask about, oldest first."""
    found: list[str] = []

    def work(place: Workplace) -> StepRecord:
        record = review.find([_desk(place, one) for one in place.pack.intake])
        found.extend(record.data["batches"])
        return record

    step(STEP_BATCHES, "", _("The search for batches"), work, CLAUSE)
    return found


def check(part: str) -> dict[str, Any]:
    """Hash a batch, hold its rules against it and enter the request for a decision."""
    rule, batch = rule_and_batch(part)

    def work(place: Workplace) -> StepRecord:
        return review.check(_desk(place, place.pack.intake_rule(rule)), batch)

    done = step(STEP_CHECK, part, _("The check of {part}", part=part), work, CLAUSE)
    if done["outcome"] == Outcome.FAIL:
        raise AirflowFailException("Nobody can be asked about it: see the run's report.")
    return done


def ask(part: str) -> Question | None:
    """Ask a reviewer who entered none of the records: counts, failures by rule, a masked sample.

    Nobody is asked where this content was decided on by a task that was killed afterwards.
    """
    questions: list[Question] = []

    def work(place: Workplace) -> StepRecord:
        desk = _desk(place, place.pack.intake_rule(rule_and_batch(part)[0]))
        checked = _checked(desk, part)
        if (record := review.decided(desk, checked)) is not None:
            return record
        questions.append(review.ask(desk, checked))
        return review.waiting(part)

    step(STEP_REVIEW, part, _("The question about {part}", part=part), work, CLAUSE)
    return questions[0] if questions else None


def take(part: str, answer: Answer) -> dict[str, Any]:
    """Enter a reviewer's answer, or that nobody answered in time."""

    def work(place: Workplace) -> StepRecord:
        desk = _desk(place, place.pack.intake_rule(rule_and_batch(part)[0]))
        try:
            checked = _checked(desk, part)
        except ServiceError as error:
            raise AskAgain(verbatim(error.message)) from None
        return review.take(
            desk,
            checked,
            option=answer.option,
            reason=answer.reason,
            user=answer.user,
            at=answer.at or place.clock.now(),
            content=answer.content,
        )

    return step(STEP_REVIEW, part, _("The review of {part}", part=part), work, CLAUSE)


def settle(part: str) -> dict[str, Any]:
    """Let a batch in or turn it down, exactly once; without a decision it stays pending."""

    def work(place: Workplace) -> StepRecord:
        desk = _desk(place, place.pack.intake_rule(rule_and_batch(part)[0]))

        def confirm(stage: str) -> None:
            if stage == "before commit":
                confirm_open(place)

        with exclusive(place.state, f"intake:{part}", f"the batch {part}"):
            return settlement.settle(desk, _checked(desk, part), confirm)

    return step(STEP_SETTLE, part, _("The settlement of {part}", part=part), work, CLAUSE)


def verify() -> dict[str, Any]:
    """Count by queries of its own what waits too long and what was let in unreviewed."""
    dag_id, run_id = run_key()

    def work(place: Workplace) -> StepRecord:
        with place.state.connect() as conn:
            records = steps_of(conn, dag_id, run_id)
        return settlement.verify([_desk(place, one) for one in place.pack.intake], records)

    return step(STEP_VERIFY, "", _("The count afterwards"), work, CLAUSE)


def seal_review() -> dict[str, Any]:
    """Seal the evidence of a review run."""
    dag_id, run_id = run_key()

    def conclude(
        place: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        del artifacts
        with place.state.connect() as conn:
            approvals = registry.approvals_of(conn, dag_id, run_id)
        deadlines = [
            wait(one.deadline.months, one.deadline.days, one.deadline.seconds)
            for one in place.pack.intake
        ]
        hours = min(deadlines).total_seconds() / 3600 if deadlines else None
        return report.conclude(records, hours=hours, approvals=approvals)

    return seal_run(conclude)


def _desk(place: Workplace, rule: IntakeRule) -> Desk:
    dag_id, run_id = run_key()
    mapped = place.pack.database_of(rule.collection, rule.database)
    incoming = Incoming(rule, mapped)
    timezone = place.pack.calendar.timezone
    suite = SuiteChecks(incoming, _expectations(place, incoming), timezone)
    return Desk(
        incoming=incoming,
        reader=place.database(mapped.connection),
        writer=place.role_database(rule.connection, mapped.connection),
        state=place.state,
        clock=place.clock,
        dag_id=dag_id,
        run_id=run_id,
        checkers=[suite, OwnChecks(incoming)],
        quarantine=_quarantine(place, incoming),
        timezone=timezone,
        keys=place.erasure_keys,
    )


def _checked(desk: Desk, part: str) -> StepRecord:
    """Return the last check of a batch in this run.

    Raises:
        ServiceError: the check was begun again and has not ended.
        ControlFailed: the batch was not checked, or nobody can be asked about it.
    """
    with desk.state.connect() as conn:
        records = steps_of(conn, desk.dag_id, desk.run_id)
    checked = next((one for one in records if (one.step, one.part) == (STEP_CHECK, part)), None)
    if checked is None or ("sha256" in checked.data and "request" not in checked.data):
        raise ControlFailed(f"{part} was not checked in this run.", "Run the workflow again.")
    if "request" not in checked.data:
        raise ServiceError(f"The check of {part} has not ended.", "The task is repeated.")
    return checked


def _expectations(place: Workplace, incoming: Incoming) -> list[Expectation]:
    suites = place.pack.suites_of(incoming.database.name, incoming=True)
    return [
        one
        for suite in suites
        if suite.collection == incoming.collection.name
        for one in suite.expectations
    ]


def _quarantine(place: Workplace, incoming: Incoming) -> Quarantine:
    """Name rows that are set aside in the register, by key."""
    dag_id, run_id = run_key()

    def put(_batch: str, rule: str, keys: Sequence[Key]) -> None:
        at = register.Place(
            incoming.database.name,
            incoming.collection.name,
            dag_id,
            run_id,
            place.clock.now(),
        )
        name = KeyNames(
            place.erasure_keys, incoming.database.name, incoming.collection, incoming.key
        )
        with register.staging(place.state) as stage:
            for key in keys:
                stage.add(rule, name.of([str(one) for one in key]), None)
            stage.enter(at, [rule], "none")

    return put
