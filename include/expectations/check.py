"""Check records: which of them break which expectation, in one snapshot."""

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

from include.expectations.broken import Finder, Names
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
    """A server's clock and open transactions.

    Attributes:
        now: the server's present moment, in a form that PostgreSQL reads.
        timezone: in which the server's sessions write moments by default.
        oldest: start of the oldest open transaction of the database, or `now` when none was open;
            None where the role or a standby does not show it.
    """

    now: str
    timezone: str
    oldest: str | None

    @classmethod
    def read(cls, connection: psycopg.Connection[Any]) -> Activity:
        """Read the activity, outside of a transaction and before the snapshot is taken.

        Transactions that begin after it begin after `now`.
        """
        row = connection.execute(_ACTIVITY).fetchone()
        assert row is not None
        return cls(*row)


LOCKED = "55P03"  # SQLSTATE
MOST_NAMED = 100_000  # records of one rule; more are counted only
# Limits that the server's owner set are kept; ours are for those who set none.
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
    """A connection whose transaction belongs to somebody else.

    SQLAlchemy's pool would end the transaction after each query, and Great Expectations close the
    connection with each of its engines.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        """Leave the transaction open."""

    def rollback(self) -> None:
        """Leave the transaction open."""

    def close(self) -> None:
        """Leave the connection open."""


@dataclass(frozen=True)
class RuleResult:
    """The result of an expectation.

    Attributes:
        rule: the expectation.
        rows: records looked at.
        broken: records that are not as expected.
        fault: why it could not be checked at all; None when it was.
        named: whether broken records can be named one by one.
        evr: Great Expectations' own result, without values; None with a fault.
    """

    rule: Expectation
    rows: int = 0
    broken: int = 0
    fault: Message | None = None
    named: bool = True
    evr: ExpectationValidationResult | None = None


@dataclass
class Snapshot:
    """An open transaction in which records are checked.

    Args:
        connection: in its transaction, which stays open; sees one state of the database.
        activity: of the server, read just before it.
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
            use_native_hstore=False,  # would look up a type through the connection itself
        )

        # Great Expectations repeats a failed query, which hides why the first failed.
        def note(failed: sa.ExceptionContext) -> None:
            self.note(failed.original_exception)

        sa.event.listen(self.engine, "handle_error", note)

    def note(self, error: BaseException) -> None:
        """Remember the kind of a failed query."""
        self._failures.append(getattr(error, "sqlstate", None) or "")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what fails inside, so that the snapshot lives on."""
        self._failures.clear()
        self.connection.execute("SAVEPOINT rule")
        try:
            yield
        except Exception:  # whatever it was, the snapshot goes on behind it
            self.require_alive()
            self.connection.execute("ROLLBACK TO SAVEPOINT rule")
            raise
        self.connection.execute("RELEASE SAVEPOINT rule")

    def require_alive(self) -> None:
        """Tell a lost server from a wrong rule.

        Raises:
            DatabaseUnavailable: the connection is gone.
        """
        if self.connection.broken or self.connection.closed:
            raise _gone()

    @property
    def first_failure(self) -> str:
        """SQLSTATE of the first query that failed in the last savepoint; empty without one."""
        return next(iter(self._failures), "")


@contextmanager
def snapshot(address: DatabaseAddress) -> Iterator[Snapshot]:
    """Open a database for checking; nothing in it can be changed through this.

    Raises:
        UsageError: user, password or database name is wrong.
        DatabaseUnavailable: the server does not answer.
    """
    connection = address.connect(autocommit=True)
    try:
        activity = Activity.read(connection)
        connection.execute(_SNAPSHOT)
        # Few records are broken, which PostgreSQL cannot know: unless handing rows on costs nothing
        # it expects to hand on most of them, and does without its workers. The memory is for keys
        # of a million related records without temporary files.
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
        "The database went away while its records were checked.",
        "See that the server runs, and that no limit of its own ended the session "
        "(transaction_timeout, max_standby_streaming_delay); the check is repeated.",
    )


def load_engine() -> None:
    """Import Great Expectations, which takes seconds the first time."""
    import_module("include.expectations.gx")


@dataclass
class Check:
    """One suite on one batch of records.

    Args:
        view: the open database.
        records: what is checked.
        expectations: of the suite.
        now: the moment from which periods count back.
        names: takes the keys of broken records.
        part: what a record belongs to, a department. Beside its key nothing else of a record leaves
            the database.
        most: keys to name for each rule; None for all.
        rows: how many records there are, where that is known.
        counted: conditions of which only the number of records is wanted, by name.

    Attributes:
        counts: of these; of none that could not be asked together with the rules.
    """

    view: Snapshot
    records: Records
    expectations: Sequence[Expectation]
    now: datetime
    names: Names
    part: sa.ColumnElement[Any] | None = None
    most: int | None = MOST_NAMED
    rows: int | None = None
    counted: Mapping[str, Condition] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    _conditions: dict[str, Condition] = field(default_factory=dict)
    _types: Mapping[str, ColumnType] = field(default_factory=dict)

    def run(self) -> list[RuleResult]:
        """Count what breaks each expectation; one that cannot be checked does not stop others.

        Returns:
            The results, in the order of the expectations.
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
                results[expectation.id] = RuleResult(expectation, fault=fault, named=False)
        if sound:
            try:
                with self.view.savepoint():
                    results |= self._count(sound, self.counted)
            except Exception as error:  # noqa: BLE001 - the rule that caused it says so when it is alone
                self.view.require_alive()
                self.names.forget([expectation.id for expectation in sound])
                code = self.view.first_failure
                # Whoever cancelled the query does not want to see it again for each rule.
                cancelled = _reason(code, error) if code.startswith("57") else None
                results |= self._each(sound, cancelled)
        return [results[expectation.id] for expectation in self.expectations]

    def _prepared(self, one: Expectation) -> Message | None:
        missing = [name for name in one.columns() if name not in self.records.columns]
        if missing:
            return _("the table has no column {column}", column=missing[0])
        if one.type == "expect_records_to_be_distinct" and not self.records.key:
            return _("the table has no primary key, so that its records cannot be told apart")
        if unfit := misfits(self.view.connection, one, self._types, self.records.timezone):
            return unfit[0].message
        condition = condition_of(one, self.records, self.now, self._types)
        if condition is not None:
            self._conditions[one.id] = condition
        return None

    def _count(
        self, expectations: Sequence[Expectation], counted: Mapping[str, Condition]
    ) -> dict[str, RuleResult]:
        from include.expectations import gx

        collection = self.records.collection
        known = {
            expectation.id: self._conditions[expectation.id]
            for expectation in expectations
            if expectation.id in self._conditions
        }

        @cache
        def find() -> Mapping[str, int]:
            found = self._find({**known, **counted})
            self.counts.update({name: found[name] for name in counted})
            return found

        results_of = gx.count(
            self.view.engine,
            self.records.selectable,
            (collection.schema_name, collection.table),
            expectations,
            find,
            known,
            self.rows,
        )
        results = {}
        for expectation in expectations:
            done = results_of[expectation.id]
            named = bool(self.records.key) and not expectation.type.startswith("expect_table_")
            results[expectation.id] = RuleResult(
                expectation, done.rows, done.broken, None, named, done.evr
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
        self, expectations: Sequence[Expectation], cancelled: Message | None
    ) -> dict[str, RuleResult]:
        """Check one by one, and wait for a lock once; of none when the whole was cancelled."""
        results: dict[str, RuleResult] = {}
        locked: dict[str | None, Message] = {}  # by collection; None is the records' own
        for expectation in expectations:
            asked = getattr(expectation.kwargs, "collection", None)
            fault = cancelled or locked.get(None) or locked.get(asked)
            if fault is None:
                results[expectation.id] = self._alone(expectation)
                # Whose SQL may ask any table does not tell which of them is locked.
                if self.view.first_failure == LOCKED and (asked or not _has_sql(expectation)):
                    locked[asked] = reason_of(LOCKED)
            else:
                results[expectation.id] = RuleResult(expectation, fault=fault, named=False)
        return results

    def _alone(self, one: Expectation) -> RuleResult:
        try:
            with self.view.savepoint():
                return self._count([one], {})[one.id]
        except Exception as error:  # noqa: BLE001 - one rule's fault stops no other
            self.view.require_alive()
            self.names.forget([one.id])
            return RuleResult(one, fault=_reason(self.view.first_failure, error), named=False)


