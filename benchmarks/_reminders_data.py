"""The company of the reminders benchmark, and a handwritten query for its obligations.

The company has two years of history. Except for the employees who are due, everybody has taken all
courses. The due employees are spread evenly over the reminder stages, from 30 days before the due
date to 14 days after it.
"""

from __future__ import annotations

from datetime import date

import psycopg

DAY = date(2026, 6, 2)  # between workdays, so that reminder stages are differences of days
COURSES = 5
_SPREAD = 45  # number of due dates, from 30 days after DAY backwards

_TABLES = """
CREATE TABLE people (person text NOT NULL, name text NOT NULL, mail text, department text NOT NULL,
    supervisor text, head boolean NOT NULL, joined_on date NOT NULL, left_on date, leave_from date,
    leave_until date, access boolean NOT NULL);
CREATE TABLE courses (course text, title text, topic text, version integer, published_on date,
    within_days integer, repeat_months integer, due_each_year text, retake_within_days integer);
CREATE TABLE completions (person text NOT NULL, course text NOT NULL, version integer NOT NULL,
    completed_on date NOT NULL, passed boolean NOT NULL);
INSERT INTO courses VALUES
    ('EMG', 'Emergencies', 'emergency', 1, '2014-01-01', 60, 12, NULL, NULL),
    ('EMG', 'Emergencies', 'emergency', 2, '2026-03-01', 60, 12, NULL, 120),
    ('LAW', 'The law', 'law', 1, '2014-01-01', 60, 12, NULL, 30),
    ('ONB', 'Welcome', 'onboarding', 1, '2014-01-01', 30, NULL, NULL, NULL),
    ('PRO', 'Protection', 'protection', 1, '2014-01-01', 60, NULL, '03-31', NULL),
    ('SEC', 'The law of customs', 'law', 1, '2014-01-01', 60, 24, NULL, NULL);
"""
# An employee is due if the number can be divided by {every}; one in 200 of the others has just
# joined, one in 33 has left, one in 100 is on leave.
_PEOPLE = """
CREATE TABLE numbered AS
SELECT n, 'E' || lpad(n::text, 7, '0') AS person,
    n % {every} = 0 AND n / {every} <= {due} AS is_due,
    n % 200 = 7 AND n % {every} <> 0 AS is_new, n % 33 = 5 AND n % {every} <> 0 AS has_left,
    n % 100 = 11 AND n % {every} <> 0 AS is_away
FROM generate_series(1, {employees}) AS n;
INSERT INTO people
SELECT person, 'Name ' || n, lower(person) || '@courier.example',
    'Department ' || lpad(((n - 1) / 1000)::text, 4, '0'),
    'E' || lpad((1 + CASE WHEN n % 20 = 1 THEN (n - 1) / 1000 * 1000
        ELSE (n - 1) / 20 * 20 END)::text, 7, '0'),
    n % 1000 = 1,
    CASE WHEN is_new THEN {day}::date - n % 20 ELSE date '2015-01-01' + n * 991 % 3000 END,
    CASE WHEN has_left THEN {day}::date - 1 - n % 300 END,
    CASE WHEN is_away THEN {day}::date - n % 30 END,
    CASE WHEN is_away THEN {day}::date + n % 60 END,
    n % 4 = 0
FROM numbered;
"""
# Each course was taken about a year ago and about two years ago, so that nothing falls due in the
# next 42 days. One in six courses was failed first.
_TAKEN = """
CREATE TABLE taken AS
SELECT person, course, version, completed_on::date FROM (
    SELECT person, 'LAW' AS course, 1 AS version, CASE
        WHEN is_due THEN {day}::date + 30 - (n / {every} % {spread})::integer - interval '1 year'
        ELSE {day}::date - 1 - n * 991 % 320 END AS completed_on FROM numbered WHERE NOT is_new
    UNION ALL
    SELECT person, 'EMG', 2, {day}::date - 1 - n * 997 % 90 FROM numbered WHERE NOT is_new
    UNION ALL
    SELECT person, 'PRO', 1, {day}::date - 65 - n * 1009 % 60 FROM numbered WHERE NOT is_new
    UNION ALL
    SELECT person, 'SEC', 1, {day}::date - 1 - n * 1013 % 680 FROM numbered
    WHERE NOT is_new
) AS last;
INSERT INTO completions
SELECT person, course, version, completed_on, true FROM taken
UNION ALL
SELECT person, course, 1, (completed_on - interval '1 year')::date, true FROM taken
WHERE course <> 'SEC'
UNION ALL
SELECT person, course, version, completed_on - 3, false FROM taken
WHERE hashtext(person || course) % 6 = 0
UNION ALL
SELECT person, 'ONB', 1, greatest(joined_on, {day}::date - 730), true FROM people;
DROP TABLE taken;
CREATE UNIQUE INDEX ON people (person);
CREATE INDEX ON completions (person, course);
"""
_ALL_BUT = """
INSERT INTO completions
SELECT person, 'LAW', 1, {day}::date, true FROM numbered WHERE is_due AND n / {every} > {due}
"""


