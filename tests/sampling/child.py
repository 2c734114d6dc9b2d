"""Steps of a run in a process of their own, for the tests that kill it."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from tests.sampling.rig import Rig


def main() -> None:
    source, state, root, pack, now, step, *given = sys.argv[1:]
    rig = Rig(source, state, Path(root), Path(pack), datetime.fromisoformat(now))
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    getattr(rig, step)(*given)
    sys.stdout.write("done\n")
