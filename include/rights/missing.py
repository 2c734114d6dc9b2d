"""Find the database rights that a login lacks, and the SQL statements that grant them.

The module reads only PostgreSQL's catalogue. It does not execute a query of the policy pack, but
lets PostgreSQL plan it (EXPLAIN). If rights are missing, PostgreSQL names only the first table on
which a right is missing. The module therefore checks the rights on all tables and columns that the
query mentions, so one check finds all missing rights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composable, Identifier

from include.rights import declared
from include.rights.declared import Right
from include.services.database import scalar
from include.services.errors import UsageError

_UNREADABLE = """
SELECT n.nspname::text, c.relname::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND c.relpersistence <> 't'
  AND n.nspname !~ '^(pg_|parcelseal_use_)' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  AND NOT (has_schema_privilege(n.oid, 'USAGE') AND CASE c.relkind
           WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
           ELSE has_table_privilege(c.oid, 'SELECT') END)
ORDER BY 1, 2
"""
_HIDDEN_ROWS = """
SELECT n.nspname::text, c.relname::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity
  AND has_schema_privilege(n.oid, 'USAGE') AND row_security_active(c.oid) ORDER BY 1, 2
"""
# has_largeobject_privilege exists since PostgreSQL 18.
_LARGE_OBJECTS = """
SELECT l.oid::bigint FROM pg_largeobject_metadata l
WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
  AND NOT pg_has_role(l.lomowner, 'USAGE')
  AND NOT EXISTS (SELECT FROM aclexplode(l.lomacl) a WHERE a.privilege_type = 'SELECT'
                  AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))
ORDER BY 1
"""
_MOST_NAMED = 20  # large objects with separate statements; more than these get one common statement
_ALL_LARGE_OBJECTS = """DO $$ DECLARE number oid; BEGIN
    FOR number IN SELECT oid FROM pg_largeobject_metadata LOOP
        EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO %I', number, {role});
    END LOOP;
END $$"""
# Statements may name partitions, and each partition may have row-level security of its own.
_HIDES_ROWS = """
SELECT bool_or(row_security_active(relid))
FROM (SELECT %s::oid UNION SELECT relid FROM pg_partition_tree(%s::oid)) t (relid)
"""


@dataclass(frozen=True)
class MissingRight:
    """A database right that a login lacks.

    Attributes:
        right: declaration of the right.
        message: one line that says which right is missing.
        grant: SQL statement that grants the right, with a semicolon at its end.
    """

    right: Right
    message: str
    grant: str


class Login:
    """A login with an open database session, in which its missing rights are looked up.

    Args:
        connection: the session. Only PostgreSQL's catalogue is read.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.role = str(scalar(connection, "SELECT current_user::text"))

    def lacks(self, right: Right, message: str, **names: Composable) -> MissingRight:
        """Return the description of a right that this login lacks.

        Args:
            right: declaration of the right.
            message: name of the right and its object, such as "USAGE on schema public".
            names: values for the placeholders in the GRANT statement, except the login.
        """
        text = SQL(right.grant + ";").format(**names, role=Identifier(self.role))
        return MissingRight(right, f"{self.role} lacks {message}", text.as_string(self.connection))

    def ask(self, query: str, *parameters: Any) -> bool:
        """Return the Boolean result of an SQL query; False if the result is null.

        Args:
            query: SQL query that returns a single value, with ``%s`` for each parameter.
            parameters: values of the parameters.
        """
        return bool(scalar(self.connection, query, parameters))

    def table(self, schema: str, name: str) -> int | None:
        """Return the oid of a table; None if the table does not exist."""
        query = (
            "SELECT c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s AND c.relname = %s"
        )
        oid: int | None = scalar(self.connection, query, [schema, name])
        return oid

    def lacks_schema(self, right: Right, schema: str) -> Iterator[MissingRight]:
        """Yield the missing right USAGE on a schema, or nothing if this login has the right."""
        if not self.ask(
            "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %s", schema
        ):
            yield self.lacks(right, f"USAGE on schema {schema}", schema=Identifier(schema))

    def lacks_columns(
        self, right: Right, schema: str, table: str, columns: Iterable[str]
    ) -> Iterator[MissingRight]:
        """Yield one missing right that lists all columns on which this login lacks a privilege.

        Yield nothing if no privilege is missing, or if the table does not exist.

        Args:
            right: declaration of the right. Its GRANT statement states the privilege.
            schema: schema of the table.
            table: name of the table.
            columns: names of the columns that are needed, including system columns.
        """
        oid = self.table(schema, table)
        if oid is None:
            return
        query = (
            "SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = %s "
            "AND a.attname = ANY (%s) AND NOT has_column_privilege(a.attrelid, a.attnum, %s) "
            "ORDER BY a.attnum"
        )
        rows = self.connection.execute(query, [oid, list(columns), right.privilege])
        if missing := [str(name) for (name,) in rows]:
            yield self.lacks(
                right,
                f"{right.privilege} on {', '.join(missing)} of {schema}.{table}",
                columns=SQL(", ").join(map(Identifier, missing)),
                table=Identifier(schema, table),
            )

    def lacks_all_rows(
        self, right: Right, tables: Iterable[tuple[str, str]]
    ) -> Iterator[MissingRight]:
        """Yield BYPASSRLS as a missing right if row-level security hides rows from this login.

        The right is yielded at most once. The message names only the first of the tables in which
        rows are hidden. Workflows need this right, because their sessions set `row_security = off`.
        With this setting, PostgreSQL refuses a query instead of hiding rows.

        Args:
            right: declaration of the right BYPASSRLS.
            tables: schema and name of each table.
        """
        for schema, name in tables:
            oid = self.table(schema, name)
            if oid is not None and self.ask(_HIDES_ROWS, oid, oid):
                yield self.lacks(
                    right, f"BYPASSRLS: row-level security hides rows of {schema}.{name}"
                )
                return


