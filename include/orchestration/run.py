"""From an Airflow task to domain code: connections, the run's context, its steps, its seal."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from airflow.sdk import Connection, get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from include.approvals.question import AskAgain
from include.evidence.bundle import SealedBundle, seal
from include.evidence.controls import judge, unexplained
from include.evidence.ledger import LedgerRow, find_bundle
from include.evidence.model import Finding, Outcome, Result, RunContext, StepRecord, StepSummary
from include.evidence.steps import artifacts_of, record_step, steps_of
from include.messages import Message, _, verbatim
from include.orchestration.sandbox import SandboxedWorkplace, live_of, refuse_sealed
from include.orchestration.unforeseen import value_free
from include.reports.conclusion import Conclusion
from include.reports.model import Report
from include.services.connections import ConnectionSpec
from include.services.errors import ParcelSealError, ServiceError
from include.workplace import Lookup, Workplace

EVIDENCE_LOCK = timedelta(
    days=3 * 366
)  # Network Data Regulations 12 (2025-01-01): records >= 3 years

_SUMMARY = {"step", "part", "outcome", "data"}
Conclude = Callable[[Workplace, Sequence[StepRecord], dict[str, bytes]], Conclusion]


def workplace() -> Workplace:
    """Return the workplace of this task: Airflow's connections, else the local profile's."""
    return Workplace.from_environment(os.environ, airflow_connections())


def airflow_connections() -> Lookup:
    """Return what finds Airflow's connections; each is asked for once."""
    return cache(_from_airflow)


def _from_airflow(conn_id: str) -> ConnectionSpec | None:
    try:
        found = Connection.get(conn_id)
    except AirflowNotFoundException:
        return None
    kind = (found.conn_type or "").replace("-", "_")
    return ConnectionSpec(
        conn_id=conn_id,
        conn_type="postgres" if kind == "postgresql" else kind,
        host=found.host or "",
        port=found.port,
        login=found.login or "",
        password=found.password or "",
        schema=found.schema or "",
        extra=found.extra_dejson or {},
    )


def run_key() -> tuple[str, str]:
    """Return dag id and run id of the running task."""
    run = get_current_context()["dag_run"]
    return run.dag_id, run.run_id


def step(
    name: str,
    part: str,
    title: Message,
    work: Callable[[Workplace], StepRecord],
    clause: str,
    make: Callable[[], Workplace] | None = None,
) -> dict[str, Any]:
    """Do one step and keep its record for the seal, whatever happens.

    Before the work begins, the record says that it did not finish; so a killed task is seen.

    Args:
        name: of the step, as its record has it.
        part: what it works on; empty when there is one.
        title: the step for people.
        work: returns the step's record.
        clause: of the policy.
        make: makes the workplace, in which the record is kept too; `workplace` where none is given.

    Returns:
        Ids, counts and the outcome: what may stand in XCom.

    Raises:
        AirflowFailException: the step failed in a way that no retry mends.
        ServiceError: a service failed, or nobody foresaw it; Airflow repeats the task.
        AskAgain: an answer that the work took does not count.
    """
    place = (make or workplace)()
    dag_id, run_id = run_key()

    def keep(record: StepRecord) -> None:
        with place.state.begin() as conn:
            record_step(conn, dag_id, run_id, record, place.clock)

    keep(_failed(name, part, title, _("it was started and did not finish"), clause))
    try:
        record = work(place)
    except AskAgain:
        raise
    except ParcelSealError as error:
        keep(_failed(name, part, title, verbatim(error.message), clause, verbatim(error.action)))
        if isinstance(error, ServiceError):
            raise
        raise AirflowFailException(str(error)) from None
    except Exception as error:  # noqa: BLE001 - raised again, without words that may quote a value
        keep(_failed(name, part, title, verbatim(type(error).__name__), clause))
        raise ServiceError(f"Nobody foresaw this:\n{value_free(error)}") from None
    keep(record)
    return {"step": name, "part": part, "outcome": str(record.outcome)}


def _failed(
    name: str,
    part: str,
    title: Message,
    reason: Message,
    clause: str,
    action: Message | None = None,
) -> StepRecord:
    finding = Finding(
        code=f"{name}.failed",
        severity=Outcome.FAIL,
        subject=part or name,
        message=_("{step} failed: {reason}", step=title, reason=reason),
        action=action
        if action and action.text
        else _("Open the run's task log in Airflow, remove the cause, run the workflow again."),
        clause=clause,
    )
    return StepRecord(step=name, part=part, outcome=Outcome.FAIL, findings=[finding])


def require_open(place: Workplace) -> None:
    """Refuse a step of a run that is sealed: what it did now would stand in no evidence.

    Raises:
        ControlFailed: the run is sealed.
    """
    with live_of(place).state.connect() as conn:
        refuse_sealed(conn, *run_key())


def seal_run(conclude: Conclude, make: Callable[[], Workplace] | None = None) -> dict[str, Any]:
    """Write the run's sealed bundle from what its steps left.

    Args:
        conclude: judges the records; is given the artifacts by name too.
        make: makes the workplace; `workplace` where none is given. A drill's bundle is sealed in
            the live store and ledger, without what it wrote ahead, and its state is dropped.

    Returns:
        The bundle's path, the digest of its SHA256SUMS and the outcome.
    """
    place = (make or workplace)()
    if isinstance(place, SandboxedWorkplace):
        return _seal_drill(place, conclude)
    result, sealed = _seal_records(place, conclude)
    return _told(sealed.path, sealed.sums_sha256, result)


