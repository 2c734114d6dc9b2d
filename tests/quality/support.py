"""A small company whose records a test breaks and mends."""

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
    """A suite; a rule is its type and kwargs."""
    lines = "".join("    " + RULE.format(id=name, type=one) for name, one in rules.items())
    changed = CHANGED if collection == "person" else ""
    return f"- collection: {collection}\n{changed}  expectations:\n{lines}"


@dataclass(frozen=True)
class Checked:
    """The record of a check, and Great Expectations' results by collection."""

    record: StepRecord
    results: dict[str, list[RuleResult]]


@dataclass
class Company:
    """A customer database, a state database and a pack.

    Attributes:
        conninfo: of the customer database.
        state: the state database.
        pack: the policy pack.
        at: the moment of the next check.
    """

    conninfo: str
    state: Engine
    pack: PolicyPack
    at: datetime = MONDAY
    runs: int = field(default=0)

    @classmethod
    def make(cls, conninfo: str, state: str, folder: Path, **files: str) -> Company:
        """Create tables and write the pack; the state database is migrated already."""
        with psycopg.connect(conninfo) as connection:
            connection.execute(TABLES)
        db = pooled(state)
        files = {"datamap__shop": MAP, "quality__person": SUITE, **files}
        return cls(conninfo, db, load_pack(write_pack(folder, **files)))

    def do(self, *statements: str) -> None:
        """Change the customer database."""
        with psycopg.connect(self.conninfo) as connection:
            for one in statements:
                connection.execute(one)

    def check(self, *, full: bool = False, sealed: bool = True, days: int = 1) -> Checked:
        """Check the database some days after the last time, and seal the evidence or not."""
        self.at += timedelta(days=days)
        self.runs += 1
        address = DatabaseAddress.from_conninfo(self.conninfo)
        run = quality_run(self.pack, address, self.state, f"run-{self.runs}", full=full)
        done = checked(run, "shop", self.at)
        if sealed:
            self.seal()
        return done

    def seal(self) -> None:
        """Enter the last run into the evidence ledger, as its seal does."""
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
        """The open records by rule."""
        found: dict[str, set[str]] = {}
        with self.state.connect() as conn:
            for rule, key in conn.execute(
                text("SELECT rule, key FROM quarantine WHERE resolved_at IS NULL")
            ):
                found.setdefault(rule, set()).add(key)
        return found

    def collection(self, done: Checked) -> dict[str, Any]:
        """What a check says of the persons."""
        (found,) = [one for one in done.record.data["collections"] if one["collection"] == "person"]
        return {**found, "parts": [tuple(part) for part in found["parts"]]}


def quality_run(
    pack: PolicyPack, address: DatabaseAddress, state: Engine, run_id: str, **parameters: Any
) -> RunContext[None]:
    """Return a run of `check_quality` in the timezone of its moments."""
    services: Any = SimpleNamespace(
        pack=pack.model_copy(update={"calendar": Calendar(timezone=TIMEZONE)}),
        state=state,
        erasure_keys=KEYS,
        database=lambda _connection: address,
    )
    return RunContext(services, None, Run("check_quality", run_id), parameters=parameters)


def checked(run: RunContext[None], database: str, at: datetime) -> Checked:
    """Check a database without its lock."""
    findings = StepFindings(CHECK.name, CHECK.clause, database)
    done = check_database(run, findings, run.database(database), at)
    return Checked(findings.record(done.result), done.validations)


def untraced(company: Company, statement: str) -> None:
    """Change persons as a program does that leaves their change column alone."""
    company.do("ALTER TABLE person DISABLE TRIGGER touch", statement)
    company.do("ALTER TABLE person ENABLE TRIGGER touch")


def reason(company: Company, **how: Any) -> str:
    """Check, and return why all persons were examined."""
    return str(company.collection(company.check(**how))["whole_because"]["text"])
