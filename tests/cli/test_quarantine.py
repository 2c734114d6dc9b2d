"""The command ``quarantine list`` prints keys of quarantined records and refuses mistyped names."""

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
    """Return a migrated state database, which the commands use with the shipped policy pack."""
    db = engine(migrated_database)
    stub = SimpleNamespace(state=db, pack=load_pack(SHIPPED))
    monkeypatch.setattr(command, "command_services", lambda: stub)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    return db


def put(state: Engine, rule: str, *keys: str) -> None:
    checked_collection = register.CheckedCollection("shop", "person", "check_quality", "run", NOW)
    with register.open_stage(state) as stage:
        for key in keys:
            stage.add(rule, register.key_text([key]), "North")
        stage.enter(checked_collection, [rule], "all")


@pytest.mark.parametrize(
    ("options", "there_is"),
    [
        ({"rule": "nonsense"}, "gone_rule"),
        ({"collection": "custmer"}, "customer"),
        ({"database": "curier"}, "courier"),
        ({"database": "courier", "rule": "nonsense"}, "gone_rule"),
    ],
)
def test_quarantine_list_raises_usage_error_for_unknown_expectation_collection_or_database(
    state: Engine, options: dict[str, str], there_is: str
) -> None:
    """The error lists the names in the policy pack and in the register."""
    put(state, "gone_rule", "1")
    with pytest.raises(
        UsageError, match="is neither in the policy pack nor in the register"
    ) as refused:
        command.list_broken(**options)
    assert there_is in refused.value.action


def test_quarantine_list_accepts_an_expectation_that_was_removed_from_the_pack(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The register still knows the name, even if no record breaks the expectation any more."""
    put(state, "gone_rule", "1")
    assert command.list_broken(rule="gone_rule") == 0
    assert "gone_rule" in capsys.readouterr().out
    put(state, "gone_rule")
    assert command.list_broken(rule="gone_rule") == 0
    assert capsys.readouterr().out == "The register has no record of rule gone_rule.\n"


def test_quarantine_list_without_matching_record_prints_the_filter_that_was_used(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the filter, the message would read as if the register had no record at all."""
    put(state, "gone_rule", "1")
    assert command.list_broken(database="courier", collection="customer") == 0
    output = capsys.readouterr().out
    assert output == "The register has no record of database courier, collection customer.\n"
    assert command.list_broken(collection="customer", as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"records": [], "more": False}


def test_quarantine_list_of_empty_register_prints_a_message(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.list_broken() == 0
    assert capsys.readouterr().out == "The register has no record.\n"


def test_quarantine_list_in_a_pipe_prints_one_line_per_record(
    state: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Long names and line breaks in keys do not split a line. The heading states the timezone."""
    put(state, LONG, ODD, "2")
    assert command.list_broken() == 0
    head, *records = capsys.readouterr().out.splitlines()
    assert head.rstrip().endswith("since (UTC)")
    assert len(records) == 2
    assert all(
        LONG in record and record.rstrip().endswith("North       2026-03-01 09:30")
        for record in records
    )
    assert "line\\nbreak [red]" in records[0] + records[1]
