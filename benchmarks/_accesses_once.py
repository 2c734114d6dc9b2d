"""Execute the step `compare` of `expire_grants` in a separate process, and measure it.

``python -m benchmarks._accesses_once FILE`` reads the parameters as JSON from FILE and writes the
result there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from include.disclosure.accesses.rules import AccessRules
from include.disclosure.accesses.step import COMPARE
from include.evidence.step_findings import StepFindings, UnsealedFolder
from include.notify.outbox import Run
from include.policy.section import SectionRules
from include.services.clock import FixedClock
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from include.workflow.run_context import RunContext
from tests.support.contexts import pack_of, services_of


class AccessSection(SectionRules):
    """Rules of a section that has only the key `accesses`."""

    connection: str = "bench_db"
    accesses: AccessRules


def compare(parameters: dict[str, Any]) -> dict[str, Any]:
    """Compare the accesses once, and return the seconds and the numbers of violations."""
    pack = pack_of({"bench": "bench_db"}, {})
    clock = FixedClock(datetime.fromisoformat(parameters["now"]))
    services = services_of(
        pack, {"bench": parameters["database"]}, engine(parameters["state"]), clock
    )
    rules = AccessSection(accesses=AccessRules.model_validate(parameters["rules"]))
    run = RunContext(
        services,
        rules,
        Run("expire_grants", parameters["run"]),
        parameters={"full": parameters["full"]},
    )
    folder = UnsealedFolder(DirectoryStore(Path(parameters["store"])), "bundle")
    # The folder of a bundle needs an evidence store, which the benchmark lacks.
    RunContext.unsealed_folder = property(lambda _run: folder)  # type: ignore[method-assign]
    started = time.monotonic()
    findings = StepFindings(COMPARE.name, COMPARE.clause)
    comparison = COMPARE.work(run, findings)
    findings.record(comparison)
    return {
        "seconds": time.monotonic() - started,
        "full": comparison.full,
        "accesses": comparison.accesses,
        "violations": {count.kind: count.open for count in comparison.kinds if count.open},
        "never_used": comparison.never_used,
        "departments": len(comparison.peers),
    }


def main() -> None:
    """Measure with the parameters in the file, and write the result into the file."""
    file = Path(sys.argv[1])
    file.write_text(json.dumps(compare(json.loads(file.read_text()))))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # as Airflow's task processes do
