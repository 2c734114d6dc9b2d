"""A process that executes the decision on a batch, and that tests kill at a given stage."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection

import great_expectations  # noqa: F401 - settling needs it, and importing it takes two seconds

from include.evidence.step_findings import record_step, steps_of
from include.state.connect import engine
from tests.intake import steps
from tests.intake.conftest import table_in


def main(conninfo: str, state: str, pause_at: str, messages: Connection) -> None:
    """Execute the decision on a batch, then send ``done``.

    At the stage ``pause_at``, the process sends the name of the stage and waits.

    Args:
        conninfo: connection string of the courier's database.
        state: connection string of the state database.
        pause_at: name of the stage at which the process waits.
        messages: pipe to the test.
    """

    def progress(stage: str) -> None:
        if stage == pause_at:
            messages.send(stage)
            signal.pause()

    table = table_in(conninfo, engine(state))
    with table.state.connect() as conn:
        records = steps_of(conn, "review_intake", "run")
    (checked,) = [record for record in records if record.step == "check"]
    record = steps.settle(table, checked, progress)
    with table.state.begin() as conn:
        record_step(conn, "review_intake", "run", record, table.clock)
    progress("recorded")
    messages.send("done")
