"""A delivery in a separate process, for tests that kill the process or run two at once."""

from __future__ import annotations

import sys
from datetime import datetime

from include.state.connect import engine
from tests.notify.notify_fixtures import INDIVIDUAL_NOTICE, CustomerAddresses, MovingClock, Post
from tests.support.robots import RobotServer


def main() -> None:
    conninfo, port, moment, robots = sys.argv[1:]
    post = Post(engine(conninfo), int(port), MovingClock(datetime.fromisoformat(moment)))
    post.addresses = {INDIVIDUAL_NOTICE: CustomerAddresses(post.state)}
    if robots:
        post.robots = RobotServer.__new__(RobotServer)  # the test runs the server
        post.robots.url = robots
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    done = post.deliver()
    sys.stdout.write(f"{done.sent}\n")
