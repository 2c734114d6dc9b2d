"""Run a step in a separate process, for tests that kill this process."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from tests.sampling.company import Company


def main() -> None:
    source, state, root, pack, now, step, *arguments = sys.argv[1:]
    company = Company(source, state, Path(root), Path(pack), datetime.fromisoformat(now))
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    getattr(company, step)(*arguments)
    sys.stdout.write("done\n")
