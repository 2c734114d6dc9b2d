"""``parcelseal config check --connect``: check connections, rights of logins, and column types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import psycopg
from psycopg.sql import Identifier

from include.backup.snapshot import missing_tables
from include.disclosure.extract_store import STORE as EXTRACT_STORE
from include.disclosure.rules import USE
from include.erasure.resolve import is_same_database, server_of
from include.expectations.fit import expectation_problems
from include.policy.datamap import MappedDatabase
from include.policy.problems import PackProblem
from include.policy.retention import RetentionRule, SqlClock
from include.registry import pages_tables, workflows
from include.retention.execution.execute_step import ANOTHER_DATABASE
from include.retention.hold_keys import find_key_problems
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
    lacks_transient_logins,
)
from include.rights.workflows import lacks_intake, lacks_retention
from include.service_container import STORES, Services
from include.services.connections import with_short_timeouts
from include.services.database import DatabaseAddress, connected
from include.services.delivery_status import DeliveryStatus
from include.services.errors import ParcelSealError, UsageError
from include.services.programs import require_fitting_server
from include.workflow.declaration import LoginQuery


def type_problems(services: Services) -> Iterator[PackProblem]:
    """Yield the settings of the policy pack that do not fit the column types of live databases.

    A database that cannot be reached is skipped, because another check reports its connection.

    Args:
        services: connections and policy pack.
    """
    pack = services.pack
    for database in pack.databases.values():
        for find in (find_key_problems, expectation_problems):
            yield from _found(services, database, partial(find, pack, database))


def _found(
    services: Services,
    database: MappedDatabase,
    find: Callable[[psycopg.Connection[Any]], list[PackProblem]],
) -> list[PackProblem]:
    try:
        with services.database(database.connection).connect(autocommit=True) as connection:
            return find(connection)
    except ParcelSealError:
        return []
    except psycopg.Error as error:
        message = f"the types of {database.name} could not be read (SQLSTATE {error.sqlstate})"
        return [PackProblem("", None, "", message)]


Lacks = Callable[[Login], Iterable[MissingRight]]


@dataclass(frozen=True)
class Problem:
    """A problem of the configuration. The attributes are the keys of the ``--json`` output.

    Attributes:
        file: file of the policy pack; None if the problem is not in the policy pack.
        line: line number in the file, from 1.
        path: path of the setting in the YAML document.
        connection: id of the connection that has the problem; None if the problem is not in a
            connection.
        message: description of the problem in one line.
        action: action that corrects the problem.
        grant: SQL statement that grants a missing right.
    """

    file: str | None = None
    line: int | None = None
    path: str | None = None
    connection: str | None = None
    message: str = ""
    action: str | None = None
    grant: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the problem as a JSON object. The keys are the names of the attributes."""
        return asdict(self)

    def __str__(self) -> str:
        position = f"{self.file}:{self.line}" if self.line else self.file
        parts = (position, self.path, self.connection, self.message)
        text = ": ".join(part for part in parts if part)
        return "\n  ".join(part for part in (text, self.grant or self.action) if part)


def pack_problem(problem: PackProblem) -> Problem:
    """Convert a problem of the policy pack to a `Problem` of this module."""
    return Problem(problem.file or None, problem.line, problem.path or None, None, problem.message)


def connect_problems(services: Services) -> list[Problem]:
    """Open every connection, and return all problems and missing rights.

    To check a store, the function writes a small object and deletes it.
    """
    hasty = _hasty(services)
    problems = [problem for check in CHECKS for problem in check(hasty)]
    return list(dict.fromkeys(problems))


def _hasty(services: Services) -> Services:
    return replace(services, lookup=with_short_timeouts(services.lookup))


def mapped_databases(services: Services) -> Iterator[Problem]:
    """Check the server version, the tables and the read permissions of every mapped database."""
    for mapped in services.pack.databases.values():
        address = partial(services.database, mapped.connection)
        lacks = partial(_lacks_reading, mapped=mapped, address=address)
        yield from _try(mapped.connection, address, lacks)


