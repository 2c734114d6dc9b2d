"""A small company for tests of quality checks.

Tests change its records so that they break expectations.
"""

# ruff: noqa: E501 - an expectation is easier to read in one line
from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
from sqlalchemy import Engine, text

from include.erasure.ledger import ErasureKeys
from include.evidence.model import StepRecord
from include.evidence.step_findings import StepFindings
from include.expectations.check import RuleResult
from include.notify.outbox import Run
from include.policy import PolicyPack
from include.policy.rules import Calendar
from include.quality.check import CHECK, check_database
from include.registry import load_pack
from include.services.database import DatabaseAddress
from include.workflow.run_context import RunContext
from tests.policy.packs import write_pack
from tests.support.databases import pooled

TIMEZONE = "UTC"
MONDAY = datetime(2026, 3, 2, 5, 0, tzinfo=UTC)
TABLES = """
CREATE TABLE branch (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO branch VALUES (1, 'North'), (2, 'South');
CREATE TABLE person (
    id bigint PRIMARY KEY, name text, phone text, id_number text, email text, faith text,
    branch_id int REFERENCES branch, seen_at timestamptz, subscribed boolean NOT NULL DEFAULT false,
    updated_at timestamptz DEFAULT now()
);
CREATE INDEX ON person (updated_at);
CREATE TABLE consent (id bigint PRIMARY KEY, person_id bigint REFERENCES person, purpose text);
INSERT INTO person SELECT n, 'Person ' || n, '139' || lpad(n::text, 8, '0'), NULL, NULL, NULL,
    1 + n % 2, '2026-02-01', false, timestamptz '2026-01-01' + n * interval '1 hour'
    FROM generate_series(1, 40) n;
INSERT INTO consent SELECT n, n, 'delivery' FROM generate_series(1, 40) n;
UPDATE person SET subscribed = true WHERE id = 40;
INSERT INTO consent VALUES (1040, 40, 'marketing');
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN NEW.updated_at = now(); END IF;
     RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON person FOR EACH ROW EXECUTE FUNCTION touch();
"""
MAP = """\
fides_key: shop
collections:
  - name: branch
    fields:
      - {name: id, fides_meta: {primary_key: true}}
      - name: name
  - name: person
    fields:
      - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true}}
      - {name: name, data_categories: [user.name]}
      - {name: phone, data_categories: [user.contact.phone_number]}
      - {name: id_number, data_categories: [user.government_id]}
      - {name: email, data_categories: [user.contact.email]}
      - {name: faith, data_categories: [user.demographic.religious_belief]}
      - name: branch_id
        fides_meta: {references: [{dataset: shop, field: branch.id, direction: to}]}
      - {name: seen_at, fides_meta: {data_type: string}}
      - name: subscribed
      - {name: updated_at, fides_meta: {data_type: string}}
  - name: consent
    fields:
      - {name: id, fides_meta: {primary_key: true}}
      - name: person_id
        fides_meta: {references: [{dataset: shop, field: person.id, direction: to}]}
      - name: purpose
"""
SUITE = """\
- collection: person
  breakdown: {column: branch_id, collection: branch, label: name}
  changed: {column: updated_at, late_arrivals: PT1S}
  expectations:
    - {id: named, type: expect_column_values_to_not_be_blank, kwargs: {column: name}, severity: fail, clause: "4.1", title: {en: Named, zh-CN: 有姓名}}
    - {id: phone, type: expect_column_values_to_be_mobile_numbers, kwargs: {column: phone, mostly: 0.9}, severity: fail, clause: "5.1", title: {en: Phone, zh-CN: 电话}}
    - {id: twin, type: expect_records_to_be_distinct, kwargs: {columns: [name, phone]}, severity: warn, clause: "4.1", title: {en: Once, zh-CN: 不重复}}
    - {id: recent, type: expect_column_values_to_be_recent, kwargs: {column: seen_at, period: P60D}, severity: warn, clause: "4.1", title: {en: Recent, zh-CN: 近期核对}}
    - {id: consent, type: expect_related_records, kwargs: {collection: consent, field: person_id, key: id, condition: "other.purpose = 'marketing'", where: subscribed}, severity: fail, clause: "4.1", title: {en: Consent, zh-CN: 同意}}
    - {id: unique_phone, type: expect_column_values_to_be_unique, kwargs: {column: phone}, severity: warn, clause: "4.1", title: {en: Unique, zh-CN: 唯一}}
"""
RULE = '- {{id: {id}, type: {type}, severity: fail, clause: "4.1", title: {{en: t, zh-CN: t}}}}\n'
CHANGED = "  changed: {column: updated_at, late_arrivals: PT1S}\n"
KEYS = ErasureKeys({"1": b"k" * 32}, "1")


