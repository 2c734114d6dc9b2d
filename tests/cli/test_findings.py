"""The ``findings`` commands list, answer and retest: output, JSON and refusals."""

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
from tests.support.databases import temporary_database
from tests.support.registers import emptying

NOW = datetime(2026, 10, 12, 1, 30, tzinfo=UTC)
ANSWER = ("--cause", "No form", "--action", "A form", "--by", "owner")


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """Yield a state database that all tests of this module share."""
    with temporary_database(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def state(shared: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Register two findings. The second finding has the earlier due date."""
    with shared.begin() as conn:
        conn.exec_driver_sql(emptying(["finding", "finding_event"]))
    at(monkeypatch, shared, NOW)
    for number, day in ((1, date(2026, 11, 20)), (2, date(2026, 11, 11))):
        with shared.begin() as conn:
            register.open_finding(
                conn,
                kind="audit",
                reference=f"2026Q3/accesses/{number}/approved",
                description=Message(text="Item [red]{key}[/red]: no", values={"key": f"a{number}"}),
                owner="management",
                opened_at=NOW,
                due_on=day,
            )
    return shared


def at(monkeypatch: pytest.MonkeyPatch, state: Engine, moment: datetime) -> None:
    stub = SimpleNamespace(state=state, clock=FixedClock(moment), pack=load_pack(SHIPPED))
    monkeypatch.setattr(command, "command_services", lambda: stub)
    monkeypatch.setattr(command, "local_stack", nullcontext)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a ``findings`` command and return its exit code, stdout and stderr."""
    code = app._run(["findings", *words])
    output = capsys.readouterr()
    return code, output.out, output.err


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, out, _said = run(capsys, *words, "--json")
    assert out.count("\n") == 1
    result = json.loads(out)
    assert isinstance(result, dict)
    return code, result


@pytest.mark.usefixtures("state")
def test_findings_list_sorts_by_due_date(capsys: pytest.CaptureFixture[str]) -> None:
    """The finding with the earliest due date is first. Markup in a text is printed literally."""
    code, result = run_json(capsys, "list")
    assert code == 0
    assert [
        (finding["id"], finding["due_on"], finding["state"]) for finding in result["findings"]
    ] == [
        (2, "2026-11-11", "open"),
        (1, "2026-11-20", "open"),
    ]
    assert result["findings"][0]["finding"] == "Item [red]a2[/red]: no"
    assert result["findings"][0]["reference"] == "2026Q3/accesses/2/approved"
    code, out, _said = run(capsys, "list")
    assert code == 0
    assert "2026-11-11" in out


@pytest.mark.usefixtures("state")
def test_finding_is_answered_retested_and_closed(capsys: pytest.CaptureFixture[str]) -> None:
    """A closed finding is listed only with ``--closed``."""
    code, result = run_json(capsys, "answer", "1", *ANSWER, "--due", "2026-12-01")
    assert code == 0
    assert (result["state"], result["due_on"], result["cause"]) == (
        "answered",
        "2026-12-01",
        "No form",
    )
    code, result = run_json(capsys, "retest", "1", "--by", "auditor", "--deviates")
    assert (code, result["state"], result["retests"]) == (0, "open", 1)
    assert run(capsys, "answer", "1", *ANSWER)[:2] == (0, "finding 1: answered, due 2026-12-01\n")
    code, out, _said = run(capsys, "retest", "1", "--by", "auditor", "--met")
    assert (code, out) == (0, "finding 1: closed, due 2026-12-01\n")
    assert [finding["id"] for finding in run_json(capsys, "list")[1]["findings"]] == [2]
    result = run_json(capsys, "list", "--closed")[1]
    assert [(finding["id"], finding["closed_by"]) for finding in result["findings"]] == [
        (2, ""),
        (1, "auditor"),
    ]


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("retest", "1", "--by", "auditor"), "Add either --met or --deviates"),
        (("retest", "1", "--by", "auditor", "--met", "--deviates"), "either --met or --deviates"),
        (("retest", "1", "--by", "auditor", "--deviates", "--met"), "either --met or --deviates"),
        (("retest", "1", "--by", "auditor", "--met"), "no corrective action yet"),
        (("retest", "77", "--by", "auditor", "--met"), "There is no finding 77."),
        (("answer", "1", *ANSWER, "--due", "tomorrow"), "Write it as 2026-12-31."),
        (("answer", "1", *ANSWER, "--due", "2026-10-11"), "has passed"),
        (("answer", "1", *ANSWER, "--due", "2026-11-19"), "is before"),
        (("answer", "1", "--cause", "...", *ANSWER[2:]), "The cause contains no words."),
        (("answer", "1", *ANSWER[:4], "--by", " "), "--by has an empty value"),
        (("answer", "1", *ANSWER[:4]), "--by"),
        (("answer", "one", *ANSWER), "Invalid value for 'number'"),
        (("answer", "99999999999999999999", *ANSWER), "There is no finding"),
    ],
)
def test_findings_command_with_invalid_arguments_exits_with_2_and_changes_nothing(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], why: str
) -> None:
    """The reason is printed on stderr."""
    before = run_json(capsys, "list", "--closed")
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert why in err
    code, result = run_json(capsys, *words)
    assert code == 2
    assert result["error"]
    assert run_json(capsys, "list", "--closed") == before


