"""Compare the logged accesses of a mapped database with its approvals, in one snapshot.

An access is covered if it names an approval of the same person, which another person gave, and if
its moment, its purpose, its fields and its record are within the approval. A missing value never
counts as covered: a null person, moment, approver, start or end is a violation.

The first and the last moment of an approval belong to its period. An approval that was entered
after the access, or that was withdrawn before it, does not cover the access.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from pydantic import BaseModel

from include.approvals.approvers import normalize_person, same_person
from include.disclosure.accesses.rules import AccessRules, ViolationKind
from include.policy.datamap import MappedDatabase
from include.policy.fragments import all_of, any_of, literal, pack_sql
from include.services.database import PRINTING, DatabaseAddress
from include.services.errors import ServiceError, UsageError

LOG_COLUMNS = ("access", "person", "at", "approval")
APPROVAL_COLUMNS = ("approval", "person", "approver", "starts", "ends")
STAGED_COLUMNS = ("access", "kind", "detail", "person", "department", "approval", "accessed_at")
"""The columns of a violation, in the order in which `Source.violations` returns them."""
MOST_LISTED = 10_000  # keys of unused approvals, and of approvals that are not unique
MOST_DEPARTMENTS = 500  # departments in the comparison of people with their peers

_MOMENTS = ("at", "starts", "ends", "entered_at", "withdrawn_at")
_TIMESTAMPTZ = 1184  # type oid
_INTEGERS = {20, 21, 23}  # type oids of bigint, smallint, integer: comparable without a cast
_SYNTAX_ERROR_CLASS = "42"  # SQLSTATE class: its messages quote no values
_DATA_ERROR_CLASS = "22"
_SETTINGS: Mapping[str, str] = {**PRINTING, "statement_timeout": "0"}
_WORK_MEM = """
SELECT set_config('work_mem', '64MB', true)
WHERE pg_size_bytes(current_setting('work_mem')) < 64 * 1024 * 1024
"""

CopyBlock = bytes | bytearray | memoryview
"""A row or block of rows that the server sends for COPY."""

VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
"""Digest of this module. After a change, the next run compares the whole log again."""


class PeerGroup(BaseModel):
    """The accesses of the people of a department, for the report.

    Attributes:
        department: name of the department; None if the log has none.
        people: number of people with an access.
        median: median of the number of accesses per person.
        most: largest number of accesses of one person.
        person: staff number of this person. If several people have the same number of accesses,
            the first in alphabetical order.
    """

    department: str | None
    people: int
    median: float
    most: int
    person: str


@dataclass(frozen=True)
class ComparedPeriod:
    """The accesses that a comparison reads.

    Attributes:
        since: moment from which accesses are compared; None for the whole log.
        is_full: whether accesses without a moment are compared too.
    """

    since: datetime | None
    is_full: bool

    @property
    def condition(self) -> Composable:
        """Return the condition that an access is compared, with the parameter ``since``."""
        if self.since is None:
            return SQL("true")
        if self.is_full:
            return SQL("(log.at >= %(since)s OR log.at IS NULL)")
        return SQL("log.at >= %(since)s")


@dataclass(frozen=True)
class LogCounts:
    """Counts of accesses, and the moment of the newest.

    Attributes:
        accesses: number of accesses.
        newest: moment of the newest access that is not in the future; None if there is none.
        fields_unknown: number of accesses for which the log does not state the fields; None if the
            fields are not compared.
    """

    accesses: int
    newest: datetime | None
    fields_unknown: int | None


@dataclass(frozen=True)
class ApprovalUsage:
    """The approvals whose period is over and to which no access refers.

    An approval that began before the first access of the log is not counted, because older accesses
    may have been deleted.

    Attributes:
        never_used: number of these approvals.
        keys: keys of up to `MOST_LISTED` of them, those with the latest end first.
    """

    never_used: int
    keys: tuple[str, ...]


@dataclass(frozen=True)
class SourceQuery:
    """A query of the policy pack, and the columns that it returns.

    Attributes:
        name: key of the query, ``log`` or ``approvals``.
        sql: the query in parentheses, for use after FROM.
        types: name of a column -> type oid.
    """

    name: str
    sql: Composable
    types: Mapping[str, int]

    def has(self, column: str) -> bool:
        """Return whether the query returns a column."""
        return column in self.types

    def column(self, name: str) -> Composable:
        """Return a column of the query as SQL, with the name of the query as its alias."""
        return Identifier(_ALIASES[self.name], name)


_ALIASES = {"log": "log", "approvals": "approval"}


@dataclass(frozen=True)
class Source:
    """Both queries of the policy pack in one snapshot of the mapped database.

    Attributes:
        connection: connection on which the read-only transaction is open.
        log: query of the accesses.
        approvals: query of the approvals.
        ambiguous: keys of approvals that the query returns more than once. They cover no access.
        own_spellings: pairs of approver and requester that name the same person in two spellings.
        blank_approvers: values of ``approver`` without a visible character, which name nobody.
    """

    connection: psycopg.Connection[Any]
    log: SourceQuery
    approvals: SourceQuery
    ambiguous: tuple[str, ...]
    own_spellings: tuple[tuple[str, str], ...] = ()
    blank_approvers: tuple[str, ...] = ()

    @property
    def compares_purposes(self) -> bool:
        """Return whether both queries return the purpose."""
        return self.log.has("purpose") and self.approvals.has("purpose")

    @property
    def compares_fields(self) -> bool:
        """Return whether both queries return the fields."""
        return self.log.has("fields") and self.approvals.has("fields")

    @property
    def compares_records(self) -> bool:
        """Return whether approvals name records, and accesses the record that they read."""
        return self.log.has("subject") and self.approvals.has("subjects")

    def count(self, period: ComparedPeriod, now: datetime) -> LogCounts:
        """Count the accesses of a period.

        Args:
            period: period of the accesses.
            now: current time.
        """
        query = SQL(
            "SELECT count(*), nullif(max(log.at) FILTER (WHERE log.at <= %(now)s), '-infinity'), "
            "{unknown} FROM {log} AS log WHERE {period}"
        ).format(unknown=self._unknown(), log=self.log.sql, period=period.condition)
        accesses, newest, unknown = self._row(query, {"since": period.since, "now": now}, "log")
        return LogCounts(accesses, newest, unknown)

    def _unknown(self) -> Composable:
        if not self.compares_fields:
            return SQL("NULL::bigint")
        return SQL("count(*) FILTER (WHERE log.fields IS NULL)")

    def violations(self, period: ComparedPeriod) -> Generator[CopyBlock]:
        """Yield the violations in the text format of COPY, with the columns `STAGED_COLUMNS`.

        Each access has at most one row of a kind. An access that the log returns several times has
        rows for each of them.

        Args:
            period: period of the accesses.
        """
        query = SQL("COPY ({}) TO STDOUT").format(self._violations(period))
        parameters = {
            "since": period.since,
            "ambiguous": list(self.ambiguous),
            "own_approvers": [approver for approver, _person in self.own_spellings],
            "own_people": [person for _approver, person in self.own_spellings],
            "blank": list(self.blank_approvers),
        }
        with (
            report_query_faults("log"),
            self.connection.cursor() as cursor,
            cursor.copy(query, parameters) as copy,
        ):
            yield from copy

    def _violations(self, period: ComparedPeriod) -> Composable:
        # Few accesses are violations. The laterals, which name the kinds, are evaluated for these
        # only. For IS NOT TRUE, PostgreSQL would expect that most accesses are violations, and plan
        # no parallel workers; for CASE, it expects one of 200.
        return SQL(
            "SELECT log.access::text, violation.kind, violation.detail, log.person::text, "
            "{department}, log.approval::text, log.at "
            "FROM {log} AS log LEFT JOIN {approvals} AS approval ON {same_approval} "
            "CROSS JOIN LATERAL (SELECT {without_approval}) AS named (fault) "
            "CROSS JOIN LATERAL (VALUES {kinds}) AS violation (kind, detail) "
            "WHERE CASE WHEN {covered} THEN 1 ELSE 0 END = 0 "
            "AND violation.detail IS NOT NULL AND {period}"
        ).format(
            department=self._department(),
            log=self.log.sql,
            approvals=self.approvals.sql,
            same_approval=self._same_approval(),
            without_approval=self._without_approval(),
            kinds=SQL(", ").join(
                [
                    SQL("({}, named.fault)").format(literal(str(ViolationKind.WITHOUT_APPROVAL))),
                    *(
                        SQL("({}, CASE WHEN named.fault IS NULL THEN {} END)").format(
                            literal(kind), fault
                        )
                        for kind, fault in self._faults().items()
                    ),
                ]
            ),
            covered=self._covered(),
            period=period.condition,
        )

    def _department(self) -> Composable:
        return SQL("log.department::text" if self.log.has("department") else "NULL::text")

    def _same_approval(self) -> Composable:
        same = _equal(self.log, "approval", self.approvals, "approval")
        if not self.ambiguous:
            return same
        return all_of([same, SQL("approval.approval::text <> ALL (%(ambiguous)s::text[])")])

    def _same_person(self) -> Composable:
        return _equal(self.log, "person", self.approvals, "person")

    def _by_requester(self) -> Composable:
        equal = _equal(self.approvals, "approver", self.approvals, "person")
        if not self.own_spellings:
            return equal
        return any_of(
            [
                equal,
                SQL(
                    "((approval.approver::text, approval.person::text) IN (SELECT * FROM "
                    "unnest(%(own_approvers)s::text[], %(own_people)s::text[])))"
                ),
            ]
        )

    def _is_approved(self) -> Composable:
        """Return the condition that an approval names an approver."""
        named = SQL("(approval.approver IS NOT NULL)")
        if not self.blank_approvers:
            return named
        return all_of([named, SQL("(approval.approver::text <> ALL (%(blank)s::text[]))")])

    def _covered(self) -> Composable:
        """Return the condition that an access is covered; not true if any value is missing."""
        conditions = [
            self._same_person(),
            self._is_approved(),
            SQL("NOT {}").format(self._by_requester()),
            SQL("log.at >= approval.starts"),
            SQL("log.at <= approval.ends"),
        ]
        if self.approvals.has("entered_at"):
            conditions.append(SQL("log.at >= approval.entered_at"))
        if self.approvals.has("withdrawn_at"):
            conditions.append(
                SQL("(approval.withdrawn_at IS NULL OR log.at < approval.withdrawn_at)")
            )
        if self.compares_purposes:
            conditions.append(self._same_purpose())
        if self.compares_fields:
            conditions.append(SQL("NOT {}").format(_OTHER_FIELDS))
        if self.compares_records:
            conditions.append(SQL("NOT {}").format(_OTHER_RECORD))
        return all_of(conditions)

    def _same_purpose(self) -> Composable:
        return _equal(self.log, "purpose", self.approvals, "purpose")

    def _without_approval(self) -> Composable:
        return SQL(
            "CASE WHEN log.approval IS NULL THEN 'none_named' "
            "WHEN approval.approval IS NULL THEN {missing} "
            "WHEN log.person IS NULL THEN 'person_unknown' "
            "WHEN {same_person} IS NOT TRUE THEN 'other_person' "
            "WHEN NOT {is_approved} THEN 'not_approved' END"
        ).format(
            is_approved=self._is_approved(),
            missing=SQL(
                "CASE WHEN log.approval::text = ANY (%(ambiguous)s::text[]) "
                "THEN 'not_unique' ELSE 'not_found' END"
            )
            if self.ambiguous
            else SQL("'not_found'"),
            same_person=self._same_person(),
        )

    def _faults(self) -> dict[str, Composable]:
        """Return the detail of each kind as SQL, for an access with an approval of its person."""
        entered = SQL(
            " AND log.at >= approval.entered_at" if self.approvals.has("entered_at") else ""
        )
        withdrawn = SQL(
            "WHEN approval.withdrawn_at <= log.at THEN 'withdrawn' "
            if self.approvals.has("withdrawn_at")
            else ""
        )
        faults = {
            ViolationKind.BY_REQUESTER: SQL("CASE WHEN {} THEN 'by_requester' END").format(
                self._by_requester()
            ),
            ViolationKind.OUTSIDE_PERIOD: SQL(
                "CASE WHEN log.at IS NULL THEN 'no_moment' "
                "WHEN (log.at >= approval.starts{entered}) IS NOT TRUE THEN 'before' "
                "WHEN (log.at <= approval.ends) IS NOT TRUE THEN 'after' {withdrawn}END"
            ).format(entered=entered, withdrawn=withdrawn),
        }
        if self.compares_purposes:
            faults[ViolationKind.OUTSIDE_PURPOSE] = SQL(
                "CASE WHEN log.purpose IS NULL THEN 'not_stated' "
                "WHEN {} IS NOT TRUE THEN 'other_purpose' END"
            ).format(self._same_purpose())
        if self.compares_fields:
            faults[ViolationKind.OUTSIDE_FIELDS] = SQL(
                "CASE WHEN {} THEN 'other_fields' END"
            ).format(_OTHER_FIELDS)
        if self.compares_records:
            faults[ViolationKind.OUTSIDE_RECORDS] = SQL(
                "CASE WHEN {} THEN 'other_record' END"
            ).format(_OTHER_RECORD)
        return {str(kind): fault for kind, fault in faults.items()}

    def usage(self, first: datetime | None, now: datetime) -> tuple[LogCounts, ApprovalUsage]:
        """Count all accesses, and find the approvals that were never used, in one pass of the log.

        Args:
            first: first moment whose accesses are compared; None for the whole log.
            now: current time.
        """
        period = ComparedPeriod(first, is_full=True).condition
        used = _equal_expressions(
            SQL("used.approval"), self.log.types["approval"],
            SQL("approval.approval"), self.approvals.types["approval"],
        )  # fmt: skip
        query = SQL(
            "WITH used AS (SELECT log.approval, count(*) FILTER (WHERE {period}) AS accesses, "
            "{unknown} AS unknown, "
            "max(log.at) FILTER (WHERE log.at <= %(now)s AND {period}) AS newest, "
            "min(log.at) AS first FROM {log} AS log GROUP BY log.approval), "
            "unused AS (SELECT approval.approval::text AS key, max(approval.ends) AS ends "
            "FROM {approvals} AS approval WHERE approval.approver IS NOT NULL "
            "AND approval.ends < %(now)s {since}{withdrawn}"
            "AND approval.starts >= (SELECT min(first) FROM used) "
            "AND NOT EXISTS (SELECT FROM used WHERE {used}) "
            "AND approval.approval IS NOT NULL GROUP BY 1) "
            "SELECT coalesce((SELECT sum(accesses) FROM used), 0)::bigint, "
            "(SELECT nullif(max(newest), '-infinity') FROM used), {total_unknown}, "
            "(SELECT count(*) FROM unused), "
            "ARRAY(SELECT key FROM unused ORDER BY ends DESC, key LIMIT {listed})"
        ).format(
            period=period,
            unknown=SQL("count(*) FILTER (WHERE log.fields IS NULL AND {})").format(period)
            if self.compares_fields
            else SQL("NULL::bigint"),
            total_unknown=SQL("coalesce((SELECT sum(unknown) FROM used), 0)::bigint")
            if self.compares_fields
            else SQL("NULL::bigint"),
            log=self.log.sql,
            approvals=self.approvals.sql,
            since=SQL("AND approval.starts >= %(since)s " if first is not None else ""),
            withdrawn=SQL(
                "AND approval.withdrawn_at IS NULL " if self.approvals.has("withdrawn_at") else ""
            ),
            used=used,
            listed=Literal(MOST_LISTED),
        )
        accesses, newest, unknown, never_used, keys = self._row(
            query, {"since": first, "now": now}, "approvals"
        )
        return LogCounts(accesses, newest, unknown), ApprovalUsage(never_used, tuple(keys))

    def peers(self, now: datetime, days: int) -> list[PeerGroup]:
        """Return the numbers of accesses of the people of each department, sorted by name.

        Accesses without a person and accesses in the future are not counted.

        Args:
            now: current time.
            days: number of days before `now` that are counted.
        """
        query = SQL(
            "SELECT department, count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY accesses), "
            "max(accesses), (array_agg(person ORDER BY accesses DESC, person))[1] "
            "FROM (SELECT {department} AS department, log.person::text AS person, "
            "count(*) AS accesses FROM {log} AS log WHERE log.at > %(since)s "
            "AND log.at <= %(now)s AND log.person IS NOT NULL GROUP BY 1, 2) AS counted "
            "GROUP BY department ORDER BY department LIMIT {departments}"
        ).format(
            department=self._department(),
            log=self.log.sql,
            departments=Literal(MOST_DEPARTMENTS),
        )
        parameters = {"since": now - timedelta(days=days), "now": now}
        with report_query_faults("log"):
            rows = self.connection.execute(query, parameters).fetchall()
        return [
            PeerGroup(department=name, people=people, median=median, most=most, person=person)
            for name, people, median, most, person in rows
        ]

    def existing(self, accesses: list[str]) -> set[str]:
        """Return those keys of accesses that the log still has.

        Args:
            accesses: keys of accesses, as text.
        """
        if not accesses:
            return set()
        query = SQL(
            "SELECT DISTINCT log.access::text FROM {} AS log "
            "WHERE log.access::text = ANY (%(accesses)s::text[])"
        ).format(self.log.sql)
        with report_query_faults("log"):
            rows = self.connection.execute(query, {"accesses": accesses}).fetchall()
        return {key for (key,) in rows}

    def _row(self, query: Composed, parameters: Mapping[str, Any], name: str) -> tuple[Any, ...]:
        with report_query_faults(name):
            row = self.connection.execute(query, parameters).fetchone()
        assert row is not None
        return tuple(row)


_OTHER_FIELDS = SQL(
    "(log.fields IS NOT NULL AND approval.fields IS NOT NULL "
    "AND NOT log.fields::text[] <@ approval.fields::text[])"
)
_OTHER_RECORD = SQL(
    "(approval.subjects IS NOT NULL "
    "AND (log.subject::text = ANY (approval.subjects::text[])) IS NOT TRUE)"
)


@contextmanager
def open_source(
    address: DatabaseAddress, database: MappedDatabase, rules: AccessRules
) -> Iterator[Source]:
    """Open both queries of the policy pack in one read-only snapshot of the mapped database.

    Args:
        address: address of the database, with the login of the workflow.
        database: data map of the database.
        rules: the key `accesses` of use.yaml.

    Raises:
        UsageError: a query fails, its result lacks a column, or a moment has no time zone.
        ServiceError: the database cannot be reached.
    """
    with address.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        settings = SQL("SET LOCAL search_path = {}, pg_catalog")
        connection.execute(settings.format(Identifier(database.schema_name)))
        for name, value in _SETTINGS.items():
            connection.execute(SQL("SET LOCAL {} = {}").format(Identifier(name), Literal(value)))
        connection.execute(_WORK_MEM)
        log = _describe(connection, "log", rules.log, LOG_COLUMNS)
        approvals = _describe(connection, "approvals", rules.approvals, APPROVAL_COLUMNS)
        own_spellings, blank_approvers = _doubtful_approvers(connection, approvals)
        ambiguous = _ambiguous(connection, approvals)
        yield Source(connection, log, approvals, ambiguous, own_spellings, blank_approvers)
        connection.rollback()


def _describe(
    connection: psycopg.Connection[Any], name: str, sql: str, required: tuple[str, ...]
) -> SourceQuery:
    relation = SQL("(\n{}\n)").format(pack_sql(sql))  # the query may end with a comment
    with report_query_faults(name):
        query = SQL("SELECT * FROM {} AS source LIMIT 0").format(relation)
        columns = connection.execute(query, {}).description or []
    types = {column.name: column.type_code for column in columns}
    if missing := [column for column in required if column not in types]:
        raise UsageError(
            f"use.yaml: accesses.{name} lacks the columns {', '.join(missing)}.",
            f"Let the query return the columns {', '.join(required)}.",
        )
    without_zone = [
        column for column in _MOMENTS if types.get(column, _TIMESTAMPTZ) != _TIMESTAMPTZ
    ]
    if without_zone:
        raise UsageError(
            f"use.yaml: accesses.{name} returns {', '.join(without_zone)} without a time zone.",
            "Let the query return a timestamp with time zone, for example with AT TIME ZONE "
            "'Asia/Shanghai', or NULL::timestamptz.",
        )
    return SourceQuery(name, relation, types)


def _doubtful_approvers(
    connection: psycopg.Connection[Any], approvals: SourceQuery
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return the pairs of (approver, requester) in two spellings, and the blank approvers.

    `include.approvals.approvers` decides which spellings name the same person, because a database
    compares text by its collation.
    """
    query = SQL(
        "SELECT DISTINCT approval.approver::text, approval.person::text FROM {} AS approval "
        "WHERE approval.approver IS NOT NULL AND approval.person IS NOT NULL "
        "AND approval.approver::text <> approval.person::text"
    ).format(approvals.sql)
    with report_query_faults(approvals.name):
        pairs = connection.execute(query, {}).fetchall()
    own = tuple((approver, person) for approver, person in pairs if same_person(approver, person))
    blank = {approver for approver, _person in pairs if not normalize_person(approver)}
    return own, tuple(sorted(blank))


