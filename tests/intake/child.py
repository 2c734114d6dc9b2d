"""A settlement in a process of its own, for the tests that kill it at a boundary."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection

import great_expectations  # noqa: F401 - settling needs it, and importing it takes two seconds

from include.evidence.step_findings import record_step, steps_of
from include.state.connect import engine
from tests.intake import steps
from tests.intake.conftest import table_in


def main(conninfo: str, state: str, pause_at: str, said: Connection) -> None:
    """Settle; say when that stage is reached and wait there for ever, or say that it is done."""

    def progress(stage: str) -> None:
        if stage == pause_at:
            said.send(stage)
            signal.pause()

    table = table_in(conninfo, engine(state))
    with table.state.connect() as conn:
        (checked,) = [one for one in steps_of(conn, "review_intake", "run") if one.step == "check"]
    record = steps.settle(table, checked, progress)
    with table.state.begin() as conn:
        record_step(conn, "review_intake", "run", record, table.clock)
    progress("recorded")
    said.send("done")
