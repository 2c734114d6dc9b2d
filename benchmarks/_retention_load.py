"""The application during a deletion, in a separate process: updates by key, or reads.

``python -m benchmarks._retention_load updates|reads FILE``. FILE contains the task as JSON. The
process prints an empty line once all its connections are open. When its standard input ends, it
prints a pair for each statement: the time at which the statement was due (by the monotonic clock),
and the seconds from that time until the statement was done. A statement that waited for a free
connection therefore counts its wait.
"""

from __future__ import annotations

import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

CONNECTIONS = 4


class Load:
    """Runs statements at a steady pace on several connections."""

    def __init__(self, task: dict[str, Any], statement: Callable[[psycopg.Connection], None]):
        self.task, self.statement = task, statement
        self.took: list[tuple[float, float]] = []
        self.until = math.inf

    def run(self) -> list[tuple[float, float]]:
        """Connect, print an empty line, and run statements until standard input ends.

        Returns:
            A pair of due time and seconds for each statement.
        """
        with ExitStack() as stack:
            connections = [
                stack.enter_context(psycopg.connect(self.task["database"], autocommit=True))
                for _number in range(CONNECTIONS)
            ]
            begin = time.monotonic()
            threads = [
                threading.Thread(target=self._use, args=[connection, begin, number])
                for number, connection in enumerate(connections)
            ]
            for thread in threads:
                thread.start()
            sys.stdout.write("\n")
            sys.stdout.flush()
            sys.stdin.read()
            self.until = time.monotonic()
            for thread in threads:
                thread.join()
        return self.took

    def _use(self, connection: psycopg.Connection, begin: float, number: int) -> None:
        interval = CONNECTIONS / self.task["per_second"]
        due = begin + number * interval / CONNECTIONS
        while due < self.until:  # late statements are run too, as fast as the server allows
            time.sleep(max(0.0, due - time.monotonic()))
            self.statement(connection)
            self.took.append((due, time.monotonic() - due))
            due += interval


def main() -> None:
    """Run the statements that the file describes."""
    kind, task = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    dice = random.Random(5)  # noqa: S311 - picks rows, no secret
    rows = task["rows"]

    def update(connection: psycopg.Connection) -> None:
        row = dice.randint(1, rows)
        connection.execute("UPDATE parcel SET status = status + 1 WHERE id = %s", [row])

    def read(connection: psycopg.Connection) -> None:
        if dice.random() < 0.1:
            connection.execute(task["count"])
        else:
            row = dice.randint(1, rows)
            connection.execute("SELECT note FROM event WHERE id = %s", [row])

    json.dump(Load(task, update if kind == "updates" else read).run(), sys.stdout)


if __name__ == "__main__":
    main()
