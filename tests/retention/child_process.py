"""A process that executes a plan and stops at a stage. Tests then kill the process.

The argument of the process is JSON: ``source``, ``state``, ``record`` (of the plan), ``run``,
``stage`` and ``time``. When the execution reaches the stage for the ``time``-th time, the process
prints the name of the stage and waits forever.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from include.evidence.model import StepRecord
from tests.retention.runner import RetentionRunner


def report(stage: str) -> None:
    sys.stdout.write(f"{stage}\n")
    sys.stdout.flush()


def main() -> None:
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    runner = RetentionRunner(arguments["source"], arguments["state"])
    record = StepRecord.model_validate(arguments["record"])
    reached = 0

    def progress(stage: str) -> None:
        nonlocal reached
        reached += stage == arguments["stage"]
        if stage == arguments["stage"] and reached == arguments["time"]:
            report(stage)
            signal.pause()

    runner.execute(record, arguments["run"], progress)
    report("done")
