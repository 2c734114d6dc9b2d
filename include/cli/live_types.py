"""Check the policy pack against the types of live databases, for ``config check --connect``."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from include.expectations.fit import expectation_problems
from include.policy import PackProblem
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
        try:
            address = place.database(database.connection)
            with address.connect(autocommit=True) as connection:
                problems = key_problems(pack, database, connection)
                problems += expectation_problems(pack, database, connection)
        except ParcelSealError:
            continue
        except psycopg.Error as error:
            message = f"the types of {database.name} could not be read (SQLSTATE {error.sqlstate})"
            problems = [PackProblem("", None, "", message)]
        yield from problems
