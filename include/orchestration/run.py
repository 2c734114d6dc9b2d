"""Connect domain code to Airflow tasks: provide services, record steps, and seal runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

from airflow.sdk import Connection, get_current_context
from airflow.sdk.exceptions import AirflowNotFoundException

from include.approvals.required_action import InvalidAnswer
from include.composition import services_from
from include.drill_sandbox.sandboxed_services import SandboxedServices, live_of, sandboxed
from include.evidence.bundle import finish_seal
from include.evidence.bundle_reader import SealedRun, read_sealed
from include.evidence.ledger import LedgerRow, find
from include.evidence.ledger_recovery import lock_end
from include.evidence.model import Outcome, RunContext, StepRecord
from include.evidence.signing import TrustedKeys
from include.evidence.step_findings import StepResult, artifacts_of, record_step, steps_of
from include.messages import Message, _, verbatim
from include.notify.sending import SEND_TITLE, STEP_SEND
from include.orchestration.finding_register import update_register
from include.orchestration.interrupted_runs import is_interrupted
from include.orchestration.redacted_errors import redact_traceback
from include.orchestration.retry_policy import PermanentFailure, is_in_process, must_end_soon
from include.orchestration.run_bundle import (
    fill_history_index,
    forget_earlier_runs,
    seal_bundle,
)
from include.orchestration.run_lock import RunSealed, at_work, refuse_unrecorded, sealing, unsealed
from include.orchestration.step_records import failed, interrupted, interrupted_run, unanswered
from include.registry import WORKFLOWS, workflow
from include.reports.conclusion import TASK_LOG, Conclusion, refused
from include.service_container import Lookup, Services
from include.services import stopping
from include.services.connections import ConnectionSpec, with_short_timeouts
from include.services.database import unreadable_text
from include.services.errors import (
    CouldNotRun,
    ParcelSealError,
    ServiceError,
    UsageError,
    is_permanent,
    sqlstate_of,
)
from include.workflow.databases import DATABASES_STEP, DATABASES_TITLE
from include.workflow.step import Watch

INSUFFICIENT_PRIVILEGE = "42501"  # SQLSTATE
_LACKS_RIGHT = _("Ask the data engineers to grant the missing right to the database login.")
_MISSING_GRANTS = _("`./parcelseal config check --connect` prints the missing grants.")
Conclude = Callable[[Services, Sequence[StepRecord], dict[str, bytes]], Conclusion]


def task_services() -> Services:
    """Return the services of the running task: connections, settings and policy pack.

    The connections are Airflow's. If Airflow does not have a connection, the local profile provides
    it.
    """
    lookup = airflow_connections()
    if is_in_process():  # a person waits for the command
        lookup = with_short_timeouts(lookup)
    return services_from(os.environ, lookup)


def drill_services(*, creates_schema: bool = False) -> Services:
    """Return the services for a task of a drill, whose steps work in a sandbox.

    The caller must ensure that the run is a drill.

    Args:
        creates_schema: whether the task is the first step of the drill, which creates the schema of
            the sandbox.
    """
    return sandboxed(task_services(), *run_key(), creates_schema=creates_schema)


def airflow_connections() -> Lookup:
    """Return a function that looks up Airflow's connections by id, and caches each connection."""
    return cache(_from_airflow)


def _from_airflow(conn_id: str) -> ConnectionSpec | None:
    try:
        connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        return None
    kind = (connection.conn_type or "").replace("-", "_")
    return ConnectionSpec(
        conn_id=conn_id,
        conn_type="postgres" if kind == "postgresql" else kind,
        host=connection.host or "",
        port=connection.port,
        login=connection.login or "",
        password=connection.password or "",
        schema=connection.schema or "",
        extra=connection.extra_dejson or {},
    )


def run_key() -> tuple[str, str]:
    """Return the DAG id and the run id of the run to which the running task belongs."""
    run = get_current_context()["dag_run"]
    return run.dag_id, run.run_id


def open_run(make_services: Callable[[], Services] | None = None) -> Services:
    """Return the services of a task, after checking that its run is not sealed.

    Every task except `seal` and `gate` starts with this check, because a bundle that is already
    sealed cannot show the work of the task.

    Args:
        make_services: makes the services of the task; by default `task_services`.

    Raises:
        AirflowFailException: the run is sealed. Airflow does not retry the task.
    """
    stopping.check()
    services = (make_services or task_services)()
    with _unsealed(services):
        _refuse_cleared(services)
        return services


@contextmanager
def _unsealed(services: Services) -> Iterator[None]:
    """Raise an error if the task's run is sealed; otherwise prevent its seal during the block.

    The shared lock of `include.orchestration.run_lock` prevents the seal.
    """
    with unsealed(live_of(services).state, *run_key()):
        yield


