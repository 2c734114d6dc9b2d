"""A company with a register of partners of its own names, and what is done to it."""

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
from include.partners.partner_status import PartnerStatus, standing_of
from include.partners.register import Register, partner_of, register_of
from include.partners.rules import PARTNERS, PartnerRules
from include.policy import PolicyPack
from include.registry import load_pack
from include.services.clock import FixedClock
from include.workflow.run_context import RunContext
from tests.partners.books import answered
from tests.policy.packs import write_pack
from tests.support.contexts import run_context, step_record
from tests.support.databases import fresh, pooled

ZONE = ZoneInfo("Asia/Shanghai")
BOTH = {"en": "One", "zh-CN": "一"}
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
        {"tier": 1, "title": BOTH, "review_every": "P12M", "pass_mark": "80%"},
        {"tier": 2, "title": BOTH, "review_every": "P24M", "pass_mark": "2/3"},
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
class Rig:
    """The company.

    Attributes:
        pack: its policy pack.
        conninfo: of the database with its register.
        state: the state database.
        state_conninfo: of the state database, for other processes.
        today: the day; its run begins at 09:40.
        run: of the workflow.
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
        return register_of(self.context)

    def standing(self, code: str) -> PartnerStatus:
        return standing_of(self.context, code)

    def ally(self, code: str, **more: Any) -> None:
        """Enter a partner: in order for years, where nothing else is said."""
        given: dict[str, Any] = {
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
        given |= more
        names = ", ".join(given)
        marks = ", ".join(["%s"] * len(given))
        self.sql(f"INSERT INTO ally ({names}) VALUES ({marks})", list(given.values()))

    def change(self, code: str, **what: Any) -> None:
        changes = ", ".join(f"{name} = %s" for name in what)
        self.sql(f"UPDATE ally SET {changes} WHERE code = %s", [*what.values(), code])

    def sql(self, query: str, values: Any = None) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(query.encode(), values)

    def empty(self) -> None:
        """Begin again: another register, and no history, which only its owner can undo."""
        self.sql("TRUNCATE ally")
        tables = "partner_answer, partner_sub_processor, partner_review"
        with self.state.begin() as conn:
            for one in tables.split(", "):
                conn.execute(text(f"ALTER TABLE {one} DISABLE TRIGGER USER"))
            conn.execute(text(f"TRUNCATE {tables}, notice, notice_message, run_step"
                              " RESTART IDENTITY"))  # fmt: skip
            for one in tables.split(", "):
                conn.execute(text(f"ALTER TABLE {one} ENABLE TRIGGER USER"))

    def check(self, run: str | None = None) -> Any:
        """Do the step in a run."""
        if run is not None:
            self.run = replace(self.run, run_id=run)
        return step_record(CHECK, self.context)

    def keys(self, kind: str = "partners.reminder", run: str | None = None) -> list[str]:
        """Keys of notices, by the order in which they were queued; of one run."""
        query = "SELECT key FROM notice WHERE kind = :kind AND (run_id = :run OR :run IS NULL)"
        with self.state.connect() as conn:
            bound = text(f"{query} ORDER BY id").bindparams(kind=kind, run=run)
            return list(conn.scalars(bound))

    def issue(self, code: str, *, by: str = "E1", anew: bool = False) -> Review:
        context = self.context
        with self.state.begin() as conn:
            return reviews.issue(
                conn, partner_of(context, code), context.rules, by=by, at=self.now,
                timezone="Asia/Shanghai", anew=anew,
            )  # fmt: skip

    def hand_in(self, review: Review, *, by: str = "E1", **answers: str) -> Review:
        assert review.issued is not None
        content = answered(review.issued, answers, on=self.today)
        with self.state.begin() as conn:
            return reviews.hand_in(conn, content, "back.xlsx", by=by, at=self.now)

    def decide(self, code: str, *, passed: bool, by: str = "E2") -> Review:
        with self.state.begin() as conn:
            return reviews.decide(
                conn, code, passed=passed, by=by, reason="as answered", at=self.now
            )

    def review(self, code: str, *, passed: bool = True) -> Review:
        """A whole review, in one day."""
        self.hand_in(self.issue(code))
        return self.decide(code, passed=passed)

    def reopen(self, code: str, because: str = "an incident") -> Review:
        with self.state.begin() as conn:
            return reviews.reopen(conn, code, because=because, by="E3", at=self.now)


def pack_at(folder: Path, **more: Any) -> PolicyPack:
    rules = yaml.safe_dump(RULES | more, allow_unicode=True)
    return load_pack(write_pack(folder, datamap__shop=MAP, partners=rules))


@contextmanager
def new_rig(postgres: EmbeddedPostgres, migrated: str, folder: Path) -> Iterator[Rig]:
    with fresh(postgres) as shop, fresh(postgres, migrated) as state:
        with psycopg.connect(postgres.conninfo(shop), autocommit=True) as connection:
            connection.execute(TABLE)
        made = pooled(postgres.conninfo(state))
        yield Rig(pack_at(folder), postgres.conninfo(shop), made, postgres.conninfo(state))
        made.dispose()


def codes(record: Any) -> list[tuple[str, str, str]]:
    """Code, severity and subject of each finding of a step."""
    return [(one.code, str(one.severity), one.subject) for one in record.findings]


def figures(record: Any) -> dict[str, Any]:
    return {one.name: one.value for one in record.metrics}
