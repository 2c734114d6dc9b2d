"""The register of accesses that differ from their approvals, and the newest comparison.

An entry is open as long as comparisons find its violation. A full comparison closes the other
entries and records the reason. An entry that was closed is opened again if a comparison finds its
violation again, except if a person handled it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

import psycopg
from psycopg.sql import SQL, Composable, Literal
from pydantic import BaseModel
from sqlalchemy import Connection, func, literal, select
from sqlalchemy.dialects.postgresql import insert

from include.disclosure.accesses.compare import STAGED_COLUMNS, CopyBlock, PeerGroup
from include.disclosure.accesses.rules import NOT_LIVE, ViolationKind
from include.disclosure.accesses.tables import access_comparison, access_violation
from include.frozen import FrozenModel
from include.notify.outbox import Run
from include.services.errors import UsageError
from include.state.tables import MOMENT

MOST_REGISTERED = 1_000_000  # violations of one comparison
DISAPPEARED_DAYS = timedelta(days=30)  # for which closed violations are reported
MOST_DEPARTMENTS = 200  # departments in the report
_LONGEST_KEY = 1_000  # bytes; a row of the index holds 2,700

_STAGE = f"""
DROP TABLE IF EXISTS pg_temp.found_violation;
CREATE TEMPORARY TABLE found_violation ({
    ", ".join(
        f"{name} {'timestamptz' if name == 'accessed_at' else 'text'}" for name in STAGED_COLUMNS
    )
}) ON COMMIT DROP
"""
_COPY_IN = f"COPY found_violation ({', '.join(STAGED_COLUMNS)}) FROM STDIN"
_FAULTS = """
SELECT count(*) FILTER (WHERE access IS NULL), max(octet_length(access)) FROM found_violation
"""
_FOUND = """
SELECT DISTINCT ON (access COLLATE "C", kind) access, kind, detail, person, department, approval,
    accessed_at
FROM found_violation WHERE access IS NOT NULL
ORDER BY access COLLATE "C", kind, accessed_at, detail, person, approval, department
"""
_UPDATE = f"""
UPDATE access_violation v SET detail = f.detail, person = f.person, department = f.department,
    approval = f.approval, accessed_at = f.accessed_at, state = 'open', closed_at = NULL,
    closed_because = NULL,
    opened_at = CASE v.state WHEN 'open' THEN v.opened_at ELSE %(at)s END,
    opened_dag_id = CASE v.state WHEN 'open' THEN v.opened_dag_id ELSE %(dag_id)s END,
    opened_run_id = CASE v.state WHEN 'open' THEN v.opened_run_id ELSE %(run_id)s END
FROM ({_FOUND}) AS f
WHERE v.database = %(database)s AND v.access = f.access AND v.kind = f.kind
  AND v.closed_because IS DISTINCT FROM 'handled'
  AND (v.state = 'closed' OR (v.detail, v.person, v.department, v.approval, v.accessed_at)
       IS DISTINCT FROM (f.detail, f.person, f.department, f.approval, f.accessed_at))
"""  # noqa: S608 - constants
# With NOT EXISTS, PostgreSQL may scan the rows that the statement itself inserted, for each row.
_INSERT = f"""
INSERT INTO access_violation (database, access, kind, detail, person, department, approval,
    accessed_at, first_seen_at, opened_at, opened_dag_id, opened_run_id)
SELECT %(database)s, access, kind, detail, person, department, approval, accessed_at, %(at)s,
    %(at)s, %(dag_id)s, %(run_id)s
FROM ({_FOUND}) AS f
ON CONFLICT (database, access, kind) DO NOTHING
"""  # noqa: S608 - constants
_DISAPPEARED = """
SELECT v.id, v.access, coalesce(v.accessed_at < %(since)s::timestamptz, false)
FROM access_violation v
WHERE v.database = %(database)s AND v.state = 'open' AND NOT EXISTS (
    SELECT FROM found_violation f WHERE f.access = v.access AND f.kind = v.kind)
