"""Compute the training obligations of people with SQL, in the database that has the records.

The rules apply to every person employed on the day and to every course in force:

- The person never passed the course: for each published version, a date is computed. It is
  `within_days` after the publication of the version, or after the person joined if that was later.
  Versions that were replaced before the person joined are ignored. The earliest of these dates is
  the due date.
- The person passed a course that is not repeated: the obligation has ended.
- `repeat_months`: the course is due this number of calendar months after the last pass (rolling
  cycle).
- `due_each_year`: the course is due on this day of every year (fixed cycle). If a person passes the
  course in the year before this day, the pass is valid until the same day of the next year. A late
  pass counts for the missed cycle and for the current cycle.
- `retake_within_days`: a version with this setting may be newer than the version that the person
  passed. The course is then due this number of days after the publication of the newer version,
  unless it is due earlier. If another version is published later, this date does not move to a
  later day.
- A due date during a leave, or within the grace period after the leave, moves to the end of the
  grace period.
- A completion that was not passed, or that has a future date, is ignored.

The cycle of an obligation is a text that names the day or version from which the due date is
counted. Within a cycle, the reminder of each stage is sent only once, even if the department, the
supervisor or the reminder stages change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Literal

from include.training.rules import TOPICS, DueThresholds
from include.training.sources import Sources, report_query_faults

SOON_DAYS = 30  # a course that is due within this number of days is due soon
_FETCH_SIZE = 5000  # rows fetched at a time


@dataclass(frozen=True)
class Due:
    """An obligation to take a course that has reached a reminder stage.

    Attributes:
        person: staff number of the person who has to take the course.
        course: code of the course.
        title: title of the course.
        department: department of the person.
        cycle: text that names the day or version from which the due date is counted.
        due_on: due date.
        rung: reminder stage that the obligation has reached, in days from the due date; negative
            before the due date.
    """

    person: str
    course: str
    title: str
    department: str
    cycle: str
    due_on: date
    rung: int


def share_of(part: int, whole: int) -> float | None:
    """Return a share from 0 to 1, rounded down to four decimals; None if the whole is 0.

    A share just below a target therefore never looks as if the target was met, and every report
    shows the same figure.
    """
    return part * 10_000 // whole / 10_000 if whole else None


@dataclass(frozen=True)
class Department:
    """The training coverage of a department: how many of its people have no overdue course.

    Attributes:
        name: name of the department.
        people: number of people who need training, without people on leave.
        covered: number of these people who have no overdue course.
        overdue: number of overdue courses of these people.
        soon: number of courses of these people that are due today or within the next `SOON_DAYS`
            days.
        on_leave: number of people on leave.
    """

    name: str
    people: int
    covered: int
    overdue: int
    soon: int
    on_leave: int

    @property
    def share(self) -> float | None:
        """Share of `people` without an overdue course, from 0 to 1; None if `people` is 0."""
        return share_of(self.covered, self.people)


@dataclass(frozen=True)
class Topic:
    """The training coverage of a topic: the share of its obligations that are not overdue.

    Attributes:
        name: name of the topic.
        courses: number of courses in force.
        repeated: number of these courses that have to be repeated.
        obligations: number of obligations to take these courses. Obligations of people on leave and
            obligations with a waiver are left out.
        overdue: number of these obligations that are overdue.
    """

    name: str
    courses: int
    repeated: int
    obligations: int
    overdue: int

    @property
    def share_in_time(self) -> float | None:
        """Share of obligations that are not overdue, from 0 to 1; None if `obligations` is 0."""
        return share_of(self.obligations - self.overdue, self.obligations)


@dataclass(frozen=True)
class Untrained:
    """A person who may access customer records but has no valid training.

    The person has an overdue course, or has never passed a course of the topic *onboarding*.

    Attributes:
        person: staff number.
        department: department of the person.
        onboarding: whether the person has never passed at least one of the onboarding courses in
            force. Waived courses are ignored.
        overdue: number of overdue courses of the person.
    """

    person: str
    department: str
    onboarding: bool
    overdue: int


@dataclass(frozen=True)
class Waiver:
    """A person's exemption from a course for a limited time.

    Attributes:
        person: staff number of the exempt person.
        course: code of the course.
    """

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
"""SQL condition for unusable entries of the courses; 29 February is not a day of every year."""

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

# The first stage whose latest due date is on or after the due date; NULL if no stage is reached.
_STAGE = SQL("(%(stages)s::integer[])[width_bucket(due_on - 1, %(latest)s::date[]) + 1]")

_REACHED = SQL("""
SELECT 'due' AS what, person AS a, course AS b, title AS c, department AS d, {cycle} AS e, due_on,
    {stage} AS n1, NULL::bigint AS n2, NULL::bigint AS n3, NULL::bigint AS n4, NULL::bigint AS n5
