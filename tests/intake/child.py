"""A settlement in a process of its own, for the tests that kill it at a boundary."""

from __future__ import annotations

import signal
import sys

from include.evidence.steps import record_step, steps_of
from include.intake import settle
from include.state.connect import engine
from tests.intake.conftest import desk_of


def main(conninfo: str, state: str, pause_at: str) -> None:
    def progress(stage: str) -> None:
        if stage == pause_at:
            sys.stdout.write(f"{stage}\n")
            sys.stdout.flush()
            signal.pause()

    desk = desk_of(conninfo, engine(state))
    with desk.state.connect() as conn:
        (checked,) = [one for one in steps_of(conn, "review_intake", "run") if one.step == "check"]
    record = settle.settle(desk, checked, progress)
    with desk.state.begin() as conn:
        record_step(conn, "review_intake", "run", record, desk.clock)
    progress("recorded")
    sys.stdout.write("done\n")


main(*sys.argv[1:])
