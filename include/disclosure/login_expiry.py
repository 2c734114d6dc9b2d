"""Find transient logins in all databases, for `expire_grants`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import Connection

from include.disclosure.grants import Grant
from include.disclosure.logins.remove import list_logins, remove_logins
from include.disclosure.requests import databases_of
from include.disclosure.rules import UseRules
from include.evidence.step_findings import StepFindings
from include.messages import _
from include.services.database import LOGIN_PREFIX, DatabaseAddress, connected
from include.services.errors import ServiceError, UsageError
from include.workflow.run_context import RunContext

_WITH_LOGINS = """
SELECT r.content ->> 'database', bool_or(g.state <> 'ended')
FROM use_attempt a JOIN use_request r ON r.id = a.request_id JOIN use_grant g USING (request_id)
WHERE starts_with(a.object_key, %s) GROUP BY 1
"""
# Shares no code with the removal.
_TRACES = r"""
SELECT usename::text FROM pg_stat_activity WHERE usename LIKE 'parcelseal\_use\_%'
UNION SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'parcelseal\_use\_%'
UNION SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'parcelseal\_use\_%'
UNION SELECT owner::text FROM pg_prepared_xacts WHERE owner LIKE 'parcelseal\_use\_%'
UNION SELECT 'parcelseal_use_dropped_' || usesysid FROM pg_stat_activity
WHERE usesysid IS NOT NULL AND usename IS NULL AND datname = current_database()
"""


def login_databases(run: RunContext[UseRules], conn: Connection) -> list[str]:
    """Return the mapped databases in which logins were created, or may be created.

    A database that the policy pack no longer maps is named only while it has an unfinished grant.

    Args:
        run: context of the run.
        conn: the state database.
    """
    rows = conn.exec_driver_sql(_WITH_LOGINS, (LOGIN_PREFIX,))
    created = {
        database
        for database, is_unfinished in rows
        if is_unfinished or database in run.pack.databases
    }
    return sorted(created | set(run.rules.logins.databases if run.rules.logins else ()))


def read_logins(
    run: RunContext[UseRules],
    findings: StepFindings,
    databases: Iterable[str],
    read: Callable[[DatabaseAddress], Iterable[str]] = list_logins,
) -> dict[str, set[str]]:
    """Return the names of the logins in each database that can be read.

    The last try reports a database that cannot be read.

    Args:
        run: context of the run.
        findings: findings of the step.
        databases: names of mapped databases.
        read: returns the names of the logins in a database.

    Raises:
        ServiceError: a database is unavailable, and the task is retried.
    """
    names = {}
    for database in databases:
        try:
            names[database] = set(read(run.reader(database)))
        except (ServiceError, UsageError) as error:
            if isinstance(error, ServiceError) and not run.task.is_last_try:
                raise
            if any(finding.subject == database for finding in findings.findings):
                continue
            findings.fail(
                "use.logins_unreadable",
                _("The database logins in {database} could not be listed.", database=database),
                _("Ask the data engineers to check the connection to this database."),
                subject=database,
                for_engineers=_("{problem}", problem=error.message),
            )
    return names


def read_traces(address: DatabaseAddress) -> set[str]:
    """Return the names of all roles, schemas, sessions and prepared transactions of logins.

    A session whose role was dropped is named by the number of the role.

    Raises:
        UsageError: the server refused the connection.
        ServiceError: the server cannot be reached.
    """
    with connected(address) as connection:
        return {str(row[0]) for row in connection.execute(_TRACES)}


def remove_login_now(run: RunContext[UseRules], grant: Grant, database: str) -> bool:
    """Remove the login of an ended access at once, and return whether no login is left.

    The result is False if the database is unavailable, or if the connection leads to another server
    than that of the login. The next run of `expire_grants` then removes or reports the login.

    Args:
        run: context of the run or command.
        grant: grant whose access has ended.
        database: mapped database of the request.
    """
    if not grant.is_login:
        return True
    try:
        address = run.reader(database)
        if grant.store != address.display_name:
            return False
        remove_logins(address, grant.request_id)
    except (ServiceError, UsageError):
        return False
    return True


def own_logins(conn: Connection, listed: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """Return (database, name) for each login in the database of its own request.

    All databases of a server list its roles, but only one of them has the schema.

    Args:
        conn: the state database.
        listed: database -> names of logins.
    """
    numbers = {number for names in listed.values() for number in map(_number_of, names) if number}
    databases = databases_of(conn, numbers)
    return [
        (database, name)
        for database, names in listed.items()
        for name in sorted(names)
        if databases.get(_number_of(name)) == database
    ]


def _number_of(name: str) -> int:
    """Return the number of the request in the name of a login; 0 if the name has another form."""
    number = name.removeprefix(LOGIN_PREFIX).partition("_")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
