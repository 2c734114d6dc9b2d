"""ParcelSeal's plan and execution in a process of their own, for `benchmarks.retention`.

``python -m benchmarks._retention_once WHAT FILE`` with connection strings as JSON in FILE, which
gets the answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks import _retention_data as data
from benchmarks._retention_graph import GeneratedGraph
from include.policy.retention import RetentionRule
from include.retention import erasing, steps
from include.retention.desk import Desk
from include.retention.planning import make_plan
from include.retention.session import prepare
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.state.connect import engine


def desk(given: dict[str, Any], rules: Sequence[RetentionRule] | None = None) -> Desk:
    """What the steps of `enforce_retention` work with."""
    address = DatabaseAddress.from_conninfo(given["database"])
    return Desk(
        database=data.mapped(given["collections"]),
        rules=data.rules(given["collections"]) if rules is None else rules,
        disposition=data.disposition(),
        timezone="UTC",
        reader=address,
        writer=address,
        staff=None,
        state=engine(given["state"]),
        keys=data.KEYS,
        clock=SystemClock(),
        dag_id="enforce_retention",
        run_id="bench",
    )


def erase(given: dict[str, Any]) -> dict[str, Any]:
    """Plan and execute."""
    place = desk(given)
    begun = time.monotonic()
    planned = steps.plan(place, given["as_of"])
    between = time.monotonic()
    executed = erasing.execute(place, planned)
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
    """Measure plans and plain counts by the same conditions in turn."""
    place = desk(given)
    return _in_turn(place, given, given["counts"], exact=True)


def plan_graph(given: dict[str, Any]) -> dict[str, Any]:
    """Measure plans of a generated graph, and plain counts over one level of keys, in turn."""
    as_of = datetime.fromisoformat(given["as_of"])
    cutoff = as_of.replace(year=as_of.year - 3)
    graph = GeneratedGraph(given["tables"], given["keys"], given["rows"], cutoff, cycles=True)
    place = desk({**given, "collections": graph.names}, graph.rules())
    return _in_turn(place, given, graph.counts(), exact=False)


def _in_turn(
    place: Desk, given: dict[str, Any], statements: Sequence[str], *, exact: bool
) -> dict[str, Any]:
    """Measure plans and plain counts in turn; the first round warms up.

    Args:
        place: the desk for which to plan.
        given: the moment and the number of rounds.
        statements: the plain counts.
        exact: whether both must count the same; if not, the plan may count less.
    """
    ours, plain = [], []
    with place.reader.connect(autocommit=True) as connection:
        prepare(connection, place.database)
        schedule = place.schedule(datetime.fromisoformat(given["as_of"]))
        for _round in range(given["rounds"] + 1):
            begun = Moment.now(connection)
            made = make_plan(connection, schedule)
            between = Moment.now(connection)
            counts = [connection.execute(one).fetchone()[0] for one in statements]
            ours.append(between.since(begun))
            plain.append(Moment.now(connection).since(between))
            planned = [one.to_delete for one in made.classes]
            less = any(mine > theirs for mine, theirs in zip(planned, counts, strict=True))
            if less or not sum(planned) or (exact and counts != planned):
                sys.exit(f"The plan and the plain counts differ: {counts}, {planned}")
    pairs = list(zip(ours, plain, strict=True))[1:]
    return {
        "ours": median(plan.seconds for plan, _count in pairs),
        "plain": median(count.seconds for _plan, count in pairs),
        "ratio": median(plan.seconds / count.seconds for plan, count in pairs),
        "ours_cpu": median(plan.cpu for plan, _count in pairs),
        "plain_cpu": median(count.cpu for _plan, count in pairs),
        "cpu_ratio": sum(plan.cpu for plan, _ in pairs) / sum(count.cpu for _, count in pairs),
    }


@dataclass(frozen=True)
class Moment:
    """A point in time, or the time between two points.

    Attributes:
        seconds: wall time.
        cpu: CPU seconds of this process and of the server process of a connection.
    """

    seconds: float
    cpu: float

    @classmethod
    def now(cls, connection: psycopg.Connection[Any]) -> Moment:
        """Read the clocks. The server runs on this machine, which is Linux: proc(5)."""
        stat = Path(f"/proc/{connection.info.backend_pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        server = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        return cls(time.monotonic(), time.process_time() + server)

    def since(self, earlier: Moment) -> Moment:
        """Return the time since an earlier moment."""
        return Moment(self.seconds - earlier.seconds, self.cpu - earlier.cpu)


MEASURES = {"erase": erase, "plan": plan, "plan_graph": plan_graph}


def main() -> None:
    """Do what the file says."""
    what, file = sys.argv[1], Path(sys.argv[2])
    file.write_text(json.dumps(MEASURES[what](json.loads(file.read_text()))))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # so do Airflow's task processes
