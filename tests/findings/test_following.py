"""Owners of open findings are mailed once a week, until somebody else tested again."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from include.findings import register
from include.findings.register import remind, still_open
from include.messages import verbatim
from include.notify.outbox import Run
from include.policy.rules import NoticeRules, Role
from include.state.connect import engine

SHANGHAI = ZoneInfo("Asia/Shanghai")
OPENED = datetime(2026, 10, 12, 9, 30, tzinfo=SHANGHAI)
TITLES = {"en": "Management", "zh-CN": "公司管理层"}
ROLES = {"management": Role(id="management", title=TITLES, mail=("a@b.example", "c@b.example"))}
DUE = date(2026, 11, 11)


@pytest.fixture
def state(migrated_database: str) -> Engine:
    made = engine(migrated_database)
    with made.begin() as conn:
        for owner in ("management", "gone"):
            register.open_finding(
                conn,
                kind="audit",
                reference=f"2026Q3/accesses/1/{owner}",
                what=verbatim("Item a1: no"),
                owner=owner,
                opened_at=OPENED,
                due_on=DUE,
            )
    return made


def reminded(state: Engine, now: datetime) -> list[int]:
    with state.begin() as conn:
        run = Run("conclude_audit", str(now))
        return remind(conn, "audit.finding", roles=ROLES, rules=NoticeRules(), run=run, now=now)


def keys(state: Engine) -> list[str]:
    with state.connect() as conn:
        return list(conn.scalars(text("SELECT key FROM notice ORDER BY id")))


def test_each_address_of_the_owner_is_told_once_a_week(state: Engine) -> None:
    """From a week before the day on; a repeated step tells nobody again."""
    for day in range(40):
        now = OPENED + timedelta(days=day)
        found = reminded(state, now)
        assert found in ([], [1])
        assert reminded(state, now + timedelta(minutes=9)) == []
    days = ["2026-11-04", "2026-11-11", "2026-11-18"]
    assert keys(state) == [f"1/{day}{rest}" for day in days for rest in ("", "#1")]
    with state.connect() as conn:
        lines = list(conn.scalars(text("SELECT line->>'text' FROM notice ORDER BY id")))
    assert [("overdue" in one) for one in lines] == [False] * 4 + [True] * 2


def test_nothing_is_queued_where_the_register_did_not_keep_it(state: Engine) -> None:
    """Reminder and notice stand or fall together."""
    run, now = Run("conclude_audit", "r1"), datetime(2026, 11, 10, tzinfo=UTC)
    with state.connect() as conn:
        remind(conn, "audit.finding", roles=ROLES, rules=NoticeRules(), run=run, now=now)
        conn.rollback()
    assert keys(state) == []
    assert reminded(state, datetime(2026, 11, 10, 9, tzinfo=SHANGHAI)) == [1]


def test_a_finding_that_was_closed_meanwhile_is_wanted_no_more(state: Engine) -> None:
    """It is asked just before the mail is sent."""
    reminded(state, datetime(2026, 11, 10, 9, tzinfo=SHANGHAI))
    asked = ["1/2026-11-10", "1/2026-11-10#1", "2/2026-11-10", "77/2026-11-10"]
    with state.begin() as conn:
        assert still_open(conn, asked) == set(asked[:3])
        register.answer(conn, 1, cause="No form", action="A form", by="owner", at=OPENED)
        assert still_open(conn, asked) == set(asked[:3])
        register.retest(conn, 1, met=True, by="auditor", at=OPENED)
        assert still_open(conn, asked) == {"2/2026-11-10"}


def test_corrective_actions_of_incidents_are_followed_by_the_same_register(state: Engine) -> None:
    """Reminded as findings of audits are, and wanted until somebody tested again."""
    with state.begin() as conn:
        number = register.open_finding(
            conn,
            kind="incident",
            reference="INC-2026-0001/1",
            what=verbatim("Scan repositories daily"),
            owner="management",
            opened_at=OPENED,
            due_on=DUE,
        )
    now = datetime(2026, 11, 10, 9, tzinfo=SHANGHAI)
    assert reminded(state, now) == [1, number]
    assert f"{number}/2026-11-10" in keys(state)
    with state.begin() as conn:
        assert still_open(conn, [f"{number}/2026-11-10"])
        register.answer(conn, number, cause="None did", action="Scan", by="owner", at=OPENED)
        register.retest(conn, number, met=True, by="auditor", at=OPENED)
        assert not still_open(conn, [f"{number}/2026-11-10"])
