"""What is wrong with the records that training.yaml names: told, and never guessed around."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from psycopg.rows import dict_row
from psycopg.sql import SQL

from include.evidence.examination import Examination
from include.evidence.model import Outcome
from include.messages import Message, _
from include.training.obligations import FAULTY
from include.training.sources import Sources, telling

_NAMED = 20  # of a kind, in a finding
_ATTENTION, _FAIL = Outcome.ATTENTION, Outcome.FAIL

# Each query gives what it found as text, sorted; people by staff number.
_QUERIES: Mapping[str, str] = {
    "twice": """
        SELECT person AS what FROM {people} AS p
        WHERE joined_on <= %(day)s AND coalesce(left_on, 'infinity') >= %(day)s AND person <> ''
        GROUP BY person HAVING count(*) > 1""",
    "nameless": """
        SELECT coalesce(department, '?') AS what FROM {people} AS p
        WHERE person IS NULL OR person = ''""",
    "undated": """
        SELECT person AS what FROM {people} AS p
        WHERE person <> '' AND (joined_on IS NULL OR left_on < joined_on
            OR leave_until < leave_from OR (leave_from IS NULL AND leave_until IS NOT NULL))""",
    "ahead": """
        SELECT person || ' ' || course AS what FROM {completions} AS t
        WHERE completed_on > %(day)s""",
    "of_no_course": """
        SELECT DISTINCT course AS what FROM {completions} AS t
        WHERE NOT EXISTS (SELECT FROM {courses} AS c WHERE c.course = t.course)""",
    "faulty": "SELECT DISTINCT coalesce(course, '?') AS what FROM {courses} AS c WHERE {faulty}",
}

_COUNTED = SQL("""
WITH found AS MATERIALIZED ({})
SELECT count(*) AS n, (SELECT string_agg(what, ', ' ORDER BY what)
    FROM (SELECT what FROM found ORDER BY what LIMIT %(most)s) AS named) AS first
FROM found""")


def check(seen: Examination, sources: Sources, day: date) -> None:
    """Look for what a run could stumble over, and note it.

    Args:
        seen: findings go here.
        sources: people, courses, completions.
        day: the day.
    """
    found = {name: _found(sources, query, day) for name, query in _QUERIES.items()}
    for name, (severity, message, action) in _told(found).items():
        if found[name][0]:
            seen.find(f"training.{name}", severity, message, action, subject="training.yaml")


def _found(sources: Sources, query: str, day: date) -> tuple[int, str]:
    """How many there are, and the first of them."""
    parts = {**sources.relations, "faulty": FAULTY}
    whole = _COUNTED.format(SQL(query).format(**parts))
    with telling("sources"), sources.connection.cursor(row_factory=dict_row) as rows:
        row = rows.execute(whole, {"day": day, "most": _NAMED}).fetchone()
    assert row is not None
    return int(row["n"]), str(row["first"] or "")


def _told(found: Mapping[str, tuple[int, str]]) -> dict[str, tuple[Outcome, Message, Message]]:
    def said(name: str) -> dict[str, Any]:
        count, first = found[name]
        return {"count": count, "first": first + (" …" if count > _NAMED else "")}

    return {
        "twice": (
            _ATTENTION,
            _("Twice in the roster: {count} people ({first}).", **said("twice")),
            _("Correct the roster; until then the entry that joined last counts."),
        ),
        "nameless": (
            _FAIL,
            _(
                "Entries of the roster without a staff number: {count} ({first}).",
                **said("nameless"),
            ),
            _("Give them one: nobody of them is reminded."),
        ),
        "undated": (
            _FAIL,
            _("Entries of the roster with impossible dates: {count} ({first}).", **said("undated")),
            _("Correct the days of joining, leaving and leave: whoever has none is not reminded."),
        ),
        "ahead": (
            _ATTENTION,
            _("Completions in the future: {count} ({first}).", **said("ahead")),
            _("Correct their days; until they are over they do not count."),
        ),
        "of_no_course": (
            _ATTENTION,
            _(
                "Completions of courses that do not exist: {count} courses ({first}).",
                **said("of_no_course"),
            ),
            _(
                "Was a course deleted that people still have to take? Put it back, or archive "
                "its completions."
            ),
        ),
        "faulty": (
            _FAIL,
            _("Courses that cannot be used: {count} ({first}).", **said("faulty")),
            _(
                "See docs/training.md for what a course needs; until then nobody is reminded of "
                "these."
            ),
        ),
    }
