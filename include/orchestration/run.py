"""From an Airflow task to domain code: connections, the run's context, its steps, its seal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

from airflow.sdk import Connection, get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from include.approvals.question import AskAgain
from include.composition import workplace_of
from include.drill_sandbox.workplace import SandboxedWorkplace, live_of, sandboxed
from include.evidence.adopt import lock_end
from include.evidence.bundle import finish_seal
from include.evidence.ledger import LedgerRow, find
from include.evidence.model import Outcome, RunContext, StepRecord
from include.evidence.shelf import SealedRun, read_sealed
from include.evidence.signing import TrustedKeys
from include.evidence.step_findings import StepResult, artifacts_of, record_step, steps_of
from include.messages import Message, _, verbatim
from include.orchestration.left_over import is_interrupted
from include.orchestration.retrying import PermanentFailure, is_in_process, must_end_soon
from include.orchestration.run_bundle import forget_earlier_runs, seal_bundle
from include.orchestration.run_lock import RunSealed, at_work, refuse_unrecorded, sealing, unsealed
from include.orchestration.step_records import failed, interrupted, interrupted_run, unanswered
from include.orchestration.unforeseen import value_free
from include.reports.conclusion import Conclusion
from include.services import stopping
from include.services.connections import ConnectionSpec, with_short_timeouts
from include.services.database import unreadable_text
from include.services.errors import (
    ParcelSealError,
    ServiceError,
    UsageError,
    is_permanent,
    sqlstate_of,
)
from include.workplace import Lookup, Workplace

INSUFFICIENT_PRIVILEGE = "42501"  # SQLSTATE
_LACKS_RIGHT = _(
    "Grant the database login the right that it lacks: the configuration check prints it when it "
    "tries the connections."
)
Conclude = Callable[[Workplace, Sequence[StepRecord], dict[str, bytes]], Conclusion]


def workplace() -> Workplace:
    """Return the workplace of this task: Airflow's connections, else the local profile's."""
    lookup = airflow_connections()
    if is_in_process():  # a person waits
        lookup = with_short_timeouts(lookup)
    return workplace_of(os.environ, lookup)


def drill_workplace(*, begins: bool = False) -> Workplace:
    """Return the workplace of this task if its run is a drill; see `sandboxed`."""
    return sandboxed(workplace(), *run_key(), begins=begins)


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


def open_run(make: Callable[[], Workplace] | None = None) -> Workplace:
    """Return the workplace of a task, after checking that the run is not sealed.

    Every task but `seal` and `gate` begins with it: work in a sealed run is in no evidence.

    Args:
        make: makes the workplace; `workplace` where none is given.

    Raises:
        AirflowFailException: the run is sealed; no retry changes that.
    """
    stopping.check()
    place = (make or workplace)()
    with _unsealed(place):
        _refuse_cleared(place)
        return place


@contextmanager
def _unsealed(place: Workplace) -> Iterator[None]:
    """Refuse a sealed run, and keep it from being sealed until the block ends."""
    with unsealed(live_of(place).state, *run_key()):
        yield


def _refuse_cleared(place: Workplace) -> None:
    """Refuse a task that was cleared after its run was sealed, also if the ledger lacks the run."""
    if get_current_context()["ti"].try_number > 1:
        refuse_unrecorded(live_of(place), run_context(live_of(place)))


def confirm_open(place: Workplace) -> None:
    """Confirm that the run is not sealed, before what a step did is committed elsewhere.

    Raises:
        RunSealed: it is; no retry changes that.
    """
    with _unsealed(place):
        pass


def keep_record(place: Workplace, record: StepRecord) -> None:
    """Keep a step's record for the seal, in place of an earlier one.

    Args:
        place: of the task.
        record: of a step of this run.

    Raises:
        AirflowFailException: the run is sealed.
    """
    with _unsealed(place), place.state.begin() as conn:
        record_step(conn, *run_key(), record, place.clock)


def step(
    name: str,
    part: str,
    title: Message,
    work: Callable[[Workplace], StepRecord],
    clause: str,
    make: Callable[[], Workplace] | None = None,
    taken: StepResult | None = None,
) -> dict[str, Any]:
    """Do one step and keep its record for the seal, whatever happens.

    Before the work begins, the record says that the step was interrupted, so a killed task shows.
    A step of a sealed run does nothing, and no seal takes place while a step is at work. If an
    answer does not count, the record gives the reason until another answer does.

    Args:
        name: of the step, as its record has it.
        part: what it works on; empty when there is one.
        title: the step for people.
        work: returns the step's record.
        clause: of the policy.
        make: makes the workplace, in which the record is kept too; `workplace` where none is given.
        taken: data of the record while the step has no result; a repeated task reads it.

    Returns:
        Name, part and outcome of the step, for XCom.

    Raises:
        AirflowFailException: the step failed with a permanent error, or the run is sealed.
        ServiceError: a service failed, or an unexpected error occurred; Airflow retries the task.
        AskAgain: an answer that the work took does not count.
    """
    stopping.check()
    place = (make or workplace)()

    def keep_failed(record: StepRecord) -> None:
        data = {} if taken is None else taken.as_json()
        keep_record(place, record.model_copy(update={"data": data}))

    with at_work(live_of(place).state, *run_key()):
        _refuse_cleared(place)
        keep_failed(interrupted(name, part, title, clause))
        try:
            record = work(place)
        except RunSealed:
            raise
        except AskAgain as again:
            keep_record(place, unanswered(name, part, title, again.reason, clause))
            raise
        except ParcelSealError as error:
            reason, action = verbatim(error.message), verbatim(error.action)
            keep_failed(failed(name, part, title, reason, clause, action))
            if is_permanent(error):
                raise PermanentFailure(error) from None
            raise
        except Exception as error:  # noqa: BLE001 - raised again, without words that may quote a value
            if unreadable := unreadable_text(error):
                reason, action = verbatim(unreadable.message), verbatim(unreadable.action)
                keep_failed(failed(name, part, title, reason, clause, action))
                raise PermanentFailure(unreadable) from None
            advice = _LACKS_RIGHT if sqlstate_of(error) == INSUFFICIENT_PRIVILEGE else None
            keep_failed(failed(name, part, title, verbatim(type(error).__name__), clause, advice))
            words = f"Unexpected error:\n{value_free(error)}"
            if is_permanent(error):
                raise PermanentFailure(UsageError(words, advice.text if advice else "")) from None
            raise ServiceError(words) from None
        keep_record(place, record)
    return {"step": name, "part": part, "outcome": str(record.outcome)}


def seal_run(
    conclude: Conclude,
    make: Callable[[], Workplace] | None = None,
    announce: Callable[[SealedRun], None] | None = None,
) -> dict[str, Any]:
    """Write the run's sealed bundle from the records of its steps, and return what was sealed.

    The first seal of a run stands. Whatever its steps left since, outcome and findings are read
    back from the bundle.

    Args:
        conclude: judges the records; is given the artifacts by name too. It is not asked about a
            run that is sealed.
        make: makes the workplace; `workplace` where none is given. A drill's bundle is sealed in
            the live store and ledger, then its state is dropped.
        announce: called after the seal with the sealed run; a retried or cleared task calls it
            again.

    Returns:
        The bundle's path, the digest of its SHA256SUMS, the outcome and the number of findings.

    Raises:
        ControlFailed: the sealed bundle was changed since.
        RunSealed: the run is sealed, and the ledger lost its row.
        ServiceError: a service failed, or another try seals the run; repeat it.
    """
    place = (make or workplace)()
    live = live_of(place)
    key = run_key()
    # A step that begins meanwhile waits until the run is sealed, and refuses then.
    with sealing(live.state, *key):
        if (sealed := finished_run(live, *key)) is None:
            _refuse_cleared(place)  # the seal of another run enters the lost row, with a finding
            sealed = _seal_records(place, conclude)
        if isinstance(place, SandboxedWorkplace):
            place.drop()
    if live is place:  # a drill changes nothing live but the ledger
        forget_earlier_runs(live, key)
    if announce is not None:
        announce(sealed)
    return {
        "bundle": sealed.row.bundle,
        "sums_sha256": sealed.row.sums_sha256,
        "outcome": str(sealed.result.outcome),
        "findings": len(sealed.result.findings),
    }


def finished_run(live: Workplace, dag_id: str, run_id: str) -> SealedRun | None:
    """Return the verified result of a run that is in the ledger; None when it is not.

    A seal that was killed before its signature reached the store is completed. Raises ControlFailed
    when the bundle was changed, and StoreError.
    """
    with live.state.connect() as conn:
        if find(conn, dag_id, run_id) is None:
            return None
        store = live.store("evidence_store")
        keys = TrustedKeys(live.trusted)
        lock_until = lock_end(store, live.clock, live.pack.evidence)
        finish_seal(store, conn, keys, dag_id, run_id, lock_until)
        return read_sealed(store, conn, live.trusted, dag_id, run_id)


def _seal_records(place: Workplace, conclude: Conclude) -> SealedRun:
    dag_id, run_id = run_key()
    more = []
    if isinstance(place, SandboxedWorkplace):
        more = [] if place.is_there() else [_lost()]
        place = replace(place, begins=True)
    with place.state.connect() as conn:
        records = [*steps_of(conn, dag_id, run_id), *more]
        artifacts = artifacts_of(conn, dag_id, run_id)
    if not is_interrupted():
        records += _without_record(records)
    conclusion = conclude(place, records, artifacts)
    artifacts |= conclusion.files
    if is_interrupted():
        conclusion = replace(
            conclusion,
            outcome=Outcome.FAIL,
            findings=[interrupted_run(), *conclusion.findings],
        )
    live = live_of(place)
    # After a signal or a long outage too little time is left: PDF files may take a minute.
    pdf = stopping.interruption() is None and not must_end_soon()
    return seal_bundle(live, run_context(live), conclusion, artifacts, records, pdf=pdf)


def _lost() -> StepRecord:
    reason = _("its state was cleared away, or never made, before it was sealed")
    return failed("drill", "", _("The drill"), reason, "", _("Start another drill."))


def seal_interim(
    workflow: str,
    place: Workplace,
    conclusion: Conclusion,
    files: Mapping[str, bytes],
    *,
    records: Sequence[StepRecord] = (),
    pdf: bool = True,
) -> LedgerRow:
    """Seal a separate bundle before the run's next step.

    The bundle has its own workflow id, so that it does not take the place of the run's bundle. If
    the run has sealed such a bundle before, that bundle is kept.

    Args:
        workflow: id of the bundle; no DAG has this id.
        place: of the task.
        conclusion: of the bundle.
        files: its artifacts by name.
        records: the steps in its ``result.json``.
        pdf: whether to render its report as PDF too, which takes time.

    Returns:
        Its row of the ledger.

    Raises:
        AirflowFailException: the run itself is sealed.
    """
    open_run(lambda: place)
    context = run_context(place).model_copy(update={"dag_id": workflow})
    return seal_bundle(place, context, conclusion, files, records, pdf=pdf).row


def _without_record(records: Sequence[StepRecord]) -> list[StepRecord]:
    """Return a failed record for failed tasks when no step says that anything failed.

    A task may fail before its step begins. Then the records alone look as if nothing had happened.
    """
    if any(record.outcome is Outcome.FAIL for record in records):
        return []
    dag_id, run_id = run_key()
    states = get_current_context()["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id])
    red = sorted(task for task, state in states.get(run_id, {}).items() if state == "failed")
    reason = _("it left no record")
    return [failed(task, "", _("The task {task}", task=task), reason, "") for task in red]


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