def _seal_drill(place: SandboxedWorkplace, conclude: Conclude) -> dict[str, Any]:
    """Seal a drill and drop its state; a try that was killed in between is gone on with."""
    if before := place.sealed():
        row, result = before
        told = _told(row.bundle, row.sums_sha256, result)
    else:
        lost = [] if place.is_there() else [_lost()]
        result, sealed = _seal_records(replace(place, begins=True), conclude, lost)
        told = _told(sealed.path, sealed.sums_sha256, result)
    place.drop()
    return told


def _seal_records(
    place: Workplace, conclude: Conclude, more: Sequence[StepRecord] = ()
) -> tuple[Result, SealedBundle]:
    dag_id, run_id = run_key()
    with place.state.connect() as conn:
        records = [*steps_of(conn, dag_id, run_id), *more]
        artifacts = artifacts_of(conn, dag_id, run_id)
    records += _without_record(records)
    conclusion = conclude(place, records, artifacts)
    live = live_of(place)
    if live is not place:
        conclusion = replace(conclusion, ahead={})  # it stands in the sandbox, and goes with it
    return _seal(live, run_context(live), conclusion, artifacts, records)


def _told(bundle: str, sums_sha256: str, result: Result) -> dict[str, Any]:
    return {
        "bundle": bundle,
        "sums_sha256": sums_sha256,
        "outcome": str(result.outcome),
        "findings": len(result.findings),
    }


def _lost() -> StepRecord:
    reason = _("its state was cleared away, or never made, before it was sealed")
    return _failed("drill", "", _("The drill"), reason, "", _("Start another drill."))


def seal_aside(
    workflow: str,
    place: Workplace,
    conclusion: Conclusion,
    files: Mapping[str, bytes],
    *,
    records: Sequence[StepRecord] = (),
    pdf: bool = True,
) -> LedgerRow:
    """Seal a bundle of its own while the run goes on: what has to stand before its next step.

    It stands under another workflow's name, so that the run's own bundle keeps its place; the first
    one of a run stands, as for every seal.

    Args:
        workflow: under which it stands; no DAG has this id.
        place: of the task.
        conclusion: what it says.
        files: its artifacts by name.
        records: what ``result.json`` tells of steps.
        pdf: whether its report is a PDF too; where people wait for what is among the files, that
            is time lost.

    Returns:
        Its row of the ledger.
    """
    context = run_context(place).model_copy(update={"dag_id": workflow})
    _result, sealed = _seal(place, context, conclusion, files, records, pdf=pdf)
    with place.state.connect() as conn:
        row = find_bundle(conn, sealed.path)
    assert row is not None
    return row


def _seal(
    place: Workplace,
    context: RunContext,
    conclusion: Conclusion,
    artifacts: Mapping[str, bytes],
    records: Sequence[StepRecord],
    *,
    pdf: bool = True,
) -> tuple[Result, SealedBundle]:
    from include.reports.render import render_all

    controls = judge(place.pack.controls_of(context.dag_id), conclusion.metrics)
    findings = [*conclusion.findings, *unexplained(controls, conclusion.outcome)]
    outcome = Outcome.worst([conclusion.outcome, *(one.severity for one in findings)])
    report = Report(
        title=conclusion.title,
        summary=conclusion.summary,
        run=context,
        outcome=outcome,
        finished_at=place.clock.now(),
        controls=controls,
        facts=conclusion.facts,
        sections=conclusion.sections,
        findings=findings,
    )
    rendered = render_all(report, pdf=pdf)
    result = Result(
        run=context,
        controls=controls,
        outcome=outcome,
        finished_at=report.finished_at,
        metrics=conclusion.metrics,
        findings=findings,
        approvals=conclusion.approvals,
        steps=[StepSummary(**one.model_dump(include=_SUMMARY)) for one in records],
        not_made=rendered.not_made,
    )
    store = place.store("evidence_store")
    lock_until = place.clock.now() + EVIDENCE_LOCK if store.kind == "s3" else None
    with place.state.connect() as conn:
        sealed = seal(
            store,
            conn,
            place.signer,
            result=result,
            files={**artifacts, **rendered.files},
            ahead=conclusion.ahead,
            clock=place.clock,
            lock_until=lock_until,
            trusted=place.trusted,
        )
    return result, sealed


def _without_record(records: Sequence[StepRecord]) -> list[StepRecord]:
    """Return a failed record for failed tasks when no step says that anything failed.

    A task may fail before its step begins. Then the records alone look as if nothing had happened.
    """
    if any(record.outcome is Outcome.FAIL for record in records):
        return []
    dag_id, run_id = run_key()
    states = get_current_context()["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id])
    failed = sorted(task for task, state in states.get(run_id, {}).items() if state == "failed")
    reason = _("it left no record")
    return [_failed(task, "", _("The task {task}", task=task), reason, "") for task in failed]


def require_held(sealed: dict[str, Any]) -> None:
    """Fail the run when its sealed outcome is ``fail``.

    Raises:
        AirflowFailException: the control did not hold.
    """
    if sealed["outcome"] == Outcome.FAIL:
        raise AirflowFailException(
            f"The control did not hold: {sealed['findings']} findings. Read the report in the "
            f"bundle {sealed['bundle']}."
        )


def run_context(place: Workplace) -> RunContext:
    """Return who runs, when, from which code and policy."""
    run = get_current_context()["dag_run"]
    started: datetime = run.start_date or place.clock.now()
    return RunContext(
        dag_id=run.dag_id,
        run_id=run.run_id,
        started_at=started,
        period_start=run.data_interval_start,
        period_end=run.data_interval_end,
        code_version=place.code_version,
        policy_hash=place.pack.sha256,
        policy_name=place.pack.name,
        clock_source=place.clock.source,
        timezone=place.pack.calendar.timezone,
    )
