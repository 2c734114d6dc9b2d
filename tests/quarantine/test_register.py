"""The register of broken records: entered once, resolved once, never lost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from include.quarantine import register
from include.services.errors import ServiceError
from include.state.connect import engine

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def state(migrated_database: str) -> Engine:
    """A migrated state database."""
    return engine(migrated_database)


def put(
    state: Engine, run: str, keys: set[str], *, rule: str = "r", resolve: str = "all"
) -> tuple[int, int]:
    """Enter what a run found of a rule: how many are open, how many were resolved."""
    place = register.Place("shop", "person", "check_quality", run, NOW)
    with register.staging(state) as stage:
        for key in keys:
            stage.add(rule, key, "North")
        change = stage.enter(place, [rule], resolve)  # type: ignore[arg-type]
    return change.open[rule], change.resolved


def open_keys(state: Engine) -> set[str]:
    with state.connect() as conn:
        return set(conn.scalars(text("SELECT key FROM quarantine WHERE resolved_at IS NULL")))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(runs=st.lists(st.sets(st.sampled_from("abcdef")), min_size=1, max_size=6))
def test_what_was_found_last_is_open_and_nothing_else(state: Engine, runs: list[set[str]]) -> None:
    """Whatever was found before; a record that breaks again is open again, once."""
    for number, found in enumerate(runs):
        opened, _resolved = put(state, f"run-{number}", found)
        assert opened == len(found)
        assert open_keys(state) == found


def test_a_repeated_run_changes_nothing(state: Engine) -> None:
    """The moment at which a record was first found stays."""
    put(state, "one", {"a", "b"})
    assert put(state, "two", {"a", "b"}) == (2, 0)
    with state.connect() as conn:
        assert set(conn.scalars(text("SELECT found_run_id FROM quarantine"))) == {"one"}


def test_a_part_of_the_records_resolves_nothing(state: Engine) -> None:
    """A batch is not the whole collection."""
    put(state, "one", {"a"})
    assert put(state, "two", {"b"}, resolve="none") == (2, 0)
    assert open_keys(state) == {"a", "b"}


def test_only_what_was_looked_at_is_resolved(state: Engine) -> None:
    """A usual run says nothing of the records that it did not look at."""
    put(state, "one", {"a", "b", "c"})
    place = register.Place("shop", "person", "check_quality", "two", NOW)
    with register.staging(state) as stage:
        stage.looked_at(["b", "c", "z"])
        stage.add("r", "c", "North")
        assert stage.enter(place, ["r"], "looked_at") == register.Change({"r": 2}, 1)
    assert open_keys(state) == {"a", "c"}


def test_what_was_given_up_is_not_entered(state: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that failed in the middle is checked again, whatever was sent of it already."""
    monkeypatch.setattr(register, "AT_ONCE", 2)
    place = register.Place("shop", "person", "check_quality", "one", NOW)
    with register.staging(state) as stage:
        for key in "abc":
            stage.add("r", key, None)
            stage.add("s", key, None)
        stage.forget(["r"])
        stage.add("r", "d", None)
        assert stage.enter(place, ["r", "s"], "all") == register.Change({"r": 1, "s": 3}, 0)


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


def test_another_run_is_not_waited_for_for_ever(
    state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While we wait, the customers' server holds a snapshot for us."""
    monkeypatch.setattr(register, "_LOCK_TIMEOUT", "SET LOCAL lock_timeout = '200ms'")
    place = register.Place("shop", "person", "check_quality", "second", NOW)
    with state.begin() as other, register.staging(state) as stage:
        other.execute(
            text(
                register._LOCK.replace("%(database)s", "'shop'").replace(
                    "%(collection)s", "'person'"
                )
            )
        )
        stage.add("r", "k", None)
        with pytest.raises(ServiceError, match=r"shop\.person for more than a minute"):
            stage.enter(place, ["r"], "all")
    with register.staging(state) as stage:
        stage.add("r", "k", None)
        assert stage.enter(place, ["r"], "all").open == {"r": 1}
