"""``findings``: list, answer and retest, in words and as JSON; what is refused says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from include.cli import app
from include.cli import findings as command
from include.findings import register
from include.local.postgres import EmbeddedPostgres
from include.messages import Message
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.clock import FixedClock
from include.state.connect import engine
from tests.support.databases import fresh
from tests.support.registers import emptying

NOW = datetime(2026, 10, 12, 1, 30, tzinfo=UTC)
ANSWER = ("--cause", "No form", "--action", "A form", "--by", "owner")


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """A state database that the tests share."""
    with fresh(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def state(shared: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A register with two findings, the second one due first."""
    made = shared
    with made.begin() as conn:
        conn.exec_driver_sql(emptying(["finding", "finding_event"]))
    at(monkeypatch, made, NOW)
    for number, day in ((1, date(2026, 11, 20)), (2, date(2026, 11, 11))):
        with made.begin() as conn:
            register.open_finding(
                conn,
                kind="audit",
                reference=f"2026Q3/accesses/{number}/approved",
                what=Message(text="Item [red]{key}[/red]: no", values={"key": f"a{number}"}),
                owner="management",
                opened_at=NOW,
                due_on=day,
            )
    return made


def at(monkeypatch: pytest.MonkeyPatch, state: Engine, moment: datetime) -> None:
    place = SimpleNamespace(state=state, clock=FixedClock(moment), pack=load_pack(SHIPPED))
    monkeypatch.setattr(command, "workplace", lambda: place)
    monkeypatch.setattr(command, "local_stack", nullcontext)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command; its exit code, what it said on stdout and on stderr."""
    code = app._run(["findings", *words])
    told = capsys.readouterr()
    return code, told.out, told.err


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, out, _said = run(capsys, *words, "--json")
    assert out.count("\n") == 1
    found = json.loads(out)
    assert isinstance(found, dict)
    return code, found


@pytest.mark.usefixtures("state")
def test_findings_are_listed_by_their_day(capsys: pytest.CaptureFixture[str]) -> None:
    """The one that is due first at the head; text in brackets is text."""
    code, found = told(capsys, "list")
    assert code == 0
    assert [(one["id"], one["due_on"], one["state"]) for one in found["findings"]] == [
        (2, "2026-11-11", "open"),
        (1, "2026-11-20", "open"),
    ]
    assert found["findings"][0]["finding"] == "Item [red]a2[/red]: no"
    assert found["findings"][0]["reference"] == "2026Q3/accesses/2/approved"
    code, out, _said = run(capsys, "list")
    assert code == 0
    assert "2026-11-11" in out


@pytest.mark.usefixtures("state")
def test_a_finding_is_answered_tested_and_closed(capsys: pytest.CaptureFixture[str]) -> None:
    """It is listed with --closed from then on."""
    code, found = told(capsys, "answer", "1", *ANSWER, "--due", "2026-12-01")
    assert code == 0
    assert (found["state"], found["due_on"], found["cause"]) == (
        "answered",
        "2026-12-01",
        "No form",
    )
    code, found = told(capsys, "retest", "1", "--by", "auditor", "--deviates")
    assert (code, found["state"], found["retests"]) == (0, "open", 1)
    assert run(capsys, "answer", "1", *ANSWER)[:2] == (0, "finding 1: answered, due 2026-12-01\n")
    code, out, _said = run(capsys, "retest", "1", "--by", "auditor", "--met")
    assert (code, out) == (0, "finding 1: closed, due 2026-12-01\n")
    assert [one["id"] for one in told(capsys, "list")[1]["findings"]] == [2]
    found = told(capsys, "list", "--closed")[1]
    assert [(one["id"], one["closed_by"]) for one in found["findings"]] == [
        (2, ""),
        (1, "auditor"),
    ]


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("retest", "1", "--by", "auditor"), "Write --met or --deviates"),
        (("retest", "1", "--by", "auditor", "--met", "--deviates"), "one of them"),
        (("retest", "1", "--by", "auditor", "--deviates", "--met"), "one of them"),
        (("retest", "1", "--by", "auditor", "--met"), "no corrective action yet"),
        (("retest", "77", "--by", "auditor", "--met"), "There is no finding 77."),
        (("answer", "1", *ANSWER, "--due", "tomorrow"), "Write 2026-12-31."),
        (("answer", "1", *ANSWER, "--due", "2026-10-11"), "is over"),
        (("answer", "1", *ANSWER, "--due", "2026-11-19"), "is before"),
        (("answer", "1", "--cause", "...", *ANSWER[2:]), "The cause says nothing."),
        (("answer", "1", *ANSWER[:4], "--by", " "), "--by has an empty value"),
        (("answer", "1", *ANSWER[:4]), "--by"),
        (("answer", "one", *ANSWER), "Invalid value for 'number'"),
        (("answer", "99999999999999999999", *ANSWER), "There is no finding"),
    ],
)
def test_what_is_refused_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], why: str
) -> None:
    """Exit code 2 and the reason on stderr; nothing changes."""
    before = told(capsys, "list", "--closed")
    code, out, said = run(capsys, *words)
    assert (code, out) == (2, "")
    assert why in said
    code, found = told(capsys, *words)
    assert code == 2
    assert found["error"]
    assert told(capsys, "list", "--closed") == before


def test_days_are_those_of_the_policy_pack(
    state: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 07:00 in Shanghai the day before is over, although it is not yet in UTC."""
    at(monkeypatch, state, datetime(2026, 12, 1, 23, tzinfo=UTC))
    code, _out, said = run(capsys, "answer", "1", *ANSWER, "--due", "2026-12-01")
    assert code == 2
    assert "2026-12-01 is over" in said
