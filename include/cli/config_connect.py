"""``parcelseal config check --connect``: connections, missing rights, live types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import psycopg
from psycopg.sql import Identifier

from include.backup.snapshot import missing_tables
from include.erasure.resolve import are_one_database, server_of
from include.expectations.fit import expectation_problems
from include.policy.datamap import MappedDatabase
from include.policy.problems import PackProblem
from include.policy.retention import RetentionRule, SqlClock
from include.registry import pages_tables, workflows
from include.retention.execution.execute_step import ANOTHER_DATABASE
from include.retention.hold_keys import key_problems
from include.rights import declared
from include.rights.declared import Right
from include.rights.missing import (
    Login,
    MissingRight,
    lacks_drill,
    lacks_pages,
    lacks_query,
    lacks_reading,
    lacks_state,
)
from include.rights.workflows import lacks_intake, lacks_retention
from include.services.connections import with_short_timeouts
from include.services.database import DatabaseAddress, connected
from include.services.errors import ParcelSealError, UsageError
from include.services.fate import Fate
from include.services.programs import require_fitting_server
from include.workflow.declaration import LoginQuery
from include.workplace import STORES, Workplace


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


Lacks = Callable[[Login], Iterable[MissingRight]]


@dataclass(frozen=True)
class Problem:
    """A problem of the configuration. The names are those of the ``--json`` output.

    Attributes:
        file: file of the pack; None for a problem outside of the pack.
        line: 1-based line in that file.
        path: path in that file's document.
        connection: id of the connection; None for a problem without a connection.
        message: what is wrong, in one line.
        action: what to do.
        grant: the statement that grants a missing right.
    """

    file: str | None = None
    line: int | None = None
    path: str | None = None
    connection: str | None = None
    message: str = ""
    action: str | None = None
    grant: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        return asdict(self)

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        parts = (place, self.path, self.connection, self.message)
        text = ": ".join(part for part in parts if part)
        return "\n  ".join(part for part in (text, self.grant or self.action) if part)


def pack_problem(problem: PackProblem) -> Problem:
    """Return a problem of the policy pack."""
    return Problem(problem.file or None, problem.line, problem.path or None, None, problem.message)


def connect_problems(place: Workplace) -> list[Problem]:
    """Try all connections, and return the problems and missing rights.

    The check of a store writes and removes a small object.
    """
    hasty = _hasty(place)
    problems = [problem for check in CHECKS for problem in check(hasty)]
    return list(dict.fromkeys(problems))


def _hasty(place: Workplace) -> Workplace:
    return replace(place, lookup=with_short_timeouts(place.lookup))


def mapped_databases(place: Workplace) -> Iterator[Problem]:
    """Check the version and tables of mapped databases, and that their logins read everything."""
    for mapped in place.pack.databases.values():
        address = partial(place.database, mapped.connection)
        lacks = partial(_lacks_reading, mapped=mapped, address=address)
        yield from _try(mapped.connection, address, lacks)


def _lacks_reading(
    login: Login, mapped: MappedDatabase, address: Callable[[], DatabaseAddress]
) -> Iterator[MissingRight]:
    require_fitting_server(login.connection.info.server_version, mapped.name)
    tables = [(each.schema_name, each.table) for each in mapped.collections.values()]
    missing_tables(login.connection, tables, address().place)
    yield from lacks_reading(login)


def live_types(place: Workplace) -> Iterator[Problem]:
    """Check that keys and expectations of the pack fit the types of the live columns."""
    yield from map(pack_problem, type_problems(place))


def retention_logins(place: Workplace) -> Iterator[Problem]:
    """Check that the login of the disposition may dispose of each database's records."""
    pack = place.pack
    conn_id = pack.disposition.connection
    for mapped in pack.databases.values():
        rules = pack.retention_of(mapped.name)
        if not rules:
            continue

        address = partial(place.role_database, conn_id, mapped.connection)
        lacks = partial(lacks_retention_rights, database=mapped, rules=rules)
        yield from _try(conn_id, address, lacks)


def writing_connections(place: Workplace) -> Iterator[Problem]:
    """Check that the connections that change records lead to the mapped databases."""
    pack = place.pack
    pairs = [
        (pack.disposition.connection, mapped)
        for mapped in pack.databases.values()
        if pack.retention_of(mapped.name)
    ]
    pairs += [
        (rule.connection, pack.database_of(rule.collection, rule.database)) for rule in pack.intake
    ]
    for conn_id, mapped in pairs:
        try:
            own = place.role_database(conn_id, mapped.connection)
            with connected(place.database(mapped.connection)) as read, connected(own) as written:
                is_same = are_one_database(server_of(read), server_of(written))
        except (ParcelSealError, psycopg.Error):
            continue  # the checks of the logins report it
        if not is_same:
            yield Problem(
                connection=conn_id,
                message=f"leads to another database than {mapped.connection}, which is mapped as "
                f"{mapped.name}",
                action=ANOTHER_DATABASE.format(conn_id=conn_id, mapped=mapped.connection),
            )


def lacks_retention_rights(
    login: Login, database: MappedDatabase, rules: Sequence[RetentionRule]
) -> Iterator[MissingRight]:
    """Yield the missing rights of a login for `enforce_retention`, on other tables too."""
    yield from lacks_retention(login, database, rules)
    rights = declared.RETENTION_SCHEMA, declared.RETENTION_READ, declared.RETENTION_ALL_ROWS
    for rule in rules:
        if query := _condition(database, rule):
            yield from lacks_query(login, query, rights)


