"""Compute in SQL, where the records are, which person must pass which course by when.

The rules, for every person who is employed on the day and every course in force:

- never taken: due `within_days` after joining, or after the publication of a version to those who
  were employed already; the earliest of these days holds;
- taken once, and the course is not repeated: done for good;
- `repeat_months`: due so many calendar months after it was passed last (rolling cycle);
- `due_each_year`: passed in the year up to that day, it is due on that day a year later (fixed
  cycle); whoever passes late has met the cycle that was missed and the one that runs;
- versions with `retake_within_days` above the version that was passed: due so many days after their
  publication, where that is earlier; the earliest of these days holds, so a newer version never
  postpones the retake of an older one;
- what falls due during a leave, or within the grace after it, is due at the end of the grace;
- completions that were not passed, or lie in the future, do not count.

An obligation's cycle names what it counts from. So nobody hears of the same cycle's rung twice,
whatever happens to departments, supervisors or the ladder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Literal

from include.training.rules import TOPICS, Reached
from include.training.sources import Sources, telling

SOON = 30  # days in which a course that is due is counted as due soon
_BLOCK = 5000  # rows fetched at a time


@dataclass(frozen=True)
class Due:
    """An obligation that has reached a rung of the reminder ladder.

    Attributes:
        person: staff number.
        course: code.
        title: of the course.
        department: of the person.
        cycle: what the obligation counts from.
        due_on: day by which it is due.
        rung: on which it stands.
    """

    person: str
    course: str
    title: str
    department: str
    cycle: str
    due_on: date
    rung: int


@dataclass(frozen=True)
class Department:
    """Training coverage of a department.

    Attributes:
        name: of the department.
        people: who have to be trained; those on leave are not among them.
        covered: of them without an overdue course.
        overdue: courses that are overdue.
        soon: courses that are due on the day or in the `SOON` days after it.
        on_leave: people on leave.
    """

    name: str
    people: int
    covered: int
    overdue: int
    soon: int
    on_leave: int

    @property
    def share(self) -> float | None:
        """Share of people without an overdue course, from 0 to 1; None if there are no people."""
        return self.covered / self.people if self.people else None


@dataclass(frozen=True)
class Topic:
    """Training coverage of a topic.

    Attributes:
        name: of the topic.
        courses: in force.
        repeated: of them that are repeated.
        obligations: of people who are not on leave, waived ones left out.
        overdue: of them.
    """

    name: str
    courses: int
    repeated: int
    obligations: int
    overdue: int

    @property
    def share_in_time(self) -> float | None:
        """Share of obligations that are not overdue, from 0 to 1; None if there are none."""
        return 1 - self.overdue / self.obligations if self.obligations else None


@dataclass(frozen=True)
class Untrained:
    """A person who may open customer records without valid training.

    Attributes:
        person: staff number.
        department: of the person.
        onboarding: whether the onboarding course was never passed.
        overdue: how many courses are overdue.
    """

    person: str
    department: str
    onboarding: bool
    overdue: int


@dataclass(frozen=True)
class Waiver:
    """A course that a person is exempt from for a while."""

    person: str
    course: str


FAULTY = SQL("""
    coalesce(course, '') = '' OR version IS NULL OR published_on IS NULL
    OR coalesce(within_days, -1) NOT BETWEEN 0 AND 3660
    OR coalesce(repeat_months, 1) NOT BETWEEN 1 AND 240
    OR coalesce(retake_within_days, 0) NOT BETWEEN 0 AND 3660
    OR (repeat_months IS NOT NULL AND due_each_year IS NOT NULL)
    OR coalesce(topic, '') NOT IN ({topics})
    OR coalesce(due_each_year, '01-01') !~ '^((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])'
        '|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))$'""").format(
    topics=SQL(", ").join(map(Literal, TOPICS))
)
"""Which entries of the courses cannot be used; 29 February is no day of every year."""

Row = Due | Department | Topic | Untrained

_OBLIGATIONS = SQL("""
people AS MATERIALIZED (
    SELECT DISTINCT ON (person) person, coalesce(nullif(department, ''), '?') AS department,
        access IS NOT FALSE AS access, joined_on, leave_from, leave_until,
        coalesce(leave_from <= %(day)s AND coalesce(leave_until, 'infinity') >= %(day)s, false)
            AS on_leave
    FROM {people} AS everybody
    WHERE person <> '' AND joined_on BETWEEN '1900-01-01' AND %(day)s
        AND coalesce(left_on, 'infinity') >= %(day)s {of_people}
    ORDER BY person, joined_on DESC, department
), published AS MATERIALIZED (
    SELECT DISTINCT ON (course, version) course, coalesce(title, course) AS title, topic, version,
        published_on, min(published_on) OVER (PARTITION BY course) AS introduced_on, within_days,
        repeat_months, due_each_year, published_on + retake_within_days AS retake_on
    FROM {courses} AS every_entry
    WHERE published_on <= %(day)s AND NOT ({faulty})
    ORDER BY course, version DESC, published_on DESC
), versions AS MATERIALIZED (
    SELECT *, lag(version) OVER by_version AS version_before,
        lead(published_on) OVER by_version AS replaced_on
    FROM published WINDOW by_version AS (PARTITION BY course ORDER BY version)
), courses AS MATERIALIZED (
    SELECT DISTINCT ON (course) * FROM published ORDER BY course, version DESC
), retakes AS MATERIALIZED (
    SELECT v.course, v.version_before, v.version AS next_version, r.version, r.retake_on
    FROM versions v CROSS JOIN LATERAL (
        SELECT version, retake_on FROM published
        WHERE course = v.course AND version >= v.version AND retake_on IS NOT NULL
        ORDER BY retake_on, version LIMIT 1) r
), taken AS (
    SELECT person, course, max(completed_on) AS last_on, max(version) AS version
    FROM {completions} AS t
    WHERE passed AND completed_on BETWEEN '1900-01-01' AND %(day)s {of_completions}
    GROUP BY person, course
), cycles AS (
    SELECT p.person, p.leave_from, p.leave_until, p.on_leave, c.course, t.last_on,
        CASE
            WHEN t.last_on IS NULL THEN (
                SELECT min(greatest(p.joined_on, published_on) + within_days) FROM versions v
                WHERE v.course = c.course AND coalesce(v.replaced_on > p.joined_on, true))
            WHEN c.due_each_year IS NOT NULL THEN (
                SELECT (CASE WHEN fixed >= t.last_on THEN fixed + interval '1 year'
                    ELSE fixed + interval '2 years' END)::date
                FROM (SELECT to_date(to_char(t.last_on, 'YYYY-') || c.due_each_year, 'YYYY-MM-DD')
                    AS fixed) AS of_that_year)
            WHEN c.repeat_months IS NOT NULL
                THEN (t.last_on + make_interval(months => c.repeat_months))::date
        END AS regular_on,
        r.retake_on, r.version AS retake_version,
        greatest(p.joined_on, c.introduced_on) AS from_on, {waived} AS waived
    FROM people p CROSS JOIN courses c
    LEFT JOIN taken t ON t.person = p.person AND t.course = c.course
    LEFT JOIN retakes r ON t.last_on IS NOT NULL AND r.course = c.course
        AND coalesce(t.version, 0) < r.next_version
        AND coalesce(t.version >= r.version_before, r.version_before IS NULL)
), obligations AS MATERIALIZED (
    SELECT person, on_leave, course, waived, last_on, from_on,
        retake_on < coalesce(regular_on, 'infinity') AS by_version, retake_version,
        CASE
            WHEN least(regular_on, retake_on)
                BETWEEN leave_from AND leave_until + %(grace)s::integer
            THEN leave_until + %(grace)s::integer
            ELSE least(regular_on, retake_on)
        END AS due_on
    FROM cycles
)""")

_WAIVED = SQL("""(p.person, c.course) IN (
    SELECT * FROM unnest(%(waived_people)s::text[], %(waived_courses)s::text[]))""")

_CYCLE = SQL("""
    CASE
        WHEN last_on IS NULL THEN 'from ' || from_on
        WHEN by_version THEN 'version ' || retake_version
        ELSE 'since ' || last_on
    END""")

# The first threshold that is not before the due day; none where it is due after the last of them.
_RUNG = SQL("(%(rungs)s::integer[])[width_bucket(due_on - 1, %(latest)s::date[]) + 1]")

_REACHED = SQL("""
SELECT 'due' AS what, person AS a, course AS b, title AS c, department AS d, {cycle} AS e, due_on,
    {rung} AS n1, NULL::bigint AS n2, NULL::bigint AS n3, NULL::bigint AS n4, NULL::bigint AS n5