def test_new_due_date_of_a_finding_is_compared_with_today_in_the_timezone_of_the_pack(
    state: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 07:00 in Shanghai the previous day has ended there, but not yet in UTC."""
    at(monkeypatch, state, datetime(2026, 12, 1, 23, tzinfo=UTC))
    code, _out, err = run(capsys, "answer", "1", *ANSWER, "--due", "2026-12-01")
    assert code == 2
    assert "2026-12-01 has passed" in err


@pytest.mark.usefixtures("state")
def test_findings_list_has_the_keys_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    code, result = run_json(capsys, "list", "--open")
    assert code == 0
    keys = {"id", "code", "workflow", "clause", "severity", "subject", "owner", "due", "state"}
    for finding in result["findings"]:
        assert keys | {"opened_in", "closed_in"} <= set(finding)
        assert finding["due"] == finding["due_on"]


def test_decisions_of_people_without_a_role_exit_with_2_and_change_nothing(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped roles.yaml lists no people. The company names them before they may decide."""
    before = run_json(capsys, "list")
    for words in (
        ("comment", "1", "--text", "Parts are ordered"),
        ("reassign", "1", "--owner", "compliance", "--reason", "moved"),
        ("accept-risk", "1", "--until", "2026-12-01", "--reason", "small"),
        ("withdraw-acceptance", "1", "--reason", "worse"),
    ):
        code, _out, err = run(capsys, *words, "--by", "eve")
        assert (code, "eve may not" in err) == (2, True)
    assert run_json(capsys, "list") == before


def test_decisions_of_entitled_people_are_listed(
    state: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = load_pack(SHIPPED)
    people = {"management": ("mia",), "compliance": ("cai",)}
    roles = {
        name: role.model_copy(update={"accounts": people.get(name, ())})
        for name, role in pack.roles.items()
    }
    named = pack.model_copy(update={"roles": roles})
    stub = SimpleNamespace(state=state, clock=FixedClock(NOW), pack=named)
    monkeypatch.setattr(command, "command_services", lambda: stub)
    words = ("--owner", "compliance", "--assignee", "cai", "--reason", "moved", "--by", "mia")
    code, result = run_json(capsys, "reassign", "1", *words, "--version-seen", "0-fail")
    assert (code, result["owner"], result["assignee"]) == (0, "compliance", "cai")
    code, result = run_json(capsys, "reassign", "1", *words, "--version-seen", "0-fail")
    assert (code, "has changed since" in result["error"]) == (2, True)
    words = ("--reason", "The old system ends in December", "--by", "mia")
    code, result = run_json(capsys, "accept-risk", "1", "--until", "2026-12-01", *words)
    assert (code, result["state"], result["accepted_until"]) == (0, "accepted", "2026-12-01")
