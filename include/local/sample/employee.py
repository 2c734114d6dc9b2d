"""An employee of the sample company."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


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