FROM obligations o JOIN courses c USING (course) JOIN people p USING (person)
WHERE due_on <= (%(latest)s::date[])[cardinality(%(latest)s::date[])] AND NOT o.on_leave
    AND NOT waived""")

_ALL = SQL("""
WITH {obligations}, counted AS (
    SELECT person, count(*) FILTER (WHERE due_on < %(day)s AND NOT waived) AS overdue,
        count(*) FILTER (WHERE NOT waived
            AND due_on BETWEEN %(day)s AND %(day)s::date + %(soon)s::integer) AS soon,
        count(*) FILTER (WHERE last_on IS NULL AND NOT waived AND course = ANY(
            SELECT course FROM courses WHERE topic = 'onboarding')) > 0 AS onboarding
    FROM obligations GROUP BY person
), of_people AS MATERIALIZED (
    SELECT person, department, access, on_leave, overdue, soon, onboarding
    FROM people JOIN counted USING (person)
), of_courses AS (
    SELECT course, count(*) AS counted, count(*) FILTER (WHERE due_on < %(day)s) AS late
    FROM obligations WHERE NOT on_leave AND NOT waived GROUP BY course
)
{reached}
UNION ALL
SELECT 'department', department, NULL, NULL, NULL, NULL, NULL, count(*) FILTER (WHERE NOT on_leave),
    count(*) FILTER (WHERE NOT on_leave AND overdue = 0),
    coalesce(sum(overdue) FILTER (WHERE NOT on_leave), 0)::bigint,
    coalesce(sum(soon) FILTER (WHERE NOT on_leave), 0)::bigint, count(*) FILTER (WHERE on_leave)
