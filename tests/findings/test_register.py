"""A finding is closed by a second test of another person, and by nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
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
from sqlalchemy import Connection, Engine, text

from include.findings import register
from include.findings.register import Event, Found, State
from include.local.postgres import EmbeddedPostgres
from include.messages import _
from include.services.errors import UsageError
from include.state.connect import engine
from tests.support.databases import fresh

NOW = datetime(2026, 10, 12, 1, 30, tzinfo=UTC)
DUE = date(2026, 11, 11)
CLOSED = "closed"


@pytest.fixture(scope="module")
def state(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """A state database."""
    with fresh(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def conn(state: Engine) -> Iterator[Connection]:
    """A transaction in it, of which nothing stays."""
    with state.connect() as made:
        yield made
        made.rollback()


def opened(conn: Connection, reference: str = "2026Q3/accesses/17/approved", **more: date) -> int:
    return register.open_finding(
        conn,
        kind="audit",
        reference=reference,
        what=_("There is nothing to conclude of {audit}.", audit="2026Q3"),
        owner="management",
        opened_at=NOW,
        **{"due_on": DUE} | more,
    )


def answered(conn: Connection, number: int, by: str = "owner", **more: object) -> Found:
    words = {"cause": "No reminder was sent", "action": "Send one"}
    given = {"at": NOW, **words, **more}
    return register.answer(conn, number, by=by, **given)  # type: ignore[arg-type]  # as typed above


def retested(conn: Connection, number: int, by: str = "auditor", *, met: bool = True) -> Found:
    return register.retest(conn, number, met=met, by=by, at=NOW)


def refused(what: str) -> pytest.RaisesExc[UsageError]:
    return pytest.raises(UsageError, match=what)


def test_a_finding_that_is_entered_again_is_the_one_that_is_there(conn: Connection) -> None:
    """Its day and its owner stay."""
    number = opened(conn)
    assert opened(conn, due_on=date(2030, 1, 1)) == number
    assert opened(conn, "2026Q3/accesses/18/approved") != number
    found = register.one(conn, number)
    assert (found.state, found.due_on, found.cause, found.retests) == (State.OPEN, DUE, "", 0)


def test_an_answer_alone_closes_nothing(conn: Connection) -> None:
    """It waits for its retest; whoever answers again says it better, and both are kept."""
    number = opened(conn)
    assert answered(conn, number).state is State.ANSWERED
    found = answered(conn, number, cause="Nobody knew", action="Train them")
    assert (found.cause, found.action, found.answered_by) == ("Nobody knew", "Train them", "owner")
    kept = conn.execute(text("SELECT cause FROM finding_event ORDER BY id")).scalars().all()
    assert kept == ["No reminder was sent", "Nobody knew"]
    assert [one.id for one in register.listed(conn)] == [number]


def test_a_test_that_is_met_closes_it(conn: Connection) -> None:
    """Who tested it is known; it is listed among the closed ones only."""
    number = opened(conn)
    answered(conn, number)
    found = retested(conn, number)
    assert (found.state, found.closed_by, found.retests) == (State.CLOSED, "auditor", 1)
    assert register.listed(conn) == []
    assert register.listed(conn, "audit", closed=True) == [found]
    assert register.listed(conn, "drill", closed=True) == []


def test_a_test_that_deviates_opens_it_again(conn: Connection) -> None:
    """What was answered stays to be read, and needs another answer before the next test."""
    number = opened(conn)
    answered(conn, number)
    found = retested(conn, number, met=False)
    assert (found.state, found.cause, found.retests) == (State.OPEN, "No reminder was sent", 1)
    with refused("no corrective action yet"):
        retested(conn, number)
    answered(conn, number)
    assert retested(conn, number).retests == 2


def test_nothing_is_tested_before_it_was_answered(conn: Connection) -> None:
    """There is nothing to test again."""
    with refused("no corrective action yet"):
        retested(conn, opened(conn))


@pytest.mark.parametrize("same", ["li.na", " li.na ", "Li.Na", "ｌｉ．ｎａ"])
def test_whoever_answered_may_not_test(conn: Connection, same: str) -> None:
    """However the name is written."""
    number = opened(conn)
    answered(conn, number, by="li.na")
    with refused("cannot test it"):
        retested(conn, number, by=same)
    assert register.one(conn, number).state is State.ANSWERED


def test_whoever_answered_may_not_test_after_another_one_answered_too(conn: Connection) -> None:
    """Otherwise a colleague's second answer would let the first one test the own work."""
    number = opened(conn)
    answered(conn, number, by="li.na")
    answered(conn, number, by="chen")
    for by in ("li.na", "chen"):
        with refused("cannot test it"):
            retested(conn, number, by=by)
    assert retested(conn, number).state is State.CLOSED