def lacks_reading(login: Login) -> Iterator[MissingRight]:
    """Yield the rights that a login lacks to back up the whole database of its session."""
    if tables := login.connection.execute(_UNREADABLE).fetchall():
        schema, name = tables[0]
        more = f" and {len(tables) - 1} more" if len(tables) > 1 else ""
        yield login.lacks(declared.READ_ALL, f"SELECT on {schema}.{name}{more}")
    if hidden := login.connection.execute(_HIDDEN_ROWS).fetchall():
        schema, name = hidden[0]
        yield login.lacks(
            declared.READ_ALL_ROWS,
            f"BYPASSRLS: row-level security hides rows of {schema}.{name}",
        )
    objects = [number for (number,) in login.connection.execute(_LARGE_OBJECTS)]
    if len(objects) > _MOST_NAMED:
        text = SQL(_ALL_LARGE_OBJECTS + ";").format(role=sql.Literal(login.role))
        yield MissingRight(
            declared.READ_LARGE_OBJECTS,
            f"{login.role} lacks SELECT on {len(objects)} large objects",
            text.as_string(login.connection),
        )
        return
    for number in objects:
        yield login.lacks(
            declared.READ_LARGE_OBJECTS,
            f"SELECT on large object {number}",
            number=sql.Literal(number),
        )


def lacks_drill(login: Login) -> Iterator[MissingRight]:
    """Yield the right to create databases, which restore drills need, if a login lacks it."""
    query = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
    if not login.ask(query):
        yield login.lacks(declared.DRILL_CREATE, "CREATEDB")


def lacks_transient_logins(login: Login) -> Iterator[MissingRight]:
    """Yield the rights to create transient logins for approved requests, if a login lacks them."""
    query = "SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user"
    if not login.ask(query):
        yield login.lacks(declared.USE_ROLE, "CREATEROLE")
    name = scalar(login.connection, "SELECT current_database()::text")
    for right, privilege in (
        (declared.USE_SCHEMA, "CREATE"),
        (declared.USE_CONNECT, "CONNECT WITH GRANT OPTION"),
    ):
        if not login.ask("SELECT has_database_privilege(current_database(), %s)", privilege):
            yield login.lacks(right, f"{privilege} on database {name}", database=Identifier(name))


