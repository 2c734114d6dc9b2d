"""Of whom a run finds records, before it erases them: a key that finds none may be mistyped."""

from __future__ import annotations

from include.erasure import requests
from include.holds import records as holds
from include.retention.desk import Desk
from include.retention.session import one_view, prepare
from include.retention.verify import Inspection


def remember(desk: Desk) -> None:
    """Enter in the registry of which open requests there are records.

    A request is closed only where there have been some; else nothing was shown to be erased.

    Args:
        desk: of the database.

    Raises:
        ServiceError: a lock was not free, or a statement took too long.
    """
    with desk.state.connect() as conn:
        known = holds.on_records(conn, desk.database.name)
        asked = requests.open_requests(conn, desk.database.name)
    unknown = [one for one in asked if one.found_at is None]
    if not unknown:
        return
    with desk.reader.connect(autocommit=True) as connection:
        prepare(connection, desk.database)
        with one_view(connection, desk.database):
            inspection = Inspection(
                connection,
                desk.database,
                desk.rules,
                as_of=desk.clock.now(),
                timezone=desk.timezone,
                holds=known,
            )
            there = [one.id for one in unknown if inspection.finds(one.subject)]
    with desk.state.begin() as conn:
        requests.found(conn, desk.clock, there)