"""
_CLOSE = """
UPDATE access_violation v SET state = 'closed', closed_at = %(at)s, closed_because = c.reason
FROM unnest(%(ids)s::bigint[], %(reasons)s::text[]) AS c (id, reason)
WHERE v.id = c.id AND v.state = 'open'
"""
_CLOSE_OTHERS = """
UPDATE access_violation SET state = 'closed', closed_at = %(at)s, closed_because = 'not_compared'
WHERE database <> %(database)s AND state = 'open'
"""
_LISTED = (
    "access", "kind", "detail", "person", "department", "approval", "accessed_at", "first_seen_at",
)  # fmt: skip
_TEXTS = {"access", "person", "department", "approval"}  # from the company's database


class ClosingReason(StrEnum):
    """The reason why a violation is closed.

    Attributes:
        COVERED: the access is in the log, and an approval covers it now.
        ACCESS_DELETED: the log has no such access.
        NOT_COMPARED: the rules exclude the access from the comparison.
        HANDLED: a person decided about the violation.
    """

    COVERED = "covered"
    ACCESS_DELETED = "access_deleted"
    NOT_COMPARED = "not_compared"
    HANDLED = "handled"


class TooManyViolations(Exception):
    """Raised if a comparison finds more than `MOST_REGISTERED` violations."""


class FullFigures(FrozenModel):
    """Figures that only a full comparison computes, and that later reports repeat.

    Attributes:
        accesses: number of compared accesses.
        fields_unknown: number of accesses for which the log does not state the fields; None if
            fields are not compared.
        compares_purposes: whether purposes were compared.
        compares_records: whether records were compared.
        unkeyed: number of violations of accesses without a key.
        never_used: number of approvals whose period is over and that no access names.
        peers: accesses of the people of each department.
    """

    accesses: int
    fields_unknown: int | None
    compares_purposes: bool
    compares_records: bool
    unkeyed: int
    never_used: int
    peers: list[PeerGroup]


@dataclass(frozen=True)
class LastComparison:
    """The newest comparison of a database.

    Attributes:
        definition: digest of the queries and of the code that compared.
        compared_at: time of the comparison.
        compared_until: moment of the newest compared access; None if the log was empty.
        full_at: time of the newest full comparison.
        full_run: run that made the newest full comparison.
        figures: figures of the newest full comparison.
    """

    definition: str
    compared_at: datetime
    compared_until: datetime | None
    full_at: datetime
    full_run: Run
    figures: FullFigures


class KindCount(BaseModel):
    """The number of open violations of a kind.

    Attributes:
        kind: kind of the violations.
        open: number of open violations.
        new: number of open violations that this run found first, or found again.
        reported: number of open violations that the bundle of an earlier run reported.
        reported_since: when the oldest of these was opened; None if there are none.
        possible_violation: whether a case may be opened for each of these accesses.
    """

    kind: ViolationKind
    open: int
    new: int
    reported: int = 0
    reported_since: datetime | None = None
    possible_violation: bool = True


class DepartmentCount(BaseModel):
    """The accesses of a department's people that have an open violation.

    Attributes:
        department: name of the department; None if the log has none.
        accesses: number of accesses with a violation.
        kinds: kind -> number of open violations.
    """

    department: str | None
    accesses: int
    kinds: dict[ViolationKind, int]


def last_comparison(conn: Connection, database: str) -> LastComparison | None:
    """Return the newest comparison of a database, or None if it was never compared."""
    table = access_comparison.c
    row = conn.execute(select(access_comparison).where(table.database == database)).one_or_none()
    if row is None:
        return None
    return LastComparison(
        row.definition,
        row.compared_at,
        row.compared_until,
        row.full_at,
        Run(row.full_dag_id, row.full_run_id),
        FullFigures.model_validate(row.full_figures),
    )


def store_comparison(conn: Connection, database: str, comparison: LastComparison) -> None:
    """Store the newest comparison of a database."""
    row = {
        "definition": comparison.definition,
        "compared_at": comparison.compared_at,
        "compared_until": comparison.compared_until,
        "full_at": comparison.full_at,
        "full_dag_id": comparison.full_run.dag_id,
        "full_run_id": comparison.full_run.run_id,
        "full_figures": comparison.figures.model_dump(mode="json"),
    }
    conn.execute(
        insert(access_comparison)
        .values(database=database, **row)
        .on_conflict_do_update(constraint=access_comparison.primary_key, set_=row)
    )


@dataclass(frozen=True)
class Stage:
    """The violations that a comparison found, in a temporary table of the state database.

    The temporary table exists until the transaction ends. The memory use of the run therefore does
    not grow with the number of violations.

    Attributes:
        conn: connection to the state database, in a transaction.
        database: name of the compared database.
        run: run that compares.
        at: time of the comparison.
    """

    conn: Connection
    database: str
    run: Run
    at: datetime

    def fill(self, violations: Iterable[CopyBlock]) -> int:
        """Store the violations in the temporary table.

        Args:
            violations: rows in the text format of COPY, one row in each element.

        Returns:
            The number of violations without a key, which the register cannot contain.

        Raises:
            TooManyViolations: there are more than `MOST_REGISTERED` violations.
            UsageError: a key is too long for the register.
        """
        connection = self._connection
        connection.execute(_STAGE)
        count = 0
        with connection.cursor() as cursor, cursor.copy(_COPY_IN) as copy:
            for count, row in enumerate(violations, 1):
                if count > MOST_REGISTERED:
                    raise TooManyViolations
                copy.write(row)
        connection.execute("ANALYZE found_violation")
        faults = connection.execute(_FAULTS).fetchone()
        assert faults is not None
        unkeyed, longest = faults
        if (longest or 0) > _LONGEST_KEY:
            raise UsageError(
                f"use.yaml: accesses.log returns a key of more than {_LONGEST_KEY:,} bytes.",
                "Let the query return a shorter key in the column access.",
            )
        return int(unkeyed)

    def enter(self) -> None:
        """Enter the staged violations in the register, and open closed entries again."""
        parameters = self._parameters
        self._connection.execute(_UPDATE, parameters)
        self._connection.execute(_INSERT, parameters)

    def disappeared(self, since: datetime | None) -> Iterator[tuple[int, str, bool]]:
        """Yield the open entries of the database that are not staged.

        Args:
            since: moment from which accesses are compared; None for the whole log.

        Yields:
            Number of the entry, key of the access, and whether the access is before `since`.
        """
        yield from self._connection.execute(_DISAPPEARED, {**self._parameters, "since": since})

    def close(self, reasons: Mapping[int, ClosingReason]) -> None:
        """Close entries of the database, and all entries of databases that are not compared.

        Args:
            reasons: number of an entry -> reason.
        """
        parameters = {
            **self._parameters,
            "ids": list(reasons),
            "reasons": [str(reason) for reason in reasons.values()],
        }
        self._connection.execute(_CLOSE, parameters)
        self._connection.execute(_CLOSE_OTHERS, parameters)

    @property
    def _connection(self) -> psycopg.Connection[Any]:
        return psycopg_connection(self.conn)

    @property
    def _parameters(self) -> dict[str, Any]:
        return {
            "database": self.database,
            "dag_id": self.run.dag_id,
            "run_id": self.run.run_id,
            "at": self.at,
        }


def psycopg_connection(conn: Connection) -> psycopg.Connection[Any]:
    """Return the psycopg connection of an SQLAlchemy connection."""
    return cast("psycopg.Connection[Any]", conn.connection.driver_connection)


def count_kinds(
    conn: Connection, database: str, run: Run, reported_until: datetime | None
) -> list[KindCount]:
    """Return the numbers of open violations of each kind, also of kinds without a violation.

    Args:
        conn: connection to the state database.
        database: name of the compared database.
        run: run that compares.
        reported_until: time of the newest comparison that a bundle of an earlier run reports. It
            reports all violations that were opened until then. None if there is none.
    """
    table = access_violation.c
    is_new = (table.opened_dag_id == run.dag_id) & (table.opened_run_id == run.run_id)
    is_reported = ~is_new & (table.opened_at <= literal(reported_until, MOMENT))
    rows = conn.execute(
        select(
            table.kind,
            func.count(),
            func.count().filter(is_new),
            func.count().filter(is_reported),
            func.min(table.opened_at).filter(is_reported),
        )
        .where(table.database == database, table.state == "open")
        .group_by(table.kind)
    )
    counts = {kind: figures for kind, *figures in rows}
    return [
        KindCount(kind=kind, open=opened, new=new, reported=reported, reported_since=since)
        for kind in ViolationKind
        for opened, new, reported, since in [counts.get(kind, (0, 0, 0, None))]
    ]


def count_without_live_approval(conn: Connection, database: str) -> int:
    """Return the number of accesses with an open violation that no live approval covers."""
    table = access_violation.c
    query = select(func.count(table.access.distinct())).where(
        table.database == database, table.state == "open", table.kind.in_(NOT_LIVE)
    )
    return int(conn.execute(query).scalar_one())


def count_departments(conn: Connection, database: str) -> list[DepartmentCount]:
    """Return the numbers of open violations of up to `MOST_DEPARTMENTS` departments, by name."""
    table = access_violation.c
    rows = conn.execute(
        select(
            table.department,
            func.count(table.access.distinct()),
            *(func.count().filter(table.kind == str(kind)) for kind in ViolationKind),
        )
        .where(table.database == database, table.state == "open")
        .group_by(table.department)
        .order_by(table.department)
        .limit(MOST_DEPARTMENTS)
    )
    return [
        DepartmentCount(
            department=name, accesses=accesses, kinds=dict(zip(ViolationKind, kinds, strict=True))
        )
        for name, accesses, *kinds in rows
    ]


def count_closed(conn: Connection, now: datetime) -> dict[ClosingReason, int]:
    """Return how many violations were closed within `DISAPPEARED_DAYS`, by reason."""
    table = access_violation.c
    rows = conn.execute(
        select(table.closed_because, func.count())
        .where(table.state == "closed", table.closed_at > now - DISAPPEARED_DAYS)
        .group_by(table.closed_because)
    )
    return {ClosingReason(reason): count for reason, count in rows}


def list_open(conn: Connection, database: str, run: Run | None) -> Generator[CopyBlock]:
    """Yield a CSV file of open violations, in the order in which they were entered.

    Args:
        conn: connection to the state database.
        database: name of the compared database.
        run: run that opened the violations; None for all open violations.
    """
    query = SQL(
        "COPY (SELECT {columns} FROM access_violation WHERE database = {database} "
        "AND state = 'open' AND {opened} ORDER BY id) TO STDOUT (FORMAT csv, HEADER)"
    ).format(
        columns=SQL(", ").join(map(_csv_column, _LISTED)),
        database=Literal(database),
        opened=SQL("true")
        if run is None
        else SQL("(opened_dag_id, opened_run_id) = ({}, {})").format(
            Literal(run.dag_id), Literal(run.run_id)
        ),
    )
    with psycopg_connection(conn).cursor() as cursor, cursor.copy(query) as copy:
        yield from copy


def _csv_column(name: str) -> Composable:
    """Return a column as SQL, with an apostrophe before a text that begins like a formula."""
    if name not in _TEXTS:
        return SQL(name)
    formula = SQL("CASE WHEN {0} ~ '^[-=+@\\t\\r]' THEN '''' || {0} ELSE {0} END AS {0}")
    return formula.format(SQL(name))


def unused_file(keys: Sequence[str]) -> bytes:
    """Return a CSV file with the keys of approvals that were never used."""
    lines = ["approval", *(_quoted(key) for key in keys)]
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8-sig")


def _quoted(key: str) -> str:
    text = f"'{key}" if key.startswith(("=", "+", "-", "@", "\t", "\r")) else key
    return '"' + text.replace('"', '""') + '"'
