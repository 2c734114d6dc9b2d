"""A company with an access log and approvals, whose rules have only the key `accesses`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine, select, text

from include.disclosure.accesses.rules import AccessRules
from include.disclosure.accesses.step import COMPARE, AccessComparison
from include.disclosure.accesses.tables import access_violation
from include.evidence.model import StepRecord
from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run
from include.policy.section import RuleSection, SectionRules
from include.service_container import Services
from include.services.clock import FixedClock
from include.workflow.run_context import RunContext
from tests.support.contexts import pack_of, services_of, step_record
from tests.support.databases import pooled, temporary_database
from tests.support.registers import emptying

DAG = "expire_grants"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TABLES = """
CREATE TABLE seen (
    access bigint, person text, subject bigint, purpose text, fields text[], at timestamptz,
    approval bigint, department text);
CREATE TABLE permit (
    approval bigint, person text, approver text, purpose text, fields text[], subjects bigint[],
    starts timestamptz, ends timestamptz, entered_at timestamptz, withdrawn_at timestamptz);
CREATE INDEX ON seen (at)
"""
LOG = "SELECT * FROM seen WHERE true OR 'x' LIKE '%y' -- all"
APPROVALS = "SELECT * FROM permit"


class RulesWithAccesses(SectionRules):
    """Rules of a section that has only the key `accesses`."""

    connection: str = "use_db"
    accesses: AccessRules | None = None


SECTION = RuleSection("use.yaml", RulesWithAccesses, lambda _rules, _pack: iter(()), page="")


def access_rules(**more: Any) -> AccessRules:
    """Return rules that read the tables of the company."""
    return AccessRules.model_validate(
        {"database": "firm", "log": LOG, "approvals": APPROVALS, **more}
    )


@dataclass
class AccessCompany:
    """A company with an access log.

    Attributes:
        source: connection string of the company's database.
        state: engine of the state database.
        rules: the key `accesses` of the rules; None if the pack has none.
        now: time of the next run.
        runs: number of runs so far.
        parameters: parameters of the next run.
        services: further services, by name.
    """

    source: str
    state: Engine
    rules: AccessRules | None = field(default_factory=access_rules)
    now: datetime = NOON
    runs: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)

    def context(
        self, run_id: str, services: Services | None = None
    ) -> RunContext[RulesWithAccesses]:
        """Return the context of a run, by default with a policy pack without controls."""
        if services is None:
            pack = pack_of({"firm": "firm_db"}, {})
            services = services_of(pack, {"firm": self.source}, self.state, FixedClock(self.now))
        rules = RulesWithAccesses(accesses=self.rules)
        return RunContext(services, rules, Run(DAG, run_id), parameters=self.parameters)

    def record(self, run_id: str = "") -> StepRecord:
        """Execute the step in a new run, or in the given run, and return its record."""
        self.runs += 1
        return step_record(COMPARE, self.context(run_id or f"r{self.runs}"))

    def compare(self, run_id: str = "") -> AccessComparison:
        return AccessComparison.model_validate(self.record(run_id).data)

    def violations(self, state: str = "open") -> set[tuple[str, str]]:
        """Return the access keys and kinds of the register's entries in a state."""
        return {(row.access, row.kind) for row in self.entries() if row.state == state}

    def entries(self) -> list[Any]:
        with self.state.connect() as conn:
            return list(conn.execute(select(access_violation).order_by(access_violation.c.id)))

    def add(self, table: str, **values: Any) -> None:
        columns = SQL(", ").join(map(Identifier, values))
        places = SQL(", ").join(SQL("%s") * len(values))
        query = SQL("INSERT INTO {} ({}) VALUES ({})")
        self.sql(query.format(Identifier(table), columns, places), list(values.values()))

    def add_access(self, access: int | None = 1, **more: Any) -> None:
        """Log an access that the default approval covers."""
        values = {
            "person": "N1", "subject": 7, "purpose": "delivery", "fields": ["name"],
            "at": NOON - timedelta(hours=1), "approval": 10, "department": "North",
        }  # fmt: skip
        self.add("seen", access=access, **(values | more))

    def add_approval(self, approval: int | None = 10, **more: Any) -> None:
        """Add an approval of a week, which began yesterday."""
        start = NOON - timedelta(days=1)
        values = {
            "person": "N1", "approver": "N9", "purpose": "delivery", "fields": ["name", "phone"],
            "starts": start, "ends": start + timedelta(days=7), "entered_at": start,
        }  # fmt: skip
        self.add("permit", approval=approval, **(values | more))

    def sql(self, query: Any, values: Any = ()) -> None:
        with psycopg.connect(self.source, autocommit=True) as connection:
            connection.execute(query, values)

    def reset(self) -> None:
        """Empty the log, the approvals and the register, and restore the defaults."""
        self.sql("TRUNCATE seen, permit")
        tables = ("access_violation", "access_comparison", "run_artifact", "run_step")
        with self.state.begin() as conn:
            conn.execute(text(emptying(tables)))
        self.rules, self.now, self.runs, self.parameters = access_rules(), NOON, 0, {}


@contextmanager
def new_company(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[AccessCompany]:
    """Create a company and its databases, and drop the databases afterwards."""
    with temporary_database(postgres) as firm, temporary_database(postgres, migrated_once) as state:
        with psycopg.connect(postgres.conninfo(firm), autocommit=True) as connection:
            connection.execute(TABLES)
        yield AccessCompany(postgres.conninfo(firm), pooled(postgres.conninfo(state)))
