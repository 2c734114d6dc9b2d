"""When people were told: not while somebody is unknown, undecided or unreached."""

from __future__ import annotations

from sqlalchemy import text

from include.incident.clocks.clock import clocks_of
from include.incident.form import Action
from include.incident.names import Kind
from include.incident.steps import decide
from tests.incident.deciding_rig import (
    asked,
    given,
    left,
    open_individuals,
    widened,
)
from tests.incident.desk_rig import SERVICE, Company, assess


def test_people_are_not_told_while_a_database_is_unread_or_its_people_undecided(
    company: Company,
) -> None:
    """They are once these are told too, by when that happened."""
    company.broken = {"archive"}
    case = company.open(databases=["courier", "archive"], keys=["courier/1", "archive/2"])
    assess(case.context)
    case.preserve(last=True)
    case.answer("impact")
    case.page("decide")
    case.answer("decide")
    case.notify()
    case.delivered()
    assert case.said(Kind.TOLD) == [
        "Notices: 1 sent, 0 not; who got none is told otherwise. Not all who are affected are "
        "known and decided on yet."
    ]
    assert open_individuals(case).is_open
    company.broken = set()
    company.clock.on(hours=1)
    assess(case.context)
    case.preserve()
    case.settle()
    assert open_individuals(case).is_open
    case.page("decide")
    company.clock.on(hours=1)
    case.answer("decide")
    case.notify()
    assert open_individuals(case).is_open
    company.clock.on(hours=1)
    case.delivered()
    assert open_individuals(case).done_at == company.clock.now()


def test_people_are_told_once_nobody_more_is_found_where_nobody_could_read(
    company: Company,
) -> None:
    """Whether they were told, or it was decided that they need not be."""
    for option in (decide.TELL, decide.DO_NOT_TELL):
        company.broken = {"archive"}
        case = company.open(databases=["courier", "archive"], keys=["courier/1"])
        assess(case.context)
        case.preserve(last=True)
        case.answer("impact")
        case.page("decide")
        case.answer("decide", option=option)
        case.notify()
        case.delivered()
        assert open_individuals(case).is_open
        company.broken = set()
        company.clock.on(hours=1)
        assess(case.context)
        case.preserve()
        at = company.clock.now()
        company.clock.on(hours=90)
        case.settle()
        assert open_individuals(case).done_at == at, option


def test_letters_that_left_before_more_was_found_told_all_who_were_known(company: Company) -> None:
    """However late anybody looks: what counts is when they left."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    at = company.clock.now()
    with company.state.begin() as conn:
        conn.execute(
            text("UPDATE notice SET state = 'sent', settled_at = :at WHERE key LIKE :mine"),
            {"at": at, "mine": f"{case.number}/%"},
        )
    company.clock.on(hours=90)
    widened(case, 1, 2, 3)
    case.settle()
    assert open_individuals(case).done_at == at


def test_a_notice_that_is_sent_after_all_stops_the_clock_then(company: Company) -> None:
    """It was undeliverable first, and tried again."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    case.delivered("undeliverable")
    assert open_individuals(case).is_open
    company.clock.on(hours=2)
    case.delivered()
    case.settle()
    assert open_individuals(case).done_at == company.clock.now()
    assert [one.data["complete"] for one in case.entries(Kind.TOLD)] == [False, True]


def test_told_otherwise_before_anything_was_sent_is_nothing_yet(company: Company) -> None:
    """Nobody could know then whom no letter would reach; entered after that it counts."""
    case = asked(company, 1, 11)
    case.answer("decide")
    case.notify()
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="we called them")
    case.delivered("undeliverable")
    assert left(case).startswith("2 people could not be told by mail")
    assert open_individuals(case).is_open
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="we called them now")
    assert not open_individuals(case).is_open
    assert "by mail" not in left(case)
    company.clock.on(hours=1)
    case.delivered("undeliverable")  # tried again, and failed again
    assert left(case).startswith("2 people could not be told by mail")


def test_people_are_told_once_every_notice_left_or_the_rest_was_told_otherwise(
    company: Company,
) -> None:
    """The clock stops with the last of them."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    case.settle()
    assert case.entries(Kind.TOLD) == []
    case.delivered("undeliverable")
    assert case.said(Kind.TOLD) == ["Notices: 0 sent, 2 not; who got none is told otherwise."]
    clocks = {one.id: one for one in clocks_of(case.context, case.record)}
    assert clocks["individuals"].is_open
    company.clock.on(hours=1)
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="called, and wrote letters on paper")
    clocks = {one.id: one for one in clocks_of(case.context, case.record)}
    assert clocks["individuals"].done_at == company.clock.now()


def test_told_otherwise_while_others_are_undecided_stops_no_clock(company: Company) -> None:
    """It does once it was decided on them."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    case.delivered("undeliverable")
    run = widened(case, 1, 2, 3)
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="we called them")
    case.settle()
    assert open_individuals(case).is_open
    company.clock.on(hours=1)
    decide.Decision(run, case.record).dry_run()
    decide.Decision(run, case.record).take(
        given(case, decide.DO_NOT_TELL, reason="It is our own man")
    )
    case.settle()
    assert open_individuals(case).done_at == company.clock.now()