def _lacks_reading(
    login: Login, mapped: MappedDatabase, address: Callable[[], DatabaseAddress]
) -> Iterator[MissingRight]:
    require_fitting_server(login.connection.info.server_version, mapped.name)
    tables = [
        (collection.schema_name, collection.table) for collection in mapped.collections.values()
    ]
    missing_tables(login.connection, tables, address().display_name)
    yield from lacks_reading(login)


def live_types(services: Services) -> Iterator[Problem]:
    """Check that values in the policy pack and in legal holds fit the types of the live columns.

    The values are the keys of legal holds and the values in expectations.
    """
    yield from map(pack_problem, type_problems(services))


def retention_logins(services: Services) -> Iterator[Problem]:
    """Check that the login for dispositions has the rights that the retention rules need.

    The check is repeated for each database that has retention rules.
    """
    pack = services.pack
    conn_id = pack.disposition.connection
    for mapped in pack.databases.values():
        rules = pack.retention_of(mapped.name)
        if not rules:
            continue

        address = partial(services.role_database, conn_id, mapped.connection)
        lacks = partial(lacks_retention_rights, database=mapped, rules=rules)
        yield from _try(conn_id, address, lacks)


def writing_connections(services: Services) -> Iterator[Problem]:
    """Check that records are changed in the same database from which they are read.

    Dispositions and the intake change records with connections of their own. Each of these
    connections must lead to the same database as the connection in the data map.
    """
    pack = services.pack
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
            own = services.role_database(conn_id, mapped.connection)
            with connected(services.database(mapped.connection)) as read, connected(own) as written:
                is_same = is_same_database(server_of(read), server_of(written))
        except (ParcelSealError, psycopg.Error):
            continue  # the checks of the logins report it
        if not is_same:
            yield Problem(
                connection=conn_id,
                message=f"leads to another database than the connection {mapped.connection} of the "
                f"mapped database {mapped.name}",
                action=ANOTHER_DATABASE.format(conn_id=conn_id, mapped=mapped.connection),
            )


def lacks_retention_rights(
    login: Login, database: MappedDatabase, rules: Sequence[RetentionRule]
) -> Iterator[MissingRight]:
    """Yield the rights that a login lacks for the dispositions of `enforce_retention`.

    The SQL expressions of a retention rule may read other tables. Missing rights to read these
    tables are included.
    """
    yield from lacks_retention(login, database, rules)
    rights = declared.RETENTION_SCHEMA, declared.RETENTION_READ, declared.RETENTION_ALL_ROWS
    for rule in rules:
        if query := _condition(database, rule):
            yield from lacks_query(login, query, rights)


def query_logins(services: Services) -> Iterator[Problem]:
    """Check that the logins of workflows have the rights that the policy pack's queries need."""
    for query, rights in pack_queries(services):
        mapped = services.pack.database(query.database)
        address = partial(services.role_database, query.connection, mapped.connection)
        lacks = partial(lacks_query, query=query.sql, rights=rights)
        yield from _try(query.connection, address, lacks)


def pack_queries(services: Services) -> Iterator[tuple[LoginQuery, Sequence[Right]]]:
    """Yield the SQL queries that the policy pack defines, each with the rights that it needs."""
    for workflow in workflows():
        run = workflow.context(services)
        if run is not None and workflow.queries and workflow.login:
            rights = declared.query_rights(workflow.login)
            yield from ((query, rights) for query in workflow.queries(run))


def transient_logins(services: Services) -> Iterator[Problem]:
    """Check that transient logins can be created in the databases that use.yaml names for them."""
    rules = services.pack.section(USE)
    if rules is None or rules.logins is None:
        return
    for database in rules.logins.databases:
        mapped = services.pack.database(database)
        address = partial(services.role_database, rules.connection, mapped.connection)
        yield from _try(rules.connection, address, lacks_transient_logins)


def intake_logins(services: Services) -> Iterator[Problem]:
    """Check that each login for the intake may move incoming records into the formal tables."""
    for rule in services.pack.intake:
        mapped = services.pack.database_of(rule.collection, rule.database)
        address = partial(services.role_database, rule.connection, mapped.connection)
        yield from _try(rule.connection, address, partial(lacks_intake, database=mapped, rule=rule))


