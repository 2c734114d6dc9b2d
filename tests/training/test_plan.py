"""The plan of a day: queued once, taken back when it is settled, measured and judged."""

from __future__ import annotations

import threading
from datetime import date, time, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import artifacts_of
from include.messages import Message
from include.notify.tables import notice
from include.policy.rules import Calendar
from include.reports.i18n import Translator
from include.training import standing, waivers
from include.training.notices import still_due
from include.training.plan import PLAN
from include.training.standing import COPY, DEPARTMENT, REMINDER
from tests.support.contexts import step_record
from tests.training.rig import DAG, HR, Rig


def told(rig: Rig, kind: str, state: str = "pending") -> list[tuple[str, str]]:
    """Recipient and English line of what is queued."""
    columns = (notice.c.recipient, notice.c.line)
    query = select(*columns).where(notice.c.kind == kind, notice.c.state == state)
    with rig.engine.connect() as conn:
        rows = conn.execute(query.order_by(notice.c.id)).all()
    english = Translator("en")
    return [(to, english.text(Message.model_validate(line))) for to, line in rows]


def delivered(rig: Rig) -> None:
    """As if all that is queued had been sent."""
    with rig.engine.begin() as conn:
        conn.execute(notice.update().where(notice.c.state == "pending").values(state="sent"))


def codes(record: StepRecord) -> set[str]:
    return {one.code for one in record.findings}


def metrics(record: StepRecord) -> dict[str, Any]:
    return {one.name: one.value for one in record.metrics}


def trained(rig: Rig) -> None:
    """Courses for every topic, and somebody who took them all."""
    for course, topic, months in (
        ("ONB", "onboarding", None),
        ("LAW", "law", 12),
        ("SKL", "protection", 12),
        ("EMG", "emergency", 12),
    ):
        rig.course(course, topic=topic, repeat_months=months, within_days=30)
    rig.person("P0")
    for course in ("ONB", "LAW", "SKL", "EMG"):
        rig.took("2025-12-01", "P0", course)


def test_everybody_trained_is_a_calm_day(rig: Rig):
    """Nobody is told anything, and the controls' figures are there."""
    trained(rig)
    record = step_record(PLAN, rig.context())
    assert record.outcome is Outcome.PASS
    assert metrics(record) == {
        "training_coverage": 1.0,
        "people_with_access_untrained": 0,
        "people_overdue_beyond_ladder": 0,
        "training.people": 1,
        "training.overdue": 0,
    }
    assert told(rig, REMINDER) == []


def test_a_reminder_is_queued_once_whatever_is_repeated(rig: Rig):
    """The same run again, another run, and the next day on the same rung."""
    trained(rig)
    rig.person("P1", "2026-02-02")
    for run in ("r1", "r1", "r2"):
        step_record(PLAN, rig.context(run))
    assert len(told(rig, REMINDER)) == 4
    assert told(rig, REMINDER)[0] == ("P1", "“Course EMG” is due on 2026-03-04.")
    delivered(rig)
    rig.today += timedelta(days=1)  # the one-day rung
    assert step_record(PLAN, rig.context("r3")).data["told"]["reminders"] == 4
    delivered(rig)
    assert step_record(PLAN, rig.context("r4")).data["told"]["reminders"] == 0


def test_two_runs_at_once_queue_it_once(rig: Rig):
    """One waits for the other, and finds all told."""
    trained(rig)
    rig.person("P1", "2026-02-02")
    runs = [
        threading.Thread(target=step_record, args=(PLAN, rig.context(f"r{n}"))) for n in range(3)
    ]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert len(told(rig, REMINDER)) == 4


