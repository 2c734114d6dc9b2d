"""Simulated readers of the compliance pages, who open a page, read it and open the next.

The simulation runs in a separate process, so that its CPU time is not the server's. It prints a
JSON list of ``[kind, depth, milliseconds in the server, milliseconds to the reader, bytes of the
page]``.
"""

from __future__ import annotations

import json
import random
import re
import sys
import threading
import time
from typing import Any

import requests

FILTERS = ("", "&outcome=fail", "&workflow=backup_offsite", "&clause=5.3", "&outcome=attention")
DEEPEST = 0.95  # largest depth in the ledger; the rest may be less than a page
Seen = tuple[str, float, float, float, int]


def main() -> int:
    """Simulate the readers that standard input describes, and print the measurements."""
    task: dict[str, Any] = json.load(sys.stdin)
    visits: list[Seen] = []
    end = time.monotonic() + task["seconds"]
    people = [
        threading.Thread(target=_look, args=(task, number, end, visits))
        for number in range(task["users"])
    ]
    for person in people:
        person.start()
    for person in people:
        person.join()
    json.dump(visits, sys.stdout)
    return 0


def _look(task: dict[str, Any], number: int, end: float, views: list[Seen]) -> None:
    chance = random.Random(number)  # noqa: S311 - examples
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {task['tokens'][number % len(task['tokens'])]}"
    session.headers["Accept-Language"] = chance.choice(["en", "zh-CN"])
    time.sleep(chance.random() * task["think"])
    while time.monotonic() < end:
        kind, depth, path = _choose(chance, task)
        begun = time.perf_counter()
        got = session.get(task["url"] + path, timeout=60)
        spent = (time.perf_counter() - begun) * 1000
        got.raise_for_status()
        timing = re.search(r"dur=([\d.]+)", got.headers["server-timing"])
        assert timing is not None
        views.append((kind, depth, float(timing[1]), spent, len(got.content)))
        time.sleep(chance.uniform(0.5, 1.5) * task["think"])


def _choose(chance: random.Random, task: dict[str, Any]) -> tuple[str, float, str]:
    if chance.random() < 0.4:
        return _choose_overview(chance, task)
    if chance.random() < 0.3:
        return "evidence", 0.0, f"/evidence?order=newest{chance.choice(FILTERS)}"
    depth = chance.random() * DEEPEST
    number = max(1, round(task["bundles"] * (1 - depth)))
    return "evidence", depth, f"/evidence?after={number}{chance.choice(FILTERS)}"


def _choose_overview(chance: random.Random, task: dict[str, Any]) -> tuple[str, float, str]:
    """Return the overview of today or of a past day, or the page of a control."""
    number = chance.random()
    if number < 0.4:
        return "overview", 0.0, "/"
    if number < 0.8:
        return "as of", 0.0, f"/?asof={chance.choice(task['days'])}"
    return "control", 0.0, f"/controls/{chance.choice(task['controls'])}"


if __name__ == "__main__":
    sys.exit(main())