def own_databases(services: Services) -> Iterator[Problem]:
    """Check the connections state_db and drill_db, and pages_db if it is configured.

    These are the state database, the server for restore drills, and the login of the compliance
    pages.
    """
    from include.state.reading import COLUMNS_READ_BY_PAGES, INSERTED_BY_PAGES, tables_read

    yield from _try("state_db", partial(services.database, "state_db"), lacks_state)
    try:
        _ = services.state
    except ParcelSealError as error:
        yield _from_error("state_db", error)
    if services.lookup("pages_db") is not None:
        tables = tables_read(pages_tables())
        pages = partial(
            lacks_pages,
            tables=tables,
            columns=COLUMNS_READ_BY_PAGES.items(),
            inserted=INSERTED_BY_PAGES,
        )
        yield from _try("pages_db", partial(services.database, "pages_db"), pages)
    yield from _try("drill_db", partial(services.database, "drill_db"), lacks_drill)


def stores(services: Services) -> Iterator[Problem]:
    """Yield the problems of the evidence store and of the off-site store.

    In each store, an object is written, read and deleted.
    """
    for conn_id in STORES:
        try:
            for problem in services.store(conn_id).preflight():
                if services.store(conn_id).kind != "directory" or problem.code not in _BY_NATURE:
                    yield Problem(connection=conn_id, message=problem.detail)
        except ParcelSealError as error:
            yield _from_error(conn_id, error)


def extracts(services: Services) -> Iterator[Problem]:
    """Check that extracts can be stored and deleted at any time, if their store is configured."""
    if services.lookup(EXTRACT_STORE) is None:
        return
    try:
        store = services.store(EXTRACT_STORE)
        for problem in store.preflight():
            if problem.code not in _BY_NATURE:
                yield Problem(connection=EXTRACT_STORE, message=problem.detail)
        if store.locks_new_objects():
            yield Problem(
                connection=EXTRACT_STORE,
                message="locks new objects, so an expired extract could not be deleted.",
                action="Use a bucket without a default retention of Object Lock.",
            )
    except ParcelSealError as error:
        yield _from_error(EXTRACT_STORE, error)


_BY_NATURE = {"no_versioning", "no_object_lock", "same_device"}  # of every directory store


def mail(services: Services) -> Iterator[Problem]:
    """Check that the mail server accepts the login. No mail is sent."""
    from include.services.mail import MailServer

    if services.lookup("mail") is None:
        return
    try:
        session = MailServer.from_connection(services.connection("mail")).open()
    except ParcelSealError as error:
        yield _from_error("mail", error)
        return
    reply = session.ready()
    session.close()
    if reply.status is not DeliveryStatus.ACCEPTED:
        yield Problem(
            connection="mail",
            message=f"The mail server refuses the login: {reply.code or 'no answer'}.",
            action="Check that the server runs, and check host, user, password and TLS.",
        )


Check = Callable[[Services], Iterable[Problem]]
CHECKS: tuple[Check, ...] = (
    mapped_databases,
    live_types,
    writing_connections,
    retention_logins,
    query_logins,
    transient_logins,
    intake_logins,
    own_databases,
    stores,
    extracts,
    mail,
)
"""The checks of `config check --connect`, one function for each kind of connection."""


def _try(conn_id: str, address: Callable[[], DatabaseAddress], lacks: Lacks) -> Iterator[Problem]:
    try:
        with connected(address()) as connection:
            connection.autocommit = True
            for missing in lacks(Login(connection)):
                yield Problem(
                    connection=conn_id,
                    message=f"{missing.message}; needed by {missing.right.workflows}.",
                    action=f"Execute this statement as the owner or a superuser: {missing.grant}",
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
    """Return a query that reads everything that the SQL expressions of a retention rule read.

    The query is used to check that a login has the rights to read this data. Return None if the
    rule has no SQL expressions.
    """
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