def test_what_is_settled_is_taken_back(rig: Rig):
    """Completed, waived, left, or the rung has moved on: what was not sent is not sent."""
    trained(rig)
    for person in ("P1", "P2", "P3", "P4"):
        rig.person(person, "2026-02-02")
        for course in ("ONB", "SKL", "EMG"):
            rig.took("2026-02-03", person, course)
    step_record(PLAN, rig.context())
    assert [to for to, _ in told(rig, REMINDER)] == ["P1", "P2", "P3", "P4"]
    rig.took("2026-03-02", "P1")
    with rig.engine.begin() as conn:
        until, by = date(2026, 6, 30), "E1"
        waivers.grant(
            conn, "P2", "LAW", reason="parental leave soon", until=until, by=by, at=rig.now()
        )
    rig.execute("UPDATE people SET left_on = '2026-03-01' WHERE person = 'P3'")
    record = step_record(PLAN, rig.context("r2"))
    assert record.data["told"]["withdrawn"] == 3
    assert [to for to, _ in told(rig, REMINDER)] == ["P4"]
    assert [one["person"] for one in record.data["waived"]] == ["P2"]
    rig.today += timedelta(days=1)
    step_record(PLAN, rig.context("r3"))
    [(_, line)] = told(rig, REMINDER)  # the last rung only, not both
    assert len(told(rig, REMINDER, "withdrawn")) == 4
    assert line.startswith("“Course LAW”")


def test_a_clock_that_goes_back_tells_no_rung_again(rig: Rig):
    """And when it is right again it goes on where it was; one that was ahead silences nobody."""
    trained(rig)
    rig.person("P1", "2026-02-02")
    counts = []
    for number, day in enumerate(("2026-03-03", "2026-02-25", "2026-03-03", "2026-03-05")):
        rig.today = date.fromisoformat(day)
        counts.append(step_record(PLAN, rig.context(f"r{number}")).data["told"]["reminders"])
        delivered(rig)
    assert counts == [4, 4, 0, 4]  # one day before, seven days before, nothing, overdue
    rig.person("P2", "2026-02-09")
    for day in ("2026-09-01", "2026-03-06"):
        rig.today = date.fromisoformat(day)
        record = step_record(PLAN, rig.context(f"ahead {day}"))
        delivered(rig)
    assert record.data["told"]["reminders"] == 4  # a week before the day of P2
    with rig.engine.connect() as conn:
        assert max(one.at for one in standing.trend(conn, rig.now())) == rig.now()


def test_a_leave_that_moves_the_day_begins_its_ladder_anew(rig: Rig):
    """Told that it is overdue, then away: the new day is announced as any other is."""
    trained(rig)
    rig.person("P1", "2026-01-29")
    for course in ("ONB", "SKL", "EMG"):
        rig.took("2026-02-03", "P1", course)
    rig.today = date(2026, 3, 3)
    step_record(PLAN, rig.context())
    delivered(rig)
    assert told(rig, REMINDER, "sent")[0][1].startswith("“Course LAW” was due on 2026-02-28")
    rig.execute("UPDATE people SET leave_from = '2026-02-27', leave_until = '2026-03-27'")
    rig.today = date(2026, 4, 3)  # a week before 10 April, the end of the grace
    step_record(PLAN, rig.context("r2"))
    assert told(rig, REMINDER) == [("P1", "“Course LAW” is due on 2026-04-10.")]


def test_what_is_wanted_again_is_queued_again(rig: Rig):
    """A completion that was entered by mistake, and a roster that was cut for an hour."""
    trained(rig)
    rig.person("P1", "2026-02-02")
    for course in ("ONB", "SKL", "EMG"):
        rig.took("2026-02-03", "P1", course)
    step_record(PLAN, rig.context())
    rig.took("2026-03-02", "P1")
    step_record(PLAN, rig.context("r2"))
    assert told(rig, REMINDER) == []
    rig.execute("DELETE FROM completions WHERE completed_on = '2026-03-02'")
    step_record(PLAN, rig.context("r3"))
    assert [to for to, _ in told(rig, REMINDER)] == ["P1"]