def _refuse_cleared(services: Services) -> None:
    """Raise an error if the running task is repeated although its run is sealed.

    The check reads the evidence store, because the evidence ledger may have lost the row of the
    run.
    """
    if get_current_context()["ti"].try_number > 1:
        refuse_unrecorded(live_of(services), run_context(live_of(services)))


def confirm_open(services: Services) -> None:
    """Check that the running task's run is not sealed.

    A step calls this function before it commits its work to another database than the state
    database.

    Raises:
        RunSealed: the run is sealed. Airflow does not retry the task.
    """
    with _unsealed(services):
        pass


def keep_record(services: Services, record: StepRecord) -> None:
    """Store the record of a step. An earlier record of the same step is replaced.

    Args:
        services: services of the task.
        record: record of a step of the running task's run.

    Raises:
        AirflowFailException: the run is sealed.
    """
    with _unsealed(services), services.state.begin() as conn:
        record_step(conn, *run_key(), record, services.clock)


def execute_step(
    name: str,
    part: str,
    title: Message,
    work: Callable[[Services], StepRecord],
    clause: str,
    make_services: Callable[[], Services] | None = None,
    interim_data: StepResult | None = None,
) -> dict[str, Any]:
    """Execute a step and store its record, even if the step fails.

    Before the work begins, a record is stored that marks the step as interrupted. If the task is
    killed, the report shows this record. If the run is sealed, the step is not executed. While the
    step works, the run cannot be sealed. If an answer to a human step is invalid, the record gives
    the reason until a valid answer is entered.

    Args:
        name: name of the step in its record.
        part: item that the mapped step works on, such as a database; empty if the step is not
            mapped.
        title: display name of the step.
        work: executes the step and returns its record.
        clause: policy clause of the step's findings.
        make_services: makes the services of the task; by default `task_services`. The record is
            stored in the state database of these services.
        interim_data: data that the record contains until the step has a result. If the task is
            killed, the retried task can read it.

    Returns:
        Name, part and outcome of the step, for XCom.

    Raises:
        AirflowFailException: the step failed with a permanent error, or the run is sealed.
        ServiceError: a service failed, or an unexpected error occurred. Airflow retries the task.
        InvalidAnswer: an answer is invalid.
    """
    stopping.check()
    services = (make_services or task_services)()

    def keep_failed(record: StepRecord) -> None:
        data = {} if interim_data is None else interim_data.as_json()
        keep_record(services, record.model_copy(update={"data": data}))

    with at_work(live_of(services).state, *run_key()):
        _refuse_cleared(services)
        keep_failed(interrupted(name, part, title, clause))
        try:
            record = work(services)
        except RunSealed:
            raise
        except InvalidAnswer as again:
            keep_record(services, unanswered(name, part, title, again.reason, clause))
            raise
        except ParcelSealError as error:
            reason, action = verbatim(error.message), verbatim(error.action)
            is_refused = isinstance(error, CouldNotRun)
            keep_failed(failed(name, part, title, reason, clause, action, could_not_run=is_refused))
            if is_permanent(error):
                raise PermanentFailure(error) from None
            raise
        except Exception as error:  # noqa: BLE001 - raised again, without text that may quote a value
            if unreadable := unreadable_text(error):
                reason, action = verbatim(unreadable.message), verbatim(unreadable.action)
                keep_failed(failed(name, part, title, reason, clause, action))
                raise PermanentFailure(unreadable) from None
            advice, for_engineers = None, TASK_LOG
            if sqlstate_of(error) == INSUFFICIENT_PRIVILEGE:
                advice, for_engineers = _LACKS_RIGHT, _MISSING_GRANTS
            reason = verbatim(type(error).__name__)
            keep_failed(failed(name, part, title, reason, clause, advice, for_engineers))
            message = f"Unexpected error:\n{redact_traceback(error)}"
            if is_permanent(error):
                raise PermanentFailure(UsageError(message, advice.text if advice else "")) from None
            raise ServiceError(message) from None
        keep_record(services, record)
    return {"step": name, "part": part, "outcome": str(record.outcome)}