def lacks_state(login: Login) -> Iterator[MissingRight]:
    """Yield the rights that a login needs to migrate and use the state database, but lacks."""
    if not login.ask("SELECT has_database_privilege(current_database(), 'CREATE')"):
        name = scalar(login.connection, "SELECT current_database()::text")
        yield login.lacks(
            declared.STATE_CREATE, f"CREATE on database {name}", database=Identifier(name)
        )
    if not login.ask("SELECT has_schema_privilege('public', 'CREATE')"):
        yield login.lacks(
            declared.STATE_SCHEMA, "CREATE on schema public", schema=Identifier("public")
        )
    foreign = login.connection.execute(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND NOT pg_has_role(relowner, "
        "'USAGE') AND relnamespace = 'public'::regnamespace ORDER BY 1"
    ).fetchall()
    for (name,) in foreign:
        yield login.lacks(
            declared.STATE_OWN,
            f"ownership of public.{name}",
            table=Identifier("public", name),
        )


def lacks_pages(
    login: Login,
    tables: Iterable[str],
    columns: Iterable[tuple[str, Iterable[str]]],
    inserted: Iterable[str],
) -> Iterator[MissingRight]:
    """Yield the rights that the login of the compliance pages lacks.

    Args:
        login: login of the connection ``pages_db``.
        tables: names of the tables of which the pages read all columns.
        columns: for each table of which the pages read only some columns: name of the table, and
            names of these columns.
        inserted: names of the tables into which the pages insert rows.
    """
    yield from login.lacks_schema(declared.PAGES_SCHEMA, "public")
    for right, privilege, names in (
        (declared.PAGES_READ, "SELECT", tables),
        (declared.PAGES_INSERT, "INSERT", inserted),
    ):
        for name in names:
            oid = login.table("public", name)
            if oid and not login.ask(
                f"SELECT has_table_privilege(%s::oid, '{privilege}')",
                oid,
            ):
                yield login.lacks(
                    right, f"{privilege} on public.{name}", table=Identifier("public", name)
                )
    for name, named in columns:
        yield from login.lacks_columns(declared.PAGES_COLUMNS, "public", name, named)


_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)\b")
_QUOTED = re.compile(r'"((?:[^"]|"")+)"')
_TABLES = """
SELECT n.nspname::text, c.relname::text, c.oid::bigint FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relname = ANY (%s)
ORDER BY 1, 2
"""
_COLUMNS = """
SELECT attname::text FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
"""


def lacks_query(login: Login, query: str, rights: Sequence[Right]) -> Iterator[MissingRight]:
    """Yield the rights that a login lacks to execute a query.

    Args:
        login: login that executes the query.
        query: a SELECT of the policy pack, with parameters as ``:name``.
        rights: declarations of three rights: USAGE on the schemas of the query, SELECT on its
            columns, and BYPASSRLS.

    Raises:
        UsageError: the database lacks a table or column of the query; or the login lacks another
            type of right, such as EXECUTE on a function.
    """
    schema_right, read_right, rows_right = rights
    words = _words(query)
    tables = login.connection.execute(_TABLES, [sorted(words)]).fetchall()
    refusal = _refusal(login, query, hides_rows=True)
    missing: list[MissingRight] = []
    if refusal is None:
        refusal = _refusal(login, query, hides_rows=False)
        if refusal is None:
            return
    else:
        takes_all = bool(re.search(r"(?<![(\w])\*|\.\*", query))
        for schema, table, oid in tables:
            columns = [str(name) for (name,) in login.connection.execute(_COLUMNS, [oid])]
            named = columns if takes_all else [name for name in columns if name in words]
            missing += login.lacks_schema(schema_right, schema)
            missing += login.lacks_columns(read_right, schema, table, named)
    missing += login.lacks_all_rows(rows_right, [(schema, name) for schema, name, _ in tables])
    yield from missing
    if not missing:
        raise UsageError(
            f"{login.role} may not execute a query of the policy pack: {refusal}.",
            "Grant the right on that object.",
        )


def _words(query: str) -> set[str]:
    plain = set(re.findall(r"\w+", query))
    quoted = {name.replace('""', '"') for name in _QUOTED.findall(query)}
    return plain | quoted | {word.lower() for word in plain}


def _refusal(login: Login, query: str, *, hides_rows: bool) -> str | None:
    """Return why PostgreSQL would refuse a query because of missing rights; otherwise None.

    Args:
        login: login that executes the query.
        query: a SELECT of the policy pack.
        hides_rows: whether PostgreSQL may hide rows by row-level security. If False, PostgreSQL
            refuses a query from which it would have to hide rows.

    Raises:
        UsageError: the database lacks a table or column of the query.
    """
    text = "EXPLAIN " + _PARAMETER.sub("NULL", query.rstrip().rstrip(";"))
    connection = login.connection
    setting = "on" if hides_rows else "off"
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(sql.SQL("SET LOCAL row_security = {}").format(sql.SQL(setting)))
            connection.execute(sql.SQL(text))
    except psycopg.errors.InsufficientPrivilege as error:
        return error.diag.message_primary or ""
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise UsageError(
            f"A query of the policy pack fails: {error.diag.message_primary}.",
            "Check that the connection leads to the right database, or correct the policy pack.",
        ) from None
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        return None
    return None
