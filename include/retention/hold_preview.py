"""How many records a hold is on now: a mistyped key would keep nothing, and nobody would notice."""

from __future__ import annotations

from psycopg.sql import SQL, Composable

from include.holds.registry import Hold
from include.policy.fragments import either
from include.retention.database import RetentionDatabase
from include.retention.planning.counting import each_hold
from include.retention.planning.graph import FALSE
from include.retention.planning.schedule import schedule_of
from include.retention.postgres.session import one_view, prepare


def count_held(database: RetentionDatabase, hold: Hold) -> dict[str, int]:
    """Count the records of each record class that a hold is on, expired or not.

    Classes whose records are not found by a hold of its kind are left out.

    Args:
        database: a mapped database.
        hold: that counts.

    Raises:
        UsageError: the schedule does not fit the database, or a right is missing.
        ServiceError: the database was lost, a lock was not free, or a statement took too long.
    """
    found: dict[str, int] = {}
    with database.reader.connect(autocommit=True) as connection:
        prepare(connection, database.mapped)
        with one_view(connection, database.mapped):
            graph = schedule_of(database, database.run.clock.now()).graph(connection)
            values = [value for one, value in each_hold(graph.holds) if one.id == hold.id]
            for one in (it for classes in graph.classes.values() for it in classes):
                each: list[Composable] = [
                    held for value in values if (held := graph.held_by(one, hold, value)) != FALSE
                ]
                if not each:
                    continue
                query = SQL("SELECT count(*) FROM {} AS t WHERE {}").format(
                    one.relation.identifier, either(each)
                )
                row = connection.execute(query, {}).fetchone()
                assert row is not None
                found[one.name] = row[0]
    return found
