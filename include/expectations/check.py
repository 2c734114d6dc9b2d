"""Check which records break which expectations, in one snapshot of the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from include.expectations.broken import Finder, KeyReceiver
from include.expectations.conditions import Condition, Records, condition_of
from include.expectations.fit import misfits
from include.expectations.types import ColumnType, read_types
from include.messages import Message, _
from include.policy.expectations import Expectation
from include.services.database import DatabaseAddress, DatabaseUnavailable

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult


# A standby does not know the transactions of its primary. A role without pg_read_all_stats
# (pg_monitor includes it) cannot see when other roles' transactions started. A prepared transaction
# started before it was prepared; the margin for late arrivals has to cover the difference.
_ISO = "YYYY-MM-DD HH24:MI:SS.US+00"  # independent of the server's DateStyle
_ACTIVITY = f"""
SELECT to_char(now() AT TIME ZONE 'UTC', '{_ISO}'),
    (SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'),
    CASE WHEN NOT pg_is_in_recovery() AND pg_has_role('pg_read_all_stats', 'USAGE') THEN
        to_char(least(
            now(),
            (SELECT min(xact_start) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND backend_type IS DISTINCT FROM 'autovacuum worker'),
            (SELECT min(prepared) FROM pg_prepared_xacts WHERE database = current_database())
        ) AT TIME ZONE 'UTC', '{_ISO}')
    END
"""  # noqa: S608 - constants


@dataclass(frozen=True)
class Activity:
    """The current time of a database server, and the start of its oldest open transaction.

    Attributes:
        now: the server's current time, as text that PostgreSQL can read.
        timezone: default timezone in which the server's sessions print times.
        oldest: start of the oldest transaction that is open in the database, or `now` if none is
            open. It is None if the login may not see the transactions of other logins, or if the
            server is a standby.
    """

    now: str
    timezone: str
    oldest: str | None

    @classmethod
    def read(cls, connection: psycopg.Connection[Any]) -> Activity:
        """Read the current time of the server and the start of its oldest open transaction.

        The caller must call this function outside of a transaction, and before it opens the
        transaction in which records are checked. All transactions that begin after the call then
        begin later than `now`.
        """
        row = connection.execute(_ACTIVITY).fetchone()
        assert row is not None
        return cls(*row)


LOCKED = "55P03"  # SQLSTATE
MOST_NAMED = 100_000  # keys of broken records per rule; further records are only counted
# Timeouts that the server's owner set are kept; these are used only where none is set.
_SETTINGS = """
SELECT set_config('TimeZone', 'UTC', true),  -- keys are named by their text
    set_config('DateStyle', 'ISO, YMD', true),
    set_config('IntervalStyle', 'iso_8601', true),
    set_config('bytea_output', 'hex', true),
    set_config('extra_float_digits', '1', true),
    set_config('row_security', 'off', true),  -- rows hidden from us are an error, not good records
    set_config('parallel_tuple_cost', '0', true),
    set_config('min_parallel_index_scan_size', '0', true),  -- workers share a list of keys
    set_config('work_mem', CASE WHEN pg_size_bytes(current_setting('work_mem')) < 64 * 1024 * 1024
                           THEN '64MB' ELSE current_setting('work_mem') END, true),
    set_config('statement_timeout', CASE WHEN current_setting('statement_timeout') = '0'
                                    THEN '2h' ELSE current_setting('statement_timeout') END, true),
    set_config('lock_timeout', CASE WHEN current_setting('lock_timeout') = '0'
                               THEN '1min' ELSE current_setting('lock_timeout') END, true),
    set_config('idle_in_transaction_session_timeout', '0', true)  -- while the register is written
"""
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class _Borrowed:
    """A connection whose transaction libraries cannot end, and which libraries cannot close.

    With an ordinary connection, SQLAlchemy's connection pool would end the caller's transaction
    after each query, and Great Expectations would close the connection with each of its execution
    engines.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        """Do nothing, so that the caller's transaction stays open."""

    def rollback(self) -> None:
        """Do nothing, so that the caller's transaction stays open."""

    def close(self) -> None:
        """Do nothing, so that the caller's connection stays open."""


@dataclass(frozen=True)
class CheckFault:
    """The reason why an expectation could not be checked.

    Attributes:
        reason: the reason, for the readers of a report.
        detail: information with which engineers can correct the fault, such as an SQLSTATE or the
            argument of the expectation that does not fit; None without such information.
    """

    reason: Message
    detail: Message | None = None

    @property
    def with_detail(self) -> Message:
        """Return the reason, followed by the detail in parentheses if there is one."""
        if self.detail is None:
            return self.reason
        return _("{reason} ({detail})", reason=self.reason, detail=self.detail)


@dataclass(frozen=True)
class RuleResult:
    """The result of checking one expectation.

    Attributes:
        rule: the expectation.
        rows: number of records that were checked.
        broken: number of records that break the expectation.
        fault: reason why the expectation could not be checked; None if it was checked.
        keys_available: whether the primary keys of the records that break the expectation can be
            listed.
        evr: validation result of Great Expectations, without values of records; None if there is a
            fault.
    """

    rule: Expectation
    rows: int = 0
    broken: int = 0
    fault: CheckFault | None = None
    keys_available: bool = True
    evr: ExpectationValidationResult | None = None


@dataclass
class Snapshot:
    """An open transaction that sees a single state of the database, in which records are checked.

    Args:
        connection: connection on which the transaction is open.
        activity: the server's time and the start of its oldest transaction, read just before this
            transaction began.
    """

    connection: psycopg.Connection[Any]
    activity: Activity | None = None
    engine: sa.Engine = field(init=False)
    _failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = sa.create_engine(
            "postgresql+psycopg://",
            creator=lambda: _Borrowed(self.connection),
            poolclass=StaticPool,
            use_native_hstore=False,  # it would look up the type with psycopg's connection
        )

        # Great Expectations repeats a failed query, which hides why the first failed.
        def note(failed: sa.ExceptionContext) -> None:
            self.note(failed.original_exception)

        sa.event.listen(self.engine, "handle_error", note)

    def note(self, error: BaseException) -> None:
        """Remember the SQLSTATE of an error that a query raised, for `first_failure`.

        For an error without SQLSTATE, an empty text is remembered.
        """
        self._failures.append(getattr(error, "sqlstate", None) or "")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Run the block in a savepoint, so that the transaction stays usable if the block fails.

        If the block fails, the transaction is rolled back to the savepoint.
        """
        self._failures.clear()
        self.connection.execute("SAVEPOINT rule")
        try:
            yield
        except Exception:  # any failure: the snapshot must stay usable
            self.require_alive()
            self.connection.execute("ROLLBACK TO SAVEPOINT rule")
            raise
        self.connection.execute("RELEASE SAVEPOINT rule")

    def require_alive(self) -> None:
        """Raise an error if the connection to the database is lost.

        Without this check, a lost connection would be reported as a fault of the expectation.

        Raises:
            DatabaseUnavailable: the connection is lost.
        """
        if self.connection.broken or self.connection.closed:
            raise _gone()

    @property
    def first_failure(self) -> str:
        """Return the SQLSTATE of the first query error since the last savepoint was set.

        The text is empty if no query failed, or if the error has no SQLSTATE.
        """
        return next(iter(self._failures), "")


@contextmanager
def snapshot(address: DatabaseAddress) -> Iterator[Snapshot]:
    """Connect to a database and open a read-only transaction in which records are checked.

    Args:
        address: address of the database, with the login.

    Raises:
        UsageError: user, password or database name is wrong.
        DatabaseUnavailable: the server does not answer.
    """
    connection = address.connect(autocommit=True)
    try:
        activity = Activity.read(connection)
        connection.execute(_SNAPSHOT)
        # Few records are broken, but PostgreSQL expects that most rows are returned. It would then
        # plan no parallel workers, so the settings make passing rows between workers cost nothing.
        # The memory suffices for the keys of a million related records without temporary files.
        connection.execute(_SETTINGS)
        yield Snapshot(connection, activity)
    except (psycopg.Error, sa.exc.DBAPIError):
        if connection.broken or connection.closed:
            raise _gone() from None
        raise
    finally:
        connection.close()


def _gone() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "The connection to the database was lost while its records were checked.",
        "Check that the server runs, and that no limit of the server ended the session "
        "(transaction_timeout, max_standby_streaming_delay). The check is repeated.",
    )


def load_engine() -> None:
    """Import Great Expectations in advance, because its first import takes seconds."""
    import_module("include.expectations.gx")


@dataclass
class Check:
    """Checks records of one collection against expectations.

    Args:
        view: open transaction in which the records are checked.
        records: records to check.
        expectations: expectations about the records.
        now: time from which periods such as "older than a year" are measured.
        names: object that receives the primary keys of records that break an expectation.
        part: SQL expression whose value is passed on with each key, for example the record's
            department; None if only keys are needed.
        most: largest number of keys to pass on for each expectation; None for all keys.
        rows: number of records to check; None if it is not known yet, so that the check counts
            them.
        counted: name -> condition that is no expectation. The same scan counts the records that
            meet the condition. Their keys are not passed on.

    Attributes:
        counts: number of records that meet each condition of `counted`, by name; empty if the query
            that checks all expectations together failed.
    """

    view: Snapshot
    records: Records
    expectations: Sequence[Expectation]
    now: datetime
    names: KeyReceiver
    part: sa.ColumnElement[Any] | None = None
    most: int | None = MOST_NAMED
    rows: int | None = None
    counted: Mapping[str, Condition] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    _conditions: dict[str, Condition] = field(default_factory=dict)
    _types: Mapping[str, ColumnType] = field(default_factory=dict)

    def run(self) -> list[RuleResult]:
        """Check the expectations.

        A fault of one expectation does not prevent the check of the others.

        Returns:
            The result of each expectation, in the order of the expectations.
        """
        results: dict[str, RuleResult] = {}
        sound: list[Expectation] = []
        collection = self.records.collection
        self._types = read_types(self.view.connection, collection.schema_name, collection.table)
        for expectation in self.expectations:
            fault = self._prepared(expectation)
            if fault is None:
                sound.append(expectation)
            else:
                results[expectation.id] = RuleResult(expectation, fault=fault, keys_available=False)
        if sound:
            try:
                with self.view.savepoint():
                    results |= self._count(sound, self.counted)
            except Exception as error:  # noqa: BLE001 - `_each` then finds the rule that caused it
                self.view.require_alive()
                self.names.forget([expectation.id for expectation in sound])
                code = self.view.first_failure
                # The server or a user cancelled the query: running it again per rule would not
                # help.
                cancelled = _fault(code, error) if code.startswith("57") else None
                results |= self._each(sound, cancelled)
        return [results[expectation.id] for expectation in self.expectations]

    def _prepared(self, expectation: Expectation) -> CheckFault | None:
        missing = [name for name in expectation.columns() if name not in self.records.columns]
        if missing:
            return CheckFault(_("the table has no column {column}", column=missing[0]))
        if expectation.type == "expect_records_to_be_distinct" and not self.records.key:
            return CheckFault(_("the table has no primary key to distinguish its records"))
        if unfit := misfits(self.view.connection, expectation, self._types, self.records.timezone):
            return CheckFault(
                _("the expectation does not suit the type of its column"), unfit[0].message
            )
        condition = condition_of(expectation, self.records, self.now, self._types)
        if condition is not None:
            self._conditions[expectation.id] = condition
        return None

    def _count(
        self, expectations: Sequence[Expectation], counted: Mapping[str, Condition]
    ) -> dict[str, RuleResult]:
        from include.expectations import gx

        collection = self.records.collection
        conditions = {
            expectation.id: self._conditions[expectation.id]
            for expectation in expectations
            if expectation.id in self._conditions
        }

        @cache
        def find() -> Mapping[str, int]:
            counts = self._find({**conditions, **counted})
            self.counts.update({name: counts[name] for name in counted})
            return counts

        results_of = gx.count(
            self.view.engine,
            self.records.selectable,
            (collection.schema_name, collection.table),
            expectations,
            find,
            conditions,
            self.rows,
        )
        results = {}
        for expectation in expectations:
            result = results_of[expectation.id]
            keys_available = bool(self.records.key) and not expectation.type.startswith(
                "expect_table_"
            )
            results[expectation.id] = RuleResult(
                expectation, result.rows, result.broken, None, keys_available, result.evr
            )
        return results

    def _find(self, conditions: Mapping[str, Condition]) -> dict[str, int]:
        view = self.view
        finder = Finder(
            view.connection, view.engine.dialect, self.records, self.part, self.names, self.most
        )
        try:
            return finder.find(conditions)
        except psycopg.Error as error:
            view.note(error)
            raise

    def _each(
        self, expectations: Sequence[Expectation], cancelled: CheckFault | None
    ) -> dict[str, RuleResult]:
        """Check the expectations one by one, after a query for all of them together has failed.

        If a check fails because another session locks a table, the following expectations that need
        this table are skipped. The check then does not wait for the lock again.

        Args:
            expectations: expectations to check.
            cancelled: fault to report for every expectation, without checking any, because the
                server or a user cancelled the query for all of them; None if this query failed for
                another reason.
        """
        results: dict[str, RuleResult] = {}
        # by collection; None for the collection of the checked records
        locked: dict[str | None, CheckFault] = {}
        for expectation in expectations:
            collection = getattr(expectation.kwargs, "collection", None)
            fault = cancelled or locked.get(None) or locked.get(collection)
            if fault is None:
                results[expectation.id] = self._alone(expectation)
                # For a rule with its own SQL, which may read any table, the locked table is
                # unknown.
                if self.view.first_failure == LOCKED and (collection or not _has_sql(expectation)):
                    locked[collection] = fault_of(LOCKED)
            else:
                results[expectation.id] = RuleResult(expectation, fault=fault, keys_available=False)
        return results

    def _alone(self, expectation: Expectation) -> RuleResult:
        try:
            with self.view.savepoint():
                return self._count([expectation], {})[expectation.id]
        except Exception as error:  # noqa: BLE001 - one rule's fault stops no other
            self.view.require_alive()
            self.names.forget([expectation.id])
            return RuleResult(
                expectation, fault=_fault(self.view.first_failure, error), keys_available=False
            )


def _has_sql(expectation: Expectation) -> bool:
    return any(getattr(expectation.kwargs, name, None) for name in ("condition", "where"))


_STANDBY_CONFLICT = "40001"  # SQLSTATE
_REASONS: Mapping[str, Message] = {
    "22": _("the expectation cannot be applied to some values of the records"),
    "42": _("the database does not support the query that checks the expectation"),
    "57": _("the query that checks the expectation took too long or was cancelled"),
    "2201B": _("the regular expression of the expectation is invalid"),
    _STANDBY_CONFLICT: _("a standby database removed the records while they were read"),
    "42501": _("the login is not allowed to read all records"),
    LOCKED: _("another session locks the records"),
}
"""Reasons for failed queries, by SQLSTATE or by the first two characters of it."""
_OTHER_REASON = _("the database refused the query that checks the expectation")


def fault_of(code: str) -> CheckFault:
    """Return the reason why a query failed, without PostgreSQL's message, which may quote values.

    Args:
        code: SQLSTATE of the error; empty if unknown.
    """
    reason = _REASONS.get(code) or _REASONS.get(code[:2], _OTHER_REASON)
    if code == _STANDBY_CONFLICT:
        return CheckFault(reason, _("SQLSTATE {code}, see hot_standby_feedback", code=code))
    return CheckFault(reason, _("SQLSTATE {code}", code=code) if code else None)


def _fault(code: str, error: Exception) -> CheckFault:
    if not code:
        return CheckFault(
            _("the check program could not compute a result"),
            _("{error} in Great Expectations", error=type(error).__name__),
        )
    return fault_of(code)
