"""The results of a step in earlier sealed runs of a workflow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from include.evidence import index
from include.evidence.bundle_reader import BundleReader
from include.evidence.check import EvidenceRefused
from include.evidence.ledger_recovery import pending_signature
from include.evidence.model import StepRecord
from include.evidence.step_findings import Result, result_of
from include.workflow.run_context import RunContext
from include.workflow.run_records import RecordedTask

MOST_RUNS = 24


def earlier_results(run: RunContext[Any], step: RecordedTask[Result]) -> Iterator[Result]:
    """Yield the results of a step in the newest sealed runs of the run's workflow, newest first.

    The results come from verified bundles. Drills, bundles that do not verify, and runs without a
    result of the step are skipped. At most the newest `MOST_RUNS` bundles are read.

    Args:
        run: context of a run that is not sealed.
        step: declaration of the step, which is not mapped.

    Raises:
        StoreError: the evidence store cannot be read.
    """

    def pending(bundle: str) -> bytes | None:
        with run.state.connect() as conn:
            return pending_signature(conn, bundle)

    with run.state.connect() as conn:
        rows = index.newest_of(conn, {run.run.dag_id}, MOST_RUNS).get(run.run.dag_id, [])
    if not rows:
        return
    services = run.services
    bundle_reader = BundleReader(
        services.store("evidence_store"), services.trusted, pending=pending
    )
    for row in rows:
        try:
            sealed = bundle_reader.result(row)
        except EvidenceRefused:
            continue
        if sealed.is_drill:
            continue
        records = (StepRecord(**summary.model_dump()) for summary in sealed.steps)
        record = next((record for record in records if record.step == step.name), None)
        result = result_of(record, step.result)
        if result is not None:
            yield result
