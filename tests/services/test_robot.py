"""Test robots of group chats: message formats, signatures, and the meaning of their responses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from include.services import robot as module
from include.services.clock import FixedClock
from include.services.connections import ConnectionSpec
from include.services.delivery_status import DeliveryStatus, Reply
from include.services.errors import UsageError
from include.services.robot import Robot
from tests.support.robots import SECRET, TOKEN, RobotServer
from tests.support.smtp import free_port

CLOCK = FixedClock(datetime(2026, 11, 26, 2, tzinfo=UTC))
KINDS = ("wecom", "dingtalk", "feishu")


@pytest.fixture
def server() -> Iterator[RobotServer]:
    with RobotServer() as chat_robot:
        yield chat_robot


def robot(url: str, kind: str, *, token: str = TOKEN, secret: str = SECRET) -> Robot:
    extra = {"kind": kind, "secret": secret}
    return Robot.from_connection(
        ConnectionSpec("chat", "http", url, password=token, extra=extra), CLOCK
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_chat_robot_accepts_format_and_signature_of_message(
    server: RobotServer, kind: str
) -> None:
    """Each chat service requires another format. Non-ASCII text arrives unchanged."""
    assert robot(server.url, kind).send("培训提醒: two") == Reply(DeliveryStatus.ACCEPTED, "200")
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
def test_chat_message_with_wrong_token_or_secret_gets_delivery_status_refused(
    server: RobotServer, kind: str, token: str, secret: str, code: str
) -> None:
    """The reply has the documented error number, but no text of the server."""
    chat_robot = robot(server.url, kind, token=token, secret=secret)
    assert chat_robot.send("one") == Reply(DeliveryStatus.REFUSED, code)


@pytest.mark.parametrize(
    ("kind", "answer", "reply"),
    [
        ("wecom", (200, '{"errcode": 45009}'), Reply(DeliveryStatus.DEFERRED, "200 45009")),
        ("dingtalk", (200, '{"errcode": 130101}'), Reply(DeliveryStatus.DEFERRED, "200 130101")),
        ("feishu", (200, '{"code": 11232}'), Reply(DeliveryStatus.DEFERRED, "200 11232")),
        ("feishu", (429, "{}"), Reply(DeliveryStatus.DEFERRED, "429")),
        ("feishu", (503, "{}"), Reply(DeliveryStatus.DEFERRED, "503")),
        ("feishu", (502, "<html>"), Reply(DeliveryStatus.IN_DOUBT, "502")),
        ("feishu", (403, "<html>"), Reply(DeliveryStatus.REFUSED, "403")),
        ("feishu", (302, ""), Reply(DeliveryStatus.REFUSED, "302")),
        ("feishu", (200, "<html>"), Reply(DeliveryStatus.IN_DOUBT, "200")),
        ("feishu", (200, "[]"), Reply(DeliveryStatus.IN_DOUBT, "200")),
        ("feishu", (200, '{"code": "0"}'), Reply(DeliveryStatus.IN_DOUBT, "200")),
        ("feishu", (200, '{"StatusCode": 0}'), Reply(DeliveryStatus.ACCEPTED, "200")),
        ("wecom", "drop", Reply(DeliveryStatus.IN_DOUBT)),
    ],
)
def test_robot_response_decides_if_chat_message_is_accepted_deferred_refused_or_in_doubt(
    server: RobotServer, kind: str, answer: tuple[int, str] | str, reply: Reply
) -> None:
    """If the rate limit is exceeded, the message is deferred.

    After an error of a gateway, or without a response, the message is in doubt.
    """
    server.answer = answer
    assert robot(server.url, kind).send("one") == reply


def test_send_returns_status_unavailable_if_chat_robot_is_unreachable() -> None:
    """The message is not in doubt, because no connection was opened."""
    chat_robot = robot(f"http://127.0.0.1:{free_port()}", "wecom")
    assert chat_robot.send("one") == Reply(DeliveryStatus.UNAVAILABLE)


def test_delivery_status_is_in_doubt_if_chat_robot_responds_too_late(
    server: RobotServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message may already be in the chat."""
    monkeypatch.setattr(module, "_ANSWER", 0.2)
    server.slow = 0.5
    assert robot(server.url, "wecom").send("one") == Reply(DeliveryStatus.IN_DOUBT)


def test_token_and_secret_are_in_no_log_or_repr(
    server: RobotServer, caplog: pytest.LogCaptureFixture
) -> None:
    """This also applies at log level DEBUG."""
    caplog.set_level(logging.DEBUG)
    chat_robot = robot(server.url, "dingtalk")
    chat_robot.send("one")
    assert TOKEN not in caplog.text + repr(chat_robot)
    assert SECRET not in caplog.text + repr(chat_robot)


@pytest.mark.parametrize(
    ("connection_spec", "why"),
    [
        (ConnectionSpec("chat", "smtp", "h", extra={"kind": "wecom"}), "not a robot"),
        (ConnectionSpec("chat", "http", "h", extra={"kind": "slack"}), "not a robot"),
        (ConnectionSpec("chat", "http", "", extra={"kind": "wecom"}), "no host"),
        (ConnectionSpec("chat", "http", f"http://h/{TOKEN}", extra={"kind": "wecom"}), "not https"),
    ],
)
def test_error_for_invalid_chat_robot_connection_does_not_contain_its_token(
    connection_spec: ConnectionSpec, why: str
) -> None:
    """The error must not contain the URL, which includes the token."""
    with pytest.raises(UsageError, match=why) as caught:
        Robot.from_connection(connection_spec, CLOCK)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("address_parts", "url"),
    [
        (("https://chat.example/cgi-bin/webhook/send?key=k", None, "", ""), "?key=k"),
        (("chat.example", None, "https", "k"), "/cgi-bin/webhook/send?key=k"),
        (("https://chat.example/", 8443, "", "k"), ":8443/cgi-bin/webhook/send?key=k"),
    ],
)
def test_robot_url_is_used_as_configured_or_built_from_host_and_token(
    address_parts: tuple[str, int | None, str, str], url: str
) -> None:
    """Operators may enter the URL as copied from the chat, or host and token separately."""
    host, port, schema, password = address_parts
    spec = ConnectionSpec("chat", "http", host, port, "", password, schema, extra={"kind": "wecom"})
    chat_robot = Robot.from_connection(spec, CLOCK)
    assert chat_robot.url.startswith("https://chat.example")
    assert chat_robot.url.endswith(url)
