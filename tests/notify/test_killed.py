"""Killed between sending and recording, cut off from the state database, two at once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from include.notify import sending
from include.notify.claims import LEASE, Unsent
from include.reports.i18n import Translator
from tests.notify.rig import KIND, THURSDAY, TOLD, Company, Post, letter, notice
from tests.support.forking import Forked
from tests.support.robots import RobotServer
from tests.support.smtp import Smtp

pytestmark = pytest.mark.fault
ROOT = Path(__file__).parents[2]


class Children:
    """Deliveries in processes of their own."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self.all: list[subprocess.Popen[str]] = []

    def start(self, post: Post, robots: str = "") -> subprocess.Popen[str]:
        """One that waits for a line before it begins."""
        words = [self.conninfo, str(post.port), post.clock.moment.isoformat(), robots]
        child = Forked(
            "tests.notify.child",
            *words,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.all.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child


@pytest.fixture
def children(shared: str) -> Iterator[Children]:
    made = Children(shared)
    yield made
    for one in made.all:
        one.kill()
        one.communicate()


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def wait_for_rollback(post: Post) -> None:
    """The server notices a killed client a moment later."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    for _try in range(200):
        if post.rows(query) == [(0,)]:
            return
        post.rows("SELECT pg_sleep(0.02)")


def test_a_mail_that_was_sent_and_not_recorded_is_sent_again_under_its_id(
    post: Post, server: Smtp, children: Children
) -> None:
    """At least once, and everybody can tell the copy; what was recorded is never sent again."""
    post.queue(*(notice(1, f"E{number:02}") for number in range(30)))
    child = children.start(post)

    def rule(phase: str, address: str) -> str | None:
        if phase == "DATA" and len(server.read) == 10:
            child.kill()
            child.wait()
        return None

    server.rule = rule
    go(child)
    child.wait()
    server.rule = lambda _phase, _address: None
    wait_for_rollback(post)
    recorded = post.rows("SELECT count(*) FROM notice WHERE state = 'sent'")[0][0]
    assert recorded in (8, 9)  # two lines
    early = sending.send(post.office(), THURSDAY, "6.2")  # its lease is not over: it may be alive
    (found,) = early.record.findings
    said = Translator("en").text(found.message)
    assert said == f"Another process has {30 - recorded} messages in hand until 10:05."
    assert early.again == said
    post.clock.moment += LEASE
    done = post.deliver()
    assert (done.sent, done.in_doubt, done.deferred) == (30 - recorded, 0, 0)
    copies = server.copies()
    assert len(copies) == 30
    assert sorted(copies.values())[-3:-2] == [1]
    assert {one.recipient for one in server.taken} == {
        f"e{number:02}@courier.example" for number in range(30)
    }
    assert set(post.states().values()) == {"sent"}


@pytest.mark.parametrize("phase", ["RCPT", "DATA"])
def test_letters_of_a_killed_delivery_go_to_the_addresses_of_now(
    post: Post, server: Smtp, children: Children, phase: str
) -> None:
    """Killed before anything left, each is sent once; after, a copy has the id of the first."""
    text = post.keep(letter())
    company = Company(post.state)
    places = [f"c{number}" for number in range(6)]
    company.fill({key: f"{key}@customers.example" for key in places})
    more = {"kind": TOLD, "text": text, "looked_up": True, "name": "", "address": ""}
    post.queue(*(notice(1, f"subject:courier/{key}", key=key, **more) for key in places))
    child = children.start(post)

    def rule(now: str, _address: str) -> str | None:
        if now == phase:
            child.kill()
            child.wait()
        return None

    server.rule = rule
    go(child)
    child.wait()
    server.rule = lambda _phase, _address: None
    wait_for_rollback(post)
    claimed = {row[0] for row in post.rows("SELECT message_id FROM notice_message")}
    company.fill({key: f"{key}@new.example" for key in places})
    post.addresses = {TOLD: company}
    before = len(server.taken)
    post.clock.moment += LEASE
    assert post.deliver().sent == 6
    assert {one.recipient for one in server.taken[before:]} == {
        f"{key}@new.example" for key in places
    }
    copies = server.copies()
    assert set(copies) == claimed
    assert max(copies.values()) == (1 if phase == "RCPT" else 2)
    assert set(post.states().values()) == {"sent"}
    assert post.deliver().sent == 0


def test_a_robot_is_never_told_twice(post: Post, robots: RobotServer, children: Children) -> None:
    """At most once: the one message in doubt is reported, those behind it were not begun."""
    post.robots = robots
    chat = {"channel": "robot", "address": "chat"}
    post.queue(*(notice(1, f"role:{number}", **chat) for number in range(3)))
    child = children.start(post, robots.url)
    robots.slow = 30
    go(child)
    while not robots.texts:
        post.rows("SELECT pg_sleep(0.02)")
    child.kill()
    child.wait()
    robots.slow = 0
    wait_for_rollback(post)
    post.clock.moment += LEASE
    done = post.deliver()
    assert (done.sent, done.in_doubt) == (2, 1)
    assert done.recipients == [Unsent(KIND, "role:0", "in_doubt")]
    assert len(robots.texts) == 3


def test_two_deliveries_at_once_share_the_work(
    post: Post, server: Smtp, children: Children
) -> None:
    """Each digest once, and none waits for the other to end."""
    post.queue(*(notice(number % 2, f"E{number // 2:03}") for number in range(600)))
    both = [children.start(post) for _number in range(2)]
    for child in both:
        go(child)
    sent = [int(child.communicate()[0]) for child in both]
    assert sum(sent) == 300
    assert min(sent) > 0
    assert set(server.copies().values()) == {1}
    assert len(server.copies()) == 300
    assert set(post.states().values()) == {"sent"}


def test_a_state_database_that_goes_away_leaves_a_doubt_and_no_second_digest(
    post: Post, server: Smtp
) -> None:
    """Sent, and not recorded: the copy has the same id."""
    post.queue(notice(1))

    def rule(phase: str, _address: str) -> str | None:
        if phase == "DATA":
            post.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <>"
                " pg_backend_pid() AND datname = current_database()"
            )
        return None

    server.rule = rule
    with pytest.raises(Exception, match=r"terminat|closed|lost"):
        post.deliver()
    server.rule = lambda _phase, _address: None
    assert post.rows("SELECT state FROM notice_message") == [("sending",)]
    post.clock.moment += LEASE
    assert post.deliver().sent == 1
    assert list(server.copies().values()) == [2]


def test_a_claim_that_is_not_committed_is_no_message(post: Post, server: Smtp) -> None:
    """What another process has in hand is skipped, and taken once it let go."""
    post.queue(notice(1), notice(1, "E2"))
    with post.state.connect() as conn:
        conn.execute(text("SELECT 1 FROM notice WHERE key = 'E1/1' FOR UPDATE"))
        assert post.deliver().sent == 1
    assert post.deliver().sent == 1
