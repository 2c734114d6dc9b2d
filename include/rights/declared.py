"""Declarations of the database rights that workflows need, with the reason for each right.

`./parcelseal config check --connect` checks whether logins have these rights, and
docs/reference/connections.md lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from include.registry import workflows
from include.workflow.declaration import DatabaseLogin


@dataclass(frozen=True)
class Right:
    """A database right that a login needs.

    Attributes:
        connection: text that names the connections of the login, for documentation: ids, keys of
            the policy pack that contain the id, or a phrase such as "of each mapped database".
        workflows: names of the workflows that need the right, separated by commas.
        grant: SQL statement that grants the right, with placeholders in braces, such as
            ``{table}``.
        reason: reason why the workflows need the right.
    """

    connection: str
    workflows: str
    grant: str
    reason: str

    @property
    def privilege(self) -> str:
        """The privilege that the SQL statement grants, such as ``SELECT``."""
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
    "without this right, row-level security would hide rows from a backup",
)
RETENTION_SCHEMA = _retention_right(
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "for each schema with a table that holds record classes, or with a table whose foreign key "
    "refers to such a table",
)
RETENTION_READ = _retention_right(
    "GRANT SELECT ({columns}) ON {table} TO {role}",
    "for ctid and tableoid, the primary keys and the columns that retention.yaml names; in tables "
    "that refer to these tables, for the foreign keys and the primary keys",
)
RETENTION_DELETE = _retention_right(
    "GRANT DELETE ON {table} TO {role}",
    "for the tables of record classes whose records are deleted",
)
RETENTION_LOCK = _retention_right(
    "GRANT UPDATE ({columns}) ON {table} TO {role}",
    "SELECT ... FOR UPDATE needs the right to update at least one column of the table",
)
RETENTION_CHANGE = _retention_right(
    "GRANT UPDATE ({columns}) ON {table} TO {role}",
    "for masked and stamped columns, and the columns that `detach` names",
)
RETENTION_ALL_ROWS = _retention_right(
    "ALTER ROLE {role} BYPASSRLS",
    "without this right, row-level security would hide "
    "expired records, and records that refer to them",
)
RETENTION_OWNER = _retention_right(
    "GRANT {owner} TO {role} WITH INHERIT FALSE, SET TRUE",
    "for partitioned tables, on PostgreSQL 16, 17 and 18. The statements name partitions, and "
    "rights on the partitioned table do not cover these; only the owner can drop a partition",
)
RETENTION_OWNER_15 = _retention_right(
    "GRANT {owner} TO {role}",
    "for partitioned tables, on PostgreSQL 15. There the role inherits the owner's rights "
    "unless it "
    "has the attribute NOINHERIT",
)
INTAKE_SCHEMA = _intake_right(
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "for each schema with a formal table",
)
INTAKE_READ = _intake_right(
    "GRANT SELECT ({columns}) ON {table} TO {role}",
    "for the mapped columns of the incoming table, and the columns of other tables that "
    "intake.yaml "
    "or the quality suite of the incoming table names",
)
INTAKE_ALL_ROWS = _intake_right(
    "ALTER ROLE {role} BYPASSRLS",
    "without this right, row-level security would hide "
    "incoming records, or rows of the tables that intake.yaml names",
)
INTAKE_UPDATE = _intake_right(
    "GRANT UPDATE ({columns}) ON {table} TO {role}",
    "for the columns of the incoming table that hold the state, the review and the back-reference",
)
INTAKE_INSERT = _intake_right(
    "GRANT INSERT ({columns}) ON {table} TO {role}",
    "for the columns of formal tables into which intake.yaml writes",
)
INTAKE_NUMBER = _intake_right(
    "GRANT USAGE ON SEQUENCE {sequence} TO {role}",
    "for the sequences that generate keys of formal tables",
)
STATE_CREATE = _state_right(
    "GRANT CREATE ON DATABASE {database} TO {role}",
    "migrations create schemas, and an incident drill creates a separate schema",
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
    "for the schema `public`, which contains the tables that the pages show",
)
PAGES_READ = _pages_right(
    "GRANT SELECT ON {table} TO {role}",
    "for the tables that the pages show; `./parcelseal migrate --pages-role ROLE` grants "
    "these rights",
)
PAGES_COLUMNS = _pages_right(
    "GRANT SELECT ({columns}) ON {table} TO {role}",
    "for tables of which the pages read some columns; the same command grants these rights",
)
PAGES_INSERT = _pages_right(
    "GRANT INSERT ON {table} TO {role}",
    "for the record of each download of an extract; the same command grants this right",
)
DRILL_CREATE = Right(
    "drill_db",
    "drill_restore",
    "ALTER ROLE {role} CREATEDB",
    "a drill creates a database and restores into it",
)

USE_LOGINS = "a transient login is created for an approved request (`logins` in use.yaml)"
USE_ROLE = Right("use_db", "use_information", "ALTER ROLE {role} CREATEROLE", USE_LOGINS)
USE_SCHEMA = Right(
    "use_db", "use_information", "GRANT CREATE ON DATABASE {database} TO {role}", USE_LOGINS
)
USE_CONNECT = Right(
    "use_db",
    "use_information",
    "GRANT CONNECT ON DATABASE {database} TO {role} WITH GRANT OPTION",
    USE_LOGINS,
)

_DECLARED = tuple(value for value in list(globals().values()) if isinstance(value, Right))


def query_rights(*logins: DatabaseLogin) -> tuple[Right, Right, Right]:
    """Return declarations of the rights that logins need to execute queries of the policy pack.

    Args:
        logins: declarations of the logins and their connections.

    Returns:
        Three declarations: USAGE on the schemas of the queries, SELECT on the columns in the
        queries, and access to all rows (BYPASSRLS).
    """
    right = partial(
        Right,
        ", ".join(login.connection for login in logins),
        ", ".join(workflow.id for workflow in workflows() if workflow.login in logins),
    )
    return (
        right(
            "GRANT USAGE ON SCHEMA {schema} TO {role}",
            "for each schema that the queries of the policy pack name; for incidents, the schemas "
            "in the queries `scope` and `staff`",
        ),
        right(
            "GRANT SELECT ({columns}) ON {table} TO {role}",
            "for the columns that the queries of the policy pack name; for incidents, also for the "
            "personal columns in the data map",
        ),
        right(
            "ALTER ROLE {role} BYPASSRLS",
            "without this right, row-level security would hide "
            "rows from the queries of the policy pack",
        ),
    )


def declared_rights() -> tuple[Right, ...]:
    """Return all declared rights, for docs/reference/connections.md."""
    logins = dict.fromkeys(
        workflow.login for workflow in workflows() if workflow.login and workflow.queries
    )
    return *_DECLARED, *query_rights(*logins)
