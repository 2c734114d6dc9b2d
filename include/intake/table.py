"""Load the incoming table for a step, and maintain the table's entries in the quarantine register.

The register lists a quarantined row until the row is resolved. A row is resolved if it was deleted,
got another state, or was corrected and became a formal record. It is also resolved if it was
entered again as a new row, and the new row became a formal record.
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
from include.intake.checks import Checker, ConditionChecks, Key, SuiteChecks
from include.intake.incoming import Incoming, split_part
from include.policy.fragments import pack_sql
from include.quarantine import register
from include.quarantine.keys import KeyNames, identifies_person
from include.quarantine.register import key_of, key_text
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.workflow.run_context import RunContext

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class IncomingTable:
    """An incoming table whose batches a run reviews.

    Attributes:
        run: context of the run.
        incoming: incoming table and its rule of intake.yaml.
        reader: database address with a login that only reads.
        writer: database address with a login that creates formal records.
        checkers: checkers of the conditions and expectations that the rows have to meet.
        keys: HMAC keys. If a row's primary key identifies a person, they turn it into a pseudonym
            for the quarantine register. If this is None, no row of the table is listed in the
            register.
    """

    run: RunContext[None]
    incoming: Incoming
    reader: DatabaseAddress
    writer: DatabaseAddress
    checkers: Sequence[Checker] = ()
    keys: ErasureKeys | None = None

    @property
    def state(self) -> Engine:
        """Return the engine of the state database."""
        return self.run.state

    @property
    def clock(self) -> Clock:
        """Return the clock of the run."""
        return self.run.clock

    @property
    def checked_collection(self) -> register.CheckedCollection:
        """Return the collection, the run and the time for entries of the quarantine register."""
        incoming, run = self.incoming, self.run.run
        names = incoming.database.name, incoming.collection.name
        return register.CheckedCollection(*names, run.dag_id, run.run_id, self.clock.now())

    @property
    def key_names(self) -> KeyNames | None:
        """Return the object that computes the names of rows in the quarantine register.

        The result is None if the run has no HMAC keys.
        """
        incoming = self.incoming
        if self.keys is None:
            return None
        return KeyNames(self.keys, incoming.database.name, incoming.collection, incoming.key)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Connect to the mapped database, and run the block in a read-only `unit_of_work`."""
        with (
            self.reader.connect(autocommit=True) as connection,
            unit_of_work(connection, self.incoming, write=False),
        ):
            yield connection

    def quarantine(self, rule: str, keys: Sequence[Key]) -> None:
        """Add rows to the quarantine register. A repeated call does not add a row again.

        If the run has no HMAC keys, no row is added.

        Args:
            rule: id of the condition of intake.yaml or of the expectation that the rows break.
            keys: primary keys of the rows.
        """
        names = self.key_names
        if names is None:
            return
        with register.open_stage(self.state) as stage:
            for key in keys:
                stage.add(rule, names.of([str(value) for value in key]), None)
            stage.enter(self.checked_collection, [rule], "none")


def load_table(run: RunContext[None], rule_id: str) -> IncomingTable:
    """Return the incoming table of a rule of intake.yaml, with its logins and checkers.

    Args:
        run: context of the run.
        rule_id: id of the rule.
    """
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
            ConditionChecks(incoming),
        ],
        keys=services.erasure_keys,
    )


