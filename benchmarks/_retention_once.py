"""Run ParcelSeal's plan and execution in a separate process, for `benchmarks.retention`.

``python -m benchmarks._retention_once WHAT FILE``. FILE contains connection strings as JSON, and
receives the result.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import _retention_data as data
from include.retention.database import RetentionDatabase
from include.retention.planning.planner import make_plan
from include.retention.planning.schedule import schedule_of
from include.retention.postgres.session import prepare_session
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.state.connect import engine
from tests.retention import step_records as steps
from tests.retention.database_fixtures import retention_database


def in_run(task: dict[str, Any]) -> RetentionDatabase:
    """Return the benchmark's database as a run of `enforce_retention` uses it."""
    return retention_database(
        data.mapped(task["collections"]),
        data.rules(task["collections"]),
        data.disposition(),
        reader=DatabaseAddress.from_conninfo(task["database"]),
        state=engine(task["state"]),
        keys=data.KEYS,
        clock=SystemClock(),
        run_id="bench",
    )


def erase(task: dict[str, Any]) -> dict[str, Any]:
    """Measure the plan and the execution of a disposition."""
    database = in_run(task)
    begun = time.monotonic()
    planned = steps.plan(database, task["as_of"])
    between = time.monotonic()
    executed = steps.execute(database, planned)
    ended = time.monotonic()
    return {
        "plan": between - begun,
        "execute": ended - between,
        "window": [between, ended],
        "planned": sum(record_class["to_delete"] for record_class in planned.data["classes"]),
        "findings": [finding.code for finding in executed.findings],
        **executed.data,
    }


def plan(task: dict[str, Any]) -> dict[str, Any]:
    """Measure plans and plain counts with the same conditions in turn, without the first round."""
    database, ours, plain = in_run(task), [], []
    with database.reader.connect(autocommit=True) as connection:
        prepare_session(connection, database.mapped)
        schedule = schedule_of(database, datetime.fromisoformat(task["as_of"]))
        for _round in range(task["rounds"] + 1):
            begun = time.monotonic()
            new_plan = make_plan(connection, schedule)
            between = time.monotonic()
            counts = [connection.execute(count).fetchone()[0] for count in task["counts"]]
            plain.append(time.monotonic() - between)
            ours.append(between - begun)
            planned = [record_class.to_delete for record_class in new_plan.classes]
            if counts != planned:
                sys.exit(f"The plan and the plain counts differ: {counts}, {planned}")
    return {"ours": median(ours[1:]), "plain": median(plain[1:])}


MEASURES = {"erase": erase, "plan": plan}


def main() -> None:
    """Run the measurement that the command line names, and write its result into the file."""
    measure, file = sys.argv[1], Path(sys.argv[2])
    file.write_text(json.dumps(MEASURES[measure](json.loads(file.read_text()))))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # as Airflow's task processes do
