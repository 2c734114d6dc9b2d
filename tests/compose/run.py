#!/usr/bin/env python3
"""Produce the results of docs/explanation/stack-tests.md: `python -m tests.compose.run`.

The program kills workers, stops servers and fills disks. Never run it on a stack that is in use.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.compose import load
from tests.compose.scenarios import ALL, WITHOUT_LOAD
from tests.compose.stack import NotShown, Stack, say


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--folder", type=Path, default=Path.cwd(), help="of docker-compose.yaml")
    words.add_argument("--megabytes", type=int, default=400, help="size of each large database")
    words.add_argument("--down", type=int, default=600, help="seconds that servers are stopped for")
    words.add_argument(
        "--share", type=float, default=0.4, help="processors of each worker in two_workers"
    )
    words.add_argument("scenarios", nargs="*", help=f"of {', '.join(ALL)}; all where none is named")
    args = words.parse_args()
    if unknown := set(args.scenarios) - set(ALL):
        words.error(f"unknown: {', '.join(sorted(unknown))}")
    stack = Stack(args.folder.absolute(), args.down, args.share)
    if not args.scenarios or set(args.scenarios) - WITHOUT_LOAD:
        load.prepare(stack, args.megabytes)
    failed = []
    for name in args.scenarios or ALL:
        say(f"== {name}: {ALL[name].__doc__}")
        try:
            ALL[name](stack)
        except NotShown as reason:
            failed.append(name)
            say(f"NOT SHOWN: {reason}")
    say(f"{len(failed)} not shown{': ' if failed else ''}{', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
