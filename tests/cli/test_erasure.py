"""``erasure``: requests of data subjects, only where something would be erased, with deadline."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from include.cli import erasure as command
from include.cli.app import command_line
from include.erasure import requests
from include.services.errors import UsageError
from include.state.connect import engine
from tests.cli.places import place_at
from tests.evidence.support import START

TODAY = START.date()
ASKED = ["--reference", "R-1", "--by", "privacy", "--received"]


@pytest.fixture
def state(migrated_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    db = engine(migrated_database)
    place_at(monkeypatch, command, db, tmp_path / "two")
    return db


def erasure(*words: str) -> Any:
    return command_line(["erasure"])(["erasure", *words], standalone_mode=False)


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_request_is_entered_listed_and_withdrawn(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is one JSON object with the same keys."""
    assert erasure("add", "12", "--database", "shop", *ASKED, f"{TODAY}", "--json") == 0
    entered = said(capsys)
    assert entered == {
        "id": 1,
        "database": "shop",
        "subject": "12",
        "reference": "R-1",
        "received_on": f"{TODAY}",
        "due_on": f"{TODAY + timedelta(days=30)}",
        "entered_by": "privacy",
        "closed_at": None,
        "closed_by": None,
        "closed_because": None,
        "found_at": None,
    }
    assert erasure("list", "--json") == 0
    assert said(capsys) == {"requests": [entered]}
    assert erasure("withdraw", "1", "--by", "privacy", "--because", "mistake", "--json") == 0
    closed = {
        "closed_at": START.isoformat(),
        "closed_by": "privacy",
        "closed_because": "mistake",
    }
    assert said(capsys) == entered | closed
    assert erasure("list", "--json") == 0
    assert said(capsys) == {"requests": []}
    assert erasure("list", "--all", "--json") == 0
    assert said(capsys) == {"requests": [entered | closed]}
    with pytest.raises(UsageError, match="no open request 1"):
        erasure("withdraw", "1", "--by", "privacy", "--because", "mistake")


def test_asking_again_is_said(state: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """The open request is shown; it keeps its deadline."""
    erasure("add", "12", "--database", "shop", *ASKED, f"{TODAY - timedelta(days=3)}")
    assert "asked already" not in capsys.readouterr().err
    assert erasure("add", "shop/12", *ASKED, f"{TODAY}", "--json") == 0
    shown = capsys.readouterr()
    assert "asked already: request 1" in shown.err
    assert json.loads(shown.out)["due_on"] == f"{TODAY + timedelta(days=27)}"


@pytest.mark.parametrize(
    ("words", "why", "what_to_do"),
    [
        (["12"], "several", "partners, shop"),
        (["12", "--database", "shops"], "no database shops", "partners, shop"),
        (["shops/12", "--database", "shop"], "slash", "partners, shop"),
        (["partners/12", "--database", "shop"], "is of partners", "shop/KEY"),
        (["12", "--database", "partners"], "nothing would ever be done", "on_request"),
        (["partners/12"], "nothing would ever be done", "on_request"),
        (["13800138000", "--database", "shop"], "looks like", "<database>/KEY"),
    ],
)
def test_a_request_that_would_come_to_nothing_is_refused(
    state: Engine, words: list[str], why: str, what_to_do: str
) -> None:
    """What was not understood, and where nothing is erased on request."""
    with pytest.raises(UsageError, match=why) as refused:
        erasure("add", *words, *ASKED, f"{TODAY}")
    assert what_to_do in refused.value.action
    with state.connect() as conn:
        assert requests.every(conn) == []


@pytest.mark.parametrize(
    ("type_of_key", "key", "message"),
    [
        ("int", "C-12", "No record class of shop that is erased on request can have this key"),
        ("int", "shop/0012", "No record class of shop that is erased on request can have this key"),
        ("uuid", "12", "No record class of shop that is erased on request can have this key"),
        ("jsonb", "12", "In shop, a key of subject has the type jsonb"),
        ("int", "12", ""),
        ("text", "0012", ""),
        ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", ""),
        ("int, DROP COLUMN seen_at", "12", ""),
    ],
)
def test_request_whose_key_no_record_can_have_is_not_entered(
    state: Engine,
    migrated_database: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    type_of_key: str,
    key: str,
    message: str,
) -> None:
    """The types of the live database decide; the values of the key are typed as for holds."""
    place_at(monkeypatch, command, state, tmp_path / "live", mapped=migrated_database)
    with state.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE buyer (row int PRIMARY KEY, phone text, seen_at date)")
        conn.exec_driver_sql(f"ALTER TABLE buyer ADD COLUMN id {type_of_key}")
    words = ["add", key, "--database", "shop", *ASKED, f"{TODAY}"]
    if not message:
        assert erasure(*words) == 0
        return
    with pytest.raises(UsageError, match=message):
        erasure(*words)
    with state.connect() as conn:
        assert requests.every(conn) == []


def test_one_mapped_database_need_not_be_named(
    state: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is the one that is meant; a running number needs its prefix all the same."""
    place_at(monkeypatch, command, state, tmp_path / "one", one_database=True)
    assert erasure("add", "12", *ASKED, f"{TODAY}") == 0
    assert erasure("add", "shop/13800138000", *ASKED, f"{TODAY}") == 0
    with state.connect() as conn:
        assert [one.subject for one in requests.open_requests(conn, "shop")] == [
            "12",
            "13800138000",
        ]


def test_overdue_requests_are_shown(state: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """On the last day they are not overdue."""
    for subject, days in (("12", 31), ("13", 30)):
        received = TODAY - timedelta(days=days)
        erasure("add", subject, "--database", "shop", *ASKED, f"{received}")
    capsys.readouterr()
    assert erasure("list") == 0
    listed = capsys.readouterr()
    _head, first, second = listed.out.splitlines()
    assert first.rstrip().endswith("overdue")
    assert "overdue" not in second
    assert "Overdue: 1" in listed.err


def test_an_empty_registry_is_said_so(state: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """Of open requests, and of all."""
    assert erasure("list") == 0
    assert erasure("list", "--all") == 0
    assert capsys.readouterr().out == "No request is open.\nThere is no request.\n"