def _ambiguous(connection: psycopg.Connection[Any], approvals: SourceQuery) -> tuple[str, ...]:
    """Return the keys of approvals that occur more than once.

    Raises:
        UsageError: more than `MOST_LISTED` keys occur more than once, so the query is wrong.
    """
    query = SQL(
        "SELECT approval.approval::text FROM {} AS approval WHERE approval.approval IS NOT NULL "
        "GROUP BY approval.approval HAVING count(*) > 1 ORDER BY 1 LIMIT {}"
    ).format(approvals.sql, Literal(MOST_LISTED + 1))
    with report_query_faults(approvals.name):
        keys = tuple(key for (key,) in connection.execute(query, {}).fetchall())
    if len(keys) > MOST_LISTED:
        raise UsageError(
            f"use.yaml: accesses.approvals returns more than {MOST_LISTED:,} approvals several "
            "times.",
            "Let the query return one row per approval.",
        )
    return keys


def _equal(
    left: SourceQuery, left_column: str, right: SourceQuery, right_column: str
) -> Composable:
    return _equal_expressions(
        left.column(left_column), left.types[left_column],
        right.column(right_column), right.types[right_column],
    )  # fmt: skip


def _equal_expressions(
    left: Composable, left_type: int, right: Composable, right_type: int
) -> Composable:
    """Return the condition that two values are equal.

    Values of different types are compared as text. Texts are compared by their bytes, because
    columns with different collations cannot be compared otherwise.
    """
    if _is_number_or_uuid(left_type, right_type):
        return SQL("({} = {})").format(left, right)
    return SQL('({}::text COLLATE "C" = {}::text COLLATE "C")').format(left, right)


_UUID = 2950  # type oid


def _is_number_or_uuid(left: int, right: int) -> bool:
    return {left, right} <= _INTEGERS or left == right == _UUID


@contextmanager
def report_query_faults(name: str) -> Iterator[None]:
    """Convert database errors of a query in use.yaml to errors that quote no records.

    Args:
        name: key of the query, ``log`` or ``approvals``.

    Raises:
        UsageError: the query fails.
        ServiceError: the connection to the database was lost.
    """
    try:
        yield
    except psycopg.OperationalError as error:
        raise ServiceError(
            f"The connection to the database of accesses.{name} in use.yaml was lost "
            f"({error.sqlstate or 'no answer'}).",
            "Check that the database runs, then retry.",
        ) from None
    except psycopg.Error as error:
        state = error.sqlstate or ""
        detail = error.diag.message_primary if state.startswith(_SYNTAX_ERROR_CLASS) else None
        if state.startswith(_DATA_ERROR_CLASS):
            detail = "a value does not have the type of its column"
        raise UsageError(
            f"use.yaml: accesses.{name} cannot be read: {detail or f'SQLSTATE {state}'}.",
            "Correct the query, or the rights of its connection.",
        ) from None
