"""Tests that only a retest closes a finding, by a person who never answered the finding."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine, event, text

from include.findings import register
from include.findings.register import Event, Finding, State
from include.local.postgres import EmbeddedPostgres
from include.messages import _
from include.services.errors import UsageError
from include.state.connect import engine
from tests.support.databases import temporary_database

NOW = datetime(2026, 10, 12, 1, 30, tzinfo=UTC)
DUE = date(2026, 11, 11)
CLOSED = "closed"


@pytest.fixture(scope="module")
def state(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """Yield a state database."""
    with temporary_database(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def conn(state: Engine) -> Iterator[Connection]:
    """Yield a transaction on the state database that is rolled back after the test."""
    with state.connect() as connection:
        yield connection
        connection.rollback()


def opened(conn: Connection, reference: str = "2026Q3/accesses/17/approved", **more: date) -> int:
    return register.open_finding(
        conn,
        kind="audit",
        reference=reference,
        description=_("There are no workpapers of the {quarter} to evaluate.", quarter="2026Q3"),
        owner="management",
        opened_at=NOW,
        **{"due_on": DUE} | more,
    )


def answered(conn: Connection, number: int, by: str = "owner", **more: object) -> Finding:
    words = {"cause": "No reminder was sent", "action": "Send one"}
    arguments = {"at": NOW, **words, **more}
    return register.answer(conn, number, by=by, **arguments)  # type: ignore[arg-type]  # as typed above


def retested(conn: Connection, number: int, by: str = "auditor", *, met: bool = True) -> Finding:
    return register.retest(conn, number, met=met, by=by, at=NOW)


def refused(message: str) -> pytest.RaisesExc[UsageError]:
    return pytest.raises(UsageError, match=message)


def test_open_finding_called_twice_with_same_reference_returns_same_number(
    conn: Connection,
) -> None:
    number = opened(conn)
    assert opened(conn, due_on=date(2030, 1, 1)) == number
    assert opened(conn, "2026Q3/accesses/18/approved") != number
    finding = register.get_finding(conn, number)
    assert (finding.state, finding.due_on, finding.cause, finding.retests) == (
        State.OPEN,
        DUE,
        "",
        0,
    )


def test_finding_with_answer_stays_open_until_retest(conn: Connection) -> None:
    """A second answer replaces the first answer, but the events of both are kept."""
    number = opened(conn)
    assert answered(conn, number).state is State.ANSWERED
    finding = answered(conn, number, cause="Nobody knew", action="Train them")
    assert (finding.cause, finding.action, finding.answered_by) == (
        "Nobody knew",
        "Train them",
        "owner",
    )
    kept = conn.execute(text("SELECT cause FROM finding_event ORDER BY id")).scalars().all()
    assert kept == ["No reminder was sent", "Nobody knew"]
    assert [finding.id for finding in register.list_findings(conn)] == [number]


def test_list_findings_reads_only_the_newest_reminder_of_each_finding(conn: Connection) -> None:
    numbers = [opened(conn), opened(conn, "2026Q3/accesses/18/approved")]
    answered(conn, numbers[0])
    for week in range(10):
        for number in numbers:
            at = NOW + timedelta(weeks=week)
            register.record_reminder(conn, number, by="conclude_audit", at=at)
    assert events_read(conn, NOW + timedelta(weeks=20)) == 3
    assert events_read(conn, NOW + timedelta(weeks=3)) == 3
    for moment, week in ((None, 9), (NOW + timedelta(days=25), 3)):
        findings = register.list_findings(conn, as_of=moment)
        assert {finding.reminded_at for finding in findings} == {NOW + timedelta(weeks=week)}
        assert {finding.id: finding.version for finding in findings} == {
            numbers[0]: "1-fail", numbers[1]: "0-fail",
        }  # fmt: skip


def events_read(conn: Connection, moment: datetime) -> int:
    """Return the number of events that a list of the findings at a moment reads."""
    counts = []

    def count(_conn: object, cursor: Any, statement: str, *_rest: object) -> None:
        if "FROM finding_event" in statement:
            counts.append(cursor.rowcount)

    event.listen(conn, "after_cursor_execute", count)
    register.list_findings(conn, as_of=moment)
    event.remove(conn, "after_cursor_execute", count)
    return sum(counts)


def test_passed_retest_closes_finding(conn: Connection) -> None:
    number = opened(conn)
    answered(conn, number)
    finding = retested(conn, number)
    assert (finding.state, finding.closed_by, finding.retests) == (State.CLOSED, "auditor", 1)
    assert register.list_findings(conn) == []
    assert register.list_findings(conn, "audit", closed=True) == [finding]
    assert register.list_findings(conn, "drill", closed=True) == []


def test_failed_retest_reopens_finding(conn: Connection) -> None:
    """The old answer can still be read. The next retest needs a new answer."""
    number = opened(conn)
    answered(conn, number)
    finding = retested(conn, number, met=False)
    assert (finding.state, finding.cause, finding.retests) == (
        State.OPEN,
        "No reminder was sent",
        1,
    )
    with refused("no corrective action yet"):
        retested(conn, number)
    answered(conn, number)
    assert retested(conn, number).retests == 2


def test_retest_of_finding_without_answer_raises_usage_error(conn: Connection) -> None:
    with refused("no corrective action yet"):
        retested(conn, opened(conn))


@pytest.mark.parametrize("same", ["li.na", " li.na ", "Li.Na", "ｌｉ．ｎａ"])
def test_retest_by_person_who_answered_the_finding_raises_usage_error(
    conn: Connection, same: str
) -> None:
    number = opened(conn)
    answered(conn, number, by="li.na")
    with refused("cannot retest it"):
        retested(conn, number, by=same)
    assert register.get_finding(conn, number).state is State.ANSWERED


def test_retest_by_person_who_gave_an_earlier_answer_raises_usage_error(conn: Connection) -> None:
    """The first person who answered may not test, even if a colleague gave the second answer."""
    number = opened(conn)
    answered(conn, number, by="li.na")
    answered(conn, number, by="chen")
    for by in ("li.na", "chen"):
        with refused("cannot retest it"):
            retested(conn, number, by=by)
    assert retested(conn, number).state is State.CLOSED


def test_answer_or_retest_of_closed_finding_raises_usage_error(conn: Connection) -> None:
    number = opened(conn)
    answered(conn, number)
    retested(conn, number)
    with refused("is closed"):
        answered(conn, number)
    for met in (True, False):
        with refused("is closed"):
            retested(conn, number, "somebody", met=met)
    assert opened(conn) == number
    assert register.get_finding(conn, number).state is State.CLOSED


def test_phone_numbers_in_answer_to_finding_are_redacted(conn: Connection) -> None:
    number = opened(conn)
    finding = answered(
        conn, number, cause="Mr Wang, 138 1234 5678, asked", action="Call 021-5888 8888 back"
    )
    assert (finding.cause, finding.action) == ("Mr Wang, …, asked", "Call … back")
    kept = conn.execute(text("SELECT string_agg(e::text, '') FROM finding_event e")).scalar_one()
    assert "5678" not in kept
    assert "8888" not in kept


@pytest.mark.parametrize("words", ["", "  \n", "...", "13812345678", "12"])
@pytest.mark.parametrize("which", ["cause", "action"])
def test_answer_whose_cause_or_action_contains_no_words_raises_usage_error(
    conn: Connection, which: str, words: str
) -> None:
    number = opened(conn)
    with refused("contains no words"):
        answered(conn, number, **{which: words})
    assert register.get_finding(conn, number).state is State.OPEN


@pytest.mark.parametrize("nobody", ["", "  "])
def test_answer_or_retest_without_name_of_person_raises_usage_error(
    conn: Connection, nobody: str
) -> None:
    number = opened(conn)
    with refused("is missing"):
        answered(conn, number, by=nobody)
    answered(conn, number)
    with refused("is missing"):
        retested(conn, number, by=nobody)


def test_answer_or_retest_of_unknown_finding_raises_usage_error(conn: Connection) -> None:
    for act in (answered, retested):
        with refused("no finding 77"):
            act(conn, 77)


def test_answer_can_move_due_date_only_to_a_later_day(conn: Connection) -> None:
    """An answer without a due date keeps the current due date. All due dates are recorded."""
    number = opened(conn)
    assert answered(conn, number).due_on == DUE
    later = DUE + timedelta(days=20)
    assert answered(conn, number, due_on=later).due_on == later
    for day in (DUE, later - timedelta(days=1)):
        with refused("is before"):
            answered(conn, number, due_on=day)
    assert answered(conn, number, due_on=later).due_on == later
    assert register.get_finding(conn, number).due_on == later
    kept = conn.execute(text("SELECT due_on FROM finding_event ORDER BY id")).scalars().all()
    assert kept == [None, later, later]


def test_answer_with_due_date_that_has_passed_in_timezone_of_pack_raises_usage_error(
    conn: Connection,
) -> None:
    """At 07:00 in Shanghai, the date in UTC is still the previous day."""
    number = opened(conn, due_on=date(2026, 10, 1))
    at = datetime(2026, 10, 12, 7, tzinfo=ZoneInfo("Asia/Shanghai"))
    with refused("has passed"):
        answered(conn, number, due_on=date(2026, 10, 11), at=at)
    assert answered(conn, number, due_on=date(2026, 10, 12), at=at).due_on == at.date()


def test_reminder_is_due_weekly_from_a_week_before_due_date(conn: Connection) -> None:
    """A reminder is due even if a run starts a few seconds earlier in the day than the last run."""
    number = opened(conn)
    zone = ZoneInfo("Asia/Shanghai")
    start = datetime(2026, 11, 1, 9, 30, tzinfo=zone)
    reminded = []
    for day in range(40):
        now = start + timedelta(days=day, seconds=-day)
        if register.get_finding(conn, number).needs_reminder(now):
            register.record_reminder(conn, number, by="conclude_audit", at=now)
            reminded.append(now.date())
    assert reminded == [DUE + timedelta(days=7 * week) for week in range(-1, 5)]
    finding = register.get_finding(conn, number)
    assert finding.reminded_at is not None
    assert finding.state is State.OPEN
    answered(conn, number)
    retested(conn, number)
    assert not register.get_finding(conn, number).needs_reminder(start + timedelta(days=99))


def test_finding_is_overdue_from_the_day_after_its_due_date(conn: Connection) -> None:
    """An answer does not end the overdue state; only a passed retest does."""
    number = opened(conn)
    assert not register.get_finding(conn, number).overdue(DUE)
    assert answered(conn, number).overdue(DUE + timedelta(days=1))
    assert not retested(conn, number).overdue(DUE + timedelta(days=1))


def test_second_concurrent_retest_waits_and_then_fails_because_finding_is_closed(
    state: Engine,
) -> None:
    """The second transaction waits. Its retest is then refused, because the finding is closed."""
    with state.begin() as conn:
        number = opened(conn)
        answered(conn, number)
    messages: list[str] = []

    def second() -> None:
        try:
            with state.begin() as other_conn:
                retested(other_conn, number, "another", met=False)
        except UsageError as error:
            messages.append(error.message)

    other = threading.Thread(target=second)
    with state.begin() as conn:
        retested(conn, number)
        other.start()
        other.join(0.3)
        assert other.is_alive()  # waits
    other.join(10)
    assert messages == [f"Finding {number} is closed."]
    with state.begin() as conn:
        finding = register.get_finding(conn, number)
    assert (finding.state, finding.closed_by, finding.retests) == (State.CLOSED, "auditor", 1)


def test_finding_state_after_random_answers_and_retests_equals_state_of_model(
    state: Engine,
) -> None:
    """Three people answer and retest in random order."""
    people = st.sampled_from(["ann", "bob", "cai"])

    class Steps(RuleBasedStateMachine):
        count = 0

        @initialize()
        def begin(self) -> None:
            type(self).count += 1
            with state.begin() as conn:
                self.number = opened(conn, f"r{self.count}")
            self.status, self.due, self.tests, self.answerers = "open", DUE, 0, set[str]()

        def attempt(
            self, allowed: bool, act: str, by: str, *, met: bool = False, day: int = 0
        ) -> bool:
            due = DUE + timedelta(days=day)
            try:
                with state.begin() as conn:
                    if act == "answer":
                        answered(conn, self.number, by=by, due_on=due)
                    else:
                        retested(conn, self.number, by, met=met)
            except UsageError:
                assert not allowed
                return False
            assert allowed
            return True

        @rule(by=people, day=st.integers(0, 5))
        def answer(self, by: str, day: int) -> None:
            due = DUE + timedelta(days=day)
            if self.attempt(self.status != CLOSED and due >= self.due, "answer", by, day=day):
                self.status, self.due = "answered", due
                self.answerers.add(by)

        @rule(by=people, met=st.booleans())
        def retest(self, by: str, met: bool) -> None:
            allowed = self.status == "answered" and by not in self.answerers
            if self.attempt(allowed, "retest", by, met=met):
                self.status = CLOSED if met else "open"
                self.tests += 1

        @rule()
        def remind(self) -> None:
            with state.begin() as conn:
                register.record_reminder(conn, self.number, by="run", at=NOW)

        @invariant()
        def matches_model(self) -> None:
            with state.connect() as conn:
                finding = register.get_finding(conn, self.number)
                open_ids = {finding.id for finding in register.list_findings(conn)}
            assert (finding.state, finding.due_on, finding.retests) == (
                self.status,
                self.due,
                self.tests,
            )
            assert (self.number in open_ids) == (self.status != CLOSED)
            assert bool(finding.closed_by) == (self.status == CLOSED)

    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # of hypothesis
        Steps,
        settings=settings(
            max_examples=15,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    decisions = {"closed", "commented", "reassigned", "accepted", "withdrawn"}
    assert {event.value for event in Event} - decisions == {
        *("answered", "met", "deviates", "reminded")
    }
