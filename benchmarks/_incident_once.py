"""A part of the incident benchmark in a process of its own, for `benchmarks.incident`.

``python -m benchmarks._incident_once FILE`` with what is asked for as JSON in FILE, which gets the
answer: an incident as far as its grade is asked for, the queries by hand, or its letters.
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
from benchmarks._incident_letters import PARTS_OF_LETTERS
from include.evidence.step_findings import StepFindings
from include.incident import incident_run
from include.incident.assessing import assess
from include.incident.incident_run import record_of
from include.incident.steps.assessment import Grading
from include.reports.i18n import warm


def ours(given: dict[str, Any]) -> dict[str, Any]:
    """From the trigger form to the question for the grade."""
    run, case = context_of_run(given), hand.CASES[given["case"]]
    moments = [time.monotonic()]
    number = opened(run, case.form)
    moments.append(time.monotonic())
    assess(run, StepFindings("assess", "6.3"))
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


def by_hand(given: dict[str, Any]) -> dict[str, Any]:
    """The same figures by queries of one's own."""
    begun = time.monotonic()
    figures = hand.count(given["courier"], hand.CASES[given["case"]])
    return {"seconds": time.monotonic() - begun, "figures": figures}


PARTS = {"ours": ours, "by_hand": by_hand, **PARTS_OF_LETTERS}


def main() -> None:
    """Do what the file says."""
    file = Path(sys.argv[1])
    given = json.loads(file.read_text())
    file.write_text(json.dumps(PARTS[given["part"]](given)))


if __name__ == "__main__":
    # As in the process that Airflow forks tasks from: include/orchestration/preloading.py, and
    # Airflow's own executor, which freezes what is there.
    warm()
    gc.freeze()
    main()
    sys.stdout.flush()
    os._exit(0)  # so do Airflow's task processes