FROM obligations o JOIN courses c USING (course) JOIN people p USING (person)
WHERE due_on <= (%(latest)s::date[])[cardinality(%(latest)s::date[])] AND NOT o.on_leave
    AND NOT waived""")

_ALL_QUERY = SQL("""
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

_PEOPLE_QUERY = SQL("WITH {obligations} {reached}")


def compute_obligations(
    sources: Sources, *, day: date, thresholds: DueThresholds, waived: Sequence[Waiver], grace: int
) -> Iterator[Row]:
    """Compute the training obligations of all people, and the coverage of departments and topics.

    Args:
        sources: relations with people, courses and completions.
        day: today.
        thresholds: the reminder stages. For each stage, they contain the latest due date of an
            obligation that has reached the stage by `day`.
        waived: waivers in force.
        grace: number of days after a leave within which a person may take courses that fell due
            during the leave.

    Yields:
        Objects of four types:

        - a `Due` for each obligation that has reached a reminder stage;
        - a `Department` with the coverage of each department;
        - a `Topic` with the coverage of each topic;
        - an `Untrained` for each person who may access customer records but has no valid training.

    Raises:
        UsageError: a row of the sources cannot be read.
        ServiceError: the connection to the database was lost.
    """
    parameters = _parameters(day, thresholds, waived, grace)
    with report_query_faults("sources"), sources.connection.cursor(row_factory=dict_row) as rows:
        # A server-side cursor would disable parallel query
        for row in rows.stream(_query(_ALL_QUERY, sources, waived), parameters, size=_FETCH_SIZE):
            yield _ROW_FACTORIES[row["what"]](row)


def obligations_of_people(
    sources: Sources,
    people: Sequence[str],
    *,
    day: date,
    thresholds: DueThresholds,
    waived: Sequence[Waiver],
    grace: int,
) -> list[Due]:
    """Return those obligations of some people that have reached a reminder stage.

    Args:
        sources: relations with people, courses and completions.
        people: staff numbers of the people.
        day: today.
        thresholds: reminder stages on this day. For each stage, they contain the latest due date of
            an obligation that has reached it.
        waived: waivers in force.
        grace: number of days after a leave within which a person may take courses that fell due
            during the leave.

    Raises:
        UsageError: a row of the sources cannot be read.
        ServiceError: the connection to the database was lost.
    """
    parameters = _parameters(day, thresholds, waived, grace) | {"people": list(people)}
    with report_query_faults("sources"), sources.connection.cursor(row_factory=dict_row) as rows:
        rows.execute(_query(_PEOPLE_QUERY, sources, waived, only_people=True), parameters)
        return [_due(row) for row in rows]


def course_codes(sources: Sources) -> set[str]:
    """Return the codes of all courses, including courses whose other columns have faults."""
    query = SQL("SELECT DISTINCT course FROM {} AS c WHERE course <> ''").format(sources["courses"])
    with report_query_faults("courses"):
        return {course for (course,) in sources.connection.execute(query, {})}


def _query(
    template: SQL, sources: Sources, waived: Sequence[Waiver], *, only_people: bool = False
) -> Composed:
    person_filter = SQL("AND person = ANY(%(people)s)")
    obligations = _OBLIGATIONS.format(
        **sources.relations,
        faulty=FAULTY,
        waived=_WAIVED if waived else SQL("false"),
        of_people=person_filter if only_people else SQL(""),
        of_completions=person_filter if only_people else SQL(""),
    )
    return template.format(
        obligations=obligations, reached=_REACHED.format(cycle=_CYCLE, stage=_STAGE)
    )


def _parameters(
    day: date, thresholds: DueThresholds, waived: Sequence[Waiver], grace: int
) -> dict[str, Any]:
    return {
        "day": day,
        "stages": list(thresholds.stages),
        "latest": list(thresholds.latest),
        "waived_people": [waiver.person for waiver in waived],
        "waived_courses": [waiver.course for waiver in waived],
        "grace": grace,
        "soon": SOON_DAYS,
    }


def _due(row: Mapping[str, Any]) -> Due:
    return Due(row["a"], row["b"], row["c"], row["d"], row["e"], row["due_on"], row["n1"])


def _department(row: Mapping[str, Any]) -> Department:
    return Department(row["a"], *(row[f"n{number}"] for number in range(1, 6)))


def _topic(row: Mapping[str, Any]) -> Topic:
    return Topic(row["a"], *(row[f"n{number}"] for number in range(1, 5)))


def _untrained(row: Mapping[str, Any]) -> Untrained:
    return Untrained(row["a"], row["b"], bool(row["n1"]), row["n2"])


_ROW_FACTORIES: Mapping[str, Callable[[Mapping[str, Any]], Row]] = {
    "due": _due,
    "department": _department,
    "topic": _topic,
    "untrained": _untrained,
}
