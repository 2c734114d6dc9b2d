"""Tests of texts about time limits, in English and Chinese."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from include.evidence.model import Outcome
from include.incident.incident_ids import Kind
from include.incident.time_limits.time_limit import TimeLimit, TimeLimitState
from include.incident.time_limits.time_limit_texts import (
    basis_text,
    deadline_rows,
    document_table,
    time_limit_table,
)
from include.incident.timeline import Entry
from include.reports.i18n import Translator
from tests.incident.time_limits.time_limit_fixtures import entry, look, rule, shipped

AWARE = datetime(2026, 3, 2, 1, tzinfo=UTC)  # 09:00 in Shanghai
ENGLISH, CHINESE = (Translator(locale, "Asia/Shanghai") for locale in ("en", "zh_CN"))
RULE = rule("x", "reported", authority="cac", within="PT4H", grades=["larger"])


def h(hours: float) -> datetime:
    return AWARE + timedelta(hours=hours)


def graded(number: int, grade: str, hours: float) -> Entry:
    return entry(number, Kind.GRADED, h(hours), grade=grade)


LARGER = graded(1, "larger", 1)
REPORTED = {"authority": "cac"}


def time_limit_at(now: float, *entries: Entry, proposed: str = "larger") -> TimeLimit:
    return look(list(entries), h(now), rules=[RULE], aware_at=AWARE, proposed=proposed)["x"]


@pytest.mark.parametrize(
    ("time_limit", "expected"),
    [
        (time_limit_at(1, LARGER), "not due yet"),
        (time_limit_at(3.5), "not due yet; the grade is not confirmed yet"),
        (time_limit_at(6.5, LARGER), "not done by the deadline"),
        (
            time_limit_at(6, LARGER, entry(2, Kind.REPORTED, h(5), **REPORTED)),
            "done at 2026-03-02 14:00 UTC+08:00, late by 1 h",
        ),
    ],
)
def test_table_for_official_documents_states_no_duration_until_now(
    time_limit: TimeLimit, expected: str
) -> None:
    [row] = document_table([time_limit]).rows
    assert Translator("en").value(row[2]) == expected
    assert Translator("en").value(row[1]).endswith("UTC+08:00")


@pytest.mark.parametrize(
    ("time_limit", "english"),
    [
        (time_limit_at(1, LARGER), "3 h left"),
        (time_limit_at(3.5, LARGER), "30 min left"),
        (time_limit_at(3.5), "30 min left; the grade is not confirmed yet"),
        (time_limit_at(6.5, LARGER), "OVERDUE by 2 h 30 min"),
        (time_limit_at(6.5), "OVERDUE by 2 h 30 min; the grade is not confirmed yet"),
        (
            time_limit_at(1, proposed="general"),
            "applies only if the confirmed grade of the incident differs from the proposed grade",
        ),
        (time_limit_at(1, graded(1, "general", 1)), "does not apply to incidents of this grade"),
        (
            time_limit_at(6, LARGER, entry(2, Kind.REPORTED, h(3), **REPORTED)),
            "done at 2026-03-02 12:00 UTC+08:00, in time",
        ),
        (
            time_limit_at(6, LARGER, entry(2, Kind.REPORTED, h(3), recorded=h(6), **REPORTED)),
            "done at 2026-03-02 12:00 UTC+08:00 "
            "(entered later, at 2026-03-02 15:00 UTC+08:00), in time",
        ),
        (
            time_limit_at(6, LARGER, entry(2, Kind.REPORTED, h(5), **REPORTED)),
            "done at 2026-03-02 14:00 UTC+08:00, late by 1 h",
        ),
        (
            time_limit_at(9, LARGER, graded(2, "general", 3)),
            "no longer applies: the grade was changed",
        ),
        (
            time_limit_at(9, LARGER, graded(2, "general", 5)),
            "not done; overdue by 1 h when the time limit stopped applying "
            "(no longer applies: the grade was changed)",
        ),
        (
            time_limit_at(9, LARGER, entry(2, Kind.CANCELLED, h(2))),
            "no longer applies: the incident was cancelled",
        ),
        (
            time_limit_at(9, LARGER, entry(2, Kind.REPORTED, h(2), complete=False, **REPORTED)),
            "no longer applies: the action was declared not required",
        ),
    ],
)
def test_state_of_time_limit_has_the_expected_english_text(time_limit: TimeLimit, english: str):
    words = time_limit_table([time_limit]).rows[0][2]
    assert ENGLISH.value(words) == english


def test_form_states_no_remaining_time_of_an_open_time_limit():
    """The form keeps its text until a person answers."""
    open_limits = [limit for limit in time_limits_in_every_state() if limit.is_open]
    assert open_limits
    (_, rows) = deadline_rows(open_limits)
    states = {ENGLISH.text(row[2]) for row in rows}
    assert any(state.startswith("OVERDUE") for state in states)
    assert [state for state in states if re.search(r"\d", state)] == []


def time_limits_in_every_state() -> list[TimeLimit]:
    """Return a list of time limits in which every state occurs."""
    entries = [LARGER, entry(2, Kind.CONTAINED, h(3)), entry(3, Kind.REPORTED, h(5), **REPORTED)]
    time_limits = [*look(entries, h(6), aware_at=AWARE).values()]
    time_limits += [*look([], h(3.5), aware_at=AWARE).values()]
    time_limits += [*look([graded(1, "general", 1)], h(3.5), aware_at=AWARE).values()]
    time_limits += [time_limit_at(9, LARGER, graded(2, "general", at)) for at in (3, 5)]
    time_limits += [time_limit_at(9, LARGER, entry(2, Kind.CANCELLED, h(at))) for at in (3, 5)]
    time_limits += [time_limit_at(1, LARGER), time_limit_at(1)]
    return time_limits


def test_table_of_time_limits_has_text_in_both_languages_for_every_state():
    time_limits = time_limits_in_every_state()
    assert {time_limit.state for time_limit in time_limits} == set(TimeLimitState)
    table = time_limit_table(time_limits)
    by_state: dict[str, Outcome | None] = {}
    for row in table.rows:
        for cell in row[:4]:
            assert "{" not in ENGLISH.value(cell) + CHINESE.value(cell)
        chinese_text = CHINESE.value(row[2])
        assert re.search("[\u4e00-\u9fff]", chinese_text)
        assert not re.search("[a-z]{4}", chinese_text)
        by_state[ENGLISH.value(row[2]).split()[0]] = row[4]
    assert by_state["OVERDUE"] is Outcome.FAIL
    late = [time_limit for time_limit in time_limits if time_limit.is_late]
    assert [row[4] for row in table.rows].count(Outcome.FAIL) == len(late)


def test_table_of_time_limits_in_form_omits_time_limits_that_do_not_apply():
    time_limits = list(look([graded(1, "general", 1)], h(3.5), aware_at=AWARE).values())
    heads, rows = deadline_rows(time_limits)
    titles = [ENGLISH.text(row[0]) for row in rows]
    assert len(heads) == len(rows[0]) == 4
    assert titles[0] == "Emergency plan started"
    assert not [title for title in titles if title.startswith("First report to the cyberspace")]
    assert len(time_limit_table(time_limits).rows) == len(shipped().clocks) > len(rows)


def test_due_text_contains_deadline_or_period_after_an_event_or_the_words_no_deadline():
    time_limits = look([graded(1, "larger", 1)], h(2), aware_at=AWARE)
    due = {
        ENGLISH.value(row[0]): ENGLISH.value(row[1])
        for row in time_limit_table(time_limits.values()).rows
    }
    assert due["Grade confirmed"] == "2026-03-02 11:00 UTC+08:00"
    assert due["Post-incident summary submitted"] == "30 d after the incident is closed"
    assert due["Post-incident summary approved"] == "no deadline"
    monthly = look([], h(2), rules=[rule("m", begins="closing", within="P1M")], aware_at=AWARE)
    assert ENGLISH.value(time_limit_table(monthly.values()).rows[0][1]).startswith(
        "1 months after the incident"
    )


@pytest.mark.parametrize(
    ("time_limit", "english"),
    [
        (
            "cac_first",
            "National Cybersecurity Incident Reporting Measures (2025-11-01), article 4",
        ),
        (
            "postal_first",
            "Interim Regulations on Express Delivery (2025-06-01), article 35 requires it "
            "immediately; the company set the exact time limit",
        ),
        ("graded", "the company's own rule"),
    ],
)
def test_basis_text_of_time_limit_contains_its_legal_source(time_limit: str, english: str):
    rule_of_limit = next(item for item in shipped().clocks if item.id == time_limit)
    assert ENGLISH.text(basis_text(rule_of_limit)) == english
    assert re.search("[\u4e00-\u9fff]", CHINESE.text(basis_text(rule_of_limit)))