def query_logins(place: Workplace) -> Iterator[Problem]:
    """Check that the logins of workflows may execute the queries of the pack."""
    for query, rights in pack_queries(place):
        mapped = place.pack.database(query.database)
        address = partial(place.role_database, query.connection, mapped.connection)
        lacks = partial(lacks_query, query=query.sql, rights=rights)
        yield from _try(query.connection, address, lacks)


def pack_queries(services: Workplace) -> Iterator[tuple[LoginQuery, Sequence[Right]]]:
    """Yield the complete queries of a pack, each with the rights that its login needs."""
    for workflow in workflows():
        run = workflow.context(services)
        if run is not None and workflow.queries and workflow.login:
            rights = declared.query_rights(workflow.login)
            yield from ((query, rights) for query in workflow.queries(run))


def intake_logins(place: Workplace) -> Iterator[Problem]:
    """Check that logins may accept incoming records into the formal tables."""
    for rule in place.pack.intake:
        mapped = place.pack.database_of(rule.collection, rule.database)
        address = partial(place.role_database, rule.connection, mapped.connection)
        yield from _try(rule.connection, address, partial(lacks_intake, database=mapped, rule=rule))


def own_databases(place: Workplace) -> Iterator[Problem]:
    """Check the state database, the login of the pages, and the server for drills."""
    from include.state.reading import COLUMNS_READ_BY_PAGES, tables_read

    yield from _try("state_db", partial(place.database, "state_db"), lacks_state)
    try:
        _ = place.state
    except ParcelSealError as error:
        yield _from_error("state_db", error)
    if place.lookup("pages_db") is not None:
        tables = tables_read(pages_tables())
        pages = partial(lacks_pages, tables=tables, columns=COLUMNS_READ_BY_PAGES.items())
        yield from _try("pages_db", partial(place.database, "pages_db"), pages)
    yield from _try("drill_db", partial(place.database, "drill_db"), lacks_drill)


def stores(place: Workplace) -> Iterator[Problem]:
    """Check that the stores can be written, read and cleaned."""
    for conn_id in STORES:
        try:
            for problem in place.store(conn_id).preflight():
                if place.store(conn_id).kind != "directory" or problem.code not in _BY_NATURE:
                    yield Problem(connection=conn_id, message=problem.detail)
        except ParcelSealError as error:
            yield _from_error(conn_id, error)


_BY_NATURE = {"no_versioning", "no_object_lock", "same_device"}  # each directory; in reports


def mail(place: Workplace) -> Iterator[Problem]:
    """Check that the mail server accepts the login; nothing is sent."""
    from include.services.mail import MailServer

    if place.lookup("mail") is None:
        return
    try:
        session = MailServer.from_connection(place.connection("mail")).open()
    except ParcelSealError as error:
        yield _from_error("mail", error)
        return
    reply = session.ready()
    session.close()
    if reply.fate is not Fate.ACCEPTED:
        yield Problem(
            connection="mail",
            message=f"The mail server does not accept the login: {reply.code or 'no answer'}.",
            action="Check that it runs, and the host, user, password and TLS of the connection.",
        )


Check = Callable[[Workplace], Iterable[Problem]]
CHECKS: tuple[Check, ...] = (
    mapped_databases,
    live_types,
    writing_connections,
    retention_logins,
    query_logins,
    intake_logins,
    own_databases,
    stores,
    mail,
)
"""The checks, one function for each kind of connection."""


def _try(conn_id: str, address: Callable[[], DatabaseAddress], lacks: Lacks) -> Iterator[Problem]:
    try:
        with connected(address()) as connection:
            connection.autocommit = True
            for missing in lacks(Login(connection)):
                yield Problem(
                    connection=conn_id,
                    message=f"{missing.message}; needed by {missing.right.workflows}.",
                    action=f"Execute as the owner or a superuser: {missing.grant}",
                    grant=missing.grant,
                )
    except ParcelSealError as error:
        yield _from_error(conn_id, error)
    except psycopg.Error as error:
        refused = UsageError(f"The rights could not be read: SQLSTATE {error.sqlstate}.")
        yield _from_error(conn_id, refused)


def _from_error(conn_id: str, error: ParcelSealError) -> Problem:
    return Problem(connection=conn_id, message=error.message, action=error.action or None)


def _condition(mapped: MappedDatabase, rule: RetentionRule) -> str | None:
    """Return a query that reads what the expressions of a class read; None if it has none."""
    collection = mapped.collections[rule.collection]
    table = Identifier(collection.schema_name, collection.table).as_string()
    conditions = [rule.where, rule.suspended and rule.suspended.where]
    where = " AND ".join(f"({text})" for text in conditions if text) or "true"
    clocks = [rule.clock, *(minimum.clock for minimum in rule.minimum)]
    read = [*rule.keys.subject, *rule.keys.waybill, *rule.keys.case]
    read += [clock.sql for clock in clocks if isinstance(clock, SqlClock)]
    if not read and where == "true":
        return None
    return f"SELECT {', '.join(read)} FROM {table} t WHERE {where}"  # noqa: S608 - of the pack