FROM of_people GROUP BY department
UNION ALL
SELECT 'topic', topic, NULL, NULL, NULL, NULL, NULL, count(*),
    count(*) FILTER (WHERE c.repeat_months IS NOT NULL OR c.due_each_year IS NOT NULL),
    coalesce(sum(counted), 0)::bigint, coalesce(sum(late), 0)::bigint, NULL
FROM courses c LEFT JOIN of_courses USING (course) GROUP BY topic
UNION ALL
SELECT 'untrained', person, department, NULL, NULL, NULL, NULL, onboarding::integer, overdue,
    NULL, NULL, NULL
FROM of_people WHERE access AND (onboarding OR overdue > 0)""")

_SOME = SQL("WITH {obligations} {reached}")


def everything(
    sources: Sources, *, day: date, reached: Reached, waived: Sequence[Waiver], grace: int
) -> Iterator[Row]:
    """Compute all obligations; yield those on a rung, departments, topics and untrained people.

    Args:
        sources: people, courses, completions.
        day: the day.
        reached: the ladder on that day.
        waived: courses that people need not take.
        grace: days after a leave for what fell due meanwhile.

    Raises:
        UsageError: a row of the sources cannot be read.
        ServiceError: the database was lost.
    """
    given = _given(day, reached, waived, grace)
    with telling("sources"), sources.connection.cursor(row_factory=dict_row) as rows:
        # Not a cursor of the server's, for which it would use one process only.
        for row in rows.stream(_query(_ALL, sources, waived), given, size=_BLOCK):
            yield _MAKERS[row["what"]](row)


def of_people(
    sources: Sources,
    people: Sequence[str],
    *,
    day: date,
    reached: Reached,
    waived: Sequence[Waiver],
    grace: int,
) -> list[Due]:
    """Work out which obligations of some people stand on a rung; as `everything` does."""
    given = _given(day, reached, waived, grace) | {"people": list(people)}
    with telling("sources"), sources.connection.cursor(row_factory=dict_row) as rows:
        rows.execute(_query(_SOME, sources, waived, some=True), given)
        return [_due(row) for row in rows]


def codes(sources: Sources) -> set[str]:
    """Codes of all courses, those that cannot be used too."""
    query = SQL("SELECT DISTINCT course FROM {} AS c WHERE course <> ''").format(sources["courses"])
    with telling("courses"):
        return {course for (course,) in sources.connection.execute(query, {})}


def _query(
    whole: SQL, sources: Sources, waived: Sequence[Waiver], *, some: bool = False
) -> Composed:
    only = SQL("AND person = ANY(%(people)s)")
    obligations = _OBLIGATIONS.format(
        **sources.relations,
        faulty=FAULTY,
        waived=_WAIVED if waived else SQL("false"),
        of_people=only if some else SQL(""),
        of_completions=only if some else SQL(""),
    )
    return whole.format(obligations=obligations, reached=_REACHED.format(cycle=_CYCLE, rung=_RUNG))


def _given(day: date, reached: Reached, waived: Sequence[Waiver], grace: int) -> dict[str, Any]:
    return {
        "day": day,
        "rungs": list(reached.rungs),
        "latest": list(reached.latest),
        "waived_people": [waiver.person for waiver in waived],
        "waived_courses": [waiver.course for waiver in waived],
        "grace": grace,
        "soon": SOON,
    }


def _due(row: Mapping[str, Any]) -> Due:
    return Due(row["a"], row["b"], row["c"], row["d"], row["e"], row["due_on"], row["n1"])


def _department(row: Mapping[str, Any]) -> Department:
    return Department(row["a"], *(row[f"n{place}"] for place in range(1, 6)))


def _topic(row: Mapping[str, Any]) -> Topic:
    return Topic(row["a"], *(row[f"n{place}"] for place in range(1, 5)))


def _untrained(row: Mapping[str, Any]) -> Untrained:
    return Untrained(row["a"], row["b"], bool(row["n1"]), row["n2"])


_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Row]] = {
    "due": _due,
    "department": _department,
    "topic": _topic,
    "untrained": _untrained,
}
