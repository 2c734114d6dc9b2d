"""Robots of group chats: their forms and signatures, and what their answers say."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from include.services import robot as module
from include.services.clock import FixedClock
from include.services.connections import ConnectionSpec
from include.services.errors import UsageError
from include.services.fate import Fate, Reply
from include.services.robot import Robot
from tests.support.robots import SECRET, TOKEN, RobotServer
from tests.support.smtp import free_port

CLOCK = FixedClock(datetime(2026, 11, 26, 2, tzinfo=UTC))
KINDS = ("wecom", "dingtalk", "feishu")


@pytest.fixture
def server() -> Iterator[RobotServer]:
    with RobotServer() as made:
        yield made


def robot(url: str, kind: str, *, token: str = TOKEN, secret: str = SECRET) -> Robot:
    extra = {"kind": kind, "secret": secret}
    return Robot.from_connection(
        ConnectionSpec("chat", "http", url, password=token, extra=extra), CLOCK
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gets_its_own_form_and_signature(server: RobotServer, kind: str) -> None:
    """As its documentation has it; letters of all scripts arrive."""
    assert robot(server.url, kind).send("培训提醒: two") == Reply(Fate.ACCEPTED, "200")
    assert server.texts == ["培训提醒: two"]


@pytest.mark.parametrize(
    ("kind", "token", "secret", "code"),
    [
        ("wecom", "other", "", "200 93000"),
        ("dingtalk", "other", SECRET, "200 300005"),
        ("dingtalk", TOKEN, "wrong", "200 310000"),
        ("feishu", TOKEN, "wrong", "200 19021"),
    ],
)
def test_a_wrong_token_or_secret_is_a_refusal(
    server: RobotServer, kind: str, token: str, secret: str, code: str
) -> None:
    """With the number that the documentation explains, and nothing of what the server said."""
    made = robot(server.url, kind, token=token, secret=secret)
    assert made.send("one") == Reply(Fate.REFUSED, code)


@pytest.mark.parametrize(
    ("kind", "answer", "reply"),
    [
        ("wecom", (200, '{"errcode": 45009}'), Reply(Fate.DEFERRED, "200 45009")),
        ("dingtalk", (200, '{"errcode": 130101}'), Reply(Fate.DEFERRED, "200 130101")),
        ("feishu", (200, '{"code": 11232}'), Reply(Fate.DEFERRED, "200 11232")),
        ("feishu", (429, "{}"), Reply(Fate.DEFERRED, "429")),
        ("feishu", (503, "{}"), Reply(Fate.DEFERRED, "503")),
        ("feishu", (502, "<html>"), Reply(Fate.IN_DOUBT, "502")),
        ("feishu", (403, "<html>"), Reply(Fate.REFUSED, "403")),
        ("feishu", (302, ""), Reply(Fate.REFUSED, "302")),
        ("feishu", (200, "<html>"), Reply(Fate.IN_DOUBT, "200")),
        ("feishu", (200, "[]"), Reply(Fate.IN_DOUBT, "200")),
        ("feishu", (200, '{"code": "0"}'), Reply(Fate.IN_DOUBT, "200")),
        ("feishu", (200, '{"StatusCode": 0}'), Reply(Fate.ACCEPTED, "200")),
        ("wecom", "drop", Reply(Fate.IN_DOUBT)),
    ],
)
def test_answers_are_told_apart(
    server: RobotServer, kind: str, answer: tuple[int, str] | str, reply: Reply
) -> None:
    """Too often is later; what a gateway says, or nobody, leaves a doubt."""
    server.answer = answer
    assert robot(server.url, kind).send("one") == reply


def test_a_server_that_is_down_was_sent_nothing() -> None:
    """Not in doubt: there was no connection."""
    made = robot(f"http://127.0.0.1:{free_port()}", "wecom")
    assert made.send("one") == Reply(Fate.UNAVAILABLE)


def test_a_slow_answer_leaves_a_doubt(server: RobotServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chat may have it."""
    monkeypatch.setattr(module, "_ANSWER", 0.2)
    server.slow = 0.5
    assert robot(server.url, "wecom").send("one") == Reply(Fate.IN_DOUBT)


def test_token_and_secret_stand_in_no_log_and_no_repr(
    server: RobotServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where everything is logged."""
    caplog.set_level(logging.DEBUG)
    made = robot(server.url, "dingtalk")
    made.send("one")
    assert TOKEN not in caplog.text + repr(made)
    assert SECRET not in caplog.text + repr(made)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (ConnectionSpec("chat", "smtp", "h", extra={"kind": "wecom"}), "no robot"),
        (ConnectionSpec("chat", "http", "h", extra={"kind": "slack"}), "no robot"),
        (ConnectionSpec("chat", "http", "", extra={"kind": "wecom"}), "no host"),
        (ConnectionSpec("chat", "http", f"http://h/{TOKEN}", extra={"kind": "wecom"}), "not https"),
    ],
)
def test_faulty_connections_are_wrong_usage(given: ConnectionSpec, why: str) -> None:
    """Without the address, which has the token in it."""
    with pytest.raises(UsageError, match=why) as caught:
        Robot.from_connection(given, CLOCK)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (("https://chat.example/cgi-bin/webhook/send?key=k", None, "", ""), "?key=k"),
        (("chat.example", None, "https", "k"), "/cgi-bin/webhook/send?key=k"),
        (("https://chat.example/", 8443, "", "k"), ":8443/cgi-bin/webhook/send?key=k"),
    ],
)
def test_an_address_is_whole_or_put_together(
    given: tuple[str, int | None, str, str], url: str
) -> None:
    """As it is copied from the chat, or host and token apart."""
    host, port, schema, password = given
    spec = ConnectionSpec("chat", "http", host, port, "", password, schema, extra={"kind": "wecom"})
    made = Robot.from_connection(spec, CLOCK)
    assert made.url.startswith("https://chat.example")
    assert made.url.endswith(url)
