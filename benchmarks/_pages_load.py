"""People who look at the compliance pages: each opens a page, reads for a while, opens the next.

A process of its own, so that what it computes is not the server's. Prints one JSON list of
``[kind, depth, milliseconds in the server, milliseconds to the reader, bytes of the page]``.
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
DEEPEST = 0.95  # of the ledger; what lies behind may be less than a page
Seen = tuple[str, float, float, float, int]


def main() -> int:
    """Look for as long as asked, and tell what was seen."""
    wish: dict[str, Any] = json.load(sys.stdin)
    seen: list[Seen] = []
    end = time.monotonic() + wish["seconds"]
    people = [
        threading.Thread(target=_look, args=(wish, number, end, seen))
        for number in range(wish["users"])
    ]
    for one in people:
        one.start()
    for one in people:
        one.join()
    json.dump(seen, sys.stdout)
    return 0


def _look(wish: dict[str, Any], number: int, end: float, seen: list[Seen]) -> None:
    chance = random.Random(number)  # noqa: S311 - examples
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {wish['tokens'][number % len(wish['tokens'])]}"
    session.headers["Accept-Language"] = chance.choice(["en", "zh-CN"])
    time.sleep(chance.random() * wish["think"])
    while time.monotonic() < end:
        kind, depth, path = _choose(chance, wish["bundles"])
        begun = time.perf_counter()
        got = session.get(wish["url"] + path, timeout=60)
        spent = (time.perf_counter() - begun) * 1000
        got.raise_for_status()
        told = re.search(r"dur=([\d.]+)", got.headers["server-timing"])
        assert told is not None
        seen.append((kind, depth, float(told[1]), spent, len(got.content)))
        time.sleep(chance.uniform(0.5, 1.5) * wish["think"])


def _choose(chance: random.Random, bundles: int) -> tuple[str, float, str]:
    if chance.random() < 0.3:
        return "overview", 0.0, "/"
    if chance.random() < 0.3:
        return "evidence", 0.0, f"/evidence?order=newest{chance.choice(FILTERS)}"
    depth = chance.random() * DEEPEST
    number = max(1, round(bundles * (1 - depth)))
    return "evidence", depth, f"/evidence?after={number}{chance.choice(FILTERS)}"


if __name__ == "__main__":
    sys.exit(main())
