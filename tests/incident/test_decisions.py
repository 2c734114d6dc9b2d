"""Which decision stands for whom: words that change, people who come later, a change of mind."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from include.incident import assessing, incident_run
from include.incident.names import UPDATES, Kind
from include.incident.steps import decide
from include.incident.telling import authority_report, notifying
from include.notify.outbox import Run
from include.services.errors import ControlFailed
from tests.incident.deciding_rig import (
    asked,
    given,
    later,
    left,
    open_individuals,
    texts,
    told,
    widened,
)
from tests.incident.desk_rig import OTHER_BOSS, Company


def test_letters_leave_with_the_words_that_were_decided_on_last_or_not_at_all(
    company: Company,
) -> None:
    """Those that wait are not wanted while nobody decided on the new words; then each has these."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    keys = [f"{case.number}/courier/{one}" for one in (1, 2)]
    old = texts(case)
    assert notifying.wanted(case.context, {case.number: case.record}, keys) == set(keys)
    case.answer("impact", harm_en="Something else", harm_zh="另外的")
    assert notifying.wanted(case.context, {case.number: case.record}, keys) == set()
    case.page("decide")
    case.answer("decide", OTHER_BOSS)
    assert notifying.wanted(case.context, {case.number: case.record}, keys) == set()
    case.settle()
    assert case.entries(Kind.TOLD) == []
    assert case.notify().again == 2
    assert texts(case) == [notifying.plan(case.context, case.record).text_sha256] * 2 != old
    assert notifying.wanted(case.context, {case.number: case.record}, keys) == set(keys)


def test_who_got_the_letter_before_its_words_changed_gets_no_second_one(company: Company) -> None:
    """The others get the new one."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    with company.state.begin() as conn:
        conn.execute(
            text("UPDATE notice SET state = 'sent', settled_at = :at WHERE key = :key"),
            {"at": company.clock.now(), "key": f"{case.number}/courier/1"},
        )
    first, waits = texts(case)
    case.answer("impact")
    case.page("decide")
    case.answer("decide")
    case.notify()
    assert texts(case) == [first, notifying.plan(case.context, case.record).text_sha256]
    assert waits == first
    with company.state.connect() as conn:
        assert notifying.delivery(conn, case.number) == {"sent": 1, "pending": 1}


def test_a_later_count_with_other_types_of_information_voids_waiting_letters(
    company: Company,
) -> None:
    """The same people, another letter: it is decided anew, and goes with the new words."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    counted = incident_run.require_scope(case.context, case.record.incident.id).counted[0]
    more = {**counted.categories, "user.government_id": 2}
    scope = incident_run.require_scope(case.context, case.record.incident.id).model_copy(
        update={"counted": (counted.model_copy(update={"categories": more}),)}
    )
    assessing.correct(case.context, case.record, scope)
    case.preserve()
    keys = [f"{case.number}/courier/{one}" for one in (1, 2)]
    assert notifying.wanted(case.context, {case.number: case.record}, keys) == set()
    case.page("decide")
    case.answer("decide")
    case.notify()
    assert set(texts(case)) == {notifying.plan(case.context, case.record).text_sha256}


def test_not_to_tell_is_decided_anew_once_the_step_is_cleared(company: Company) -> None:
    """The list of addresses was wrong, and is right now; then nothing is asked again."""
    case = asked(company, 1, 2)
    case.answer("decide", option="Do not tell", reason="The wrong list of addresses")
    assert case.notify() is None
    body = case.page("decide").body
    assert "Affected people are not told. The wrong list of addresses" in body
    assert "Decide anew, on everybody to whom nothing was sent" in body
    case.answer("decide", option="Do not tell", reason="Not right yet")
    assert "Not right yet" in case.page("decide").body
    case.answer("decide")
    assert case.notify().new == 2
    assert case.ask("decide") is None
    assert [one.data["tell"] for one in case.entries(Kind.DECIDED)] == [False, False, True]
    assert len({one.data["request"] for one in case.entries(Kind.DECIDED)}) == 3
    assert open_individuals(case).is_open


def test_an_addition_that_says_something_else_does_not_ask_about_it_again(
    company: Company,
) -> None:
    """Only the run in which it was decided does, once somebody clears its step."""
    case = asked(company, 1, 2)
    case.answer("decide", option="Do not tell", reason="They know")
    assert decide.Decision(later(case), case.record).dry_run() is None
    run = widened(case, 1, 2, 3)
    assert decide.Decision(run, case.record).dry_run() is not None
    decide.Decision(run, case.record).take(given(case, decide.DO_NOT_TELL, reason="This one too"))
    assert decide.Decision(run, case.record).dry_run() is not None
    another = company.context(Run(UPDATES, "another"), incident=case.number)
    assert decide.Decision(another, case.record).dry_run() is None


