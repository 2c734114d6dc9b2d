"""From the decision to people's mail boxes: each once, and what became of it is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import text

from include.incident import opening
from include.incident.clocks import waking
from include.incident.clocks.clock import ClockState, clocks_of
from include.incident.form import Action
from include.incident.names import ALERT, INDIVIDUAL, Kind
from include.incident.telling import notifying
from include.incident.telling.addresses import AddressBook
from include.incident.watching import look, settle
from tests.incident.desk_rig import BOSS, PACK, Case, Company, english
from tests.notify.rig import Post
from tests.support.smtp import Smtp

TOLD = "@customer.example"


@pytest.fixture
def server() -> Iterator[Smtp]:
    with Smtp() as made:
        yield made


@pytest.fixture
def post(company: Company, server: Smtp) -> Post:
    """The office; nothing waits in it from before."""
    with company.state.begin() as conn:
        conn.execute(text("TRUNCATE notice, notice_message, notice_text RESTART IDENTITY"))
    return Post(company.state, server.port, clock=company.clock)


def decided(company: Company, *keys: int) -> Case:
    case = company.open(*keys).until("impact")
    case.page("decide")
    case.answer("decide")
    return case


def sent(post: Post, case: Case) -> None:
    """Send what waits and enter what came of it, as the tasks do."""
    left(post, case)
    settle(case.context)


def left(post: Post, case: Case) -> None:
    """Send what waits; whoever did is gone before it entered anything."""

    def wanted(keys: Sequence[str]) -> set[str]:
        return notifying.wanted(case.context, {case.number: case.record}, keys)

    def alerts(keys: Sequence[str]) -> set[str]:
        return waking.wanted(
            keys, case.number, clocks_of(case.context, case.record), case.context.zone
        )

    post.confirm = {INDIVIDUAL: wanted, ALERT: alerts}
    post.addresses = {INDIVIDUAL: partial(AddressBook.look_up, AddressBook(case.context))}
    post.deliver()


def boxes(server: Smtp) -> list[str]:
    """To whom letters went; the team's mail is left out."""
    return sorted(one.recipient for one in server.taken if one.recipient.endswith(TOLD))


def test_each_person_with_an_address_gets_the_letter_once(
    company: Company, post: Post, server: Smtp
) -> None:
    """In both languages; who has none is told otherwise, and then people are told."""
    case = decided(company, 1, 2, 11, 12)
    case.notify()
    case.notify()
    sent(post, case)
    sent(post, case)
    assert boxes(server) == [f"c{one}{TOLD}" for one in (1, 2)]
    [letter] = [one for one in server.taken if one.recipient == f"c1{TOLD}"]
    body = letter.text("plain")
    for words in ("harm, said in zh", "harm, said in en", "privacy@courier.example", "姓名"):
        assert words in body
    assert case.said(Kind.TOLD) == ["Notices: 2 sent, 2 not; who got none is told otherwise."]
    with company.state.connect() as conn:
        assert notifying.delivery(conn, case.number) == {"sent": 2, "undeliverable": 2}


def test_while_the_mail_server_is_down_letters_wait_and_nobody_is_told(
    company: Company, post: Post, server: Smtp
) -> None:
    """Then each goes once, and the clock stops when they left."""
    case = decided(company, 1, 2)
    case.notify()
    server.rule = lambda phase, _address: "421 4.3.2 down" if phase == "MAIL" else None
    sent(post, case)
    assert case.entries(Kind.TOLD) == []
    with company.state.connect() as conn:
        assert notifying.delivery(conn, case.number) == {"pending": 2}
    server.rule = lambda *_: None
    company.clock.on(hours=1)
    sent(post, case)
    assert boxes(server) == [f"c{one}{TOLD}" for one in (1, 2)]
    assert case.entries(Kind.TOLD)[0].happened_at == company.clock.now()


def test_letters_of_a_cancelled_incident_are_taken_back(
    company: Company, post: Post, server: Smtp
) -> None:
    """Those that did not leave yet; the team is not woken about it either."""
    case = decided(company, 1, 2)
    case.notify()
    case.update(Action.CANCEL, by=BOSS, words="a test of the alarm")
    sent(post, case)
    assert boxes(server) == []
    with company.state.connect() as conn:
        assert notifying.delivery(conn, case.number) == {"withdrawn": 2}


def test_a_decision_against_it_after_one_for_it_takes_back_what_waits(
    company: Company, post: Post, server: Smtp
) -> None:
    """The words were changed before anything left."""
    case = decided(company, 1, 2)
    case.notify()
    case.answer("impact")
    case.page("decide")
    case.answer("decide", option="Do not tell", reason="The scanner was found, locked")
    sent(post, case)
    assert boxes(server) == []