def on_table(
    work: Callable[Concatenate[IncomingTable, StepFindings, _P], _R],
) -> Callable[Concatenate[RunContext[None], StepFindings, _P], _R]:
    """Wrap a function that takes an incoming table as a step function that handles one batch.

    The wrapper passes the incoming table that contains the batch to the function.
    """

    @wraps(work)
    def step(
        run: RunContext[None], findings: StepFindings, /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        rule_id, batch = split_part(findings.part)
        table = load_table(run, rule_id)
        findings.subject_titles[findings.part] = table.incoming.batch_title(batch)
        return work(table, findings, *args, **kwargs)

    return step


def on_tables(
    work: Callable[[Sequence[IncomingTable], StepFindings], _R],
) -> Callable[[RunContext[None], StepFindings], _R]:
    """Wrap a function that takes all incoming tables as a step function."""

    @wraps(work)
    def step(run: RunContext[None], findings: StepFindings) -> _R:
        return work([load_table(run, rule.id) for rule in run.pack.intake], findings)

    return step


def resolve_quarantine(table: IncomingTable, connection: Connection) -> int:
    """Close the entries of the quarantine register whose rows are no longer quarantined.

    A repeated call has no further effect.

    Args:
        table: incoming table.
        connection: connection on which `unit_of_work` has opened a transaction. The function only
            reads with this connection.

    Returns:
        The number of entries that were closed.

    Raises:
        UsageError: PostgreSQL cannot evaluate a condition of `entered_anew` in intake.yaml.
    """
    incoming = table.incoming
    name = (incoming.database.name, incoming.collection.name)
    with table.state.connect() as conn:
        listed = register.open_keys_of(conn, *name, table.checked_collection.dag_id)
    if not listed:
        return 0
    try:
        waiting = set(_unresolved_names(table, connection, listed))
    except psycopg.errors.InsufficientPrivilege:
        raise  # a missing right is not a fault of `entered_anew`
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        raise UsageError(
            f"The rows of {name[1]} that were entered again could not be found "
            f"(SQLSTATE {error.sqlstate}).",
            "Correct entered_anew in intake.yaml. Until then the register keeps these rows.",
        ) from None
    resolved = [key for key in listed if key not in waiting]
    with table.state.begin() as conn:
        raw = conn.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        return register.resolve_entries(raw, table.checked_collection, resolved)


def _unresolved_names(
    table: IncomingTable, connection: Connection, listed: Sequence[str]
) -> Iterator[str]:
    """Yield the names of rows that the quarantine register still has to list.

    Args:
        table: incoming table.
        connection: connection on which `unit_of_work` has opened a transaction.
        listed: names of the rows that the register lists now.
    """
    incoming = table.incoming
    if not identifies_person(incoming.collection, incoming.key):
        keys = incoming.listed_keys(map(key_of, listed))
        query = _unresolved_query(incoming, incoming.key_is_listed)
        yield from map(key_text, connection.execute(query, keys))
        return
    # A pseudonym does not reveal the row, so the names of all unresolved rows are computed with
    # each HMAC key
    key_names = {key_id: _key_names(table, key_id) for key_id in {_key_id(name) for name in listed}}
    # Without its HMAC key, a name cannot be recognised, so its entry stays.
    yield from (name for name in listed if key_names[_key_id(name)] is None)
    with connection.cursor() as cursor:
        for row in cursor.stream(_unresolved_query(incoming, SQL("true")), {}):
            yield from (names.of(row) for names in key_names.values() if names is not None)


def _key_id(name: str) -> str:
    """Return the id of the HMAC key with which a name in the quarantine register was computed."""
    return key_of(name)[0].removeprefix("hmac:").partition(":")[0]


def _key_names(table: IncomingTable, key_id: str) -> KeyNames | None:
    """Return the object that uses the HMAC key ``key_id`` to convert primary keys to pseudonyms.

    This also works if the HMAC key has since been replaced by a newer key. The result is None if
    the HMAC key is not available.
    """
    incoming, keys = table.incoming, table.keys
    if keys is None or key_id not in keys.keys:
        return None
    old_keys = ErasureKeys(keys.keys, key_id)
    return KeyNames(old_keys, incoming.database.name, incoming.collection, incoming.key)


def _unresolved_query(incoming: Incoming, among: Composable) -> Composed:
    """Return the query for the rows that the quarantine register still has to list.

    The query returns the primary keys of these rows. They are pending or quarantined, and were not
    entered again. A row was entered again if a newer row became a formal record, and a condition of
    `entered_anew` in intake.yaml matches the two rows. Each condition is a separate join, because
    with a single OR PostgreSQL would compare every row with every other row.

    Args:
        incoming: incoming table and its rule of intake.yaml.
        among: SQL condition that restricts the rows.
    """
    later_rows = [
        incoming.sql(
            "AND NOT EXISTS (SELECT FROM {table} AS n WHERE n.{state} = {promoted} "
            "AND n.{entered_at} > i.{entered_at} AND ({same}))",
            entered_at=Identifier(incoming.rule.entered.at),
            same=pack_sql(entered_anew),
        )
        for entered_anew in incoming.rule.entered_anew
    ]
    return incoming.sql(
        "SELECT {key} FROM {table} AS i "
        "WHERE {among} AND i.{state} IN ({pending}, {set_aside}) {later}",
        key=SQL(", ").join(SQL("{}::text").format(incoming.column(name)) for name in incoming.key),
        among=among,
        later=SQL(" ").join(later_rows),
    )