def test_just_before_sending_it_is_asked_again(rig: Rig):
    """Whoever took the course, left, or went on leave since is not told of it."""
    trained(rig)
    for person in ("P1", "P2", "P3", "P4", "P/5#%"):
        rig.person(person, "2026-01-20", supervisor="P0")
    step_record(PLAN, rig.context())
    with rig.engine.connect() as conn:
        kinds = {kind: [] for kind in (REMINDER, COPY)}
        for kind, key in conn.execute(select(notice.c.kind, notice.c.key)):
            kinds.setdefault(kind, []).append(key)
    rig.took("2026-03-02", "P1", "LAW")
    rig.execute("UPDATE people SET left_on = '2026-03-01' WHERE person = 'P2'")
    rig.execute("UPDATE people SET leave_from = '2026-03-02' WHERE person = 'P3'")
    wanted = {
        key.split("/", 2)[0] + "/" + key.split("/", 2)[1]
        for kind in (REMINDER, COPY)
        for key in still_due(rig.context("r2"), kinds[kind], kind)
    }
    others = {
        f"{who}/{what}" for who in ("P4", "P%2F5%23%25") for what in ("ONB", "LAW", "SKL", "EMG")
    }
    assert wanted == {"P1/ONB", "P1/SKL", "P1/EMG"} | others
    rig.today += timedelta(days=14)  # the rungs have moved on: the plan queues the new ones
    assert still_due(rig.context("r3"), kinds[REMINDER], REMINDER) == set()
    assert still_due(rig.context("r3"), [], REMINDER) == set()


def test_supervisors_are_told_from_the_second_overdue_rung(rig: Rig):
    """With the person's name; a copy is a notice of its own, in the supervisor's digest."""
    trained(rig)
    rig.person("P1", "2026-01-20", supervisor="P0")  # due on 19 February, on the rung of 7 days
    step_record(PLAN, rig.context())
    assert told(rig, COPY)[0] == (
        "P0",
        "Name of P1 (P1): “Course EMG” was due on 2026-02-19.",
    )
    assert len(told(rig, COPY)) == 4
    assert told(rig, REMINDER)[0][1] == (
        "“Course EMG” was due on 2026-02-19 and is overdue: please take it now."
    )


def test_reminders_are_queued_oldest_first(rig: Rig):
    """Then by person and course, in whatever order the database returns them."""
    trained(rig)
    for person, joined_on in (("P2", "2026-01-20"), ("P1", "2026-01-20"), ("P3", "2026-01-12")):
        rig.person(person, joined_on)
    step_record(PLAN, rig.context())
    queued = [(person, line.split("”")[0][-3:]) for person, line in told(rig, REMINDER)]
    courses = ("EMG", "LAW", "ONB", "SKL")
    assert queued == [(person, course) for person in ("P3", "P1", "P2") for course in courses]


def test_without_anybody_above_the_owners_role_is_told(rig: Rig):
    """At every address it has; where it has none that is reported, and not lost."""
    trained(rig)
    rig.person("P1", "2026-01-20", supervisor="P9")
    rig.owner = HR.model_copy(update={"mail": ("a@firm.example", "b@firm.example")})
    step_record(PLAN, rig.context())
    assert {to for to, _ in told(rig, COPY)} == {"role:human_resources", "role:human_resources:2"}
    rig.empty()
    trained(rig)
    rig.person("P1", "2026-01-20", supervisor="P9")
    rig.owner = HR.model_copy(update={"mail": ()})
    step_record(PLAN, rig.context())
    assert {to for to, _ in told(rig, COPY, "undeliverable")} == {"role:human_resources"}


def test_on_a_day_off_it_is_measured_and_nobody_is_told(rig: Rig):
    """A Sunday: coverage, findings, no notices."""
    trained(rig)
    rig.person("P1", "2026-01-20", access=True)
    rig.today = date(2026, 3, 1)
    record = step_record(PLAN, rig.context())
    assert record.data["workday"] is False
    assert "training.access_untrained" in codes(record)
    assert told(rig, REMINDER) == told(rig, COPY) == told(rig, DEPARTMENT) == []