def seal_run(
    conclude: Conclude,
    make_services: Callable[[], Services] | None = None,
    announce: Callable[[SealedRun], None] | None = None,
) -> dict[str, Any]:
    """Seal the running task's run, and return the main figures of its evidence bundle.

    The bundle is written from the records of the run's steps. The first seal of a run is final.
    Outcome and findings are read from the sealed bundle, so step records that are stored later
    change nothing.

    Args:
        conclude: derives the conclusion of the run from its records and artifacts. It is not called
            if the run is already sealed.
        make_services: makes the services of the task; by default `task_services`. A drill's bundle
            is stored in the live evidence store and ledger; after that, the drill's state database
            is dropped.
        announce: called with the sealed run after the seal. A retried or cleared task calls it
            again.

    Returns:
        The bundle's path, the digest of its SHA256SUMS, the outcome and the number of findings.

    Raises:
        ControlFailed: the bundle was changed after it was sealed.
        RunSealed: the run is sealed, and its row is missing in the ledger.
        ServiceError: a service failed, or another attempt is sealing the run. Airflow retries the
            task.
    """
    services = (make_services or task_services)()
    live = live_of(services)
    key = run_key()
    # A step that begins meanwhile waits until the run is sealed, and is then refused.
    with sealing(live.state, *key):
        if (sealed := read_sealed_run(live, *key)) is None:
            _refuse_cleared(services)  # the seal of another run enters the lost row, with a finding
            sealed = _seal_records(services, conclude)
        if isinstance(services, SandboxedServices):
            services.drop()
    if live is services and not must_end_soon():  # a drill changes nothing live but the ledger
        update_register(live)
    if live is services:
        forget_earlier_runs(live, key)
        fill_history_index(live)
    if announce is not None:
        announce(sealed)
    return {
        "bundle": sealed.row.bundle,
        "sums_sha256": sealed.row.sums_sha256,
        "outcome": str(sealed.result.outcome),
        "findings": len(sealed.result.findings),
    }


def read_sealed_run(live: Services, dag_id: str, run_id: str) -> SealedRun | None:
    """Return the verified result of a sealed run; None if the ledger does not contain the run.

    If a task was killed after it signed the bundle and before it stored the signature in the
    evidence store, this function stores the signature first.

    Args:
        live: the live services, with the state database and the evidence store.
        dag_id: workflow id of the bundle.
        run_id: Airflow's id of the run.

    Raises:
        ControlFailed: the bundle was changed.
        StoreError: the evidence store cannot be read.
    """
    with live.state.connect() as conn:
        if find(conn, dag_id, run_id) is None:
            return None
        store = live.store("evidence_store")
        keys = TrustedKeys(live.trusted)
        lock_until = lock_end(store, live.clock, live.pack.evidence)
        finish_seal(store, conn, keys, dag_id, run_id, lock_until)
        return read_sealed(store, conn, live.trusted, dag_id, run_id)


def _seal_records(services: Services, conclude: Conclude) -> SealedRun:
    dag_id, run_id = run_key()
    lost_records = []
    if isinstance(services, SandboxedServices):
        lost_records = [] if services.has_schema() else [_lost_state()]
        services = replace(services, creates_schema=True)
    with services.state.connect() as conn:
        records = [*steps_of(conn, dag_id, run_id), *lost_records]
        artifacts = artifacts_of(conn, dag_id, run_id)
    if not is_interrupted():
        records += _unrecorded_failures(records)
    if _is_refused(records) and not is_interrupted():
        conclusion = refused(_title_of(dag_id), records)
    else:
        conclusion = conclude(services, records, artifacts)
    artifacts |= conclusion.files
    if is_interrupted():
        conclusion = replace(
            conclusion,
            outcome=Outcome.FAIL,
            findings=[interrupted_run(), *conclusion.findings],
        )
    live = live_of(services)
    # PDF files may take a minute, which is too long after a signal or a long outage.
    pdf = stopping.interruption() is None and not must_end_soon()
    return seal_bundle(
        live,
        run_context(live),
        conclusion,
        artifacts,
        records,
        pdf=pdf,
        is_complete=not conclusion.could_not_run and _is_complete(services),
        is_drill=isinstance(services, SandboxedServices),
    )


_ENDED_WELL = {"success", "skipped"}
_LAST_TASKS = {"seal", "gate"}


