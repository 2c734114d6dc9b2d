"""A company whose partner register has other table and column names than the sample company's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import yaml
from sqlalchemy import Engine, text

from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run
from include.partners import reviews
from include.partners.check import CHECK
from include.partners.history import Review
from include.partners.partner_status import PartnerStatus, load_partner_status
from include.partners.register import Register, load_partner, load_register
from include.partners.rules import PARTNERS, PartnerRules
from include.policy import PolicyPack
from include.registry import load_pack
from include.services.clock import FixedClock
from include.workflow.run_context import RunContext
from tests.partners.questionnaire_workbooks import answered_workbook
from tests.policy.packs import write_pack
from tests.support.contexts import run_context, step_record
from tests.support.databases import pooled, temporary_database

ZONE = ZoneInfo("Asia/Shanghai")
TITLES = {"en": "One", "zh-CN": "一"}
TABLE = """
CREATE TABLE ally (
    code text, company text, grade text, contact text, secrecy_from text, secrecy_to text,
    deal_to text, seen_on text, connected boolean)
"""
MAP = """\
fides_key: shop
collections:
  - name: ally
    fields:
      - {name: code, fides_meta: {primary_key: true}}
"""
RULES: dict[str, Any] = {
    "register": {
        "database": "shop",
        "sql": "SELECT code AS partner, company AS name, grade AS tier, contact AS mail, "
        "secrecy_from AS nda_from, secrecy_to AS nda_until, deal_to AS agreement_until, "
        "seen_on AS last_review_on, connected AS live_access FROM ally WHERE company LIKE '%'",
    },
    "owner": "compliance",
    "tell_partners": True,
    "tiers": [
        {"tier": 1, "title": TITLES, "review_every": "P12M", "pass_mark": "80%"},
        {"tier": 2, "title": TITLES, "review_every": "P24M", "pass_mark": "2/3"},
    ],
    "questionnaire": [
        {"id": "purpose", "text": {"en": "Within?", "zh-CN": "目的之内？"}, "weight": 3,
         "critical": True,
         "basis": {"instrument": "PIPL", "version": "2021-11-01", "article": "21"}},
        {"id": "encryption", "text": {"en": "Encrypted?", "zh-CN": "加密？"}, "weight": 2,
         "basis": "business"},
        {"id": "inspected", "text": {"en": "=Mended?", "zh-CN": "已整改？"}, "weight": 1,
         "may_not_apply": True, "basis": "business"},
    ],
}  # fmt: skip


@dataclass
class PartnersCompany:
    """A company with partners.

    Attributes:
        pack: policy pack of the company.
        conninfo: connection string of the database with the partner register.
        state: engine of the state database.
        state_conninfo: connection string of the state database, for other processes.
        today: date of the run, which starts at 09:40.
        run: run of the workflow.
    """

    pack: PolicyPack
    conninfo: str
    state: Engine
    state_conninfo: str = ""
    today: date = date(2026, 6, 1)
    run: Run = field(default_factory=lambda: Run("review_partners", "r1"))

    @property
    def now(self) -> datetime:
        return datetime.combine(self.today, time(9, 40), ZONE)

    @property
    def context(self) -> RunContext[PartnerRules]:
        clock = FixedClock(self.now)
        databases = {"shop": self.conninfo}
        return run_context(PARTNERS, self.pack, databases, self.state, clock, self.run)

    def register(self) -> Register:
        return load_register(self.context)

    def status(self, code: str) -> PartnerStatus:
        return load_partner_status(self.context, code)

    def add_partner(self, code: str, **more: Any) -> None:
        """Add a partner.

        By default all its agreements and its review are valid for months or years.
        """
        columns: dict[str, Any] = {
            "code": code,
            "company": f"Company {code}",
            "grade": "1",
            "contact": f"privacy@{code}.example",
            "secrecy_from": "2020-01-01",
            "secrecy_to": "2029-12-31",
            "deal_to": "2029-12-31",
            "seen_on": self.today.isoformat(),
            "connected": True,
        }
        columns |= more
        names = ", ".join(columns)
        marks = ", ".join(["%s"] * len(columns))
        self.sql(f"INSERT INTO ally ({names}) VALUES ({marks})", list(columns.values()))

    def change_partner(self, code: str, **columns: Any) -> None:
        changes = ", ".join(f"{name} = %s" for name in columns)
        self.sql(f"UPDATE ally SET {changes} WHERE code = %s", [*columns.values(), code])

    def sql(self, query: str, parameters: Any = None) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(query.encode(), parameters)

    def reset(self) -> None:
        """Empty the partner register and the tables of reviews, notifications and step records.

        Only the owner of the tables can disable the triggers that protect reviews.
        """
        self.sql("TRUNCATE ally")
        tables = "partner_answer, partner_sub_processor, partner_review"
        with self.state.begin() as conn:
            for part in tables.split(", "):
                conn.execute(text(f"ALTER TABLE {part} DISABLE TRIGGER USER"))
            conn.execute(text(f"TRUNCATE {tables}, notification, notification_message, run_step"
                              " RESTART IDENTITY"))  # fmt: skip
            for part in tables.split(", "):
                conn.execute(text(f"ALTER TABLE {part} ENABLE TRIGGER USER"))

    def check(self, run: str | None = None) -> Any:
        """Run the step that checks partners, and return its step record."""
        if run is not None:
            self.run = replace(self.run, run_id=run)
        return step_record(CHECK, self.context)

    def keys(self, kind: str = "partners.reminder", run: str | None = None) -> list[str]:
        """Return the keys of queued notifications in order, of all runs or of one run."""
        query = (
            "SELECT key FROM notification WHERE kind = :kind AND (run_id = :run OR :run IS NULL)"
        )
        with self.state.connect() as conn:
            bound = text(f"{query} ORDER BY id").bindparams(kind=kind, run=run)
            return list(conn.scalars(bound))

    def issue(self, code: str, *, by: str = "E1", reissue: bool = False) -> Review:
        context = self.context
        with self.state.begin() as conn:
            return reviews.issue_questionnaire(
                conn, load_partner(context, code), context.rules, by=by, at=self.now,
                timezone="Asia/Shanghai", reissue=reissue,
            )  # fmt: skip

    def hand_in(self, review: Review, *, by: str = "E1", **answers: str) -> Review:
        assert review.issued is not None
        content = answered_workbook(review.issued, answers, on=self.today)
        with self.state.begin() as conn:
            return reviews.accept_questionnaire(conn, content, "back.xlsx", by=by, at=self.now)

    def decide(self, code: str, *, passed: bool, by: str = "E2") -> Review:
        with self.state.begin() as conn:
            return reviews.decide(
                conn, code, passed=passed, by=by, reason="as answered", at=self.now
            )

    def complete_review(self, code: str, *, passed: bool = True) -> Review:
        """Issue a questionnaire, return it and decide the review, all on the same day."""
        self.hand_in(self.issue(code))
        return self.decide(code, passed=passed)

    def reopen(self, code: str, because: str = "an incident") -> Review:
        with self.state.begin() as conn:
            return reviews.reopen(conn, code, because=because, by="E3", at=self.now)


def write_partner_pack(folder: Path, **more: Any) -> PolicyPack:
    rules = yaml.safe_dump(RULES | more, allow_unicode=True)
    return load_pack(write_pack(folder, datamap__shop=MAP, partners=rules))


@contextmanager
def new_company(
    postgres: EmbeddedPostgres, migrated: str, folder: Path
) -> Iterator[PartnersCompany]:
    with temporary_database(postgres) as shop, temporary_database(postgres, migrated) as state:
        with psycopg.connect(postgres.conninfo(shop), autocommit=True) as connection:
            connection.execute(TABLE)
        state_engine = pooled(postgres.conninfo(state))
        yield PartnersCompany(
            write_partner_pack(folder),
            postgres.conninfo(shop),
            state_engine,
            postgres.conninfo(state),
        )
        state_engine.dispose()


def codes(record: Any) -> list[tuple[str, str, str]]:
    """Return code, severity and subject of each finding of a step."""
    return [(finding.code, str(finding.severity), finding.subject) for finding in record.findings]


def metric_values(record: Any) -> dict[str, Any]:
    return {metric.name: metric.value for metric in record.metrics}
