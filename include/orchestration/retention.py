"""Tasks of `enforce_retention`: services in, step records out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from include.approvals import registry
from include.approvals.answer import Answer
from include.approvals.question import AskAgain, Question
from include.backup.listing import listed_points, work_reader
from include.evidence import prune_step
from include.evidence.forget import forget_sealed_runs
from include.evidence.model import Outcome, StepRecord
from include.evidence.pending import lock_end
from include.evidence.prune import Pruning
from include.evidence.register_figures import ERASURES, HOLDS, REQUESTS
from include.evidence.steps import steps_of
from include.holds.registry import restore_points_held
from include.messages import _, verbatim
from include.orchestration.human import wait
from include.orchestration.run import confirm_open, run_key, seal_run, step
from include.orchestration.starter import started_by
from include.orchestration.workflow import policy
from include.policy.spans import later
from include.reports.conclusion import Conclusion
from include.retention import erasing, proof, report, steps
from include.retention.desk import Desk, desk_of
from include.retention.names import (
    CLAUSE,
    STEP_APPROVE,
    STEP_EXECUTE,
    STEP_PLAN,
    STEP_VERIFY,
)
from include.retention.proof import Copy
from include.retention.report_case import Past
from include.services.errors import ControlFailed, ParcelSealError, ServiceError
from include.state.locks import exclusive
from include.workplace import Workplace

RUNS_A_DAY = 100  # sealed runs whose step records one run removes, however large their bundles are


def response_timeout() -> timedelta:
    """Return how long a run waits for a second person."""
    response = policy().disposition.approval.response
    return wait(response.months, response.days, response.seconds)


def plan(database: str, as_of: str | None) -> dict[str, Any]:
    """Make the plan of one database; asks nobody yet."""

    def work(place: Workplace) -> StepRecord:
        place.require_complete_registers(ERASURES, HOLDS, REQUESTS)
        return steps.plan(_desk(place, database), as_of)

    return step(STEP_PLAN, database, _("The plan of {database}", database=database), work, CLAUSE)


def ask(database: str) -> Question | None:
    """Ask a second person about a plan that is larger than usual: counts by class, and its hash.

    Nobody is asked where this plan was decided on by a task that was killed afterwards.
    """
    questions: list[Question] = []

    def work(place: Workplace) -> StepRecord:
        desk = _desk(place, database)
        planned = _record(desk, STEP_PLAN)
        if (record := steps.decided(desk, planned)) is not None:
            return record
        if (question := steps.ask(desk, planned)) is not None:
            questions.append(question)
        data = {"asked": question is not None}
        return StepRecord(step=STEP_APPROVE, part=database, outcome=Outcome.PASS, data=data)

    title = _("The question about {database}", database=database)
    step(STEP_APPROVE, database, title, work, CLAUSE)
    return questions[0] if questions else None


def take(database: str, answer: Answer) -> dict[str, Any]:
    """Enter an answer, or that nobody answered in time."""

    def work(place: Workplace) -> StepRecord:
        desk = _desk(place, database)
        try:
            record = _record(desk, STEP_PLAN)
        except ServiceError as error:
            raise AskAgain(verbatim(error.message)) from None
        return steps.take(
            desk,
            record,
            option=answer.option,
            reason=answer.reason,
            user=answer.user,
            name=answer.name,
            at=answer.at or place.clock.now(),
            content=answer.content,
        )

    title = _("The approval for {database}", database=database)
    return step(STEP_APPROVE, database, title, work, CLAUSE)


def execute(database: str) -> dict[str, Any]:
    """Erase what the plan names and nothing keeps, as far as it was approved or needs it not."""

    def work(place: Workplace) -> StepRecord:
        place.require_complete_registers(ERASURES, HOLDS, REQUESTS)
        desk = _desk(place, database)
        name, what = f"retention:{database}", f"retention of {database}"
        with exclusive(place.state, name, what) as confirm_lock:

            def confirm() -> None:
                confirm_lock()
                confirm_open(place)

            return erasing.execute(desk, _record(desk, STEP_PLAN), alone=confirm)

    title = _("The execution in {database}", database=database)
    return step(STEP_EXECUTE, database, title, work, CLAUSE)


def verify(planned: dict[str, Any] | None) -> dict[str, Any]:
    """Count by queries of its own what is left, and list the backups that still hold it.

    Raises:
        AirflowSkipException: the plan failed, and there is nothing to count by.
    """
    if planned is None:
        raise AirflowSkipException("No plan was made: see the log of the task plan.")
    database = str(planned["part"])

    def work(place: Workplace) -> StepRecord:
        desk = _desk(place, database)
        records = _records(desk)
        executed = records.get((STEP_EXECUTE, database))
        return proof.verify(desk, _record(desk, STEP_PLAN), executed, _copies(place, database))

    title = _("The count afterwards in {database}", database=database)
    return step(STEP_VERIFY, database, title, work, CLAUSE)


def prune_evidence() -> dict[str, Any]:
    """Remove the files of evidence past its term; while a legal hold is active, none.

    The step records of sealed runs go too, if their bundles verify.
    """

    def work(place: Workplace) -> StepRecord:
        place.require_complete_registers(HOLDS)
        store, rules, zone = (
            place.store("evidence_store"),
            place.pack.evidence,
            place.pack.calendar.zone,
        )
        now = place.clock.now()
        pruning = Pruning(
            store,
            place.state,
            place.signer,
            place.trusted,
            place.clock,
            lock_end(store, place.clock, rules),
        )
        pruned = pruning.prune(lambda row: later(row.sealed_at, rules.keep, zone) <= now)
        forgotten = forget_sealed_runs(
            store, place.state, place.trusted, besides=run_key(), most=RUNS_A_DAY, largest=None
        )
        return prune_step.record(pruned, forgotten, rules.keep.text, CLAUSE)

    return step(prune_step.STEP, "", _("The removal of old evidence"), work, CLAUSE)


def seal_retention() -> dict[str, Any]:
    """Seal the evidence of a retention run."""
    dag_id, run_id = run_key()

    def conclude(
        place: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        del artifacts
        with place.state.connect() as conn:
            approvals = registry.approvals_of(conn, dag_id, run_id)
        pack = place.pack
        asked = get_current_context()["params"].get("databases") or list(pack.databases)
        conclusion = report.conclude(
            records,
            databases=list(pack.databases.values()),
            rules={name: pack.retention_of(name) for name in pack.databases},
            asked=asked,
            approvals=approvals,
            trends={name: _trend(place, name) for name in asked},
        )
        return replace(conclusion, facts=[*conclusion.facts, *prune_step.facts(records)])

    return seal_run(conclude)


def _trend(place: Workplace, database: str) -> list[Past]:
    with place.state.connect() as conn:
        return report.past(conn, database)


def _desk(place: Workplace, database: str) -> Desk:
    return desk_of(place, database, run_key(), started_by())


def _records(desk: Desk) -> dict[tuple[str, str], StepRecord]:
    with desk.state.connect() as conn:
        return {(one.step, one.part): one for one in steps_of(conn, desk.dag_id, desk.run_id)}


def _record(desk: Desk, name: str) -> StepRecord:
    """Return the record of the database's plan in this run.

    Raises:
        ControlFailed: no plan was begun.
        ServiceError: the plan was begun again and has not ended.
    """
    found = _records(desk).get((name, desk.database.name))
    if found is None:
        raise ControlFailed(
            f"There is no plan of {desk.database.name} in this run.", "Run the workflow again."
        )
    if "sha256" not in found.data:
        raise ServiceError(
            f"The plan of {desk.database.name} has not ended.", "The task is repeated."
        )
    return found


def _copies(place: Workplace, database: str) -> list[Copy] | None:
    """Restore points of a database; None when the off-site store cannot be read.

    One whose manifest is refused may hold whatever was erased: nobody knows when it was taken.
    """
    try:
        store = place.store("offsite_store")
        work = work_reader(place.state, database, store)
        points, rejected = listed_points(store, database, place.trusted_for_manifests, work)
    except ParcelSealError:
        return None
    with place.state.connect() as conn:
        held = restore_points_held(conn, database, [one.id for one in points])
    return [
        Copy(one.id, one.manifest.taken_at, one.manifest.expires_at, one.id in held)
        for one in points
    ] + [Copy(one.key) for one in rejected]
