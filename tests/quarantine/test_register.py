"""Tests of the quarantine register: records that break an expectation are entered and resolved."""

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


def collection_in(run: str) -> register.CheckedCollection:
    """Return the collection `person` as checked by a run."""
    return register.CheckedCollection("shop", "person", "check_quality", run, NOW)


def enter_broken(
    state: Engine, run: str, keys: set[str], *, rule: str = "r", resolved_scope: str = "all"
) -> tuple[int, int]:
    """Enter records that break an expectation. Return the numbers of open and resolved entries."""
    with register.open_stage(state) as stage:
        for key in keys:
            stage.add(rule, key, "North")
        change = stage.enter(collection_in(run), [rule], resolved_scope)  # type: ignore[arg-type]
    return change.open[rule], change.resolved


def open_keys(state: Engine) -> set[str]:
    with state.connect() as conn:
        return set(conn.scalars(text("SELECT key FROM quarantine WHERE resolved_at IS NULL")))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(runs=st.lists(st.sets(st.sampled_from("abcdef")), min_size=1, max_size=6))
def test_after_full_check_only_records_that_break_the_expectation_have_open_quarantine_entries(
    state: Engine, runs: list[set[str]]
) -> None:
    for number, broken in enumerate(runs):
        opened, _resolved = enter_broken(state, f"run-{number}", broken)
        assert opened == len(broken)
        assert open_keys(state) == broken


def test_quarantine_entry_keeps_id_of_the_first_run_that_entered_it(state: Engine) -> None:
    enter_broken(state, "one", {"a", "b"})
    assert enter_broken(state, "two", {"a", "b"}) == (2, 0)
    with state.connect() as conn:
        assert set(conn.scalars(text("SELECT found_run_id FROM quarantine"))) == {"one"}


def test_enter_resolves_no_quarantine_entry_if_resolved_scope_is_none(state: Engine) -> None:
    """A check of new records has no information about the other records of the collection."""
    enter_broken(state, "one", {"a"})
    assert enter_broken(state, "two", {"b"}, resolved_scope="none") == (2, 0)
    assert open_keys(state) == {"a", "b"}


def test_incremental_check_resolves_only_entries_of_checked_records(state: Engine) -> None:
    enter_broken(state, "one", {"a", "b", "c"})
    with register.open_stage(state) as stage:
        stage.add_checked_keys(["b", "c", "z"])
        stage.add("r", "c", "North")
        change = stage.enter(collection_in("two"), ["r"], "checked")
    assert change == register.RegisterChange({"r": 2}, 1)
    assert open_keys(state) == {"a", "c"}


def test_forget_discards_collected_records_of_one_expectation_before_enter_writes_them(
    state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the check of an expectation fails halfway, a retry starts without its first results."""
    monkeypatch.setattr(register, "ROWS_AT_ONCE", 2)
    with register.open_stage(state) as stage:
        for key in "abc":
            stage.add("r", key, None)
            stage.add("s", key, None)
        stage.forget(["r"])
        stage.add("r", "d", None)
        change = stage.enter(collection_in("one"), ["r", "s"], "all")
    assert change == register.RegisterChange({"r": 1, "s": 3}, 0)


def test_count_by_department_includes_record_once_if_it_breaks_two_expectations(
    state: Engine,
) -> None:
    enter_broken(state, "one", {"a", "b"})
    enter_broken(state, "one", {"a"}, rule="other")
    with state.connect() as conn:
        assert register.count_by_department(conn, "shop", "person") == [("North", 2)]


@given(st.lists(st.text(st.characters(exclude_characters="\0")), min_size=1, max_size=3))
def test_key_of_converts_output_of_key_text_back_to_the_original_key(key: list[str]) -> None:
    assert register.key_of(register.key_text(key)) == key


def test_enter_raises_service_error_after_timeout_if_another_run_writes_quarantine_entries(
    state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is limited, because the mapped database keeps a snapshot open meanwhile."""
    monkeypatch.setattr(register, "_LOCK_TIMEOUT", "SET LOCAL lock_timeout = '200ms'")
    with state.begin() as other, register.open_stage(state) as stage:
        other.execute(
            text(
                register._LOCK.replace("%(database)s", "'shop'").replace(
                    "%(collection)s", "'person'"
                )
            )
        )
        stage.add("r", "k", None)
        with pytest.raises(ServiceError, match=r"shop\.person for more than a minute"):
            stage.enter(collection_in("second"), ["r"], "all")
    with register.open_stage(state) as stage:
        stage.add("r", "k", None)
        assert stage.enter(collection_in("second"), ["r"], "all").open == {"r": 1}
