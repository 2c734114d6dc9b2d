"""What people read of clocks: in words that need no colour, in both languages."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from include.evidence.model import Outcome
from include.incident.clocks.clock import Clock, ClockState
from include.incident.clocks.clock_words import basis, clock_rows, clock_table
from include.incident.names import Kind
from include.incident.timeline import Entry
from include.reports.i18n import Translator
from tests.incident.clocks.clock_rig import entry, look, rule, shipped

AWARE = datetime(2026, 3, 2, 1, tzinfo=UTC)  # 09:00 in Shanghai
ENGLISH, CHINESE = (Translator(one, "Asia/Shanghai") for one in ("en", "zh_CN"))
RULE = rule("x", "reported", authority="cac", within="PT4H", grades=["larger"])


def h(hours: float) -> datetime:
    return AWARE + timedelta(hours=hours)


def graded(place: int, grade: str, hours: float) -> Entry:
    return entry(place, Kind.GRADED, h(hours), grade=grade)


LARGER = graded(1, "larger", 1)
REPORTED = {"authority": "cac"}


def stands(now: float, *entries: Entry, proposed: str = "larger") -> Clock:
    return look(list(entries), h(now), rules=[RULE], aware_at=AWARE, proposed=proposed)["x"]


@pytest.mark.parametrize(
    ("clock", "english"),
    [
        (stands(1, LARGER), "3 h left"),
        (stands(3.5, LARGER), "30 min left"),
        (stands(3.5), "30 min left; the grade is not confirmed yet"),
        (stands(6.5, LARGER), "OVERDUE by 2 h 30 min"),
        (stands(6.5), "OVERDUE by 2 h 30 min; the grade is not confirmed yet"),
        (stands(1, proposed="general"), "only if it is graded otherwise than proposed"),
        (stands(1, graded(1, "general", 1)), "not for this grade"),
        (
            stands(6, LARGER, entry(2, Kind.REPORTED, h(3), **REPORTED)),
            "done 2026-03-02 12:00 UTC+08:00, in time",
        ),
        (
            stands(6, LARGER, entry(2, Kind.REPORTED, h(3), recorded=h(6), **REPORTED)),
            "done 2026-03-02 12:00 UTC+08:00 (entered 2026-03-02 15:00 UTC+08:00), in time",
        ),
        (
            stands(6, LARGER, entry(2, Kind.REPORTED, h(5), **REPORTED)),
            "done 2026-03-02 14:00 UTC+08:00, late by 1 h",
        ),
        (
            stands(9, LARGER, graded(2, "general", 3)),
            "not any more: the incident was regraded",
        ),
        (
            stands(9, LARGER, graded(2, "general", 5)),
            "not done, and was overdue by 1 h: not any more: the incident was regraded",
        ),
        (
            stands(9, LARGER, entry(2, Kind.CANCELLED, h(2))),
            "not any more: the incident was cancelled",
        ),
        (
            stands(9, LARGER, entry(2, Kind.REPORTED, h(2), complete=False, **REPORTED)),
            "not any more: a person decided that it is not needed",
        ),
    ],
)
def test_a_state_is_said_in_words(clock: Clock, english: str):
    """How much is left, or how late; when it was entered too, where that was not at once."""
    (_, rows) = clock_rows([clock])
    words = clock_table([clock]).rows[0][2]
    assert ENGLISH.value(words) == english
    assert rows == [] or ENGLISH.text(rows[0][2]) == english


def everything() -> list[Clock]:
    """Clocks in every state."""
    entries = [LARGER, entry(2, Kind.CONTAINED, h(3)), entry(3, Kind.REPORTED, h(5), **REPORTED)]
    found = [*look(entries, h(6), aware_at=AWARE).values()]
    found += [*look([], h(3.5), aware_at=AWARE).values()]
    found += [*look([graded(1, "general", 1)], h(3.5), aware_at=AWARE).values()]
    found += [stands(9, LARGER, graded(2, "general", at)) for at in (3, 5)]
    found += [stands(9, LARGER, entry(2, Kind.CANCELLED, h(at))) for at in (3, 5)]
    found += [stands(1, LARGER), stands(1)]
    return found


def test_every_state_has_words_and_a_colour_in_both_languages():
    """No state is left in English, and red is what ran out."""
    found = everything()
    assert {one.state for one in found} == set(ClockState)
    table = clock_table(found)
    by_state: dict[str, Outcome | None] = {}
    for row in table.rows:
        for cell in row[:4]:
            assert "{" not in ENGLISH.value(cell) + CHINESE.value(cell)
        said = CHINESE.value(row[2])
        assert re.search("[\u4e00-\u9fff]", said)
        assert not re.search("[a-z]{4}", said)
        by_state[ENGLISH.value(row[2]).split()[0]] = row[4]
    assert by_state["OVERDUE"] is Outcome.FAIL
    late = [one for one in found if one.is_late]
    assert [row[4] for row in table.rows].count(Outcome.FAIL) == len(late)


def test_a_page_leaves_out_what_does_not_apply():
    """And begins with what has to be done; a report has all of them."""
    found = list(look([graded(1, "general", 1)], h(3.5), aware_at=AWARE).values())
    heads, rows = clock_rows(found)
    titles = [ENGLISH.text(row[0]) for row in rows]
    assert len(heads) == len(rows[0]) == 4
    assert titles[0] == "Emergency plan started"
    assert not [one for one in titles if one.startswith("First report to the cyberspace")]
    assert len(clock_table(found).rows) == len(shipped().clocks) > len(rows)


def test_due_times_are_told_or_from_when_they_will_be():
    """A clock that has not begun has a length; one that does not apply has none."""
    found = look([graded(1, "larger", 1)], h(2), aware_at=AWARE)
    due = {ENGLISH.value(row[0]): ENGLISH.value(row[1]) for row in clock_table(found.values()).rows}
    assert due["Grade confirmed"] == "2026-03-02 11:00 UTC+08:00"
    assert due["Post-incident summary handed in"] == "30 d after the end of the handling"
    assert due["Post-incident summary approved"] == "never"
    monthly = look([], h(2), rules=[rule("m", begins="closing", within="P1M")], aware_at=AWARE)
    assert ENGLISH.value(clock_table(monthly.values()).rows[0][1]).startswith("P1M after the end")


@pytest.mark.parametrize(
    ("clock", "english"),
    [
        (
            "cac_first",
            "National Cybersecurity Incident Reporting Measures (2025-11-01) 4",
        ),
        (
            "postal_first",
            "Interim Regulations on Express Delivery (2025-06-01) 35: at once; "
            "the figure is the company's",
        ),
        ("graded", "the company's own rule"),
    ],
)
def test_the_basis_says_whose_figure_it_is(clock: str, english: str):
    """The law's, the company's for a law that says "at once", or the company's own rule."""
    found = next(one for one in shipped().clocks if one.id == clock)
    assert ENGLISH.text(basis(found)) == english
    assert re.search("[\u4e00-\u9fff]", CHINESE.text(basis(found)))
