"""The register of broken records: entered once, resolved once, never lost."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from include.quarantine import register
from include.state.connect import engine
from include.state.migrate import migrate

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def state(database: str) -> Engine:
    """A migrated state database."""
    db = engine(database)
    migrate(db)
    return db


def put(state: Engine, run: str, keys: set[str], *, rule: str = "r", resolve: bool = True):
    place = register.Place("shop", "person", rule, "check_quality", run, NOW)
    with state.begin() as conn:
        raw = conn.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        return register.put(raw, place, [(key, "North") for key in keys], resolve=resolve)


def open_keys(state: Engine) -> set[str]:
    with state.connect() as conn:
        return set(register.open_keys(conn, "shop", "person"))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(runs=st.lists(st.sets(st.sampled_from("abcdef")), min_size=1, max_size=6))
def test_what_was_found_last_is_open_and_nothing_else(state: Engine, runs: list[set[str]]) -> None:
    """Whatever was found before; a record that breaks again is open again, once."""
    for number, found in enumerate(runs):
        change = put(state, f"run-{number}", found)
        assert change.open == len(found)
        assert open_keys(state) == found


def test_a_repeated_run_changes_nothing(state: Engine) -> None:
    """The moment at which a record was first found stays."""
    put(state, "one", {"a", "b"})
    assert put(state, "two", {"a", "b"}) == register.Change(2, 0)
    with state.connect() as conn:
        assert set(conn.scalars(text("SELECT found_run_id FROM quarantine"))) == {"one"}


def test_a_part_of_the_records_resolves_nothing(state: Engine) -> None:
    """A batch is not the whole collection."""
    put(state, "one", {"a"})
    assert put(state, "two", {"b"}, resolve=False) == register.Change(2, 0)
    assert open_keys(state) == {"a", "b"}


def test_records_are_counted_once_by_department(state: Engine) -> None:
    """However many rules they break."""
    put(state, "one", {"a", "b"})
    put(state, "one", {"a"}, rule="other")
    with state.connect() as conn:
        assert register.by_part(conn, "shop", "person") == [("North", 2)]


@given(st.lists(st.text(st.characters(exclude_characters="\0")), min_size=1, max_size=3))
def test_a_key_reads_back(key: list[str]) -> None:
    """Quotes, commas and Chinese included."""
    assert register.key_of(register.key_text(key)) == key
