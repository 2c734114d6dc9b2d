"""Deliveries whose process is killed, that lose the state database, or that run concurrently."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from include.notify import sending
from include.notify.claims import LEASE, UnsentNotification
from include.reports.i18n import Translator
from tests.notify.notify_fixtures import (
    INDIVIDUAL_NOTICE,
    KIND,
    THURSDAY,
    CustomerAddresses,
    Post,
    notice_text,
    notification,
)
from tests.support.forking import Forked
from tests.support.robots import RobotServer
from tests.support.smtp import Smtp

pytestmark = pytest.mark.fault
ROOT = Path(__file__).parents[2]


class Children:
    """Deliveries in separate processes."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self.all: list[subprocess.Popen[str]] = []

    def start(self, post: Post, robots: str = "") -> subprocess.Popen[str]:
        """Start a process that delivers after it has read a line."""
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
    started = Children(shared)
    yield started
    for child in started.all:
        child.kill()
        child.communicate()


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def wait_for_rollback(post: Post) -> None:
    """Wait until the database server has ended the sessions of a killed client."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    for _try in range(200):
        if post.rows(query) == [(0,)]:
            return
        post.rows("SELECT pg_sleep(0.02)")


def test_mail_is_sent_again_with_same_message_id_if_process_was_killed_before_recording_outcome(
    post: Post, server: Smtp, children: Children
) -> None:
    post.queue(*(notification(1, f"E{number:02}") for number in range(30)))
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
    recorded = post.rows("SELECT count(*) FROM notification WHERE state = 'sent'")[0][0]
    assert recorded in (8, 9)  # two connections send in parallel
    early = sending.send(
        post.office(), THURSDAY, "6.2"
    )  # the lease has not expired: the process may be alive
    (finding,) = early.record.findings
    message = Translator("en").text(finding.message)
    assert message == (
        f"Another process has reserved {30 - recorded} messages and has until 10:05 to send them."
    )
    assert early.retry_reason == message
    post.clock.moment += LEASE
    delivery = post.deliver()
    assert (delivery.sent, delivery.in_doubt, delivery.deferred) == (30 - recorded, 0, 0)
    copies = server.copies()
    assert len(copies) == 30
    assert sorted(copies.values())[-3:-2] == [1]
    assert {mail.recipient for mail in server.taken} == {
        f"e{number:02}@courier.example" for number in range(30)
    }
    assert set(post.states().values()) == {"sent"}


@pytest.mark.parametrize("phase", ["RCPT", "DATA"])
def test_notices_are_sent_to_current_addresses_after_the_delivery_process_was_killed(
    post: Post, server: Smtp, children: Children, phase: str
) -> None:
    text = post.keep(notice_text())
    company = CustomerAddresses(post.state)
    places = [f"c{number}" for number in range(6)]
    company.fill({key: f"{key}@customers.example" for key in places})
    more = {"kind": INDIVIDUAL_NOTICE, "text": text, "looked_up": True, "name": "", "address": ""}
    post.queue(*(notification(1, f"subject:courier/{key}", key=key, **more) for key in places))
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
    claimed = {row[0] for row in post.rows("SELECT message_id FROM notification_message")}
    company.fill({key: f"{key}@new.example" for key in places})
    post.addresses = {INDIVIDUAL_NOTICE: company}
    before = len(server.taken)
    post.clock.moment += LEASE
    assert post.deliver().sent == 6
    assert {mail.recipient for mail in server.taken[before:]} == {
        f"{key}@new.example" for key in places
    }
    copies = server.copies()
    assert set(copies) == claimed
    assert max(copies.values()) == (1 if phase == "RCPT" else 2)
    assert set(post.states().values()) == {"sent"}
    assert post.deliver().sent == 0


def test_chat_message_is_not_sent_again_if_process_was_killed_while_sending(
    post: Post, robots: RobotServer, children: Children
) -> None:
    post.robots = robots
    chat = {"channel": "robot", "address": "chat"}
    post.queue(*(notification(1, f"role:{number}", **chat) for number in range(3)))
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
    delivery = post.deliver()
    assert (delivery.sent, delivery.in_doubt) == (2, 1)
    assert delivery.recipients == [UnsentNotification(KIND, "role:0", "in_doubt")]
    assert len(robots.texts) == 3


def test_concurrent_deliveries_send_each_message_once(
    post: Post, server: Smtp, children: Children
) -> None:
    post.queue(*(notification(number % 2, f"E{number // 2:03}") for number in range(600)))
    processes = [children.start(post) for _number in range(2)]
    for child in processes:
        go(child)
    sent = [int(child.communicate()[0]) for child in processes]
    assert sum(sent) == 300
    assert min(sent) > 0
    assert set(server.copies().values()) == {1}
    assert len(server.copies()) == 300
    assert set(post.states().values()) == {"sent"}


def test_message_is_sent_again_if_database_connection_was_lost_before_outcome_was_recorded(
    post: Post, server: Smtp
) -> None:
    post.queue(notification(1))

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
    assert post.rows("SELECT state FROM notification_message") == [("sending",)]
    post.clock.moment += LEASE
    assert post.deliver().sent == 1
    assert list(server.copies().values()) == [2]


def test_delivery_skips_notification_that_another_process_has_locked(
    post: Post, server: Smtp
) -> None:
    post.queue(notification(1), notification(1, "E2"))
    with post.state.connect() as conn:
        conn.execute(text("SELECT 1 FROM notification WHERE key = 'E1/1' FOR UPDATE"))
        assert post.deliver().sent == 1
    assert post.deliver().sent == 1
