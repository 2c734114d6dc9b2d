"""The ledger of operations on restore points does not mix databases or stores."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from include.backup import operations
from include.backup.operations import Ending, Operation
from tests.backup.conftest import EMPTY
from tests.support.holders import NOW

POINTS = [
    (database, point) for database in ("billing", "courier", "shop") for point in ("a", "b", "c")
]
OPERATIONS = st.tuples(
    st.sampled_from(POINTS),
    st.sampled_from(["file:///a", "s3://b"]),
    st.sampled_from([Ending.PUBLISHED, Ending.CLEARED, None]),
    st.sampled_from([None, "open", Ending.REMOVED, Ending.KEPT, Ending.CLEARED]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recorded=st.lists(OPERATIONS, unique_by=lambda operation: operation[0], max_size=4))
def test_queries_return_published_and_unfinished_restore_points_of_one_database_and_store(
    state: Engine,
    recorded: list[tuple[tuple[str, str], str, Ending | None, Ending | str | None]],
) -> None:
    """If a removal ended with `Ending.KEPT`, the restore point still counts as published."""
    with state.begin() as conn:
        conn.exec_driver_sql(EMPTY)
    published: set[tuple[str, str, str]] = set()
    unfinished: dict[tuple[str, str, str], set[Operation]] = {}
    run = {"dag_id": "backup_offsite", "run_id": "r"}
    for (database, point), store, ending, removal in recorded:
        key = (database, store, point)
        operations.begin_operation(state, store, database, point, Operation.PUBLISH, NOW, **run)
        if ending is None:
            unfinished[key] = {Operation.PUBLISH}
            continue
        operations.end_operations(state, database, [point], ending, NOW)
        if removal is not None:
            later = NOW + timedelta(days=1)
            operations.begin_operation(
                state, store, database, point, Operation.REMOVE, later, **run
            )
            if isinstance(removal, Ending):
                operations.end_operations(state, database, [point], removal, later)
            else:
                unfinished[key] = {Operation.REMOVE}
        if ending is Ending.PUBLISHED and removal in (None, Ending.KEPT):
            published.add(key)
    with state.connect() as conn:
        for database in ("billing", "courier", "shop"):
            for store in ("file:///a", "s3://b"):
                assert operations.published_points(conn, database, store) == {
                    point: NOW
                    for (name, where, point) in published
                    if (name, where) == (database, store)
                }
                assert operations.unfinished_operations(conn, database, store) == {
                    point: operations_of_point
                    for (name, where, point), operations_of_point in unfinished.items()
                    if (name, where) == (database, store)
                }
            assert operations.unfinished_operations(conn, database) == {
                point: operations_of_point
                for (name, _store, point), operations_of_point in unfinished.items()
                if name == database
            }
