"""Declarations of the database rights that the workflows need, with reasons.

`./parcelseal config check --connect` compares it with the live databases, and
docs/connections.md lists it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from include.registry import workflows
from include.workflow.declaration import DatabaseLogin


@dataclass(frozen=True)
class Right:
    """A right that a login needs.

    Attributes:
        connection: id of the login's connection, or the way to it in the policy pack.
        workflows: names of the workflows that need it.
        grant: the statement that grants it, with ``{names}`` for parts that depend on the database.
        reason: why the workflows need it.
    """

    connection: str
    workflows: str
    grant: str
    reason: str

    @property
    def privilege(self) -> str:
        """Return the privilege of a statement ``GRANT``."""
        return self.grant.split()[1]


READERS = "backup_offsite, check_quality, enforce_retention"
_retention_right = partial(Right, "retention_db", "enforce_retention")
_intake_right = partial(Right, "intake_db", "review_intake")
_state_right = partial(Right, "state_db", "all")
_pages_right = partial(Right, "pages_db", "compliance pages")

READ_ALL = Right(
    "of each mapped database",
    READERS,
    "GRANT pg_read_all_data TO {role}",
    "a backup reads every schema, table and sequence",
)
READ_LARGE_OBJECTS = Right(
    "of each mapped database",
    "backup_offsite",
    "GRANT SELECT ON LARGE OBJECT {number} TO {role}",
    "pg_read_all_data does not include large objects",
)
READ_ALL_ROWS = Right(
    "of each mapped database",
    READERS,
    "ALTER ROLE {role} BYPASSRLS",
    "row-level security would hide rows from a backup",
)
RETENTION_SCHEMA = _retention_right(
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "each schema of a table with record classes, and of a table that refers to one",
)
RETENTION_READ = _retention_right(
    "GRANT SELECT ({columns}) ON {table} TO {role}",
    "ctid and tableoid, primary keys, columns that retention.yaml names, and foreign keys that "
    "refer to its tables, with the primary keys of the referring tables",
)
RETENTION_DELETE = _retention_right(
    "GRANT DELETE ON {table} TO {role}",
    "the tables of classes that are deleted",
)
RETENTION_LOCK = _retention_right(
    "GRANT UPDATE ({columns}) ON {table} TO {role}",
    "SELECT ... FOR UPDATE needs the right to update at least one column of the table",
)
RETENTION_CHANGE = _retention_right(
    "GRANT UPDATE ({columns}) ON {table} TO {role}",
    "masked and stamped columns, and the columns that `detach` names",
)
RETENTION_ALL_ROWS = _retention_right(
    "ALTER ROLE {role} BYPASSRLS",
    "row-level security would hide expired records, and records that refer to them",
)
RETENTION_OWNER = _retention_right(
    "GRANT {owner} TO {role} WITH INHERIT FALSE, SET TRUE",
    "tables with partitions, on PostgreSQL 16, 17 and 18: statements name partitions, which rights "
    "on the table do not cover, and only the owner drops a partition",
)
RETENTION_OWNER_15 = _retention_right(
    "GRANT {owner} TO {role}",
    "the same on PostgreSQL 15, where the role inherits the owner's rights unless it is NOINHERIT",
)
INTAKE_SCHEMA = _intake_right(
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "each schema of a formal table",
)
INTAKE_READ = _intake_right(
    "GRANT SELECT ({columns}) ON {table} TO {role}",
    "the mapped columns of the incoming table, and the columns of other tables that intake.yaml "
    "and the quality suite of the incoming table name (the check does not test the suite's)",
)
INTAKE_ALL_ROWS = _intake_right(
    "ALTER ROLE {role} BYPASSRLS",
    "row-level security would hide incoming records, or rows that intake.yaml names",
)
INTAKE_UPDATE = _intake_right(
    "GRANT UPDATE ({columns}) ON {table} TO {role}",
    "state, review and back-reference columns of the incoming table",
)
INTAKE_INSERT = _intake_right(
    "GRANT INSERT ({columns}) ON {table} TO {role}",
    "the columns of formal tables that intake.yaml fills",
)
INTAKE_NUMBER = _intake_right(
    "GRANT USAGE ON SEQUENCE {sequence} TO {role}",
    "sequences that generate new keys of formal tables",
)
STATE_CREATE = _state_right(
    "GRANT CREATE ON DATABASE {database} TO {role}",
    "migrations, and the separate schema of an incident drill",
)
STATE_SCHEMA = _state_right(
    "GRANT CREATE ON SCHEMA {schema} TO {role}",
    "migrations create tables in the schema public",
)
STATE_OWN = _state_right(
    "ALTER TABLE {table} OWNER TO {role}",
    "migrations change the tables",
)
PAGES_SCHEMA = _pages_right(
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "the schema of these tables, public",
)
PAGES_READ = _pages_right(
    "GRANT SELECT ON {table} TO {role}",
    "the tables that the pages show; `./parcelseal migrate --pages-role ROLE` grants them",
)
PAGES_COLUMNS = _pages_right(
    "GRANT SELECT ({columns}) ON {table} TO {role}",
    "tables that the pages read in part; granted likewise",
)
DRILL_CREATE = Right(
    "drill_db",
    "drill_restore",
    "ALTER ROLE {role} CREATEDB",
    "a drill restores into a database of its own",
)

_DECLARED = tuple(value for value in list(globals().values()) if isinstance(value, Right))


def query_rights(*logins: DatabaseLogin) -> tuple[Right, Right, Right]:
    """Return the rights of logins for queries of the pack: on schemas, on columns, to all rows."""
    right = partial(
        Right,
        ", ".join(login.connection for login in logins),
        ", ".join(workflow.id for workflow in workflows() if workflow.login in logins),
    )
    return (
        right(
            "GRANT USAGE ON SCHEMA {schema} TO {role}",
            "each schema that the queries of the pack name; for incidents, the schemas of `scope` "
            "and `staff`",
        ),
        right(
            "GRANT SELECT ({columns}) ON {table} TO {role}",
            "the columns that the queries of the pack name; for incidents, also mapped personal "
            "columns",
        ),
        right(
            "ALTER ROLE {role} BYPASSRLS",
            "row-level security would hide rows from the queries of the pack",
        ),
    )


def declared_rights() -> tuple[Right, ...]:
    """Return all rights, for docs/connections.md."""
    logins = dict.fromkeys(each.login for each in workflows() if each.login and each.queries)
    return *_DECLARED, *query_rights(*logins)
