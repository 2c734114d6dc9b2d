"""Employees of the sample company, and the due dates of their courses.

This module computes the due dates in plain Python for the answer sheet. Tests compare them with the
due dates that the training workflow computes in SQL. The workflow itself does not use this module.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from include.frozen import FrozenModel


@dataclass(frozen=True)
class Staff:
    """An employee of the sample company.

    Attributes:
        employee_id: number from 1. The first employee of each department is its head.
        kind: ``core`` for an employee who has been trained and employed for years. Otherwise the
            name in ``PLANTED`` of what is special about the employee, such as ``newcomer``.
        department_id: number of the department.
        manager_id: number of the employee's superior; None for the head of the company.
        joined_on: first day of employment.
        left_on: last day of employment; None for a current employee.
        leave: first and last day of the current leave; None if the employee is not on leave.
        has_data_access: whether the employee may open customer records.
    """

    employee_id: int
    kind: str
    department_id: int
    manager_id: int | None
    joined_on: date
    left_on: date | None
    leave: tuple[date, date] | None
    has_data_access: bool


GRACE = timedelta(days=14)  # to complete a course after a leave


class Duty(FrozenModel):
    """The obligation of a current employee to take a course by a due date.

    Attributes:
        person: staff number of the employee.
        course: code of the course.
        due_on: due date.
        supervisor: staff number of the employee's supervisor; None for the head of the company.
        leave: first and last day of the current leave; None if the employee is not on leave.
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
    """Yield the courses that current employees have to take, with their due dates.

    Args:
        staff: all employees.
        courses: for each course: code, title, topic, number of days, number of months. An employee
            has to take the course within this number of days after joining, and to repeat it after
            this number of months (None if it is never repeated).
        passed: (number of the employee, number of the course) -> last day on which the employee
            passed the course. Both numbers count from 1.
    """
    for employee in staff:
        if employee.left_on is not None:
            continue
        for number, (code, _title, _topic, within, repeat) in enumerate(courses, 1):
            last = passed.get((employee.employee_id, number))
            if last is not None and repeat is None:
                continue
            if last is None:
                due = employee.joined_on + timedelta(days=within)
            else:
                due = _add_months(last, repeat)
            if employee.leave and employee.leave[0] <= due <= employee.leave[1] + GRACE:
                due = employee.leave[1] + GRACE
            manager = employee.manager_id
            yield Duty(
                person=_number(employee.employee_id),
                course=code,
                due_on=due,
                supervisor=None if manager is None else _number(manager),
                leave=employee.leave,
            )


def _add_months(day: date, months: int | None) -> date:
    assert months is not None
    years, month = divmod(day.month - 1 + months, 12)
    year = day.year + years
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def _number(employee: int) -> str:
    return f"E{employee:05d}"
