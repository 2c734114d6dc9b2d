"""Tests of comments, new owners and accepted risks: entitled people, and effects of decisions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, Engine

from include.evidence.model import Outcome
from include.findings import decisions, register
from include.findings.decisions import Deciders, Decision
from include.findings.register import Event, Finding, State
from include.local.postgres import EmbeddedPostgres
from include.messages import verbatim
from include.policy.rules import FindingRules, Role
from include.services.errors import UsageError
from include.state.connect import engine
from include.state.findings import finding, finding_report
from tests.support.databases import temporary_database

NOW = datetime(2026, 10, 12, 1, 30, tzinfo=UTC)
TODAY = NOW.date()
DUE = date(2026, 10, 26)
UNTIL = TODAY + timedelta(days=90)


def role(name: str, *accounts: str) -> Role:
    return Role(id=name, title={"en": name, "zh-CN": name}, accounts=accounts)


ROLES = {
    entry.id: entry
    for entry in (
        role("data_engineering", "dan", "dora"),
        role("compliance", "cai"),
        role("management", "mia", "dan"),
    )
}
DECIDERS = Deciders(ROLES, FindingRules(), ZoneInfo("Asia/Shanghai"))


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


def opened(conn: Connection, reference: str = "1") -> int:
    return register.open_finding(
        conn,
        kind="audit",
        reference=reference,
        description=verbatim("Item a1: no"),
        owner="data_engineering",
        opened_at=NOW,
        due_on=DUE,
    )


def decision(number: int, by: str, reason: str = "agreed", version: str | None = None) -> Decision:
    return Decision(number, by, NOW, reason, version)


def accepted(conn: Connection, number: int, by: str = "mia", until: date = UNTIL) -> Finding:
    return decisions.accept_risk(conn, DECIDERS, decision(number, by), until=until)


def refused(message: str) -> pytest.RaisesExc[UsageError]:
    return pytest.raises(UsageError, match=message)


@pytest.mark.parametrize("person", ["dan", "dora", "cai", "mia", "ＭＩＡ"])
def test_people_of_the_owner_and_of_deciding_roles_may_comment(
    conn: Connection, person: str
) -> None:
    entry = decisions.comment(conn, DECIDERS, decision(opened(conn), person, "Waiting for parts"))
    assert [(comment.by, comment.text) for comment in entry.comments] == [
        (person, "Waiting for parts")
    ]
    assert entry.state is State.OPEN


def test_comment_of_a_person_without_a_role_is_refused(conn: Connection) -> None:
    with refused("eve may not comment"):
        decisions.comment(conn, DECIDERS, decision(opened(conn), "eve"))


def test_comment_redacts_what_looks_like_a_customer_number(conn: Connection) -> None:
    words = "The customer 138 1234 5678 called"
    entry = decisions.comment(conn, DECIDERS, decision(opened(conn), "dan", words))
    assert "1234" not in entry.comments[0].text


def test_comments_of_a_finding_are_limited(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "MAX_COMMENTS", 2)
    number = opened(conn)
    for _attempt in range(2):
        decisions.comment(conn, DECIDERS, decision(number, "dan"))
    with refused("2 comments, which is the limit"):
        decisions.comment(conn, DECIDERS, decision(number, "dan"))


def test_reassigned_finding_has_new_owner_and_responsible_person(conn: Connection) -> None:
    entry = decisions.reassign(
        conn, DECIDERS, decision(opened(conn), "cai"), owner="management", assignee="mia"
    )
    assert (entry.owner, entry.assignee) == ("management", "mia")
    assert entry.comments[0].kind is Event.REASSIGNED


@pytest.mark.parametrize(
    ("by", "owner", "assignee", "message"),
    [
        ("eve", "management", "", "eve may not name another owner"),
        ("cai", "legal", "", "roles.yaml has no role legal"),
        ("cai", "management", "dora", "does not list dora in the role management"),
    ],
)
def test_reassignment_to_unknown_role_or_person_or_by_stranger_is_refused(
    conn: Connection, by: str, owner: str, assignee: str, message: str
) -> None:
    number = opened(conn)
    with refused(message):
        decisions.reassign(conn, DECIDERS, decision(number, by), owner=owner, assignee=assignee)
    assert register.get_finding(conn, number).owner == "data_engineering"


def test_finding_is_not_overdue_and_needs_no_reminder_while_its_risk_is_accepted(
    conn: Connection,
) -> None:
    entry = accepted(conn, opened(conn))
    late = DUE + timedelta(days=1)
    assert (entry.state, entry.state_on(late)) == (State.OPEN, State.ACCEPTED)
    assert not entry.overdue(late)
    assert not entry.needs_reminder(datetime(2026, 10, 27, tzinfo=UTC))
    after = UNTIL + timedelta(days=1)
    assert entry.state_on(after) is State.OPEN
    assert entry.overdue(after)
    assert entry.needs_reminder(datetime(after.year, after.month, after.day, tzinfo=UTC))


def test_acceptance_ends_when_a_run_reports_a_worse_severity(conn: Connection) -> None:
    number = opened_by_run(conn, "attention")
    assert accepted(conn, number).is_accepted(TODAY)
    report(conn, number, "fail")
    entry = register.get_finding(conn, number)
    assert entry.severity is Outcome.FAIL
    assert not entry.is_accepted(TODAY)


@pytest.mark.parametrize("by", ["dora", "cai", "eve"])
def test_risk_can_be_accepted_only_by_people_of_the_accepting_role(
    conn: Connection, by: str
) -> None:
    with refused(f"{by} may not accept the risk"):
        accepted(conn, opened(conn), by)


def test_risk_cannot_be_accepted_by_the_person_who_answered_or_is_responsible(
    conn: Connection,
) -> None:
    number = opened(conn)
    register.answer(conn, number, cause="old", action="renew", by="Dan", at=NOW)
    with refused("dan may not accept"):
        accepted(conn, number, "dan")
    decisions.reassign(conn, DECIDERS, decision(number, "cai"), owner="management", assignee="mia")
    with refused("mia may not accept"):
        accepted(conn, number, "mia")


@pytest.mark.parametrize("until", [TODAY - timedelta(days=1), TODAY + timedelta(days=366)])
def test_acceptance_until_a_past_or_distant_day_is_refused(conn: Connection, until: date) -> None:
    with refused("Name a day between today and 2027-10-12"):
        accepted(conn, opened(conn), until=until)


def test_risk_cannot_be_accepted_by_a_person_who_was_responsible_before(conn: Connection) -> None:
    number = opened(conn)
    for owner, assignee in (("management", "mia"), ("compliance", "")):
        decisions.reassign(conn, DECIDERS, decision(number, "cai"), owner=owner, assignee=assignee)
    with refused("mia may not accept"):
        accepted(conn, number, "mia")
    assert accepted(conn, number, "dan").is_accepted(TODAY)


def test_risk_cannot_be_accepted_by_the_people_of_the_owner(conn: Connection) -> None:
    """The person dan has the accepting role and the role that owns the finding."""
    with refused("dan may not accept"):
        accepted(conn, opened(conn), "dan")


def test_answer_cannot_postpone_the_due_date_beyond_the_longest_period(conn: Connection) -> None:
    number = opened(conn)
    words = decision(number, "dora", "Order a new scanner")
    with refused("is after 2027-04-10"):
        decisions.answer(conn, DECIDERS, words, cause="old", due_on=date(2027, 4, 11))
    entry = decisions.answer(conn, DECIDERS, words, cause="old", due_on=date(2027, 4, 10))
    assert entry.due_on == date(2027, 4, 10)


def test_version_of_a_finding_changes_when_a_run_reports_another_severity(
    conn: Connection,
) -> None:
    number = opened_by_run(conn, "attention")
    read_version = register.get_finding(conn, number).version
    report(conn, number, "fail")
    with refused("has changed since you read it"):
        decisions.accept_risk(
            conn, DECIDERS, decision(number, "mia", version=read_version), until=UNTIL
        )


def test_past_finding_has_the_severity_and_state_of_that_day(conn: Connection) -> None:
    number = opened_by_run(conn, "attention")
    register.answer(conn, number, cause="old", action="renew", by="dora", at=NOW)
    report(conn, number, "fail", NOW + timedelta(days=5))
    [entry] = register.list_findings(conn, as_of=NOW + timedelta(days=1))
    assert (entry.state, entry.severity) == (State.ANSWERED, Outcome.ATTENTION)
    [entry] = register.list_findings(conn)
    assert (entry.state, entry.severity) == (State.OPEN, Outcome.FAIL)


def test_withdrawn_acceptance_makes_the_finding_overdue_again(conn: Connection) -> None:
    number = opened(conn)
    accepted(conn, number)
    entry = decisions.withdraw_acceptance(conn, DECIDERS, decision(number, "mia"))
    assert entry.overdue(DUE + timedelta(days=1))
    with refused("has no accepted risk"):
        decisions.withdraw_acceptance(conn, DECIDERS, decision(number, "mia"))


def test_accepted_finding_is_listed_with_unchanged_severity(conn: Connection) -> None:
    number = opened_by_run(conn, "fail")
    accepted(conn, number)
    [listed] = [entry for entry in register.list_findings(conn) if entry.id == number]
    assert listed.severity is Outcome.FAIL


def test_retest_of_a_finding_that_a_run_reported_is_refused(conn: Connection) -> None:
    number = opened_by_run(conn, "fail")
    register.answer(conn, number, cause="old", action="renew", by="dan", at=NOW)
    with refused("A retest cannot close it"):
        register.retest(conn, number, met=True, by="cai", at=NOW)


def test_answered_finding_is_open_again_when_a_later_run_reports_it(conn: Connection) -> None:
    number = opened_by_run(conn, "fail")
    answered = register.answer(conn, number, cause="old", action="renew", by="dan", at=NOW)
    assert answered.state is State.ANSWERED
    report(conn, number, "fail", NOW + timedelta(days=1))
    assert register.get_finding(conn, number).state is State.OPEN


Act = Callable[[Connection, int], object]


@pytest.mark.parametrize(
    "act",
    [
        lambda conn, number: decisions.comment(conn, DECIDERS, decision(number, "mia")),
        lambda conn, number: decisions.reassign(
            conn, DECIDERS, decision(number, "mia"), owner="compliance"
        ),
        accepted,
        lambda conn, number: decisions.withdraw_acceptance(conn, DECIDERS, decision(number, "mia")),
    ],
    ids=["comment", "reassign", "accept", "withdraw"],
)
def test_decision_about_a_closed_finding_is_refused(conn: Connection, act: Act) -> None:
    number = opened(conn)
    register.answer(conn, number, cause="old", action="renew", by="dan", at=NOW)
    register.retest(conn, number, met=True, by="cai", at=NOW)
    with refused("is closed"):
        act(conn, number)


def test_decision_without_words_or_person_is_refused(conn: Connection) -> None:
    number = opened(conn)
    for by, reason, message in (("mia", " ... ", "no words"), (" ", "agreed", "is missing")):
        with refused(message):
            decisions.comment(conn, DECIDERS, decision(number, by, reason))


def test_second_of_two_concurrent_decisions_about_the_version_that_both_saw_is_refused(
    state: Engine,
) -> None:
    with state.begin() as conn:
        number = opened(conn, "concurrent")
    messages: list[str] = []

    def second() -> None:
        try:
            with state.begin() as other:
                decisions.reassign(
                    other, DECIDERS, decision(number, "mia", version="0-fail"), owner="compliance"
                )
        except UsageError as error:
            messages.append(error.message)

    thread = threading.Thread(target=second)
    with state.begin() as conn:
        decisions.reassign(
            conn, DECIDERS, decision(number, "cai", version="0-fail"), owner="management"
        )
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()  # waits for the first decision
    thread.join(10)
    assert messages == [f"Finding {number} has changed since you read it."]
    with state.connect() as conn:
        assert register.get_finding(conn, number).owner == "management"


def test_owner_without_people_can_only_be_reassigned_by_deciding_roles(conn: Connection) -> None:
    """The only person of the role has left the company."""
    roles = ROLES | {"data_engineering": role("data_engineering")}
    deciders = Deciders(roles, FindingRules(), DECIDERS.zone)
    number = opened(conn)
    with refused("dora may not"):
        decisions.reassign(conn, deciders, decision(number, "dora"), owner="compliance")
    entry = decisions.reassign(conn, deciders, decision(number, "cai"), owner="compliance")
    assert entry.owner == "compliance"


def opened_by_run(conn: Connection, severity: str) -> int:
    row = {
        "kind": "run",
        "reference": "1/1",
        "description": {"text": "x"},
        "owner": "data_engineering",
        "opened_at": NOW,
        "due_on": DUE,
        "dag_id": "backup_offsite",
        "severity": severity,
        "clause": "4.2",
        "details": DETAILS,
        "opened_in": "b1",
        "opened_seq": 1,
        "step": "check",
        "part": "",
        "code": "x",
        "subject": "courier",
        "aspect": "",
    }
    return int(conn.execute(finding.insert().values(row).returning(finding.c.id)).scalar_one())


DETAILS = {"action": {"text": "Correct it."}}


def report(conn: Connection, number: int, severity: str, at: datetime = NOW) -> None:
    conn.execute(
        finding_report.insert().values(
            finding_id=number,
            bundle="b2",
            seq=2,
            reported_at=at,
            severity=severity,
            description={"text": "x"},
            details=DETAILS,
            reports=2,
        )
    )
