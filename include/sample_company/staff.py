"""Generate departments, employees, courses and completed courses."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

import numpy as np

from include.sample_company.answers import AnswerSheetBuilder
from include.sample_company.columns import Table, text_rows
from include.sample_company.employee import Staff, duties
from include.sample_company.identities import people
from include.sample_company.world import World

DEPARTMENTS = (
    ("公司总部", "headquarters"), ("客户服务部", "office"), ("信息管理部", "office"),
    ("信息技术部", "office"), ("仓储部", "office"), ("配送部", "office"), ("合规部", "office"),
    ("人力资源部", "office"), ("北京分公司", "branch"), ("上海分公司", "branch"),
    ("广州分公司", "branch"), ("成都分公司", "branch"), ("武汉分公司", "branch"),
    ("西安分公司", "branch"),
)  # fmt: skip
BRANCHES = [n for n, (_, kind) in enumerate(DEPARTMENTS, 1) if kind == "branch"]
CUSTOMER_SERVICE, INFORMATION_MANAGEMENT = 2, 3
COURSES = (
    ("ONB", "新员工客户信息保护入职培训", "onboarding", 30, None),
    ("LAW", "个人信息保护法律法规", "law", 60, 12),
    ("SKL", "客户信息保护操作技能", "protection", 60, 12),
    ("EMG", "信息安全事件应急处置", "emergency", 60, 12),
)
PLANTED = (
    "leaver",
    "leaver_with_access",
    "untrained",
    "overdue",
    "on_leave",
    "newcomer",
    "long_gone",
)


def day_of(world: World) -> date:
    """Return the UTC date for which the sample database is generated."""
    return date(1970, 1, 1) + timedelta(days=world.today)


def build(world: World, sheet_builder: AnswerSheetBuilder) -> list[Table]:
    """Return the tables of departments, employees, courses and completed courses.

    The employees are stored in ``world.staff``.

    Args:
        world: settings of the sample database.
        sheet_builder: collects the rows for the answer sheet while the rows are generated.
    """
    rng = Random(f"staff {world.seed}")
    size = min(max(world.customers // 250, 56), 5000)
    per_kind = max(2, size // 100)
    heads = len(DEPARTMENTS)
    kinds = ["core"] * (size - per_kind * len(PLANTED)) + [
        kind for kind in PLANTED for _ in range(per_kind)
    ]
    world.staff[:] = [
        _employee(world, rng, number, kind, heads) for number, kind in enumerate(kinds, 1)
    ]
    completions = _completions(world, rng, sheet_builder)
    sheet_builder.add("leaver_with_access", _ids(world, "leaver_with_access"))
    sheet_builder.add("untrained_with_access", _ids(world, "untrained"))
    return [
        Table(
            "department", "department_id, name, kind, parent_id, head_employee_id",
            text_rows([
                (n, name, kind, None if n == 1 else 1, n)
                for n, (name, kind) in enumerate(DEPARTMENTS, 1)
            ]), heads,
        ),
        _employees(world),
        Table(
            "course",
            "course_id, code, version, title, topic, published_on, due_days_after_joining, "
            "repeat_months",
            text_rows([
                (n, code, 1, title, topic, day_of(world) - timedelta(days=4500), due, repeat)
                for n, (code, title, topic, due, repeat) in enumerate(COURSES, 1)
            ]), len(COURSES),
        ),
        Table(
            "training_completion",
            "completion_id, employee_id, course_id, course_version, completed_on, score, passed",
            text_rows(completions), len(completions),
        ),
    ]  # fmt: skip


def core(world: World, department: int | None = None) -> list[Staff]:
    """Return the employees of the kind ``core`` who may open customer records.

    These employees have been trained and employed for years.

    Args:
        world: settings of the sample database. Its employees must already be generated.
        department: number of the department whose employees are returned; None for all departments.
    """
    return [
        employee
        for employee in world.staff
        if employee.kind == "core"
        and employee.has_data_access
        and department in (None, employee.department_id)
    ]


def _ids(world: World, kind: str) -> list[int]:
    return [employee.employee_id for employee in world.staff if employee.kind == kind]


def _employee(world: World, rng: Random, number: int, kind: str, heads: int) -> Staff:
    day = day_of(world)
    joined = day - timedelta(days=rng.randint(2400, 4300))
    left = None
    if kind == "newcomer":
        joined = day - timedelta(days=rng.randint(1, 10))
    elif kind == "untrained":
        joined = day - timedelta(days=rng.randint(200, 700))
    elif kind in ("leaver", "leaver_with_access"):
        left = day - timedelta(days=rng.randint(300, 900))
    elif kind == "long_gone":
        left = day - timedelta(days=rng.randint(1150, 1800))
    department = (number - 1) % heads + 1
    # The head of the company manages the heads of departments, who manage their employees.
    manager = department if number > heads else None if number == 1 else 1
    return Staff(
        employee_id=number,
        kind=kind,
        department_id=department,
        manager_id=manager,
        joined_on=joined,
        left_on=left,
        leave=(day - timedelta(days=20), day + timedelta(days=70)) if kind == "on_leave" else None,
        has_data_access=kind in ("leaver_with_access", "untrained")
        or (kind in ("core", "on_leave", "overdue") and number > 1),
    )


def _employees(world: World) -> Table:
    # Numbers far above those of customers, so that no employee shares a customer's phone.
    numbers = np.array([employee.employee_id for employee in world.staff]) + 2_123_456_789
    persons = people(world, numbers)
    records: list[tuple[object, ...]] = []
    for index, employee in enumerate(world.staff):
        leave_from, leave_until = employee.leave or (None, None)
        number = f"E{employee.employee_id:05d}"
        records.append((
            employee.employee_id, number,
            b"".join(part[index] for part in persons.name).decode(),
            employee.department_id, employee.manager_id,
            "head" if employee.employee_id <= len(DEPARTMENTS) else "clerk",
            f"{persons.pinyin[index].decode()}.{number.lower()}@courier.example",
            persons.phone[index].decode(), employee.joined_on, employee.left_on, leave_from,
            leave_until, employee.has_data_access,
        ))  # fmt: skip
    return Table(
        "employee",
        "employee_id, number, name, department_id, manager_id, role, email, phone, joined_on, "
        "left_on, leave_from, leave_until, has_data_access",
        text_rows(records), len(records),
    )  # fmt: skip


def _completions(
    world: World, rng: Random, sheet_builder: AnswerSheetBuilder
) -> list[tuple[object, ...]]:
    day = day_of(world)
    records: list[tuple[object, ...]] = []
    expired: list[int] = []
    overdue: list[tuple[int, int]] = []
    passed: dict[tuple[int, int], date] = {}
    for employee in world.staff:
        employee_id = employee.employee_id
        if employee.kind == "newcomer":
            continue
        if employee.kind == "untrained":
            overdue.extend((employee_id, course) for course in range(1, len(COURSES) + 1))
            continue
        completed = [(1, employee.joined_on + timedelta(days=rng.randint(1, 10)))]
        end = employee.left_on or day
        late_course = rng.randrange(2, len(COURSES) + 1) if employee.kind == "overdue" else None
        for course in range(2, len(COURSES) + 1):
            last = end - timedelta(days=rng.randint(5, 300))
            if course == late_course:
                last = day - timedelta(days=rng.randint(400, 600))
                overdue.append((employee_id, course))
            days = [last - timedelta(days=350 * year) for year in (2, 1, 0)]
            completed.extend((course, on) for on in days if on > employee.joined_on)
        # later completions of a course replace earlier ones
        passed |= {(employee_id, course): on for course, on in completed}
        for course, on in completed:
            number = len(records) + 1
            records.append((number, employee_id, course, 1, on, rng.randint(60, 100), True))
            if employee.kind == "long_gone":
                expired.append(number)
    sheet_builder.duties.extend(duties(world.staff, COURSES, passed))
    sheet_builder.add("expired_training", expired)
    sheet_builder.add_rows("training_overdue", overdue)
    return records
