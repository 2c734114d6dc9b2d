"""The ``hold`` commands: place legal holds on targets of the policy pack, list and release them."""

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
from tests.cli.command_services import use_services
from tests.evidence.support import START

TODAY = START.date()
WHY = ["--reason", "claim", "--owner", "legal", "--case", "C-1", "--review"]


@pytest.fixture
def state(migrated_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    db = engine(migrated_database)
    with db.begin() as conn:  # tables of the mapped databases are in the state database
        conn.exec_driver_sql("CREATE TABLE buyer (id text PRIMARY KEY, phone text, seen_at date)")
    use_services(monkeypatch, command, db, tmp_path, mapped=migrated_database)
    return db


def hold(*words: str) -> Any:
    return command_line(["hold"])(["hold", *words], standalone_mode=False)


def printed_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_hold_is_placed_listed_and_released(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command prints one JSON object, in which a legal hold always has the same keys."""
    later = TODAY + timedelta(days=30)
    assert hold("add", "subject", "shop/12", *WHY, f"{later}", "--json") == 0
    placed = printed_json(capsys)
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
    assert printed_json(capsys) == {"holds": [placed]}
    assert hold("release", "1", "--by", "counsel", "--reason", "settled", "--json") == 0
    released = {
        "released_at": START.isoformat(),
        "released_by": "counsel",
        "release_reason": "settled",
    }
    assert printed_json(capsys) == placed | released
    assert hold("list", "--json") == 0
    assert printed_json(capsys) == {"holds": []}
    assert hold("list", "--all", "--json") == 0
    assert printed_json(capsys) == {"holds": [placed | released]}


def test_hold_add_prints_the_number_of_records_on_hold(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number of zero shows that the key was mistyped."""
    with state.begin() as conn:
        conn.exec_driver_sql("INSERT INTO buyer VALUES (12, NULL, now()), (13, NULL, NULL)")
    assert hold("add", "subject", "12", *WHY, f"{TODAY}") == 0
    assert "Records under this hold now: 1 of shop/buyer." in capsys.readouterr().out
    assert hold("add", "subject", "shop/21", *WHY, f"{TODAY}") == 0
    assert "No record matches this key now." in capsys.readouterr().err
    assert hold("add", "class", "buyer", *WHY, f"{TODAY}", "--json") == 0
    assert printed_json(capsys)["records"] == {}


def test_hold_add_succeeds_if_records_cannot_be_counted(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """A legal hold is urgent, so it is placed, and the reason for the missing number is printed."""
    with state.begin() as conn:
        conn.exec_driver_sql("DROP TABLE buyer")
    assert hold("add", "subject", "shop/12", *WHY, f"{TODAY}", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["records"] == {}
    assert "The hold is in force" in printed.err
    assert "no table for the collection buyer" in printed.err
    assert len(all_holds(state)) == 1


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
def test_hold_add_raises_usage_error_if_key_does_not_fit_the_column_type(
    state: Engine, type_of_key: str, value: str, message: str
) -> None:
    """The column types of the live database decide which keys are possible.

    No hold is registered.
    """
    with state.begin() as conn:
        conn.exec_driver_sql("DROP TABLE buyer")
        key = f"id {type_of_key}, row int PRIMARY KEY"
        conn.exec_driver_sql(f"CREATE TABLE buyer ({key}, phone text, seen_at date)")
    with pytest.raises(UsageError, match=message):
        hold("add", "subject", value, *WHY, f"{TODAY}")
    assert all_holds(state) == []


def test_hold_add_with_uuid_in_upper_case_puts_the_record_on_hold(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """PostgreSQL returns a UUID in lower case."""
    with state.begin() as conn:
        conn.exec_driver_sql("ALTER TABLE buyer ALTER id TYPE uuid USING id::uuid")
        conn.exec_driver_sql("INSERT INTO buyer SELECT md5('12')::uuid")
        key = conn.exec_driver_sql("SELECT upper(id::text) FROM buyer").scalar_one()
    assert hold("add", "subject", f"shop/{key}", *WHY, f"{TODAY}") == 0
    assert "Records under this hold now: 1 of buyer." in capsys.readouterr().out


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
        ("subject", "partners/12", "none"),
        ("buyer", "12", "restore_point"),
    ],
)
def test_hold_add_raises_usage_error_for_unknown_hold_kind_record_class_or_database(
    state: Engine, kind: str, value: str, there_is: str
) -> None:
    """The error lists the valid names. Otherwise a person could believe that a hold was placed."""
    with pytest.raises(UsageError) as refused:
        hold("add", kind, value, *WHY, f"{TODAY}")
    assert there_is in refused.value.action
    assert all_holds(state) == []


def all_holds(state: Engine) -> list[registry.Hold]:
    conn: Connection
    with state.connect() as conn:
        return registry.all_holds(conn)


@pytest.mark.parametrize("kind", ["subject", "class", "database"])
def test_hold_add_error_for_phone_number_does_not_contain_the_number(
    state: Engine, kind: str
) -> None:
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
def test_hold_add_accepts_record_classes_and_databases_that_the_pack_defines(
    state: Engine, kind: str, value: str
) -> None:
    assert hold("add", kind, value, *WHY, f"{TODAY}") == 0
    assert [(hold_row.kind, hold_row.value) for hold_row in all_holds(state)] == [(kind, value)]


def test_hold_list_marks_holds_whose_review_is_due(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list marks holds whose review is due, and ``--due`` lists only these holds."""
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
    assert [hold_row["value"] for hold_row in printed_json(capsys)["holds"]] == ["buyer"]
    with pytest.raises(UsageError, match="exclude"):
        hold("list", "--due", "--all")


def test_hold_list_of_empty_register_prints_a_message(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The release of a hold that does not exist is refused."""
    assert hold("list") == 0
    assert hold("list", "--due") == 0
    assert capsys.readouterr().out == "There are no holds.\nNo hold is due for review.\n"
    with pytest.raises(UsageError, match="Hold 7 does not exist or was released"):
        hold("release", "7", "--by", "counsel", "--reason", "settled")
