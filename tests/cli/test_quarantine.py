"""``quarantine list``: what stands in the register, and never "nothing" for a mistyped name."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine

from include.cli import quarantine as command
from include.policy import SHIPPED
from include.quarantine import register
from include.registry import load_pack
from include.services.errors import UsageError
from include.state.connect import engine

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
LONG = "a_rule_whose_name_is_so_long_that_a_table_of_eighty_columns_has_no_room_for_it"
ODD = "line\nbreak [red]"


@pytest.fixture
def state(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A migrated state database, and the shipped pack beside it."""
    db = engine(migrated_database)
    place = SimpleNamespace(state=db, pack=load_pack(SHIPPED))
    monkeypatch.setattr(command, "workplace", lambda: place)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    return db


def put(state: Engine, rule: str, *keys: str) -> None:
    place = register.Place("shop", "person", "check_quality", "run", NOW)
    with register.staging(state) as stage:
        for key in keys:
            stage.add(rule, register.key_text([key]), "North")
        stage.enter(place, [rule], "all")


@pytest.mark.parametrize(
    ("asked", "there_is"),
    [
        ({"rule": "nonsense"}, "gone_rule"),
        ({"collection": "custmer"}, "customer"),
        ({"database": "curier"}, "courier"),
        ({"database": "courier", "rule": "nonsense"}, "gone_rule"),
    ],
)
def test_a_name_that_nobody_knows_is_refused(
    state: Engine, asked: dict[str, str], there_is: str
) -> None:
    """With exit code 2 and the names that exist, of pack and register."""
    put(state, "gone_rule", "1")
    with pytest.raises(UsageError, match="Neither the policy pack nor the register") as refused:
        command.list_broken(**asked)
    assert there_is in refused.value.action


def test_a_rule_that_only_the_register_knows_is_shown(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pack may have lost it meanwhile; one that was resolved was no typo either."""
    put(state, "gone_rule", "1")
    assert command.list_broken(rule="gone_rule") == 0
    assert "gone_rule" in capsys.readouterr().out
    put(state, "gone_rule")
    assert command.list_broken(rule="gone_rule") == 0
    assert capsys.readouterr().out == "No record of rule gone_rule stands in the register.\n"


def test_nothing_found_says_what_was_asked_for(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """That no customer is broken says nothing of waybills."""
    put(state, "gone_rule", "1")
    assert command.list_broken(database="courier", collection="customer") == 0
    said = capsys.readouterr().out
    assert said == "No record of database courier, collection customer stands in the register.\n"
    assert command.list_broken(collection="customer", as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"records": [], "more": False}


def test_an_empty_register_is_said_so(state: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a filter, of everything."""
    assert command.list_broken() == 0
    assert capsys.readouterr().out == "No record stands in the register.\n"


def test_a_pipe_gets_one_line_per_record(state: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """However long a name is and whatever a key holds; the zone of times is in the head."""
    put(state, LONG, ODD, "2")
    assert command.list_broken() == 0
    head, *records = capsys.readouterr().out.splitlines()
    assert head.rstrip().endswith("since (UTC)")
    assert len(records) == 2
    assert all(
        LONG in one and one.rstrip().endswith("North       2026-03-01 09:30") for one in records
    )
    assert "line\\nbreak [red]" in records[0] + records[1]
