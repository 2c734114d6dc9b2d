"""An incoming table that a run reviews, its steps, and its rows in the quarantine register.

The register lists rows that were set aside until they are dealt with: the row was deleted or given
another state, was corrected and let in, or was entered again and that row became formal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier
from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys
from include.evidence.step_findings import StepFindings
from include.intake.batches import Connection, unit_of_work
from include.intake.checks import Checker, Key, OwnChecks, SuiteChecks
from include.intake.names import Incoming, rule_and_batch
from include.policy.fragments import pack_sql
from include.quarantine import register
from include.quarantine.keys import KeyNames, tells_a_person
from include.quarantine.register import key_of, key_text
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.workflow.run_context import RunContext

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class IncomingTable:
    """An incoming table in a run.

    Attributes:
        run: the run that reviews its batches.
        incoming: the table under its rule.
        reader: its database with a login that reads.
        writer: its database with a login that lets records in.
        checkers: rules for its rows.
        keys: of the names of rows whose primary key identifies a person; without them such rows
            have no name for people, and the quarantine register lists no row.
    """

    run: RunContext[None]
    incoming: Incoming
    reader: DatabaseAddress
    writer: DatabaseAddress
    checkers: Sequence[Checker] = ()
    keys: ErasureKeys | None = None

    @property
    def state(self) -> Engine:
        """The state database."""
        return self.run.state

    @property
    def clock(self) -> Clock:
        """The time."""
        return self.run.clock

    @property
    def place(self) -> register.Place:
        """The table and the run, as the quarantine register names them."""
        incoming, run = self.incoming, self.run.run
        names = incoming.database.name, incoming.collection.name
        return register.Place(*names, run.dag_id, run.run_id, self.clock.now())

    @property
    def names(self) -> KeyNames | None:
        """The names of incoming rows for people and the register; None without keys."""
        incoming = self.incoming
        if self.keys is None:
            return None
        return KeyNames(self.keys, incoming.database.name, incoming.collection, incoming.key)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Read the database in one unchanging view; see `unit_of_work`."""
        with (
            self.reader.connect(autocommit=True) as connection,
            unit_of_work(connection, self.incoming, write=False),
        ):
            yield connection

    def quarantine(self, rule: str, keys: Sequence[Key]) -> None:
        """List rows that break a rule in the quarantine register; safe to repeat."""
        names = self.names
        if names is None:
            return
        with register.staging(self.state) as stage:
            for key in keys:
                stage.add(rule, names.of([str(value) for value in key]), None)
            stage.enter(self.place, [rule], "none")


def table_of(run: RunContext[None], rule_id: str) -> IncomingTable:
    """Return the incoming table of a rule in intake.yaml."""
    pack, services = run.pack, run.services
    rule = pack.intake_rule(rule_id)
    mapped = pack.database_of(rule.collection, rule.database)
    incoming = Incoming(rule, mapped)
    expectations = [
        expectation
        for suite in pack.suites_of(mapped.name, incoming=True)
        if suite.collection == incoming.collection.name
        for expectation in suite.expectations
    ]
    return IncomingTable(
        run=run,
        incoming=incoming,
        reader=services.database(mapped.connection),
        writer=services.role_database(rule.connection, mapped.connection),
        checkers=[
            SuiteChecks(incoming, expectations, pack.calendar.timezone),
            OwnChecks(incoming),
        ],
        keys=services.erasure_keys,
    )


def on_table(
    work: Callable[Concatenate[IncomingTable, StepFindings, _P], _R],
) -> Callable[Concatenate[RunContext[None], StepFindings, _P], _R]:
    """Let a step work on the incoming table that its part, a batch, belongs to."""

    @wraps(work)
    def step(
        run: RunContext[None], findings: StepFindings, /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        table = table_of(run, rule_and_batch(findings.part)[0])
        return work(table, findings, *args, **kwargs)

    return step


def on_tables(
    work: Callable[[Sequence[IncomingTable], StepFindings], _R],
) -> Callable[[RunContext[None], StepFindings], _R]:
    """Let a step work on all incoming tables."""

    @wraps(work)
    def step(run: RunContext[None], findings: StepFindings) -> _R:
        return work([table_of(run, rule.id) for rule in run.pack.intake], findings)

    return step


def resolve(table: IncomingTable, connection: Connection) -> int:
    """Resolve the register's entries of rows that are dealt with; how many.

    Safe to repeat.

    Args:
        table: the incoming table.
        connection: inside of `unit_of_work`; only read from.

    Raises:
        UsageError: a condition of `entered_anew` is wrong.
    """
    incoming = table.incoming
    name = (incoming.database.name, incoming.collection.name)
    with table.state.connect() as conn:
        listed = register.open_by(conn, *name, table.place.dag_id)
    if not listed:
        return 0
    try:
        waiting = set(_waiting(table, connection, listed))
    except psycopg.errors.InsufficientPrivilege:
        raise  # is no fault of the conditions
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        raise UsageError(
            f"It cannot be told which rows of {name[1]} were entered anew "
            f"(SQLSTATE {error.sqlstate}).",
            "Check entered_anew in intake.yaml. The register keeps listing them until then.",
        ) from None
    done = [key for key in listed if key not in waiting]
    with table.state.begin() as conn:
        raw = conn.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        return register.resolve(raw, table.place, done)


def _waiting(table: IncomingTable, connection: Connection, listed: Sequence[str]) -> Iterator[str]:
    """Which of the register's names are of rows that nobody has dealt with."""
    incoming = table.incoming
    if not tells_a_person(incoming.collection, incoming.key):
        keys = incoming.listed_keys(map(key_of, listed))
        query = _query(incoming, incoming.is_listed)
        yield from map(key_text, connection.execute(query, keys))
        return
    # A name tells no key, so that all rows that were set aside are named, by each key of the HMAC.
    makers = {key_id: _names(table, key_id) for key_id in {_maker(name) for name in listed}}
    yield from (name for name in listed if makers[_maker(name)] is None)  # nobody can tell any more
    with connection.cursor() as cursor:
        for row in cursor.stream(_query(incoming, SQL("true")), {}):
            yield from (names.of(row) for names in makers.values() if names is not None)


def _maker(name: str) -> str:
    """The id of the key of the HMAC that a name in the register is."""
    return key_of(name)[0].removeprefix("hmac:").partition(":")[0]


def _names(table: IncomingTable, key_id: str) -> KeyNames | None:
    """The names as they were made with a key that may have been rotated since."""
    incoming, keys = table.incoming, table.keys
    if keys is None or key_id not in keys.keys:
        return None
    then = ErasureKeys(keys.keys, key_id)
    return KeyNames(then, incoming.database.name, incoming.collection, incoming.key)


def _query(incoming: Incoming, among: Composable) -> Composed:
    """The keys of rows that wait, were set aside, and of which no later row became formal.

    A condition each is a join each; under one OR every row would be held against every other.
    """
    later = [
        incoming.sql(
            "AND NOT EXISTS (SELECT FROM {table} AS n WHERE n.{state} = {promoted} "
            "AND n.{entered_at} > i.{entered_at} AND ({same}))",
            entered_at=Identifier(incoming.rule.entered.at),
            same=pack_sql(condition),
        )
        for condition in incoming.rule.entered_anew
    ]
    return incoming.sql(
        "SELECT {key} FROM {table} AS i "
        "WHERE {among} AND i.{state} IN ({pending}, {set_aside}) {later}",
        key=SQL(", ").join(SQL("{}::text").format(incoming.column(name)) for name in incoming.key),
        among=among,
        later=SQL(" ").join(later),
    )
