"""Check the policy pack against the types of live databases, for ``config check --connect``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg

from include.expectations.fit import expectation_problems
from include.policy import PackProblem
from include.policy.datamap import MappedDatabase
from include.retention.hold_keys import key_problems
from include.services.errors import ParcelSealError
from include.workplace import Workplace


def type_problems(place: Workplace) -> Iterator[PackProblem]:
    """Yield the entries of the pack that do not fit the live types, with file, line and path.

    An unreachable database is skipped: the check of the connections reports it.

    Args:
        place: with the pack and the connections.
    """
    pack = place.pack
    for database in pack.databases.values():
        for find in (key_problems, expectation_problems):
            yield from _found(place, database, partial(find, pack, database))


def _found(
    place: Workplace,
    database: MappedDatabase,
    find: Callable[[psycopg.Connection[Any]], list[PackProblem]],
) -> list[PackProblem]:
    try:
        with place.database(database.connection).connect(autocommit=True) as connection:
            return find(connection)
    except ParcelSealError:
        return []
    except psycopg.Error as error:
        message = f"the types of {database.name} could not be read (SQLSTATE {error.sqlstate})"
        return [PackProblem("", None, "", message)]
