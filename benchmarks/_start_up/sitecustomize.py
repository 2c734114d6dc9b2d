"""Write the CPU time at which functions of a process are first called.

Python imports this module at its start. Environment variables: ``START_UP_FILE`` is the file to
which the module appends a JSON object for each function. ``START_UP_STEPS`` names the functions,
separated by commas, such as ``backup/offsite:check``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import CodeType
from typing import Any

FOLDER = "/include/"
TOOL = 5  # tool id of sys.monitoring that no profiler or debugger uses
_forked: list[int] = []


def _begins(code: CodeType, _offset: int) -> Any:
    at = code.co_filename.rfind(FOLDER)
    name = f"{code.co_filename[at + len(FOLDER) : -len('.py')]}:{code.co_qualname}"
    if at >= 0 and name in os.environ["START_UP_STEPS"].split(","):
        line = {
            "step": name,
            "seconds": time.process_time(),
            "forked": bool(_forked),
            "packages": sorted({module.partition(".")[0] for module in sys.modules}),
        }
        with Path(os.environ["START_UP_FILE"]).open("a") as file:
            file.write(json.dumps(line) + "\n")
    return sys.monitoring.DISABLE  # record each function only once


if os.environ.get("START_UP_FILE"):
    os.register_at_fork(after_in_child=lambda: _forked.append(os.getpid()))
    sys.monitoring.use_tool_id(TOOL, "start_up")
    sys.monitoring.register_callback(TOOL, sys.monitoring.events.PY_START, _begins)
    sys.monitoring.set_events(TOOL, sys.monitoring.events.PY_START)
