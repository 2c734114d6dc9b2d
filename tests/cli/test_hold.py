"""``hold``: placed only on what the policy pack knows, listed with its review, released by name."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from include.cli import hold as command
from include.cli.app import command_line
from include.holds import registry
from include.services.errors import UsageError
from include.state.connect import engine
from tests.cli.places import place_at
from tests.evidence.support import START

TODAY = START.date()
WHY = ["--reason", "claim", "--owner", "legal", "--case", "C-1", "--review"]


@pytest.fixture
def state(migrated_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    db = engine(migrated_database)
    with db.begin() as conn:  # of the mapped databases; they share one with the state
        conn.exec_driver_sql("CREATE TABLE buyer (id text PRIMARY KEY, phone text, seen_at date)")
    place_at(monkeypatch, command, db, tmp_path, mapped=migrated_database)
    return db


def hold(*words: str) -> Any:
    return command_line(["hold"])(["hold", *words], standalone_mode=False)


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_hold_is_placed_listed_and_released(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is one JSON object with the same keys."""
    later = TODAY + timedelta(days=30)
    assert hold("add", "subject", "shop/12", *WHY, f"{later}", "--json") == 0
    placed = said(capsys)
    assert placed.pop("records") == {"shop": {"buyer": 0}}
    assert placed == {
        "id": 1,
        "kind": "subject",
        "value": "shop/12",
        "reason": "claim",
        "owner": "legal",
        "case": "C-1",
        "placed_at": START.isoformat(),
        "review_on": f"{later}",
        "released_at": None,
        "released_by": None,
        "release_reason": None,
    }
    assert hold("list", "--json") == 0
    assert said(capsys) == {"holds": [placed]}
    assert hold("release", "1", "--by", "counsel", "--reason", "settled", "--json") == 0
    released = {
        "released_at": START.isoformat(),
        "released_by": "counsel",
        "release_reason": "settled",
    }
    assert said(capsys) == placed | released
    assert hold("list", "--json") == 0
    assert said(capsys) == {"holds": []}
    assert hold("list", "--all", "--json") == 0
    assert said(capsys) == {"holds": [placed | released]}


