"""What an application does meanwhile, in a process of its own: updates by key, or reads.

``python -m benchmarks._retention_load updates|reads FILE`` with what to do as JSON in FILE; it ends
with its standard input, and then prints of each the moment at which it was due (of the machine's
monotonic clock) and the seconds that it took. They count from that moment, not from the one at
which a connection was free: who waits for others that wait, waits.
"""

from __future__ import annotations

import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

CONNECTIONS = 4


class Load:
    """Statements at a steady pace on several connections."""

    def __init__(self, given: dict[str, Any], statement: Callable[[psycopg.Connection], None]):
        self.given, self.statement = given, statement
        self.took: list[tuple[float, float]] = []
        self.until = math.inf

    def run(self) -> list[tuple[float, float]]:
        """Go on until standard input ends."""
        threads = [threading.Thread(target=self._one, args=[at]) for at in range(CONNECTIONS)]
        for one in threads:
            one.start()
        sys.stdin.read()
        self.until = time.monotonic()
        for one in threads:
            one.join()
        return self.took

    def _one(self, at: int) -> None:
        every = CONNECTIONS / self.given["per_second"]
        with psycopg.connect(self.given["database"], autocommit=True) as connection:
            due = time.monotonic() + at * every / CONNECTIONS
            while due < self.until:  # those that others kept waiting are caught up with
                time.sleep(max(0.0, due - time.monotonic()))
                self.statement(connection)
                self.took.append((due, time.monotonic() - due))
                due += every


def main() -> None:
    """Do what the file says."""
    kind, given = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    dice = random.Random(5)  # noqa: S311 - which row, no secret
    rows = given["rows"]

    def update(connection: psycopg.Connection) -> None:
        row = dice.randint(1, rows)
        connection.execute("UPDATE parcel SET status = status + 1 WHERE id = %s", [row])

    def read(connection: psycopg.Connection) -> None:
        if dice.random() < 0.1:
            connection.execute(given["count"])
        else:
            row = dice.randint(1, rows)
            connection.execute("SELECT note FROM event WHERE id = %s", [row])

    json.dump(Load(given, update if kind == "updates" else read).run(), sys.stdout)


if __name__ == "__main__":
    main()
