"""Read the employees of the roster in use.yaml, with their rights to request and to approve.

A supervisor approves a request, never the requester (policy clause 5.3). If the supervisor is the
requester, not active, or not in the roster, the supervisor's own supervisor approves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg.sql import SQL, Identifier

from include.approvals.approvers import normalize_person, same_person
from include.disclosure.rules import UseRules
from include.policy.fragments import pack_sql
from include.services.errors import ServiceError, UsageError
from include.workflow.run_context import RunContext

_COLUMNS = {
    "person": "text",
    "name": "text",
    "mail": "text",
    "department": "text",
    "supervisor": "text",
    "active": "boolean",
    "trained": "boolean",
    "second_approver": "boolean",
}


@dataclass(frozen=True)
class Employee:
    """An employee of the roster.

    Attributes:
        person: account of the employee in Airflow.
        name: name of the employee.
        mail: mail address; empty if the roster has none.
        department: department of the employee.
        supervisor: account of the supervisor; empty if the roster has none.
        active: whether the employee is employed and not on leave.
        trained: whether the training of the employee is valid.
        second_approver: whether the employee may approve unmasked values and records of minors.
    """

    person: str
    name: str = field(repr=False)
    mail: str = field(repr=False)
    department: str
    supervisor: str
    active: bool
    trained: bool
    second_approver: bool


class StaffRoster:
    """The employees of the roster, found by account in any spelling.

    An account that several rows of the roster name counts as missing, because the rows may
    contradict each other.

    Args:
        employees: rows of the roster.
    """

    def __init__(self, employees: Sequence[Employee]) -> None:
        by_account: dict[str, list[Employee]] = {}
        for employee in employees:
            by_account.setdefault(normalize_person(employee.person), []).append(employee)
        self._employees: Mapping[str, Employee] = {
            account: rows[0] for account, rows in by_account.items() if account and len(rows) == 1
        }

    def __bool__(self) -> bool:
        """Return whether the roster names at least one active employee."""
        return any(employee.active for employee in self._employees.values())

    def find(self, person: str) -> Employee | None:
        """Return the employee with an account, or None if the roster has no unique row for it."""
        return self._employees.get(normalize_person(person))

    def approver_of(self, requester: str) -> Employee | None:
        """Return the deciding supervisor of a request; None if no supervisor can decide.

        The search skips superiors who may not decide, and continues with their superiors.
        """
        passed = {normalize_person(requester)}
        employee = self.find(requester)
        while employee is not None:
            superior = employee.supervisor
            if not superior or normalize_person(superior) in passed:
                return None
            passed.add(normalize_person(superior))
            employee = self.find(superior)
            if employee is not None and employee.active:
                return employee
        return None

    def second_approvers(self, requester: str, first: str) -> list[str]:
        """Return the accounts of the second approvers, in their order.

        The requester and the first approver are left out.
        """
        return [
            employee.person
            for employee in self._employees.values()
            if employee.second_approver
            and employee.active
            and not same_person(employee.person, requester)
            and not same_person(employee.person, first)
        ]

    def every_approver(self) -> list[list[str]]:
        """Return the accounts of all supervisors, and of all second approvers."""
        superiors = dict.fromkeys(
            superior.person
            for employee in self._employees.values()
            if (superior := self.find(employee.supervisor)) is not None and superior.active
        )
        second = [
            employee.person
            for employee in self._employees.values()
            if employee.second_approver and employee.active
        ]
        return [list(superiors), second]


def read_roster(run: RunContext[UseRules]) -> StaffRoster:
    """Read the roster of use.yaml.

    Raises:
        UsageError: the query fails, or its result lacks a column.
        ServiceError: the database cannot be reached.
    """
    source = run.rules.source
    relation = SQL("({}) AS roster").format(pack_sql(source.sql))
    columns = SQL(", ").join(
        SQL("{}::{}").format(Identifier(name), SQL(kind)) for name, kind in _COLUMNS.items()
    )
    with run.reader(source.database).connect(autocommit=True) as connection, _query_faults():
        connection.execute("SET default_transaction_read_only = on")
        rows = connection.execute(SQL("SELECT {} FROM {}").format(columns, relation), {}).fetchall()
    return StaffRoster([_employee(*row) for row in rows if row[0] and row[0].strip()])


def _employee(
    person: str,
    name: str | None,
    mail: str | None,
    department: str | None,
    supervisor: str | None,
    *rights: bool | None,
) -> Employee:
    active, trained, second_approver = (right is True for right in rights)
    return Employee(
        person=person.strip(),
        name=(name or "").strip(),
        mail=(mail or "").strip(),
        department=(department or "").strip(),
        supervisor=(supervisor or "").strip(),
        active=active,
        trained=trained,
        second_approver=second_approver,
    )


@contextmanager
def _query_faults() -> Iterator[None]:
    """Convert database errors of the roster's query to errors that quote no value."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise ServiceError(
            f"The connection to the database of the roster in use.yaml was lost "
            f"({error.sqlstate or 'no answer'}).",
            "Check that the database runs, then retry.",
        ) from None
    except psycopg.Error as error:
        state = error.sqlstate or ""
        detail = error.diag.message_primary if state.startswith("42") else None
        raise UsageError(
            f"use.yaml: the roster cannot be read: {detail or f'SQLSTATE {state}'}.",
            f"Correct the query or the rights of its login. It returns {', '.join(_COLUMNS)}.",
        ) from None