def test_what_is_closed_stays_closed(conn: Connection) -> None:
    """Neither an answer nor a test reaches it, nor is it entered again."""
    number = opened(conn)
    answered(conn, number)
    retested(conn, number)
    with refused("is closed"):
        answered(conn, number)
    for met in (True, False):
        with refused("is closed"):
            retested(conn, number, "somebody", met=met)
    assert opened(conn) == number
    assert register.one(conn, number).state is State.CLOSED


def test_numbers_of_customers_are_blotted_out_of_answers(conn: Connection) -> None:
    """They are nowhere in the database."""
    number = opened(conn)
    found = answered(
        conn, number, cause="Mr Wang, 138 1234 5678, asked", action="Call 021-5888 8888 back"
    )
    assert (found.cause, found.action) == ("Mr Wang, …, asked", "Call … back")
    kept = conn.execute(text("SELECT string_agg(e::text, '') FROM finding_event e")).scalar_one()
    assert "5678" not in kept
    assert "8888" not in kept


@pytest.mark.parametrize("words", ["", "  \n", "...", "13812345678", "12"])
@pytest.mark.parametrize("which", ["cause", "action"])
def test_words_that_say_nothing_are_refused(conn: Connection, which: str, words: str) -> None:
    """Nothing is kept of them."""
    number = opened(conn)
    with refused("says nothing"):
        answered(conn, number, **{which: words})
    assert register.one(conn, number).state is State.OPEN


@pytest.mark.parametrize("nobody", ["", "  "])
def test_nobody_can_neither_answer_nor_test(conn: Connection, nobody: str) -> None:
    """A name is needed for both."""
    number = opened(conn)
    with refused("Nobody is named"):
        answered(conn, number, by=nobody)
    answered(conn, number)
    with refused("Nobody is named"):
        retested(conn, number, by=nobody)


def test_a_finding_that_is_not_there_is_told_so(conn: Connection) -> None:
    """By its number."""
    for act in (answered, retested):
        with refused("no finding 77"):
            act(conn, 77)


def test_its_day_may_be_moved_ahead_and_never_back(conn: Connection) -> None:
    """An answer that names no day leaves it; each day that was named is kept."""
    number = opened(conn)
    assert answered(conn, number).due_on == DUE
    later = DUE + timedelta(days=20)
    assert answered(conn, number, due_on=later).due_on == later
    for day in (DUE, later - timedelta(days=1)):
        with refused("is before"):
            answered(conn, number, due_on=day)
    assert answered(conn, number, due_on=later).due_on == later
    assert register.one(conn, number).due_on == later
    kept = conn.execute(text("SELECT due_on FROM finding_event ORDER BY id")).scalars().all()
    assert kept == [None, later, later]


def test_a_day_that_is_over_is_refused_where_the_people_are(conn: Connection) -> None:
    """In the timezone of the moment: 07:00 in Shanghai is the day before in UTC."""
    number = opened(conn, due_on=date(2026, 10, 1))
    at = datetime(2026, 10, 12, 7, tzinfo=ZoneInfo("Asia/Shanghai"))
    with refused("is over"):
        answered(conn, number, due_on=date(2026, 10, 11), at=at)
    assert answered(conn, number, due_on=date(2026, 10, 12), at=at).due_on == at.date()