def _is_complete(services: Services) -> bool:
    """Return whether the running task's run executed all of its steps to their end.

    The run of a drill is never complete, because its steps work on the data of a sandbox. A run
    whose parameters a person changed, for example to some of the databases or to another day, is
    not complete either.

    Args:
        services: services of the task `seal`.
    """
    if isinstance(services, SandboxedServices) or is_interrupted():
        return False
    context = get_current_context()
    if _is_narrowed(context, services):
        return False
    dag_id, run_id = run_key()
    states = context["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
    watches = set()
    if dag_id in WORKFLOWS:
        watches = {step.name for step in workflow(dag_id).steps if isinstance(step, Watch)}
    steps = {task: state for task, state in states.items() if task not in _LAST_TASKS | watches}
    return bool(steps) and set(steps.values()) <= _ENDED_WELL


def _is_refused(records: Sequence[StepRecord]) -> bool:
    """Return whether a step refused the run, and no other step failed.

    The notifications that a run sends belong to other runs, so their failure does not count.
    """
    failed_steps = [
        record for record in records if record.outcome is Outcome.FAIL and record.step != STEP_SEND
    ]
    return bool(failed_steps) and all(record.could_not_run for record in failed_steps)


def _is_narrowed(context: Any, services: Services) -> bool:
    """Return whether the parameters of a run differ from those of a scheduled run.

    A parameter that is switched on or off, such as a full check, does not narrow a run.

    Args:
        context: Airflow's context of the running task.
        services: services of the task.
    """
    entered = context["dag_run"].conf or {}
    defaults = context["dag"].params if entered else {}
    for name, value in entered.items():
        is_unset = value in (None, "", []) or isinstance(value, bool)
        if name == "databases" and set(services.pack.databases) <= {*(value or ())}:
            continue
        if not is_unset and value != defaults.get(name):
            return True
    return False


def _title_of(dag_id: str) -> Message:
    return workflow(dag_id).title if dag_id in WORKFLOWS else verbatim(dag_id)


def _lost_state() -> StepRecord:
    """Return the record that the report of a drill shows if the drill's state database is missing.

    The outcome of the record is ``fail``.
    """
    reason = _(
        "the data of the drill was deleted before the evidence was sealed, or was never created"
    )
    return failed("drill", "", _("The drill"), reason, "", _("Start another drill."))


def seal_interim(
    workflow: str,
    services: Services,
    conclusion: Conclusion,
    files: Mapping[str, bytes],
    *,
    records: Sequence[StepRecord] = (),
    pdf: bool = True,
) -> LedgerRow:
    """Seal an interim bundle before the run continues with its next step.

    The interim bundle is stored under its own workflow id, so it does not replace the bundle of the
    run. If the run has already sealed an interim bundle with this id, the existing bundle is kept.

    Args:
        workflow: workflow id of the interim bundle; no DAG has this id.
        services: services of the task.
        conclusion: outcome, findings and report of the bundle.
        files: artifacts of the bundle: name -> content.
        records: step records in the bundle's ``result.json``.
        pdf: whether the report is also rendered as PDF, which takes time.

    Returns:
        The bundle's row in the evidence ledger.

    Raises:
        AirflowFailException: the run itself is sealed.
    """
    open_run(lambda: services)
    context = run_context(services).model_copy(update={"dag_id": workflow})
    return seal_bundle(services, context, conclusion, files, records, pdf=pdf).row


def _unrecorded_failures(records: Sequence[StepRecord]) -> list[StepRecord]:
    """Build a record for each failed task of the run, if no step has recorded a failure.

    A task may fail so early that its step stores no record. The report would then show no failure,
    so this function builds the missing records. If a step has recorded a failure, the result is
    empty.

    Args:
        records: all records that the steps of the run have stored.
    """
    if any(record.outcome is Outcome.FAIL for record in records):
        return []
    dag_id, run_id = run_key()
    states = get_current_context()["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id])
    tasks = sorted(task for task, state in states.get(run_id, {}).items() if state == "failed")
    return [_unrecorded_failure(dag_id, task) for task in tasks]


def _unrecorded_failure(dag_id: str, task: str) -> StepRecord:
    """Build the record of a failed task whose step stored no record.

    Args:
        dag_id: DAG id of the workflow.
        task: task id; for a mapped task, the task id followed by ``_`` and the map index.
    """
    name, _separator, index = task.rpartition("_")
    titles = {DATABASES_STEP: DATABASES_TITLE, STEP_SEND: SEND_TITLE}
    if dag_id in WORKFLOWS:
        steps = (step for step in workflow(dag_id).steps if not isinstance(step, Watch))
        titles |= {step.name: step.title for step in steps}
    title = titles.get(task) or (titles.get(name) if index.isdecimal() else None)
    if title is None:
        title = _("A step of the run")
    elif "part" in title.values:
        title = title.model_copy(update={"values": {"part": _("one part of this run")}})
    reason = _("the step left no record")
    for_engineers = _(
        "The task `{task}` failed before it started its step. The log of the task in Airflow "
        "states the cause.",
        task=task,
    )
    return failed(task, "", title, reason, "", for_engineers=for_engineers)


def run_context(services: Services) -> RunContext:
    """Return the ids, times, code version and policy version of the running task's run."""
    run = get_current_context()["dag_run"]
    started: datetime = run.start_date or services.clock.now()
    return RunContext(
        dag_id=run.dag_id,
        run_id=run.run_id,
        started_at=started,
        period_start=run.data_interval_start,
        period_end=run.data_interval_end,
        code_version=services.code_version,
        policy_hash=services.pack.sha256,
        policy_name=services.pack.name,
        clock_source=services.clock.source,
        timezone=services.pack.calendar.timezone,
    )
