"""Rows that were set aside: which of them still wait to be corrected.

The register lists them until they are dealt with: the row was deleted or given another state, was
corrected and let in, or was entered anew and that row became formal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from include.erasure.ledger import ErasureKeys
from include.intake.batches import Connection
from include.intake.names import Incoming
from include.intake.table import IncomingTable
from include.policy.fragments import pack_sql
from include.quarantine import register
from include.quarantine.keys import KeyNames, tells_a_person
from include.quarantine.register import key_of, key_text
from include.services.errors import UsageError


def resolve(table: IncomingTable, connection: Connection) -> int:
    """Resolve the register's entries of rows that are dealt with; how many.

    Safe to repeat.

    Args:
        table: the incoming table.
        connection: inside of `unit_of_work`; only read from.

    Raises:
        UsageError: a condition of `entered_anew` is wrong.
    """
    incoming = table.incoming
    name = (incoming.database.name, incoming.collection.name)
    with table.state.connect() as conn:
        listed = register.open_by(conn, *name, table.place.dag_id)
    if not listed:
        return 0
    try:
        waiting = set(_waiting(table, connection, listed))
    except psycopg.errors.InsufficientPrivilege:
        raise  # is no fault of the conditions
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        raise UsageError(
            f"It cannot be told which rows of {name[1]} were entered anew "
            f"(SQLSTATE {error.sqlstate}).",
            "Check entered_anew in intake.yaml. The register keeps listing them until then.",
        ) from None
    done = [key for key in listed if key not in waiting]
    with table.state.begin() as conn:
        raw = conn.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        return register.resolve(raw, table.place, done)


def _waiting(table: IncomingTable, connection: Connection, listed: Sequence[str]) -> Iterator[str]:
    """Which of the register's names are of rows that nobody has dealt with."""
    incoming = table.incoming
    if not tells_a_person(incoming.collection, incoming.key):
        among, given = _among(incoming, [key_of(one) for one in listed])
        yield from map(key_text, connection.execute(_query(incoming, among), given))
        return
    # A name tells no key, so that all rows that were set aside are named, by each key of the HMAC.
    makers = {one: _names(table, one) for one in {_maker(name) for name in listed}}
    yield from (name for name in listed if makers[_maker(name)] is None)  # nobody can tell any more
    with connection.cursor() as cursor:
        for row in cursor.stream(_query(incoming, SQL("true")), {}):
            yield from (names.of(row) for names in makers.values() if names is not None)


def _maker(name: str) -> str:
    """The id of the key of the HMAC that a name in the register is."""
    return key_of(name)[0].removeprefix("hmac:").partition(":")[0]


def _names(table: IncomingTable, key_id: str) -> KeyNames | None:
    """The names as they were made with a key that may have been rotated since."""
    incoming, keys = table.incoming, table.keys
    if keys is None or key_id not in keys.keys:
        return None
    then = ErasureKeys(keys.keys, key_id)
    return KeyNames(then, incoming.database.name, incoming.collection, incoming.key)


def _among(
    incoming: Incoming, keys: Sequence[Sequence[str]]
) -> tuple[Composable, dict[str, list[str]]]:
    """The condition of the rows ``i`` with these keys, and its parameters."""
    names = [Identifier(f"k{place}") for place in range(len(incoming.key))]
    condition = SQL("EXISTS (SELECT FROM unnest({arrays}) AS b({names}) WHERE {same})").format(
        arrays=SQL(", ").join(SQL(f"%(k{place})s::text[]") for place in range(len(names))),
        names=SQL(", ").join(names),
        same=SQL(" AND ").join(
            SQL("b.{} = {}::text").format(name, incoming.column(one))
            for name, one in zip(names, incoming.key, strict=True)
        ),
    )
    given = {f"k{place}": [key[place] for key in keys] for place in range(len(names))}
    return condition, given


def _query(incoming: Incoming, among: Composable) -> Composed:
    """The keys of rows that wait, were set aside, and of which no later row became formal.

    A condition each is a join each; under one OR every row would be held against every other.
    """
    rule = incoming.rule
    state = incoming.column(rule.state.column)
    later = SQL(
        "AND NOT EXISTS (SELECT FROM {table} AS n WHERE n.{state} = {promoted} "
        "AND n.{at} > i.{at} AND ({same}))"
    )
    conditions = [
        later.format(
            table=incoming.table,
            state=Identifier(rule.state.column),
            promoted=Literal(rule.state.promoted),
            at=Identifier(rule.entered.at),
            same=pack_sql(one),
        )
        for one in rule.entered_anew
    ]
    return SQL(
        "SELECT {key} FROM {table} AS i WHERE {among} AND {state} IN ({pending}, {aside}) {later}"
    ).format(
        key=SQL(", ").join(SQL("{}::text").format(incoming.column(one)) for one in incoming.key),
        table=incoming.table,
        among=among,
        state=state,
        pending=Literal(rule.state.pending),
        aside=Literal(rule.state.set_aside),
        later=SQL(" ").join(conditions),
    )