def suite(collection: str = "person", **rules: str) -> str:
    """Return a suite as YAML.

    Args:
        collection: collection of the suite.
        rules: type and kwargs of each expectation as YAML text, by its id.
    """
    lines = "".join("    " + RULE.format(id=name, type=rule) for name, rule in rules.items())
    changed = CHANGED if collection == "person" else ""
    return f"- collection: {collection}\n{changed}  expectations:\n{lines}"


@dataclass(frozen=True)
class Checked:
    """The step record of a check, and the results of Great Expectations by collection."""

    record: StepRecord
    results: dict[str, list[RuleResult]]


@dataclass
class Company:
    """A company with a customer database, a state database and a policy pack.

    Attributes:
        conninfo: connection string of the customer database.
        state: engine of the state database.
        pack: the policy pack.
        at: time of the newest check.
        runs: number of checks so far.
    """

    conninfo: str
    state: Engine
    pack: PolicyPack
    at: datetime = MONDAY
    runs: int = field(default=0)

    @classmethod
    def make(cls, conninfo: str, state: str, folder: Path, **files: str) -> Company:
        """Create the tables of the customer database, and write the policy pack.

        The state database must already be migrated.
        """
        with psycopg.connect(conninfo) as connection:
            connection.execute(TABLES)
        db = pooled(state)
        files = {"datamap__shop": MAP, "quality__person": SUITE, **files}
        return cls(conninfo, db, load_pack(write_pack(folder, **files)))

    def do(self, *statements: str) -> None:
        """Execute SQL statements in the customer database."""
        with psycopg.connect(self.conninfo) as connection:
            for statement in statements:
                connection.execute(statement)

    def check(self, *, full: bool = False, sealed: bool = True, days: int = 1) -> Checked:
        """Check the database as if some days had passed since the previous check.

        Args:
            full: whether to request a full check.
            sealed: whether to seal the evidence afterwards.
            days: days since the previous check; may be negative.
        """
        self.at += timedelta(days=days)
        self.runs += 1
        address = DatabaseAddress.from_conninfo(self.conninfo)
        run = quality_run(self.pack, address, self.state, f"run-{self.runs}", full=full)
        result = checked(run, "shop", self.at)
        if sealed:
            self.seal()
        return result

    def seal(self) -> None:
        """Add the newest run to the evidence ledger, in the same way as the seal of a bundle."""
        with self.state.begin() as conn:
            conn.execute(
                text(
                    "INSERT INTO evidence_ledger SELECT coalesce(max(seq), 0) + 1, :run,"
                    " 'check_quality', :run, 'pass', '{}', now(), now(), '', '', '', ''"
                    " FROM evidence_ledger"
                ),
                {"run": f"run-{self.runs}"},
            )

    def open(self) -> dict[str, set[str]]:
        """Return the keys of the records with open quarantine entries, by id of the expectation."""
        keys: dict[str, set[str]] = {}
        with self.state.connect() as conn:
            for rule, key in conn.execute(
                text("SELECT rule, key FROM quarantine WHERE resolved_at IS NULL")
            ):
                keys.setdefault(rule, set()).add(key)
        return keys

    def collection(self, done: Checked) -> dict[str, Any]:
        """Return the counts and outcomes of the collection `person` in a check."""
        (figures,) = [
            collection
            for collection in done.record.data["collections"]
            if collection["collection"] == "person"
        ]
        return {**figures, "parts": [tuple(part) for part in figures["parts"]]}


def quality_run(
    pack: PolicyPack, address: DatabaseAddress, state: Engine, run_id: str, **parameters: Any
) -> RunContext[None]:
    """Create a run of `check_quality` whose pack has the timezone of the tests."""
    services: Any = SimpleNamespace(
        pack=pack.model_copy(update={"calendar": Calendar(timezone=TIMEZONE)}),
        state=state,
        erasure_keys=KEYS,
        database=lambda _connection: address,
    )
    return RunContext(services, None, Run("check_quality", run_id), parameters=parameters)


def checked(run: RunContext[None], database: str, at: datetime) -> Checked:
    """Check a database without taking the lock that excludes concurrent checks."""
    findings = StepFindings(CHECK.name, CHECK.clause, database)
    done = check_database(run, findings, run.database(database), at)
    return Checked(findings.record(done.result), done.validations)


def untraced(company: Company, statement: str) -> None:
    """Change records of persons without writing a new value into their change column."""
    company.do("ALTER TABLE person DISABLE TRIGGER touch", statement)
    company.do("ALTER TABLE person ENABLE TRIGGER touch")


def reason(company: Company, **how: Any) -> str:
    """Run a check, and return the reason why it was a full check.

    Args:
        company: the company whose database is checked.
        how: arguments of `Company.check`.
    """
    return str(company.collection(company.check(**how))["whole_because"]["text"])