def test_an_owner_is_reminded_once_a_week_from_a_week_before_the_day_on(conn: Connection) -> None:
    """A run that begins some seconds earlier than a week ago reminds all the same."""
    number = opened(conn)
    zone = ZoneInfo("Asia/Shanghai")
    start = datetime(2026, 11, 1, 9, 30, tzinfo=zone)
    reminded = []
    for day in range(40):
        now = start + timedelta(days=day, seconds=-day)
        if register.one(conn, number).to_be_reminded(now):
            register.record_reminder(conn, number, by="conclude_audit", at=now)
            reminded.append(now.date())
    assert reminded == [DUE + timedelta(days=7 * week) for week in range(-1, 5)]
    found = register.one(conn, number)
    assert found.reminded_at is not None
    assert found.state is State.OPEN
    answered(conn, number)
    retested(conn, number)
    assert not register.one(conn, number).to_be_reminded(start + timedelta(days=99))


def test_it_is_overdue_the_day_after(conn: Connection) -> None:
    """An answer does not help, a test that is met does."""
    number = opened(conn)
    assert not register.one(conn, number).overdue(DUE)
    assert answered(conn, number).overdue(DUE + timedelta(days=1))
    assert not retested(conn, number).overdue(DUE + timedelta(days=1))


def test_of_two_people_at_once_the_second_meets_what_the_first_did(state: Engine) -> None:
    """Two connections: whoever comes second waits, and a closed finding stays closed."""
    with state.begin() as conn:
        number = opened(conn)
        answered(conn, number)
    told: list[str] = []

    def second() -> None:
        try:
            with state.begin() as mine:
                retested(mine, number, "another", met=False)
        except UsageError as error:
            told.append(error.message)

    other = threading.Thread(target=second)
    with state.begin() as conn:
        retested(conn, number)
        other.start()
        other.join(0.3)
        assert other.is_alive()  # waits
    other.join(10)
    assert told == [f"Finding {number} is closed."]
    with state.begin() as conn:
        found = register.one(conn, number)
    assert (found.state, found.closed_by, found.retests) == (State.CLOSED, "auditor", 1)


def test_a_register_follows_its_rules_in_any_order(state: Engine) -> None:
    """Random steps of three people, held against a few lines that say the same."""
    people = st.sampled_from(["ann", "bob", "cai"])

    class Steps(RuleBasedStateMachine):
        count = 0

        @initialize()
        def begin(self) -> None:
            type(self).count += 1
            with state.begin() as conn:
                self.number = opened(conn, f"r{self.count}")
            self.stand, self.due, self.tests, self.answerers = "open", DUE, 0, set[str]()

        def does(
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
            if self.does(self.stand != CLOSED and due >= self.due, "answer", by, day=day):
                self.stand, self.due = "answered", due
                self.answerers.add(by)

        @rule(by=people, met=st.booleans())
        def retest(self, by: str, met: bool) -> None:
            allowed = self.stand == "answered" and by not in self.answerers
            if self.does(allowed, "retest", by, met=met):
                self.stand = CLOSED if met else "open"
                self.tests += 1

        @rule()
        def remind(self) -> None:
            with state.begin() as conn:
                register.record_reminder(conn, self.number, by="run", at=NOW)

        @invariant()
        def it_is_as_it_should(self) -> None:
            with state.connect() as conn:
                found = register.one(conn, self.number)
                open_ones = {one.id for one in register.listed(conn)}
            assert (found.state, found.due_on, found.retests) == (self.stand, self.due, self.tests)
            assert (self.number in open_ones) == (self.stand != CLOSED)
            assert bool(found.closed_by) == (self.stand == CLOSED)

    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # of hypothesis
        Steps,
        settings=settings(
            max_examples=15,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert {one.value for one in Event} == {"answered", "met", "deviates", "reminded"}
