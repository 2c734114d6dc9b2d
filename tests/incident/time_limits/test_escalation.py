"""Tests that people are notified at most once per period before or after a deadline.

If several periods have passed during a downtime, only the newest notification is sent.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.incident.incident_ids import ALERT, Kind
from include.incident.rules import EscalationRules, HumanStep
from include.incident.time_limits.escalation import (
    STEPS,
    Escalation,
    due_escalations,
    escalation_line,
    escalation_notifications,
    next_escalation_at,
    still_due,
    timeline_words,
    with_link,
)
from include.incident.time_limits.milestones import ConfirmedGrade
from include.incident.time_limits.time_limit import TimeLimit
from include.messages import verbatim
from include.notify.notification import Notification
from include.reports.i18n import Translator
from tests.incident.time_limits.time_limit_fixtures import (
    SHANGHAI,
    entry,
    look,
    roles,
    rule,
    shipped,
)

NUMBER = "INC-2026-0001"
AWARE = datetime(2026, 3, 2, 1, tzinfo=UTC)  # 09:00 in Shanghai
WAKE = shipped().wake
FOUR_HOURS = rule("x", "reported", authority="cac", within="PT4H")  # due at 05:00 UTC
AT = st.integers(0, 16 * 3600).map(lambda seconds: AWARE + timedelta(seconds=seconds))


def h(hours: float) -> datetime:
    return AWARE + timedelta(hours=hours)


def time_limits_of_report(now: datetime, done: datetime | None = None) -> list[TimeLimit]:
    entries = [entry(1, Kind.REPORTED, done, authority="cac")] if done and done <= now else []
    return list(look(entries, now, rules=[FOUR_HOURS], aware_at=AWARE).values())


def escalation_keys(now: datetime, sent_keys: set[str] | None = None) -> list[str]:
    escalations = due_escalations(
        NUMBER, time_limits_of_report(now), WAKE, now, SHANGHAI, sent_keys or set()
    )
    return [escalation.key.removeprefix(f"{NUMBER}/") for escalation in escalations]


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (0, []),
        (2.99, []),
        (3, ["x/before/PT1H"]),
        (3.74, ["x/before/PT1H"]),
        (3.75, ["x/before/PT15M"]),
        (4, ["x/before/PT15M"]),
        (4 + 1 / 3600, ["x/after/PT1S"]),
        (4.99, ["x/after/PT1S"]),
        (5, ["x/after/PT1H"]),
        (10, ["x/after/PT6H"]),
        (1000, ["x/after/P7D"]),
    ],
)
def test_due_escalations_returns_only_the_escalation_with_the_latest_time_that_has_passed(
    hours: float, expected: list[str]
):
    assert escalation_keys(h(hours)) == expected


@given(st.lists(AT, min_size=1, max_size=40), st.none() | AT)
def test_each_escalation_time_causes_at_most_one_notification(
    looks: list[datetime], done: datetime | None
):
    keys: list[str] = []
    at: list[datetime] = []
    for now in sorted(looks):
        escalations = due_escalations(
            NUMBER, time_limits_of_report(now, done), WAKE, now, SHANGHAI, keys
        )
        assert len(escalations) <= 1
        assert not escalations or not done or now < done
        keys += [escalation.key for escalation in escalations]
        at += [escalation.at for escalation in escalations]
    assert len(keys) == len(set(keys))
    assert at == sorted(at)


@given(st.lists(AT, min_size=1, max_size=20))
def test_newest_escalation_is_due_at_the_next_check_even_if_earlier_checks_were_missed(
    looks: list[datetime],
):
    keys: list[str] = []
    for now in sorted(looks):
        keys += [
            escalation.key
            for escalation in due_escalations(
                NUMBER, time_limits_of_report(now), WAKE, now, SHANGHAI, keys
            )
        ]
        newest = [f"{NUMBER}/{escalation}" for escalation in escalation_keys(now)]
        assert keys[-1:] == newest or not newest


def test_checks_at_the_times_returned_by_next_escalation_at_miss_no_escalation():
    now: datetime | None = AWARE
    keys: list[str] = []
    while now is not None:
        escalations = due_escalations(NUMBER, time_limits_of_report(now), WAKE, now, SHANGHAI, keys)
        assert [escalation.at for escalation in escalations] in ([], [now])
        keys += [escalation.key for escalation in escalations]
        now = next_escalation_at(time_limits_of_report(now), WAKE, now, SHANGHAI)
    assert [key.partition("/x/")[2] for key in keys] == [
        "before/PT1H",
        "before/PT15M",
        "after/PT1S",
        "after/PT1H",
        "after/PT6H",
        "after/P1D",
        "after/P3D",
        "after/P7D",
    ]


def test_next_escalation_at_returns_none_if_no_time_limit_is_running():
    assert next_escalation_at(time_limits_of_report(h(2), done=h(1)), WAKE, h(2), SHANGHAI) is None
    later = look([], h(2), rules=[rule("y", begins="closing", within="P30D")], aware_at=AWARE)
    assert next_escalation_at(later.values(), WAKE, h(2), SHANGHAI) is None
    assert due_escalations(NUMBER, later.values(), WAKE, h(2), SHANGHAI) == []


def test_notification_that_would_be_due_before_its_time_limit_starts_is_not_sent():
    short = look([], h(0.1), rules=[rule("y", within="PT30M")], aware_at=AWARE)
    assert due_escalations(NUMBER, short.values(), WAKE, h(0.1), SHANGHAI) == []
    assert next_escalation_at(short.values(), WAKE, h(0.1), SHANGHAI) == h(0.25)


def test_escalations_of_30_day_time_limit_are_due_7_days_and_1_day_before_deadline():
    rules, due = [rule("y", within="P30D")], AWARE + timedelta(days=30)
    month = list(look([], AWARE, rules=rules, aware_at=AWARE).values())
    first = next_escalation_at(month, WAKE, AWARE, SHANGHAI)
    assert first == due - timedelta(days=7)
    assert next_escalation_at(month, WAKE, first, SHANGHAI) == due - timedelta(days=1)


def test_notification_before_deadline_is_not_sent_if_the_time_limit_is_already_overdue():
    calm = EscalationRules.model_validate({"before": ["PT1H"], "after": ["PT1H"]})
    assert due_escalations(NUMBER, time_limits_of_report(h(4.5)), calm, h(4.5), SHANGHAI) == []
    assert next_escalation_at(time_limits_of_report(h(4.5)), calm, h(4.5), SHANGHAI) == h(5)


def shipped_at(
    now: datetime, *grades: ConfirmedGrade, proposed: str = "general"
) -> list[TimeLimit]:
    entries = [
        entry(position, Kind.GRADED, grade.at, grade=grade.grade)
        for position, grade in enumerate(grades, 1)
    ]
    return list(look(entries, now, aware_at=AWARE, proposed=proposed).values())


def notifications_at(now: datetime, time_limit: str, **facts: str) -> list[Notification]:
    escalations = due_escalations(NUMBER, shipped_at(now, **facts), WAKE, now, SHANGHAI)
    own_escalations = [
        escalation for escalation in escalations if escalation.time_limit.id == time_limit
    ]
    return list(escalation_notifications(own_escalations, shipped(), roles(), SHANGHAI))


@pytest.mark.parametrize(
    ("time_limit", "hours", "recipients"),
    [
        ("graded", 1.5, ["role:compliance"]),
        ("contained", 3.5, ["role:data_engineering"]),
        ("postal_first", 3.5, ["role:compliance"]),
        ("individuals", 71.5, ["role:compliance", "role:management"]),
        ("team_called", 0.8, ["role:information_management"]),
        ("graded", 2.5, ["role:compliance", "role:management"]),
        ("contained", 5, ["role:data_engineering", "role:management"]),
        ("team_called", 2, ["role:information_management", "role:management"]),
        ("individuals", 80, ["role:compliance", "role:management"]),
    ],
)
def test_notification_is_sent_to_responsible_roles_and_after_the_deadline_also_to_management(
    time_limit: str, hours: float, recipients: list[str]
):
    notifications = notifications_at(h(hours), time_limit)
    assert [notification.recipient for notification in notifications] == recipients
    assert len({notification.key for notification in notifications}) == len(notifications)
    assert all(
        notification.kind == ALERT and notification.urgent and "@" in notification.address
        for notification in notifications
    )


def test_shipped_policy_pack_has_a_team_duty_for_every_human_step_that_reaches_a_milestone():
    assert {step for steps in STEPS.values() for step in steps} <= set(shipped().steps)
    assert {time_limit.ends for time_limit in shipped().clocks} - set(STEPS) == {
        "opened",
        "team_called",
    }


def texts(notification: Notification, locale: str) -> tuple[str, str]:
    words = Translator(locale, "Asia/Shanghai")
    return words.text(notification.heading), words.text(notification.line)


def test_notification_text_contains_deadline_and_title_of_the_required_action_in_airflow():
    notification = notifications_at(h(3), "postal_first")[0]
    assert notification.key == f"{NUMBER}/postal_first/before/PT1H/compliance"
    assert notification.due_on is not None
    assert notification.due_on.isoformat() == "2026-03-02"
    assert texts(notification, "en") == (
        "Incident INC-2026-0001: a deadline is near",
        "“First report to the postal administration” is due by 2026-03-02 13:00 UTC+08:00. "
        "Answer in Airflow under Required Actions: First report to an authority.",
    )
    heading, text = texts(notification, "zh_CN")
    assert NUMBER in heading
    assert "向邮政管理部门首次报告" in text
    assert "2026-03-02 13:00" in text


def test_text_of_notification_after_deadline_starts_with_the_word_overdue():
    notifications = notifications_at(h(8), "postal_first")
    assert [notification.key for notification in notifications] == [
        f"{NUMBER}/postal_first/after/PT1H/compliance",
        f"{NUMBER}/postal_first/after/PT1H/management",
    ]
    heading, text = texts(notifications[1], "en")
    assert heading == "Incident INC-2026-0001: a deadline was MISSED"
    assert text.startswith("OVERDUE: “First report to the postal administration” was due by ")
    assert text.endswith("Complete this action now, then enter the time of completion.")


def test_notification_asks_to_confirm_grade_if_grade_is_only_proposed():
    notifications = notifications_at(h(3), "cac_first", proposed="larger")
    assert texts(notifications[0], "en")[1].endswith(
        "The grade of the incident is not confirmed yet: confirm it first."
    )
    assert notifications_at(h(3), "cac_first", proposed="general") == []


def test_timeline_text_about_a_notification_contains_time_limit_and_recipients():
    words = Translator("en", "Asia/Shanghai")
    before, after = (
        due_escalations(NUMBER, time_limits_of_report(h(at)), WAKE, h(at), SHANGHAI)[0]
        for at in (3, 5)
    )
    assert words.text(timeline_words(before)).startswith(
        "The team was reminded that “x” is due by 2026"
    )
    assert "management" in words.text(timeline_words(after))
    assert "is due by" in words.text(escalation_line(before))


@pytest.mark.parametrize(
    ("steps", "path"),
    [
        (("grade",), "/tasks/grade/required_actions"),
        (("report",), "/required_actions?response_received=false"),  # one task per authority
        (("impact", "decide"), "/required_actions?response_received=false"),
        ((), "/required_actions?response_received=false"),
    ],
)
def test_notification_links_to_the_required_action_of_its_step(
    steps: tuple[HumanStep, ...], path: str
):
    run = "https://airflow.example/dags/respond_to_incident/runs/manual__1"
    line = verbatim("A deadline is near.")
    words = Translator("en").text(with_link(line, run, steps))
    assert words == f"A deadline is near. Open: {run}{path}"
    assert with_link(line, "", steps) is line


def test_messages_about_a_deadline_contain_the_link_to_the_step():
    escalations = due_escalations(NUMBER, time_limits_of_report(h(3)), WAKE, h(3), SHANGHAI)
    with_address = escalation_notifications(
        escalations, shipped(), roles(), SHANGHAI, "https://airflow.example/dags/x/runs/y"
    )
    texts = [Translator("en").text(notice.line) for notice in with_address]
    assert texts
    assert all("Open: https://airflow.example/dags/x/runs/y/" in text for text in texts)


def keys_of(escalations: list[Escalation]) -> list[str]:
    return [
        notice.key for notice in escalation_notifications(escalations, shipped(), roles(), SHANGHAI)
    ]


def test_still_due_returns_only_newest_waiting_notification_of_open_time_limit():
    keys = []
    for at in (3, 3.75, 4.1, 5):
        escalations = due_escalations(NUMBER, shipped_at(h(at)), WAKE, h(at), SHANGHAI)
        keys += keys_of(
            [escalation for escalation in escalations if escalation.time_limit.id == "postal_first"]
        )
    assert len(keys) == 6
    before, after = keys[:2], keys[2:]
    assert still_due(before, NUMBER, shipped_at(h(3.8)), SHANGHAI) == {before[1]}
    assert still_due(keys, NUMBER, shipped_at(h(5.5)), SHANGHAI) == set(after[2:])
    assert still_due(before, NUMBER, shipped_at(h(5.5)), SHANGHAI) == set()
    done = entry(1, Kind.REPORTED, h(5.2), authority="postal")
    time_limits = look([done], h(5.5), aware_at=AWARE).values()
    assert still_due(keys, NUMBER, time_limits, SHANGHAI) == set()


def test_still_due_returns_team_calls_of_given_incident_and_omits_calls_of_another_incident():
    call, other = f"{NUMBER}/called/technical", "INC-2026-0002/called/technical"
    second = f"{NUMBER}/called/technical#1"
    assert still_due([call, second, other], NUMBER, time_limits_of_report(h(3)), SHANGHAI) == {
        call,
        second,
    }


def test_still_due_returns_newest_waiting_notification_to_each_address():
    keys = [
        f"{NUMBER}/x/after/{period}/compliance{address}"
        for address in ("", "#1", "#robot")
        for period in ("PT1S", "PT6H", "PT1H")
    ]
    newest = {key for key in keys if "/PT6H/" in key}
    assert still_due(keys, NUMBER, time_limits_of_report(h(11)), SHANGHAI) == newest


@pytest.mark.parametrize(("month", "newest"), [(2, "P30D"), (3, "P1M")])
def test_still_due_returns_escalation_after_a_month_or_after_30_days_whichever_is_later(
    month: int, newest: str
):
    due = datetime(2026, month, 10, 1, tzinfo=UTC)
    keys = [f"{NUMBER}/x/after/{period}/compliance" for period in ("P30D", "P1M")]
    late = look(
        [], due + timedelta(days=32), rules=[FOUR_HOURS], aware_at=due - timedelta(hours=4)
    ).values()
    assert still_due(keys, NUMBER, late, SHANGHAI) == {f"{NUMBER}/x/after/{newest}/compliance"}
