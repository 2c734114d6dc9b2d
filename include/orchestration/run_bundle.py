"""Judge a run's controls, render its report, seal its bundle, and remove sealed step records."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from include.evidence.adopt import lock_end
from include.evidence.bundle import seal
from include.evidence.model import (
    Outcome,
    Result,
    RunContext,
    StepRecord,
    StepSummary,
    judge,
    unexplained,
)
from include.evidence.prune import forget_sealed_runs
from include.evidence.shelf import SealedRun, read_sealed
from include.orchestration.retrying import must_end_soon
from include.reports.conclusion import Conclusion
from include.reports.model import Report
from include.services import stopping
from include.workplace import Workplace

_SUMMARY = {"step", "part", "outcome", "data"}


def seal_bundle(
    place: Workplace,
    context: RunContext,
    conclusion: Conclusion,
    artifacts: Mapping[str, bytes],
    records: Sequence[StepRecord],
    *,
    pdf: bool = True,
) -> SealedRun:
    """Seal a bundle, and read the run's sealed result back."""
    from include.reports.render import render_all

    reader = place.registers()
    controls = judge(place.pack.controls_of(context.dag_id), conclusion.metrics)
    registers, lost = reader.state_to_seal(place.clock)
    findings = [*conclusion.findings, *unexplained(controls, conclusion.outcome), *lost]
    outcome = Outcome.worst([conclusion.outcome, *(finding.severity for finding in findings)])
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
        steps=[StepSummary(**record.model_dump(include=_SUMMARY)) for record in records],
        not_made=rendered.not_made,
        registers=registers,
    )
    store = place.store("evidence_store")
    with place.state.connect() as conn:
        seal(
            store,
            conn,
            place.signer,
            result=result,
            files={**artifacts, **rendered.files},
            stored=conclusion.stored,
            clock=place.clock,
            lock_until=lock_end(store, place.clock, place.pack.evidence),
            trusted=place.trusted,
            workflows=reader.workflows,
        )
        sealed = read_sealed(store, conn, place.trusted, context.dag_id, context.run_id)
    assert sealed is not None
    return sealed


log = logging.getLogger(__name__)


def forget_earlier_runs(live: Workplace, run: tuple[str, str]) -> None:
    """Remove what the steps of earlier sealed runs left in the state database.

    The run is sealed already, so no failure here may fail its task: the next seal tries again.

    Args:
        live: the live workplace.
        run: dag id and run id of the run that was sealed just now; the next seal checks its bundle.
    """
    if stopping.interruption() is not None or must_end_soon():
        return
    try:
        done = forget_sealed_runs(
            live.store("evidence_store"), live.state, live.trusted, besides=run
        )
    except Exception as error:  # noqa: BLE001 - the text may quote a value
        log.warning("Records of earlier runs were not removed: %s.", type(error).__name__)
        return
    for bundle in done.refused:
        log.warning("The bundle %s does not verify; the records of its run stay.", bundle)
