"""The ``erasure`` commands: add, list and withdraw erasure requests of data subjects."""

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
from tests.cli.command_services import use_services
from tests.evidence.support import START

TODAY = START.date()
ASKED = ["--reference", "R-1", "--by", "privacy", "--received"]


@pytest.fixture
def state(migrated_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    db = engine(migrated_database)
    use_services(monkeypatch, command, db, tmp_path / "two")
    return db


def erasure(*words: str) -> Any:
    return command_line(["erasure"])(["erasure", *words], standalone_mode=False)


def printed_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_erasure_request_is_added_listed_and_withdrawn(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command prints one JSON object, in which a request always has the same keys."""
    assert erasure("add", "12", "--database", "shop", *ASKED, f"{TODAY}", "--json") == 0
    entered = printed_json(capsys)
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
    assert printed_json(capsys) == {"requests": [entered]}
    assert erasure("withdraw", "1", "--by", "privacy", "--because", "mistake", "--json") == 0
    closed = {
        "closed_at": START.isoformat(),
        "closed_by": "privacy",
        "closed_because": "mistake",
    }
    assert printed_json(capsys) == entered | closed
    assert erasure("list", "--json") == 0
    assert printed_json(capsys) == {"requests": []}
    assert erasure("list", "--all", "--json") == 0
    assert printed_json(capsys) == {"requests": [entered | closed]}
    with pytest.raises(UsageError, match="Erasure request 1 does not exist or is closed"):
        erasure("withdraw", "1", "--by", "privacy", "--because", "mistake")


def test_erasure_add_for_subject_with_open_request_prints_that_request(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The earlier request keeps its due date."""
    erasure("add", "12", "--database", "shop", *ASKED, f"{TODAY - timedelta(days=3)}")
    assert "is already open" not in capsys.readouterr().err
    assert erasure("add", "shop/12", *ASKED, f"{TODAY}", "--json") == 0
    output = capsys.readouterr()
    assert "for this data subject is already open" in output.err
    assert json.loads(output.out)["due_on"] == f"{TODAY + timedelta(days=27)}"


@pytest.mark.parametrize(
    ("words", "why", "what_to_do"),
    [
        (["12"], "several", "partners, shop"),
        (["12", "--database", "shops"], "no database shops", "partners, shop"),
        (["shops/12", "--database", "shop"], "slash", "partners, shop"),
        (["partners/12", "--database", "shop"], "names the database partners", "shop/KEY"),
        (["12", "--database", "partners"], "would have no effect", "on_request"),
        (["partners/12"], "would have no effect", "on_request"),
        (["13800138000", "--database", "shop"], "looks like", "<database>/KEY"),
    ],
)
def test_erasure_add_raises_usage_error_if_the_request_could_erase_no_record(
    state: Engine, words: list[str], why: str, what_to_do: str
) -> None:
    """The key of the data subject is invalid, or no record class is erased on request."""
    with pytest.raises(UsageError, match=why) as refused:
        erasure("add", *words, *ASKED, f"{TODAY}")
    assert what_to_do in refused.value.action
    with state.connect() as conn:
        assert requests.all_requests(conn) == []


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
def test_erasure_add_raises_usage_error_if_key_does_not_fit_the_column_type(
    state: Engine,
    migrated_database: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    type_of_key: str,
    key: str,
    message: str,
) -> None:
    """The column types of the live database decide which keys are possible."""
    use_services(monkeypatch, command, state, tmp_path / "live", mapped=migrated_database)
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
        assert requests.all_requests(conn) == []


def test_erasure_add_without_database_uses_the_only_mapped_database(
    state: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key that looks like a phone number still needs the database as a prefix."""
    use_services(monkeypatch, command, state, tmp_path / "one", one_database=True)
    assert erasure("add", "12", *ASKED, f"{TODAY}") == 0
    assert erasure("add", "shop/13800138000", *ASKED, f"{TODAY}") == 0
    with state.connect() as conn:
        assert [request.subject for request in requests.open_requests(conn, "shop")] == [
            "12",
            "13800138000",
        ]


def test_erasure_list_marks_overdue_requests(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """A request is not overdue on its due date."""
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


def test_erasure_list_of_empty_register_prints_a_message(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert erasure("list") == 0
    assert erasure("list", "--all") == 0
    assert capsys.readouterr().out == "There are no open requests.\nThere are no requests.\n"
