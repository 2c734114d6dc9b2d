"""Test that the ledger of work on restore points does not mix databases or stores."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from include.backup import listing
from include.backup.listing import Ending, Work
from tests.backup.conftest import EMPTY
from tests.support.holders import NOW

POINTS = [
    (database, point) for database in ("billing", "courier", "shop") for point in ("a", "b", "c")
]
WORKS = st.tuples(
    st.sampled_from(POINTS),
    st.sampled_from(["file:///a", "s3://b"]),
    st.sampled_from([Ending.PUBLISHED, Ending.CLEARED, None]),
    st.sampled_from([None, "open", Ending.REMOVED, Ending.KEPT, Ending.CLEARED]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(works=st.lists(WORKS, unique_by=lambda work: work[0], max_size=4))
def test_ledger_lists_published_and_unfinished_restore_points_of_one_database(
    state: Engine,
    works: list[tuple[tuple[str, str], str, Ending | None, Ending | str | None]],
) -> None:
    """If a removal ended with `Ending.KEPT`, the restore point still counts as published."""
    with state.begin() as conn:
        conn.exec_driver_sql(EMPTY)
    published: set[tuple[str, str, str]] = set()
    unfinished: dict[tuple[str, str, str], set[Work]] = {}
    run = {"dag_id": "backup_offsite", "run_id": "r"}
    for (database, point), store, ending, removal in works:
        key = (database, store, point)
        listing.begin_work(state, store, database, point, Work.PUBLISH, NOW, **run)
        if ending is None:
            unfinished[key] = {Work.PUBLISH}
            continue
        listing.end_work(state, database, [point], ending, NOW)
        if removal is not None:
            later = NOW + timedelta(days=1)
            listing.begin_work(state, store, database, point, Work.REMOVE, later, **run)
            if isinstance(removal, Ending):
                listing.end_work(state, database, [point], removal, later)
            else:
                unfinished[key] = {Work.REMOVE}
        if ending is Ending.PUBLISHED and removal in (None, Ending.KEPT):
            published.add(key)
    with state.connect() as conn:
        for database in ("billing", "courier", "shop"):
            for store in ("file:///a", "s3://b"):
                assert listing.published_points(conn, database, store) == {
                    point: NOW
                    for (name, where, point) in published
                    if (name, where) == (database, store)
                }
                assert listing.unfinished_work(conn, database, store) == {
                    point: work
                    for (name, where, point), work in unfinished.items()
                    if (name, where) == (database, store)
                }
            assert listing.unfinished_work(conn, database) == {
                point: work
                for (name, _store, point), work in unfinished.items()
                if name == database
            }
