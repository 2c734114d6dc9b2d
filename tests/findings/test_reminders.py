"""Weekly reminders to the owners of open findings."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from include.evidence.model import Outcome
from include.findings import register
from include.findings.reminders import keep_due_keys, remind_owners
from include.messages import verbatim
from include.notify.outbox import Run
from include.policy.rules import NotificationRules, Role
from include.state.connect import engine

SHANGHAI = ZoneInfo("Asia/Shanghai")
OPENED = datetime(2026, 10, 12, 9, 30, tzinfo=SHANGHAI)
TITLES = {"en": "Management", "zh-CN": "公司管理层"}
ROLES = {"management": Role(id="management", title=TITLES, mail=("a@b.example", "c@b.example"))}
DUE = date(2026, 11, 11)


@pytest.fixture
def state(migrated_database: str) -> Engine:
    database = engine(migrated_database)
    with database.begin() as conn:
        for owner in ("management", "gone"):
            register.open_finding(
                conn,
                kind="audit",
                reference=f"2026Q3/accesses/1/{owner}",
                description=verbatim("Item a1: no"),
                owner=owner,
                opened_at=OPENED,
                due_on=DUE,
            )
    return database


def reminded(state: Engine, now: datetime) -> list[int]:
    with state.begin() as conn:
        run = Run("conclude_audit", str(now))
        return remind_owners(
            conn, "audit.finding", roles=ROLES, rules=NotificationRules(), run=run, now=now
        )


def keys(state: Engine) -> list[str]:
    with state.connect() as conn:
        return list(conn.scalars(text("SELECT key FROM notification ORDER BY id")))


def test_remind_owners_queues_one_notification_per_address_and_week(state: Engine) -> None:
    """Reminders start a week before the due date. A retried step queues nothing more."""
    for day in range(40):
        now = OPENED + timedelta(days=day)
        numbers = reminded(state, now)
        assert numbers in ([], [1])
        assert reminded(state, now + timedelta(minutes=9)) == []
    days = ["2026-11-04", "2026-11-11", "2026-11-18"]
    assert keys(state) == [f"1/{day}{rest}" for day in days for rest in ("", "#1")]
    with state.connect() as conn:
        lines = list(conn.scalars(text("SELECT line->>'text' FROM notification ORDER BY id")))
    assert [("OVERDUE" in line) for line in lines] == [False] * 4 + [True] * 2


def test_rollback_after_remind_owners_leaves_no_notification(state: Engine) -> None:
    """The reminder event and its notification are written in one transaction."""
    run, now = Run("conclude_audit", "r1"), datetime(2026, 11, 10, tzinfo=UTC)
    with state.connect() as conn:
        remind_owners(
            conn, "audit.finding", roles=ROLES, rules=NotificationRules(), run=run, now=now
        )
        conn.rollback()
    assert keys(state) == []
    assert reminded(state, datetime(2026, 11, 10, 9, tzinfo=SHANGHAI)) == [1]


def test_keep_due_keys_returns_only_notification_keys_of_open_findings(state: Engine) -> None:
    reminded(state, datetime(2026, 11, 10, 9, tzinfo=SHANGHAI))
    queued_keys = ["1/2026-11-10", "1/2026-11-10#1", "2/2026-11-10", "77/2026-11-10"]
    with state.begin() as conn:
        assert keep_due_keys(conn, queued_keys, DUE) == set(queued_keys[:3])
        register.answer(conn, 1, cause="No form", action="A form", by="owner", at=OPENED)
        assert keep_due_keys(conn, queued_keys, DUE) == set(queued_keys[:3])
        register.retest(conn, 1, met=True, by="auditor", at=OPENED)
        assert keep_due_keys(conn, queued_keys, DUE) == {"2/2026-11-10"}


def test_keep_due_keys_leaves_out_findings_while_their_risk_is_accepted(state: Engine) -> None:
    key = "1/2026-11-10"
    with state.begin() as conn:
        register.append_event(
            conn, 1, register.Event.ACCEPTED, "manager", OPENED,
            reason="A new form comes in December.", until=DUE, severity=str(Outcome.FAIL),
        )  # fmt: skip
        assert keep_due_keys(conn, [key], DUE) == set()
        assert keep_due_keys(conn, [key], DUE + timedelta(days=1)) == {key}


def test_owner_of_incident_finding_is_reminded(state: Engine) -> None:
    with state.begin() as conn:
        number = register.open_finding(
            conn,
            kind="incident",
            reference="INC-2026-0001/1",
            description=verbatim("Scan repositories daily"),
            owner="management",
            opened_at=OPENED,
            due_on=DUE,
        )
    now = datetime(2026, 11, 10, 9, tzinfo=SHANGHAI)
    assert reminded(state, now) == [1, number]
    assert f"{number}/2026-11-10" in keys(state)
    with state.begin() as conn:
        assert keep_due_keys(conn, [f"{number}/2026-11-10"], DUE)
        register.answer(conn, number, cause="None did", action="Scan", by="owner", at=OPENED)
        register.retest(conn, number, met=True, by="auditor", at=OPENED)
        assert not keep_due_keys(conn, [f"{number}/2026-11-10"], DUE)