def make(connection: psycopg.Connection, employees: int, due: int) -> None:
    """Create the company. ``due`` of its employees are at a reminder stage with one course."""
    words = {"employees": employees, "due": due, "every": employees // due}
    words |= {"day": f"'{DAY}'", "spread": _SPREAD}
    for statement in (_TABLES, _PEOPLE, _TAKEN):
        connection.execute(statement.format(**words).encode())
    connection.execute("VACUUM (ANALYZE) people, courses, completions")


def leave(connection: psycopg.Connection, employees: int, due: int, left: int) -> None:
    """Let all due employees except ``left`` of them take their course on the benchmark's day."""
    words = {"day": f"'{DAY}'", "due": left, "every": employees // due}
    connection.execute(_ALL_BUT.format(**words).encode())


def take_back(connection: psycopg.Connection) -> None:
    """Delete the completed courses that `leave` added."""
    connection.execute("DELETE FROM completions WHERE completed_on = %s", [DAY])
    connection.execute("VACUUM (ANALYZE) completions")


# The rules of docs/explanation/training.md for this company: each person is in the roster once,
# nobody has a waiver, and the reminder stages are the default.
BY_HAND = """
WITH newest AS (
    SELECT c.*, v.introduced_on
    FROM courses c JOIN (
        SELECT course, max(version) AS version, min(published_on) AS introduced_on
        FROM courses WHERE published_on <= %(day)s GROUP BY course
    ) v USING (course, version)
), passed AS (
    SELECT person, course, max(completed_on) AS passed_on, max(version) AS passed_version
    FROM completions WHERE passed AND completed_on <= %(day)s GROUP BY person, course
), staff AS (
    SELECT person, department, access, joined_on, leave_from, leave_until,
        leave_from IS NOT NULL AND %(day)s >= leave_from
            AND (leave_until IS NULL OR %(day)s <= leave_until) AS away
    FROM people WHERE joined_on <= %(day)s AND (left_on IS NULL OR left_on >= %(day)s)
), dates AS (
    SELECT s.*, n.course, n.title, n.topic, n.version, passed_on,
        greatest(s.joined_on, n.introduced_on) AS begun_on,
        CASE
            WHEN passed_on IS NULL THEN greatest(s.joined_on, n.introduced_on) + n.within_days
            WHEN n.repeat_months IS NOT NULL
                THEN (passed_on + n.repeat_months * interval '1 month')::date
            WHEN n.due_each_year IS NOT NULL THEN make_date(
                extract(year FROM passed_on)::integer + 1
                    + (to_char(passed_on, 'MM-DD') > n.due_each_year)::integer,
                left(n.due_each_year, 2)::integer, right(n.due_each_year, 2)::integer)
        END AS again_on,
        CASE WHEN passed_version < n.version THEN n.published_on + n.retake_within_days END
            AS renewed_on
    FROM staff s CROSS JOIN newest n LEFT JOIN passed USING (person, course)
), duties AS MATERIALIZED (
    SELECT person, department, access, away, course, title, topic, version, passed_on, begun_on,
        coalesce(renewed_on < coalesce(again_on, 'infinity'), false) AS is_renewal,
        CASE WHEN least(again_on, renewed_on) BETWEEN leave_from AND leave_until + 14
            THEN leave_until + 14 ELSE least(again_on, renewed_on) END AS due_on
    FROM dates
), by_person AS (
    SELECT person, department, access, away, count(*) FILTER (WHERE due_on < %(day)s) AS late,
        count(*) FILTER (WHERE due_on - %(day)s BETWEEN 0 AND 30) AS soon,
        bool_or(topic = 'onboarding' AND passed_on IS NULL) AS unwelcomed
    FROM duties GROUP BY person, department, access, away
)
SELECT 'due', person, course, title, department,
    CASE WHEN passed_on IS NULL THEN 'from ' || begun_on
        WHEN is_renewal THEN 'version ' || version ELSE 'since ' || passed_on END,
    due_on,
    CASE
        WHEN %(day)s - due_on >= 14 THEN (%(day)s - due_on) / 14 * 14
        WHEN %(day)s - due_on >= 7 THEN 7
        WHEN %(day)s - due_on >= 1 THEN 1
        WHEN %(day)s - due_on >= -1 THEN -1
        WHEN %(day)s - due_on >= -7 THEN -7
        ELSE -30
    END, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
FROM duties WHERE due_on - %(day)s <= 30 AND NOT away
UNION ALL
SELECT 'department', department, NULL, NULL, NULL, NULL, NULL, count(*) FILTER (WHERE NOT away),
    count(*) FILTER (WHERE NOT away AND late = 0),
    coalesce(sum(late) FILTER (WHERE NOT away), 0)::bigint,
    coalesce(sum(soon) FILTER (WHERE NOT away), 0)::bigint, count(*) FILTER (WHERE away)
FROM by_person GROUP BY department
UNION ALL
SELECT 'topic', topic, NULL, NULL, NULL, NULL, NULL, count(DISTINCT course),
    (SELECT count(*) FROM newest n WHERE n.topic = d.topic
        AND (repeat_months IS NOT NULL OR due_each_year IS NOT NULL)),
    count(*) FILTER (WHERE NOT away), count(*) FILTER (WHERE NOT away AND due_on < %(day)s), NULL
FROM duties d GROUP BY topic
UNION ALL
SELECT 'untrained', person, department, NULL, NULL, NULL, NULL, unwelcomed::integer, late, NULL,
    NULL, NULL
FROM by_person WHERE access AND (unwelcomed OR late > 0)
"""
