"""An execution in a process of its own, for the tests that kill it; says which stage it reached.

Told by one argument in JSON: ``source``, ``state``, ``record`` (of the plan), ``run``, and at which
arrival (``time``) at which ``stage`` it says so on stdout and waits for ever.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from include.evidence.model import StepRecord
from tests.retention.rig import Rig


def say(stage: str) -> None:
    sys.stdout.write(f"{stage}\n")
    sys.stdout.flush()


def main() -> None:
    told: dict[str, Any] = json.loads(sys.argv[1])
    rig = Rig(told["source"], told["state"])
    record = StepRecord.model_validate(told["record"])
    reached = 0

    def progress(stage: str) -> None:
        nonlocal reached
        reached += stage == told["stage"]
        if stage == told["stage"] and reached == told["time"]:
            say(stage)
            signal.pause()

    rig.execute(record, told["run"], progress)
    say("done")
