"""Whatever happens in whatever order, nothing goes that may not, and all that goes is on record.

Kills at every stage, retries, holds placed and released, records that come and change, requests,
a new key of the ledger: hypothesis draws them in any order, and a model of the schedule in Python
says what may be gone. TEST_INTERLEAVINGS sets how many orders are tried (25); with it a
failing order is made as short as possible too, which takes minutes.
"""

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
from tests.retention.linked import LINKED_TABLES
from tests.retention.play import STAGES, WORLDS, Play
from tests.retention.rig import Rig, make_partitions
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
    st.one_of(holds, holds, inserts, touches, events),  # what counts at once comes more often
)
# A hold on everything, right after a batch: whatever goes on from the holds of before is seen.
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
# Around an execution that is hurt: what was before, what comes between it and the next, and that.
orders: st.SearchStrategy[list[Action]] = st.builds(
    lambda before, first, then, last: [*before, first, *then, *last],
    st.lists(between, max_size=3),
    hurt,
    st.lists(between, max_size=2),
    st.lists(st.one_of(hurt, st.builds(Execute)), max_size=1),
)


@pytest.fixture(scope="module")
def sessions(standing_rig: Rig) -> Iterator[tuple[Rig, psycopg.Connection, psycopg.Connection]]:
    """The rig with connections that are kept, and a session on each database, for all orders."""
    with (
        psycopg.connect(standing_rig.source, autocommit=True) as connection,
        psycopg.connect(standing_rig.state_source, autocommit=True) as state,
    ):
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET client_min_messages = warning")
        connection.execute(LINKED_TABLES)
        engine = pooled(standing_rig.state_source)
        yield standing_rig.but(pool=engine), connection, state
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
def test_any_order_of_kills_holds_and_changes(
    sessions: tuple[Rig, psycopg.Connection, psycopg.Connection],
    world: str,
    records: list[Insert],
    order: list[Action],
) -> None:
    """After each action what is gone was allowed to go; in the end all is gone that may."""
    rig, connection, state = sessions
    state.execute(emptying(USED).encode())
    connection.execute(f"TRUNCATE {', '.join(WORLDS[world])} CASCADE".encode())
    make_partitions(connection)
    play = Play(rig, world, connection, state)
    for one in records:
        play.happen(one)
    if world == "links":  # else few orders have a request before what leads to its records goes
        for person in range(2):
            play.happen(Request(person))
    for action in order:
        play.act(action)
    play.converge()


def test_the_tables_that_are_emptied_are_all_that_a_run_writes() -> None:
    """A table that is forgotten here would carry one order's traces into the next."""
    assert set(USED) <= set(metadata.tables)
