"""One at a time: named locks that end with the process that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from include.services.errors import ServiceError


@contextmanager
def exclusive(state: Engine, name: str, what: str) -> Iterator[None]:
    """Hold a lock of the state database, or refuse at once when somebody else does.

    Args:
        state: the state database.
        name: of the lock, ``backup:courier``.
        what: for the refusal, "a backup of courier".

    Raises:
        ServiceError: another process holds it.
    """
    with state.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        query = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
        if not conn.scalar(query, {"name": name}):
            raise ServiceError(
                f"Another run is busy with {what}.", "Wait for it to end; this one changed nothing."
            )
        yield
        _unlock(conn, name)


def _unlock(conn: Connection, name: str) -> None:
    """Give the lock back. When the work failed, closing the connection does so instead.

    Raises:
        ServiceError: the connection was lost, so somebody else may have held the lock meanwhile.
    """
    try:
        conn.execute(text("SELECT pg_advisory_unlock(hashtextextended(:name, 0))"), {"name": name})
    except OperationalError:
        raise ServiceError(
            "The state database was lost while the work went on, and the lock with it.",
            "See that it runs; the work is repeated.",
        ) from None