def _has_sql(one: Expectation) -> bool:
    return any(getattr(one.kwargs, name, None) for name in ("condition", "where"))


def reason_of(code: str) -> Message:
    """Why a query failed, without PostgreSQL's words: they quote values.

    Args:
        code: SQLSTATE.
    """
    known: Mapping[str, Message] = {
        "22": _("PostgreSQL cannot apply it to the values (SQLSTATE {code})", code=code),
        "42": _("PostgreSQL does not understand it (SQLSTATE {code})", code=code),
        "57": _("it took too long, or was cancelled (SQLSTATE {code})", code=code),
        "2201B": _("its regular expression is invalid (SQLSTATE {code})", code=code),
        "40001": _(
            "a standby cleared away what it was reading: see hot_standby_feedback "
            "(SQLSTATE {code})",
            code=code,
        ),
        "42501": _("its records may not be read, or not all of them (SQLSTATE {code})", code=code),
        LOCKED: _("another session holds a lock on what it reads (SQLSTATE {code})", code=code),
    }
    other = _("PostgreSQL refused it (SQLSTATE {code})", code=code)
    return known.get(code) or known.get(code[:2], other)


def _reason(code: str, error: Exception) -> Message:
    if not code:
        return _("Great Expectations could not compute it ({kind})", kind=type(error).__name__)
    return reason_of(code)
