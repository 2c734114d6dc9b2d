"""The ``notices`` commands list, retry and opt-out. Their output contains no mail addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, text

from include.cli import app
from include.cli import notices as command
from include.local.postgres import EmbeddedPostgres
from include.messages import verbatim
from include.notify import outbox
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.clock import FixedClock
from include.state.connect import engine
from tests.notify.notify_fixtures import RUN, THURSDAY, notification
from tests.support.databases import temporary_database

WEEKLY = "training.department"


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    with temporary_database(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def state(shared: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Queue one notification that waits and one whose address is malformed."""
    stub = SimpleNamespace(state=shared, clock=FixedClock(THURSDAY), pack=load_pack(SHIPPED))
    monkeypatch.setattr(command, "command_services", lambda: stub)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    with shared.begin() as conn:
        conn.execute(
            text(
                "TRUNCATE notification, notification_message, notification_optout RESTART IDENTITY"
            )
        )
        waiting = notification(1, line=verbatim("Course [red]one[/red]"))
        outbox.queue_notifications(
            conn, [waiting, notification(1, "E2", address="nobody")], RUN, THURSDAY
        )
    return shared


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = app._run(["notices", *words, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert isinstance(result, dict)
    return code, result


@pytest.mark.usefixtures("state")
def test_notices_list_shows_pending_and_undeliverable_notifications(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The newest notification is first. The list has the cause of a failure and no mail address."""
    code, result = run_json(capsys, "list")
    assert code == 0
    assert [
        (notification["id"], notification["state"], notification["cause"])
        for notification in result["notices"]
    ] == [
        (2, "undeliverable", "malformed"),
        (1, "pending", ""),
    ]
    assert result["notices"][1]["notice"] == "Course [red]one[/red]"
    assert "@" not in json.dumps(result)
    assert app._run(["notices", "list"]) == 0
    out = capsys.readouterr().out
    assert "undeliverable" in out
    assert "[red]one" in out
    assert "@" not in out


@pytest.mark.usefixtures("state")
def test_notices_list_shows_only_notifications_of_given_state_and_at_most_the_given_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A message is printed if no notification matches."""
    assert [
        notification["id"]
        for notification in run_json(capsys, "list", "--state", "pending")[1]["notices"]
    ] == [1]
    result = run_json(capsys, "list", "--most", "1")[1]
    assert ([notification["id"] for notification in result["notices"]], result["more"]) == (
        [2],
        True,
    )
    assert app._run(["notices", "list", "--state", "sent"]) == 0
    assert capsys.readouterr().out == "There are no notifications in the state sent.\n"


@pytest.mark.usefixtures("state")
def test_notices_retry_queues_the_notification_with_the_given_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A second retry is refused, because the notification waits already."""
    assert run_json(capsys, "retry", "2") == (
        0,
        {"id": 2, "kind": "training.reminder", "state": "pending"},
    )
    assert app._run(["notices", "retry", "2"]) == 2
    assert "is pending" in capsys.readouterr().err
    assert app._run(["notices", "retry", "77"]) == 2
    assert "The notification 77 does not exist" in capsys.readouterr().err


def test_notices_retry_queues_all_notifications_to_a_recipient_or_with_a_cause(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Notifications that wait already are unchanged."""
    with state.begin() as conn:
        more = [notification(number, "E3", address="") for number in range(3)]
        outbox.queue_notifications(conn, more, RUN, THURSDAY)
        conn.execute(text("UPDATE notification SET cause = 'refused 552 5.3.4' WHERE key = 'E3/2'"))
    pending = {"state": "pending"}
    assert run_json(capsys, "retry", "--cause", "refused") == (0, pending | {"count": 1})
    assert run_json(capsys, "retry", "--recipient", "E3") == (0, pending | {"count": 2})
    assert app._run(["notices", "retry", "--recipient", "E3"]) == 2
    assert "No undelivered notification matches" in capsys.readouterr().err
    assert app._run(["notices", "retry"]) == 2
    assert app._run(["notices", "retry", "2", "--cause", "malformed"]) == 2
    capsys.readouterr()
    assert app._run(["notices", "retry", "--cause", "malformed"]) == 0
    assert "1 notifications are queued again" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.usefixtures("state")
def test_notices_opt_out_command_exits_with_2_for_reminders_of_own_obligations(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """People may opt out of summaries, but not of reminders of their own obligations."""
    assert run_json(capsys, "opt-out", "E1", WEEKLY, "--by", "hr")[0] == 0
    assert app._run(["notices", "opt-out", "E1", "training.reminder", "--by", "hr"]) == 2
    output = capsys.readouterr().err
    assert "the policy requires it" in output
    assert WEEKLY in output
    assert app._run(["notices", "opt-out", "E1", WEEKLY]) == 2
    assert "--by" in capsys.readouterr().err