def test_letters_that_waited_while_their_words_changed_leave_once_with_the_new_words(
    company: Company, post: Post, server: Smtp
) -> None:
    """The mail server was down meanwhile, and came back before anybody decided on them."""
    case = decided(company, 1, 2)
    case.notify()
    server.rule = lambda phase, _address: "421 4.3.2 down" if phase == "MAIL" else None
    sent(post, case)
    case.answer("impact", harm_en="Far less than we thought")
    server.rule = lambda *_: None
    company.clock.on(hours=1)
    sent(post, case)
    assert boxes(server) == []
    case.page("decide")
    case.answer("decide")
    case.notify()
    sent(post, case)
    assert boxes(server) == [f"c{one}{TOLD}" for one in (1, 2)]
    for letter in (one for one in server.taken if one.recipient.endswith(TOLD)):
        assert "Far less than we thought" in letter.text("plain")
        assert "harm, said in en" not in letter.text("plain")
    assert case.entries(Kind.TOLD)[-1].data["complete"]


def test_the_team_is_called_once_every_duty_was_reached(
    company: Company, post: Post, server: Smtp
) -> None:
    """By mail to each role; that is when the clock of the call stops."""
    case = company.open(1)
    with company.state.begin() as conn:
        assert not opening.called(conn, case.context, case.record.incident)
    company.clock.on(minutes=2)
    sent(post, case)
    assert case.said(Kind.TEAM_CALLED) == ["The team was called: 5 duties."]
    assert case.entries(Kind.TEAM_CALLED)[0].happened_at == company.clock.now()
    assert all(case.number in str(one.mail["Subject"]) + one.text("plain") for one in server.taken)
    assert server.taken
    sent(post, case)
    assert len(case.entries(Kind.TEAM_CALLED)) == 1


def test_a_call_that_left_in_time_is_in_time_however_late_anybody_looks(
    company: Company, post: Post
) -> None:
    """Airflow was down for six hours from a minute later on."""
    case = company.open(1)
    company.clock.on(minutes=1)
    at = company.clock.now()
    left(post, case)
    company.clock.on(hours=6)
    assert case.entries(Kind.TEAM_CALLED) == []
    look(case.context)
    (entry,) = case.entries(Kind.TEAM_CALLED)
    assert (entry.happened_at, entry.recorded_at) == (at, company.clock.now())
    stands = {one.id: one for one in clocks_of(case.context, case.record)}["team_called"]
    assert (stands.state, stands.done_at) == (ClockState.MET, at)


def test_the_team_is_called_when_the_last_duty_was_reached(
    company: Company, post: Post, server: Smtp
) -> None:
    """Not when the first one was; a second mail to a duty that was reached changes nothing."""
    case = company.open(1)
    company.clock.on(minutes=1)
    far = PACK.roles["management"].mail[0]
    server.rule = lambda phase, to: "421 4.3.2 down" if phase == "RCPT" and far in to else None
    left(post, case)
    server.rule = lambda *_: None
    company.clock.on(hours=1)
    left(post, case)
    last = company.clock.now()
    company.clock.on(hours=1)
    settle(case.context)
    assert case.entries(Kind.TEAM_CALLED)[0].happened_at == last


def test_people_were_told_when_the_last_letter_left_however_late_anybody_looks(
    company: Company, post: Post
) -> None:
    """They left in the 70th hour; who sent them was killed, and others looked in the 80th."""
    case = decided(company, 1, 2)
    case.notify()
    at = case.record.incident.aware_at + timedelta(hours=70)
    company.clock.moment = at
    left(post, case)
    company.clock.on(hours=10)
    look(case.context)
    (entry,) = case.entries(Kind.TOLD)
    assert (entry.happened_at, entry.recorded_at) == (at, company.clock.now())
    stands = {one.id: one for one in clocks_of(case.context, case.record)}["individuals"]
    assert stands.state is ClockState.MET


def test_a_mail_that_left_by_a_clock_that_is_ahead_left_now(company: Company, post: Post) -> None:
    """Another machine sent it; nothing is entered before it happened."""
    case = company.open(1)
    company.clock.on(seconds=5)
    left(post, case)
    company.clock.on(seconds=-5)
    settle(case.context)
    assert case.entries(Kind.TEAM_CALLED)[0].happened_at == company.clock.now()


def test_a_drill_tells_nobody_and_says_so(company: Company) -> None:
    """At once, whoever looks when: nothing had to be sent."""
    case = company.open(scenario="scanner_lost", keys=[], databases=[]).counted()
    for step in ("contain", "grade", "impact"):
        case.answer(step)
    case.page("decide")
    case.answer("decide")
    at = company.clock.now()
    case.notify()
    company.clock.on(hours=5)
    case.settle()
    (entry,) = case.entries(Kind.TOLD)
    assert english(entry.words) == "DRILL: nobody was told."
    assert entry.happened_at == at
    with company.state.connect() as conn:
        assert notifying.delivery(conn, case.number) == {}


def test_while_mail_waits_it_is_looked_at_every_minute(
    company: Company, post: Post, server: Smtp
) -> None:
    """A server that comes back sends within a minute, not within five."""
    case = company.open(1)
    now = company.clock.now()
    seen = look(case.context)
    assert (seen.has_unsent, seen.again_at) == (True, now + timedelta(minutes=1))
    sent(post, case)
    seen = look(case.context)
    assert (seen.has_unsent, seen.again_at) == (False, now + timedelta(minutes=5))
