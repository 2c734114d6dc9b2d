"""Employees of the sample company, and the courses that each has to take by when.

The answer sheet computes the courses here in plain Python, and tests compare the workflow's SQL
with them. Nothing else uses this module.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from include.frozen import FrozenModel


@dataclass(frozen=True)
class Staff:
    """An employee.

    Attributes:
        employee_id: from 1; the first of each department is its head.
        kind: ``core`` (here throughout, trained) or one of ``PLANTED``.
        department_id: department.
        manager_id: head of the department; None for the head of the company.
        joined_on: first day.
        left_on: last day, None while employed.
        leave: first and last day of a leave that is running, or None.
        has_data_access: may open customer records.
    """

    employee_id: int
    kind: str
    department_id: int
    manager_id: int | None
    joined_on: date
    left_on: date | None
    leave: tuple[date, date] | None
    has_data_access: bool


GRACE = timedelta(days=14)  # after a leave


class Duty(FrozenModel):
    """One course that somebody who has not left has to take.

    Attributes:
        person: staff number.
        course: code.
        due_on: day by which it is due.
        supervisor: staff number; None for the head of the company.
        leave: first and last day of a leave.
    """

    person: str
    course: str
    due_on: date
    supervisor: str | None
    leave: tuple[date, date] | None


def duties(
    staff: list[Staff],
    courses: tuple[tuple[str, str, str, int, int | None], ...],
    passed: Mapping[tuple[int, int], date],
) -> Iterator[Duty]:
    """Say who has to take what by when.

    Args:
        staff: everybody.
        courses: code, title, topic, days after joining, months until it is repeated.
        passed: last day on which an employee passed a course, by employee and course from 1.
    """
    for one in staff:
        if one.left_on is not None:
            continue
        for number, (code, _title, _topic, within, repeat) in enumerate(courses, 1):
            last = passed.get((one.employee_id, number))
            if last is not None and repeat is None:
                continue
            due = one.joined_on + timedelta(days=within) if last is None else _after(last, repeat)
            if one.leave and one.leave[0] <= due <= one.leave[1] + GRACE:
                due = one.leave[1] + GRACE
            yield Duty(
                person=_number(one.employee_id),
                course=code,
                due_on=due,
                supervisor=None if one.manager_id is None else _number(one.manager_id),
                leave=one.leave,
            )


def _after(day: date, months: int | None) -> date:
    assert months is not None
    years, month = divmod(day.month - 1 + months, 12)
    year = day.year + years
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def _number(employee: int) -> str:
    return f"E{employee:05d}"
