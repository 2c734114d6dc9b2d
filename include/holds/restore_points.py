"""The legal hold of one restore point, asked under the lock that keeps new holds out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Engine

from include.holds.records import HoldGuard
from include.holds.registry import restore_points_held


class RestorePointGuard:
    """One session of the state database under which restore points are removed, one at a time.

        with RestorePointGuard(state, "courier") as guard:
            for point in points:
                with guard.removing(point) as is_held:
                    if not is_held:
                        guard.confirm()
                        ...  # remove it

    ``hold add`` waits for the removal of the point at hand, and the next point sees its hold.

    Args:
        state: the state database.
        database: name of the database in the data map.
    """

    def __init__(self, state: Engine, database: str) -> None:
        self._state = state
        self._database = database
        self._guard = HoldGuard(state, database)

    def __enter__(self) -> Self:
        """Connect; raises ServiceError when the state database does not answer."""
        self._guard.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the session, and with it the lock if it is still there."""
        self._guard.__exit__(kind, error, trace)

    @contextmanager
    def removing(self, point: str) -> Iterator[bool]:
        """Keep new holds out, and yield whether the restore point or its database is held.

        Raises:
            ServiceError: a hold is being placed for too long, or the state database was lost.
        """
        with self._guard.batch():
            with self._state.connect() as conn:
                is_held = bool(restore_points_held(conn, self._database, [point]))
            yield is_held

    def confirm(self) -> None:
        """Check that the lock is still there; call it right before the removal.

        Raises:
            ServiceError: it is not, so that a hold may have been placed meanwhile: remove nothing.
        """
        self._guard.confirm()
