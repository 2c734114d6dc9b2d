"""Measure one part of `benchmarks.incident` in a separate process.

``python -m benchmarks._incident_once FILE`` reads the part and its parameters as JSON from FILE and
writes the result into FILE. The parts are an incident until the grade is requested, the same
figures by handwritten queries, and the notices of an incident.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import _incident_hand as hand
from benchmarks._incident_context import context_of_run, opened
from benchmarks._incident_notices import PARTS_OF_NOTICES
from include.evidence.step_findings import StepFindings
from include.incident import incident_run
from include.incident.incident_run import record_of
from include.incident.scope_assessment import assess_scope
from include.incident.steps.assessment import Grading
from include.reports.i18n import warm


def ours(parameters: dict[str, Any]) -> dict[str, Any]:
    """Measure an incident from the trigger form to the required action for its grade."""
    run, case = context_of_run(parameters), hand.CASES[parameters["case"]]
    moments = [time.monotonic()]
    number = opened(run, case.form)
    moments.append(time.monotonic())
    assess_scope(run, StepFindings("assess", "6.3"))
    moments.append(time.monotonic())
    Grading(run, record_of(run, number)).ask()
    moments.append(time.monotonic())
    scope = incident_run.require_scope(run, record_of(run, number).incident.id)
    if scope.unknown:
        sys.exit(f"Not counted: {scope.unknown}")
    spans = [after - before for before, after in pairwise(moments)]
    return {
        "seconds": moments[-1] - moments[0],
        "steps": dict(zip(("open", "assess", "ask"), spans, strict=True)),
        "figures": {
            "subjects": scope.subjects,
            "sensitive": scope.sensitive,
            "minors": scope.minors,
            "age_unknown": scope.age_unknown,
            "records": dict(scope.counted[0].records),
            "categories": dict(scope.counted[0].categories),
            "first": scope.first and scope.first.timestamp(),
            "last": scope.last and scope.last.timestamp(),
        },
    }


def by_hand(parameters: dict[str, Any]) -> dict[str, Any]:
    """Measure the handwritten queries for the figures of the same incident."""
    begun = time.monotonic()
    figures = hand.count(parameters["courier"], hand.CASES[parameters["case"]])
    return {"seconds": time.monotonic() - begun, "figures": figures}


PARTS = {"ours": ours, "by_hand": by_hand, **PARTS_OF_NOTICES}


def main() -> None:
    """Measure the part that the file names, and write the result into the file."""
    file = Path(sys.argv[1])
    parameters = json.loads(file.read_text())
    file.write_text(json.dumps(PARTS[parameters["part"]](parameters)))


if __name__ == "__main__":
    # As in the process from which Airflow forks tasks (include/orchestration/preloading.py).
    # Airflow's executor freezes the objects that exist before it forks.
    warm()
    gc.freeze()
    main()
    sys.stdout.flush()
    os._exit(0)  # as Airflow's task processes do