def test_how_many_records_a_hold_is_on_is_said(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped key is noticed before the records of the right one are gone."""
    with state.begin() as conn:
        conn.exec_driver_sql("INSERT INTO buyer VALUES (12, NULL, now()), (13, NULL, NULL)")
    assert hold("add", "subject", "12", *WHY, f"{TODAY}") == 0
    assert "Records that it is on now: 1 of shop/buyer." in capsys.readouterr().out
    assert hold("add", "subject", "shop/21", *WHY, f"{TODAY}") == 0
    assert "No record is found by this key now." in capsys.readouterr().err
    assert hold("add", "class", "buyer", *WHY, f"{TODAY}", "--json") == 0
    assert said(capsys)["records"] == {}


def test_a_hold_counts_where_its_records_cannot_be_counted(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hold is what is urgent; the reason stands beside it."""
    with state.begin() as conn:
        conn.exec_driver_sql("DROP TABLE buyer")
    assert hold("add", "subject", "shop/12", *WHY, f"{TODAY}", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["records"] == {}
    assert "The hold counts." in printed.err
    assert "no table for the collection buyer" in printed.err
    assert len(of(state)) == 1


@pytest.mark.parametrize(
    ("type_of_key", "value", "message"),
    [
        ("int", "shop/C-12", "No subject key of a record class can have this value"),
        ("int", "C-12", "No subject key of a record class can have this value"),
        ("uuid", "12", "No subject key of a record class can have this value"),
        ("int[]", "12", "In shop, a key of subject has the type integer"),
        ("jsonb", "shop/12", "In shop, a key of subject has the type jsonb"),
    ],
)
def test_hold_that_no_key_can_match_is_not_placed(
    state: Engine, type_of_key: str, value: str, message: str
) -> None:
    """The types of the live database decide, before the hold is in the registry."""
    with state.begin() as conn:
        conn.exec_driver_sql("DROP TABLE buyer")
        key = f"id {type_of_key}, row int PRIMARY KEY"
        conn.exec_driver_sql(f"CREATE TABLE buyer ({key}, phone text, seen_at date)")
    with pytest.raises(UsageError, match=message):
        hold("add", "subject", value, *WHY, f"{TODAY}")
    assert of(state) == []


def test_hold_keeps_the_record_whose_uuid_is_typed_in_capitals(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """PostgreSQL shows a UUID in lower case."""
    with state.begin() as conn:
        conn.exec_driver_sql("ALTER TABLE buyer ALTER id TYPE uuid USING id::uuid")
        conn.exec_driver_sql("INSERT INTO buyer SELECT md5('12')::uuid")
        key = conn.exec_driver_sql("SELECT upper(id::text) FROM buyer").scalar_one()
    assert hold("add", "subject", f"shop/{key}", *WHY, f"{TODAY}") == 0
    assert "Records that it is on now: 1 of buyer." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "value", "there_is"),
    [
        ("class", "buyers", "buyer, partner"),
        ("class", "shop/partner", "buyer"),
        ("class", "shops/buyer", "partners, shop"),
        ("database", "shops", "partners, shop"),
        ("subject", "shops/12", "partners, shop"),
        ("subject", "shop/", "DATABASE/VALUE"),
        ("restore_point", "shops/20261124T020000Z", "partners, shop"),
        ("waybill", "SF1", "subject"),
        ("subject", "partners/12", "nothing"),
        ("buyer", "12", "restore_point"),
    ],
)
def test_a_hold_that_would_keep_nothing_is_refused(
    state: Engine, kind: str, value: str, there_is: str
) -> None:
    """A typo must not read as held: the names that there are come with the refusal."""
    with pytest.raises(UsageError) as refused:
        hold("add", kind, value, *WHY, f"{TODAY}")
    assert there_is in refused.value.action
    assert of(state) == []


def of(state: Engine) -> list[registry.Hold]:
    conn: Connection
    with state.connect() as conn:
        return registry.every(conn)


@pytest.mark.parametrize("kind", ["subject", "class", "database"])
def test_a_phone_number_is_refused_and_not_repeated(state: Engine, kind: str) -> None:
    """On whatever it is placed."""
    with pytest.raises(UsageError, match="mobile or ID number") as refused:
        hold("add", kind, "13800138000", *WHY, f"{TODAY}")
    assert "13800138000" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("class", "buyer"),
        ("class", "partners/partner"),
        ("database", "shop"),
        ("subject", "12"),
        ("subject", "shop/2026/001"),
        ("subject", "shop/13800138000"),
        ("restore_point", "20261124T020000Z"),
    ],
)
def test_what_the_pack_knows_is_held(state: Engine, kind: str, value: str) -> None:
    """In one database or in all."""
    assert hold("add", kind, value, *WHY, f"{TODAY}") == 0
    assert [(one.kind, one.value) for one in of(state)] == [(kind, value)]


def test_reviews_that_are_due_are_shown(state: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """In the list and alone; what is not due is left out there."""
    hold("add", "class", "buyer", *WHY, f"{TODAY}")
    hold("add", "class", "partner", *WHY, f"{TODAY + timedelta(days=2)}")
    capsys.readouterr()
    assert hold("list") == 0
    listed = capsys.readouterr()
    _head, first, second = listed.out.splitlines()
    assert first.rstrip().endswith("review is due")
    assert "due" not in second
    assert "Due for review: 1" in listed.err
    assert hold("list", "--due", "--json") == 0
    assert [one["value"] for one in said(capsys)["holds"]] == ["buyer"]
    with pytest.raises(UsageError, match="exclude"):
        hold("list", "--due", "--all")


def test_an_empty_registry_is_said_so(state: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """And a hold that is not there cannot be released."""
    assert hold("list") == 0
    assert hold("list", "--due") == 0
    assert capsys.readouterr().out == "There is no hold.\nNo hold is due for review.\n"
    with pytest.raises(UsageError, match="no active hold 7"):
        hold("release", "7", "--by", "counsel", "--reason", "settled")
