"""Render the report of a run with its controls, seal its bundle, and delete old step records."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from include.evidence.bundle import seal
from include.evidence.bundle_reader import SealedRun, read_sealed
from include.evidence.control_index import fill_index
from include.evidence.ledger_recovery import lock_end
from include.evidence.model import (
    REGISTERS_STEP,
    Outcome,
    Result,
    RunContext,
    StepRecord,
    StepSummary,
    judge,
    unexplained,
)
from include.evidence.prune import delete_step_records
from include.evidence.report_number import report_number
from include.evidence.signing import TrustedKeys
from include.orchestration.retry_policy import must_end_soon
from include.reports.conclusion import Conclusion
from include.reports.letterhead import letterhead_of
from include.reports.model import Report
from include.service_container import Services
from include.services import stopping

_SUMMARY = {"step", "part", "outcome", "data", "coverage"}


def seal_bundle(
    services: Services,
    context: RunContext,
    conclusion: Conclusion,
    artifacts: Mapping[str, bytes],
    records: Sequence[StepRecord],
    *,
    pdf: bool = True,
    is_complete: bool = False,
    is_drill: bool = False,
) -> SealedRun:
    """Render the report of a run, seal its bundle, and return the run as read from the bundle.

    Args:
        services: services of the task.
        context: ids, times and versions of the run.
        conclusion: outcome, findings and report of the run.
        artifacts: files of the bundle: name -> content.
        records: step records in the bundle's ``result.json``.
        pdf: whether the report is also rendered as PDF, which takes time.
        is_complete: whether the run executed all of its steps to their end; see `Result`.
        is_drill: whether the run was a drill.
    """
    from include.reports.render import render_all

    reader = services.registers()
    controls = []  # a run that could not run changes the outcome of no control
    if not conclusion.could_not_run:
        declared = services.pack.controls_of(context.dag_id)
        controls = judge(declared, conclusion.metrics, services.pack.roles)
    registers, lost = reader.state_to_seal(services.clock)
    findings = [
        *conclusion.findings,
        *unexplained(controls, conclusion.outcome, conclusion.known_failures),
        *(finding.model_copy(update={"step": REGISTERS_STEP}) for finding in lost),
    ]
    outcome = Outcome.worst([conclusion.outcome, *(finding.severity for finding in findings)])
    report = Report(
        title=conclusion.title,
        summary=conclusion.summary,
        run=context,
        outcome=outcome,
        could_not_run=conclusion.could_not_run,
        finished_at=services.clock.now(),
        number=report_number(context),
        letterhead=letterhead_of(services.pack.company),
        controls=controls,
        facts=conclusion.facts,
        sections=conclusion.sections,
        findings=findings,
        clauses={
            finding.clause: services.pack.clause_message(finding.clause)
            for finding in findings
            if finding.clause
        },
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
        steps=[StepSummary(**record.model_dump(include=_SUMMARY)) for record in records],
        not_made=rendered.not_made,
        registers=registers,
        is_complete=is_complete,
        is_drill=is_drill,
        could_not_run=conclusion.could_not_run,
    )
    store = services.store("evidence_store")
    with services.state.connect() as conn:
        seal(
            store,
            conn,
            services.signer,
            result=result,
            files={**artifacts, **rendered.files},
            stored=conclusion.stored,
            clock=services.clock,
            lock_until=lock_end(store, services.clock, services.pack.evidence),
            trusted=services.trusted,
            workflows=reader.workflows,
            # A drill leaves nothing but its bundle.
            pack_controls=[] if is_drill else [control.id for control in services.pack.controls],
        )
        sealed = read_sealed(store, conn, services.trusted, context.dag_id, context.run_id)
    assert sealed is not None
    return sealed


log = logging.getLogger(__name__)


def forget_earlier_runs(live: Services, run: tuple[str, str]) -> None:
    """Delete the step records and artifacts of other sealed runs from the state database.

    The records of a run are deleted only if its sealed bundle is valid. If the deletion fails, the
    task still succeeds, because its own run is already sealed. The next seal then deletes them.
    Nothing is deleted if this process has to end soon.

    Args:
        live: the live services.
        run: DAG id and run id of the run that was just sealed. Its records are kept until the next
            seal has verified its bundle.
    """
    if stopping.interruption() is not None or must_end_soon():
        return
    try:
        removal = delete_step_records(
            live.store("evidence_store"), live.state, live.trusted, besides=run
        )
    except Exception as error:  # noqa: BLE001 - the text may quote a value
        log.warning("Records of earlier runs were not removed: %s.", type(error).__name__)
        return
    for bundle in removal.refused:
        log.warning("The bundle %s does not verify; the records of its run stay.", bundle)


def fill_history_index(live: Services) -> None:
    """Add some bundles that were sealed before the history index existed to the index.

    If this fails, the task still succeeds, and the next seal continues. Nothing is added if this
    process has to end soon.

    Args:
        live: the live services.
    """
    if stopping.interruption() is not None or must_end_soon():
        return
    try:
        with live.state.connect() as conn:
            fill_index(live.store("evidence_store"), conn, TrustedKeys(live.trusted))
    except Exception as error:  # noqa: BLE001 - the text may quote a value
        log.warning("The history of controls was not completed: %s.", type(error).__name__)
