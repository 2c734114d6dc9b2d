"""ParcelSeal's plan and execution in a process of their own, for `benchmarks.retention`.

``python -m benchmarks._retention_once WHAT FILE`` with connection strings as JSON in FILE, which
gets the answer.
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
from include.retention.postgres.session import prepare
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.state.connect import engine
from tests.retention import step_records as steps
from tests.retention.database_fixtures import retention_database


def in_run(given: dict[str, Any]) -> RetentionDatabase:
    """Return the database in a run of `enforce_retention`."""
    return retention_database(
        data.mapped(given["collections"]),
        data.rules(given["collections"]),
        data.disposition(),
        reader=DatabaseAddress.from_conninfo(given["database"]),
        state=engine(given["state"]),
        keys=data.KEYS,
        clock=SystemClock(),
        run_id="bench",
    )


def erase(given: dict[str, Any]) -> dict[str, Any]:
    """Plan and execute."""
    database = in_run(given)
    begun = time.monotonic()
    planned = steps.plan(database, given["as_of"])
    between = time.monotonic()
    executed = steps.execute(database, planned)
    ended = time.monotonic()
    return {
        "plan": between - begun,
        "execute": ended - between,
        "window": [between, ended],
        "planned": sum(one["to_delete"] for one in planned.data["classes"]),
        "findings": [one.code for one in executed.findings],
        **executed.data,
    }


def plan(given: dict[str, Any]) -> dict[str, Any]:
    """Measure plans and plain counts by the same conditions in turn; the first round warms up."""
    database, ours, plain = in_run(given), [], []
    with database.reader.connect(autocommit=True) as connection:
        prepare(connection, database.mapped)
        schedule = schedule_of(database, datetime.fromisoformat(given["as_of"]))
        for _round in range(given["rounds"] + 1):
            begun = time.monotonic()
            made = make_plan(connection, schedule)
            between = time.monotonic()
            counts = [connection.execute(one).fetchone()[0] for one in given["counts"]]
            plain.append(time.monotonic() - between)
            ours.append(between - begun)
            planned = [one.to_delete for one in made.classes]
            if counts != planned:
                sys.exit(f"The plan and the plain counts differ: {counts}, {planned}")
    return {"ours": median(ours[1:]), "plain": median(plain[1:])}


MEASURES = {"erase": erase, "plan": plan}


def main() -> None:
    """Do what the file says."""
    what, file = sys.argv[1], Path(sys.argv[2])
    file.write_text(json.dumps(MEASURES[what](json.loads(file.read_text()))))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # so do Airflow's task processes