def test_not_to_tell_who_is_found_later_leaves_the_first_decision_as_it_is(
    company: Company,
) -> None:
    """Their letters leave; reports name both decisions."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    run = widened(case, 1, 2, 4)
    page = decide.Decision(run, case.record).dry_run()
    assert page is not None
    assert "decide whether 1 people are told" in page.subject
    assert "Decide on the 1 people who came to the list since" in page.body
    decide.Decision(run, case.record).take(
        given(case, decide.DO_NOT_TELL, reason="It is our own man")
    )
    keys = [f"{case.number}/courier/{one}" for one in (1, 2)]
    assert notifying.wanted(case.context, {case.number: case.record}, keys) == set(keys)
    assert notifying.queue(run, case.record) is not None
    assert told(case) == ["courier/1", "courier/2"]
    assert open_individuals(case).is_open
    case.delivered()
    assert case.entries(Kind.TOLD)[-1].data["complete"]
    assert not open_individuals(case).is_open
    rest = str(authority_report._rest(run, case.record))
    assert "more affected people are not told" in rest
    assert "{count} affected people are told" in rest


def test_the_first_decision_is_queued_for_its_people_only_after_an_addition_too(
    company: Company,
) -> None:
    """Nobody queued them before others came, of whom it was decided that they are not told."""
    case = asked(company, 1, 2)
    case.answer("decide")
    run = widened(case, 1, 2, 4)
    decide.Decision(run, case.record).dry_run()
    decide.Decision(run, case.record).take(
        given(case, decide.DO_NOT_TELL, reason="It is our own man")
    )
    assert left(case) == "the notices to people are not queued"
    case.notify()
    assert told(case) == ["courier/1", "courier/2"]
    run = widened(case, 1, 2, 4, 5)
    company.clock.on(minutes=1)
    decide.Decision(run, case.record).dry_run()
    decide.Decision(run, case.record).take(given(case, reason="This one too"))
    case.notify()
    assert told(case) == ["courier/1", "courier/2", "courier/5"]


def test_who_is_put_on_the_list_while_letters_are_queued_gets_none(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody decided on them: found by a later count, or put among those of before."""
    case = asked(company, 1, 2)
    case.answer("decide")

    def put(number: int, version: int) -> None:
        with company.state.begin() as conn:
            conn.execute(
                text("INSERT INTO incident_subject (incident_id, database, key, version)"
                     " VALUES (:id, 'courier', :key, :version)"),
                {"id": case.record.incident.id, "key": str(number), "version": version},
            )  # fmt: skip

    real = notifying.lock_for_transaction
    version = incident_run.require_scope(case.context, case.record.incident.id).version
    found = [(4, version), (3, version + 1)]

    def meanwhile(*given: object) -> object:
        put(*found.pop())
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(notifying, "lock_for_transaction", meanwhile)
    case.notify()
    assert told(case) == ["courier/1", "courier/2"]
    with pytest.raises(ControlFailed, match="not what was approved") as refused:
        case.notify()
    assert "decide" in refused.value.action
    assert told(case) == ["courier/1", "courier/2"]


def test_letters_of_words_that_were_written_anew_stay_unwanted_if_they_are_the_same(
    company: Company,
) -> None:
    """It was decided that these people are not told; later others are, by the same letter."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    keys = [f"{case.number}/courier/{one}" for one in (1, 2)]
    case.answer("impact")
    assert notifying.wanted(case.context, {case.number: case.record}, keys) == set()
    case.page("decide")
    case.answer("decide", option="Do not tell", reason="The scanner was locked")
    run = widened(case, 1, 2, 4)
    company.clock.on(minutes=1)
    decide.Decision(run, case.record).dry_run()
    decide.Decision(run, case.record).take(given(case, reason="This one saw it"))
    case.notify()
    with company.state.connect() as conn:
        assert notifying.delivery(conn, case.number) == {"withdrawn": 2, "pending": 1}


def test_where_nobody_can_say_whom_the_last_decision_was_about_the_next_is_about_all(
    company: Company,
) -> None:
    """Somebody was put on the list among those who were found before."""
    case = asked(company, 1, 2)
    case.answer("decide", option="Do not tell", reason="The scanner was locked")
    version = incident_run.require_scope(case.context, case.record.incident.id).version
    with company.state.begin() as conn:
        conn.execute(
            text("INSERT INTO incident_subject (incident_id, database, key, version)"
                 " VALUES (:id, 'courier', '3', :version)"),
            {"id": case.record.incident.id, "version": version},
        )  # fmt: skip
    page = case.page("decide")
    assert "decide whether 3 people are told" in page.subject
    assert "on everybody to whom nothing was sent" in page.body
    case.answer("decide")
    case.notify()
    assert told(case) == ["courier/1", "courier/2", "courier/3"]
