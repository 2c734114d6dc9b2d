"""Judge a run's controls, render its report and seal its bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from include.evidence.bundle import seal
from include.evidence.controls import judge, unexplained
from include.evidence.model import Outcome, Result, RunContext, StepRecord, StepSummary
from include.evidence.pending import lock_end
from include.evidence.sealed import SealedRun, read_sealed
from include.reports.conclusion import Conclusion
from include.reports.model import Report
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
            ahead=conclusion.ahead,
            clock=place.clock,
            lock_until=lock_end(store, place.clock, place.pack.evidence),
            trusted=place.trusted,
            workflows=reader.workflows,
        )
        sealed = read_sealed(store, conn, place.trusted, context.dag_id, context.run_id)
    assert sealed is not None
    return sealed
