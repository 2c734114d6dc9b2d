"""A delivery in a process of its own, for the tests that kill it or run two at once."""

from __future__ import annotations

import sys
from datetime import datetime

from include.state.connect import engine
from tests.notify.rig import TOLD, Company, MovingClock, Post
from tests.support.robots import RobotServer


def main() -> None:
    conninfo, port, moment, robots = sys.argv[1:]
    post = Post(engine(conninfo), int(port), MovingClock(datetime.fromisoformat(moment)))
    post.addresses = {TOLD: Company(post.state)}
    if robots:
        post.robots = RobotServer.__new__(RobotServer)  # the server is the test's
        post.robots.url = robots
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    done = post.deliver()
    sys.stdout.write(f"{done.sent}\n")