def test_the_bad_ends_are_red(rig: Rig):
    """Access without training, beyond the ladder; by staff number."""
    trained(rig)
    rig.person("P1", "2026-01-05", access=True)
    record = step_record(PLAN, rig.context())
    assert codes(record) == {"training.access_untrained", "training.beyond_ladder"}
    assert record.outcome is Outcome.FAIL
    assert metrics(record)["training_coverage"] == 0.5
    assert metrics(record)["people_overdue_beyond_ladder"] == 1
    english = Translator("en")
    texts = sorted(english.text(one.message) for one in record.findings)
    assert texts == [
        "1 people are overdue by more than 14 days: P1.",
        "1 people may open customer records without valid training: P1.",
    ]
    files = artifacts_of_run(rig, "r1")
    lines = files["overdue.csv"].decode("utf-8-sig").splitlines()
    assert lines[0] == "person,department,course,due_on,days_overdue,rung"
    assert lines[1] == "P1,North,EMG,2026-02-04,26,14"
    assert len(lines) == 5


def artifacts_of_run(rig: Rig, run: str) -> dict[str, bytes]:
    with rig.engine.connect() as conn:
        return artifacts_of(conn, DAG, run)


def test_an_empty_roster_is_red(rig: Rig):
    """Nobody to remind is a fault of the records, not a company without overdue courses."""
    rig.course()
    record = step_record(PLAN, rig.context())
    assert {"training.nobody", "training.topic_missing"} <= codes(record)
    assert metrics(record)["training_coverage"] is None


@pytest.mark.parametrize("topic", ["onboarding", "law", "protection", "emergency"])
def test_a_topic_without_a_course_is_red(rig: Rig, topic: str):
    """Policy 6.2 names three, and onboarding."""
    trained(rig)
    rig.execute("DELETE FROM courses WHERE topic = %s", [topic])
    record = step_record(PLAN, rig.context())
    assert codes(record) == {"training.topic_missing"} | {"training.of_no_course"}
    [finding] = [one for one in record.findings if one.code == "training.topic_missing"]
    assert topic in Translator("en").text(finding.message)


def test_a_topic_whose_course_is_never_repeated_is_red(rig: Rig):
    """Regularly means again."""
    trained(rig)
    rig.execute("UPDATE courses SET repeat_months = NULL WHERE topic = 'law'")
    assert codes(step_record(PLAN, rig.context())) == {"training.topic_missing"}


def test_a_year_that_is_not_announced_is_said_ahead(rig: Rig):
    """From two months before it on."""
    trained(rig)
    for course in ("ONB", "LAW", "SKL", "EMG"):
        rig.took("2029-10-01", "P0", course)
    rig.calendar = Calendar(announced=(2029,))
    rig.today = date(2029, 10, 15)
    assert "training.year_not_announced" not in codes(step_record(PLAN, rig.context()))
    rig.today = date(2029, 11, 15)
    assert "training.year_not_announced" in codes(step_record(PLAN, rig.context("r2")))
    rig.calendar = Calendar(announced=(2029, 2030))
    assert "training.year_not_announced" not in codes(step_record(PLAN, rig.context("r3")))


def test_the_trend_has_the_last_run_of_each_day(rig: Rig):
    """A run that is tried again replaces its own figures."""
    trained(rig)
    step_record(PLAN, rig.context("r1"))
    rig.person("P1", "2025-01-20", department="South")
    rig.time = time(15)
    step_record(PLAN, rig.context("r2"))
    step_record(PLAN, rig.context("r2"))
    rig.today += timedelta(days=1)
    step_record(PLAN, rig.context("r3"))
    with rig.engine.connect() as conn:
        points = standing.trend(conn, rig.now())
    assert [(one.people, one.covered) for one in points] == [(2, 1), (2, 1)]
    assert points[0].at < points[1].at
