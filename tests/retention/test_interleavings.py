"""Tests that runs erase only permitted records, with kills, holds and changes in random order."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from include.state.tables import metadata
from tests.retention.actions import (
    Action,
    Event,
    Execute,
    Hold,
    Insert,
    Plan,
    Release,
    Request,
    Rotate,
    Touch,
)
from tests.retention.linked_schemas import LINKED_TABLES
from tests.retention.runner import RetentionRunner, make_partitions
from tests.retention.simulation import STAGES, WORLDS, Simulation
from tests.support.databases import pooled
from tests.support.registers import emptying

LONGER = os.environ.get("TEST_INTERLEAVINGS", "")
NUMBER = int(LONGER or 25)
USED = (
    "erasure", "erasure_batch", "erasure_request", "erasure_request_record", "legal_hold",
    "disposition", "run_step", "run_artifact",
)  # fmt: skip

small = st.integers(0, 11)
inserts = st.builds(
    Insert, small, small, small, small, st.sampled_from([False, False, False, True]), st.booleans()
)
holds = st.builds(Hold, st.sampled_from([0, 0, 0, 1, 1, 2]), small)
touches = st.builds(Touch, small, small, st.booleans())
events: st.SearchStrategy[Event] = st.one_of(
    inserts,
    touches,
    holds,
    st.builds(Release, small),
    st.builds(Request, small),
)
numbers = st.sampled_from([1, 1, 1, 2, 2, 3, 4])
kills = st.builds(
    Execute, st.sampled_from(STAGES), numbers, st.just(True), st.booleans(), st.none()
)
disturbed = st.builds(
    Execute,
    st.sampled_from(["committed", "settled"]),
    numbers,
    st.sampled_from([False, False, True]),
    st.just(False),
    st.one_of(holds, holds, inserts, touches, events),  # mostly events with an immediate effect
)
# A hold on the whole database right after a batch detects a use of outdated holds.
frozen = st.builds(
    Execute,
    st.just("committed"),
    st.sampled_from([1, 2]),
    st.just(False),
    st.just(False),
    st.builds(Hold, st.just(2), st.just(0)),
)
hurt = st.one_of(kills, kills, disturbed, frozen)
between: st.SearchStrategy[Action] = st.one_of(events, events, st.builds(Plan), st.builds(Rotate))
# An interrupted execution, events before and after it, and the next execution.
orders: st.SearchStrategy[list[Action]] = st.builds(
    lambda before, first, then, last: [*before, first, *then, *last],
    st.lists(between, max_size=3),
    hurt,
    st.lists(between, max_size=2),
    st.lists(st.one_of(hurt, st.builds(Execute)), max_size=1),
)


@pytest.fixture(scope="module")
def sessions(
    shared_runner: RetentionRunner,
) -> Iterator[tuple[RetentionRunner, psycopg.Connection, psycopg.Connection]]:
    """The runner with pooled connections, and a session on each database, for all examples."""
    with (
        psycopg.connect(shared_runner.source, autocommit=True) as connection,
        psycopg.connect(shared_runner.state_source, autocommit=True) as state,
    ):
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET client_min_messages = warning")
        connection.execute(LINKED_TABLES)
        engine = pooled(shared_runner.state_source)
        yield shared_runner.but(pool=engine), connection, state
        engine.dispose()


@pytest.mark.timeout(0 if LONGER else 900)
@settings(
    max_examples=NUMBER,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink] if LONGER else [Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    world=st.sampled_from(list(WORLDS)),
    records=st.lists(inserts, min_size=5, max_size=12),
    order=orders,
)
def test_runs_erase_only_permitted_records_if_kills_legal_holds_and_changes_occur_in_random_order(
    sessions: tuple[RetentionRunner, psycopg.Connection, psycopg.Connection],
    world: str,
    records: list[Insert],
    order: list[Action],
) -> None:
    """At the end of each random order, all permitted records are erased."""
    runner, connection, state = sessions
    state.execute(emptying(USED).encode())
    connection.execute(f"TRUNCATE {', '.join(WORLDS[world])} CASCADE".encode())
    make_partitions(connection)
    simulation = Simulation(runner, world, connection, state)
    for record in records:
        simulation.happen(record)
    if world == "links":  # otherwise few examples have a request in time
        for person in range(2):
            simulation.happen(Request(person))
    for action in order:
        simulation.act(action)
    simulation.converge()


def test_state_database_has_all_tables_that_random_run_tests_truncate() -> None:
    assert set(USED) <= set(metadata.tables)
