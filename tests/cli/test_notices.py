"""``notices``: listed without addresses, tried again by number, refused where that is allowed."""

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
from tests.notify.rig import RUN, THURSDAY, notice
from tests.support.databases import fresh

WEEKLY = "training.department"


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    with fresh(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def state(shared: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An outbox with one notice that waits and one that cannot be sent."""
    place = SimpleNamespace(state=shared, clock=FixedClock(THURSDAY), pack=load_pack(SHIPPED))
    monkeypatch.setattr(command, "workplace", lambda: place)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    with shared.begin() as conn:
        conn.execute(text("TRUNCATE notice, notice_message, notice_optout RESTART IDENTITY"))
        waiting = notice(1, line=verbatim("Course [red]one[/red]"))
        outbox.queue(conn, [waiting, notice(1, "E2", address="nobody")], RUN, THURSDAY)
    return shared


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = app._run(["notices", *words, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return code, found


@pytest.mark.usefixtures("state")
def test_what_is_not_settled_well_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """The newest first; with its cause, without an address."""
    code, found = told(capsys, "list")
    assert code == 0
    assert [(one["id"], one["state"], one["cause"]) for one in found["notices"]] == [
        (2, "undeliverable", "malformed"),
        (1, "pending", ""),
    ]
    assert found["notices"][1]["notice"] == "Course [red]one[/red]"
    assert "@" not in json.dumps(found)
    assert app._run(["notices", "list"]) == 0
    out = capsys.readouterr().out
    assert "undeliverable" in out
    assert "[red]one" in out
    assert "@" not in out


@pytest.mark.usefixtures("state")
def test_states_and_length_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing found is said in words."""
    assert [one["id"] for one in told(capsys, "list", "--state", "pending")[1]["notices"]] == [1]
    found = told(capsys, "list", "--most", "1")[1]
    assert ([one["id"] for one in found["notices"]], found["more"]) == ([2], True)
    assert app._run(["notices", "list", "--state", "sent"]) == 0
    assert capsys.readouterr().out == "No notice is sent.\n"


@pytest.mark.usefixtures("state")
def test_a_notice_is_tried_again_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    """Once: then it waits."""
    assert told(capsys, "retry", "2") == (
        0,
        {"id": 2, "kind": "training.reminder", "state": "pending"},
    )
    assert app._run(["notices", "retry", "2"]) == 2
    assert "is pending" in capsys.readouterr().err
    assert app._run(["notices", "retry", "77"]) == 2
    assert "There is no notice 77" in capsys.readouterr().err


def test_many_are_tried_again_at_once(state: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of a recipient, or with a cause; what waits already is left alone."""
    with state.begin() as conn:
        more = [notice(number, "E3", address="") for number in range(3)]
        outbox.queue(conn, more, RUN, THURSDAY)
        conn.execute(text("UPDATE notice SET cause = 'refused 552 5.3.4' WHERE key = 'E3/2'"))
    pending = {"state": "pending"}
    assert told(capsys, "retry", "--cause", "refused") == (0, pending | {"count": 1})
    assert told(capsys, "retry", "--recipient", "E3") == (0, pending | {"count": 2})
    assert app._run(["notices", "retry", "--recipient", "E3"]) == 2
    assert "no such notice" in capsys.readouterr().err
    assert app._run(["notices", "retry"]) == 2
    assert app._run(["notices", "retry", "2", "--cause", "malformed"]) == 2
    capsys.readouterr()
    assert app._run(["notices", "retry", "--cause", "malformed"]) == 0
    assert "1 notices are queued again" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.usefixtures("state")
def test_only_what_the_policy_allows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A summary may be; a reminder of one's own duty may not."""
    assert told(capsys, "opt-out", "E1", WEEKLY, "--by", "hr")[0] == 0
    assert app._run(["notices", "opt-out", "E1", "training.reminder", "--by", "hr"]) == 2
    said = capsys.readouterr().err
    assert "duty" in said
    assert WEEKLY in said
    assert app._run(["notices", "opt-out", "E1", WEEKLY]) == 2
    assert "--by" in capsys.readouterr().err
