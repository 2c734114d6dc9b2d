"""An incoming table that a run reviews, and the steps that work on one or all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys
from include.evidence.step_findings import StepFindings
from include.intake.checks import Checker, Key, OwnChecks, SuiteChecks
from include.intake.names import Incoming, rule_and_batch
from include.quarantine import register
from include.quarantine.keys import KeyNames
from include.services.clock import Clock
from include.services.database import DatabaseAddress
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
