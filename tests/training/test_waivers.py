"""A waiver names a reason, a last day and somebody else who granted it; it ends by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from include.local.postgres import EmbeddedPostgres
from include.services.errors import UsageError
from include.state.connect import engine
from include.training import waivers
from include.training.obligations import Waiver
from tests.support.databases import fresh

ZONE = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 3, 2, 9, 30, tzinfo=ZONE)
UNTIL = date(2026, 6, 30)
WORDS = "Works abroad until summer"


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


def grant(conn: Connection, person: str = "E0007", **more: object) -> waivers.Waived:
    given = {"reason": WORDS, "until": UNTIL, "by": "li.na", "at": NOW} | more
    return waivers.grant(conn, person, "LAW", **given)  # type: ignore[arg-type]  # as typed above


def refused(what: str) -> pytest.RaisesExc[UsageError]:
    return pytest.raises(UsageError, match=what)


def test_a_waiver_stands_up_to_its_last_day(conn: Connection) -> None:
    """On the day after it the course is due again, without anybody's doing."""
    made = grant(conn)
    assert waivers.listed(conn, NOW.date()) == [made]
    assert waivers.current(conn, UNTIL) == [Waiver("E0007", "LAW")]
    assert waivers.current(conn, UNTIL + timedelta(days=1)) == []


def test_waivers_are_listed_by_their_last_day(conn: Connection) -> None:
    """The one that ends first at the head, then by person."""
    for person, until in (("E2", date(2026, 8, 1)), ("E3", UNTIL), ("E1", date(2026, 8, 1))):
        grant(conn, person, until=until)
    found = waivers.listed(conn, NOW.date())
    assert [one.person for one in found] == ["E3", "E1", "E2"]


def test_a_second_waiver_of_the_same_course_is_refused(conn: Connection) -> None:
    """Otherwise ending one would leave the other, and nobody would know."""
    grant(conn)
    with refused("LAW is waived for E0007 already"):
        grant(conn, until=date(2026, 7, 1))
    grant(conn, "E0008")


def test_one_that_has_run_out_makes_room_and_stays_to_be_read(conn: Connection) -> None:
    """Who granted the next one is named as who ended it."""
    grant(conn)
    later = datetime(2026, 7, 1, 8, tzinfo=ZONE)
    grant(conn, until=date(2026, 9, 30), by="chen", at=later)
    kept = conn.execute(text("SELECT until, ended_by FROM training_waiver ORDER BY id")).all()
    assert [tuple(one) for one in kept] == [(UNTIL, "chen"), (date(2026, 9, 30), None)]


def test_an_ended_waiver_is_in_force_no_more_and_stays_to_be_read(conn: Connection) -> None:
    """It can be granted again, and cannot be ended twice."""
    grant(conn)
    waivers.end(conn, "E0007", "LAW", by="chen", at=NOW)
    assert waivers.listed(conn, NOW.date()) == []
    with refused("LAW is not waived for E0007"):
        waivers.end(conn, "E0007", "LAW", by="chen", at=NOW)
    grant(conn)
    kept = conn.execute(text("SELECT ended_by FROM training_waiver ORDER BY id")).scalars().all()
    assert kept == ["chen", None]


def test_one_that_has_run_out_cannot_be_ended(conn: Connection) -> None:
    """It did so by itself."""
    grant(conn)
    with refused("is not waived"):
        waivers.end(conn, "E0007", "LAW", by="chen", at=datetime(2026, 7, 1, tzinfo=ZONE))


@pytest.mark.parametrize("by", ["E0007", " e0007", "Ｅ０００７", "E00\u200b07"])
def test_nobody_waives_their_own_course(conn: Connection, by: str) -> None:
    """However they write their staff number."""
    with refused("cannot waive their own course"):
        grant(conn, by=by)


@pytest.mark.parametrize("reason", ["", " ", "...", "13800138000", "2026-03-02"])
def test_a_reason_has_to_say_something(conn: Connection, reason: str) -> None:
    """Numbers and punctuation are no reason."""
    with refused("The reason says nothing"):
        grant(conn, reason=reason)


def test_a_reason_keeps_no_customers_number(conn: Connection) -> None:
    """It stands in sealed reports for years."""
    assert grant(conn, reason="Ill, ask\n138 0013 8000").reason == "Ill, ask …"


@pytest.mark.parametrize("by", ["", "  "])
def test_somebody_is_named(conn: Connection, by: str) -> None:
    """For granting and for ending."""
    with refused("Nobody is named"):
        grant(conn, by=by)
    with refused("Nobody is named"):
        waivers.end(conn, "E0007", "LAW", by=by, at=NOW)


@pytest.mark.parametrize("person", ["", " ", "E\n7", "E" * 101])
def test_what_is_no_staff_number_is_refused(conn: Connection, person: str) -> None:
    """A waiver that fits nobody would pass unnoticed."""
    with refused("no staff number"):
        grant(conn, person)


def test_staff_numbers_are_those_of_the_roster_however_they_are_typed(conn: Connection) -> None:
    """Full-width digits and blanks around them, as uploads read them."""
    assert grant(conn, " Ｅ０００８ ").person == "E0008"


@given(days=st.integers(-1000, 1000))
def test_the_last_day_is_to_come_and_at_most_a_year_away(state: Engine, days: int) -> None:
    """For good would be no waiver but a rule, which belongs in the courses."""
    with state.connect() as conn:
        until = NOW.date() + timedelta(days=days)
        if 1 <= days <= 366:
            assert grant(conn, until=until).until == until
        else:
            with refused("not to come" if days < 1 else "more than 366 days away"):
                grant(conn, until=until)
        conn.rollback()


def test_days_are_those_of_the_pack(conn: Connection) -> None:
    """Early in the morning in Shanghai it is still the day before in UTC."""
    with refused("is not to come"):
        grant(conn, until=date(2026, 3, 2), at=datetime(2026, 3, 2, 0, 30, tzinfo=ZONE))


def test_of_two_who_grant_at_once_one_is_refused(state: Engine) -> None:
    """The second one waits for the first, and is told."""
    told: list[str] = []
    with state.connect() as first:
        grant(first, "E0099")

        def second() -> None:
            with state.connect() as conn:
                try:
                    grant(conn, "E0099", by="chen")
                except UsageError as error:
                    told.append(error.message)

        other = threading.Thread(target=second)
        other.start()
        other.join(0.2)
        assert other.is_alive()
        first.commit()
        other.join(10)
    assert told == ["LAW is waived for E0099 already."]
    with state.begin() as conn:
        conn.execute(text("TRUNCATE training_waiver"))
