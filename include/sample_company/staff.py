"""Departments, employees, courses and their completions."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

import numpy as np

from include.sample_company.answers import Notes
from include.sample_company.columns import Table, text_rows
from include.sample_company.employee import Staff, duties
from include.sample_company.people import people
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
    """The day of the sample's moment, in UTC."""
    return date(1970, 1, 1) + timedelta(days=world.today)


def build(world: World, notes: Notes) -> list[Table]:
    """Make the staff tables and remember the employees in ``world.staff``."""
    dice = Random(f"staff {world.seed}")
    size = min(max(world.customers // 250, 56), 5000)
    each = max(2, size // 100)
    heads = len(DEPARTMENTS)
    kinds = ["core"] * (size - each * len(PLANTED)) + [k for k in PLANTED for _ in range(each)]
    world.staff[:] = [
        _employee(world, dice, number, kind, heads) for number, kind in enumerate(kinds, 1)
    ]
    completions = _completions(world, dice, notes)
    notes.add("leaver_with_access", _ids(world, "leaver_with_access"))
    notes.add("untrained_with_access", _ids(world, "untrained"))
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
    """Employees who were here throughout and may open records."""
    return [
        one
        for one in world.staff
        if one.kind == "core" and one.has_data_access and department in (None, one.department_id)
    ]


def _ids(world: World, kind: str) -> list[int]:
    return [one.employee_id for one in world.staff if one.kind == kind]


def _employee(world: World, dice: Random, number: int, kind: str, heads: int) -> Staff:
    day = day_of(world)
    joined = day - timedelta(days=dice.randint(2400, 4300))
    left = None
    if kind == "newcomer":
        joined = day - timedelta(days=dice.randint(1, 10))
    elif kind == "untrained":
        joined = day - timedelta(days=dice.randint(200, 700))
    elif kind in ("leaver", "leaver_with_access"):
        left = day - timedelta(days=dice.randint(300, 900))
    elif kind == "long_gone":
        left = day - timedelta(days=dice.randint(1150, 1800))
    department = (number - 1) % heads + 1
    # A department's head answers to the head of the company, its people to its head.
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
    # Numbers far above the customers', so that no employee shares a customer's phone.
    found = people(world, np.array([one.employee_id for one in world.staff]) + 2_123_456_789)
    records: list[tuple[object, ...]] = []
    for place, one in enumerate(world.staff):
        leave_from, leave_until = one.leave or (None, None)
        number = f"E{one.employee_id:05d}"
        records.append((
            one.employee_id, number,
            b"".join(part[place] for part in found.name).decode(),
            one.department_id, one.manager_id,
            "head" if one.employee_id <= len(DEPARTMENTS) else "clerk",
            f"{found.pinyin[place].decode()}.{number.lower()}@courier.example",
            found.phone[place].decode(), one.joined_on, one.left_on, leave_from, leave_until,
            one.has_data_access,
        ))  # fmt: skip
    return Table(
        "employee",
        "employee_id, number, name, department_id, manager_id, role, email, phone, joined_on, "
        "left_on, leave_from, leave_until, has_data_access",
        text_rows(records), len(records),
    )  # fmt: skip


def _completions(world: World, dice: Random, notes: Notes) -> list[tuple[object, ...]]:
    day = day_of(world)
    records: list[tuple[object, ...]] = []
    expired: list[int] = []
    overdue: list[tuple[int, int]] = []
    passed: dict[tuple[int, int], date] = {}
    for one in world.staff:
        if one.kind == "newcomer":
            continue
        if one.kind == "untrained":
            overdue.extend((one.employee_id, course) for course in range(1, len(COURSES) + 1))
            continue
        done = [(1, one.joined_on + timedelta(days=dice.randint(1, 10)))]
        end = one.left_on or day
        late = dice.randrange(2, len(COURSES) + 1) if one.kind == "overdue" else None
        for course in range(2, len(COURSES) + 1):
            last = end - timedelta(days=dice.randint(5, 300))
            if course == late:
                last = day - timedelta(days=dice.randint(400, 600))
                overdue.append((one.employee_id, course))
            whens = [last - timedelta(days=350 * year) for year in (2, 1, 0)]
            done.extend((course, when) for when in whens if when > one.joined_on)
        passed |= {(one.employee_id, course): when for course, when in done}  # the last one counts
        for course, when in done:
            number = len(records) + 1
            records.append((number, one.employee_id, course, 1, when, dice.randint(60, 100), True))
            if one.kind == "long_gone":
                expired.append(number)
    notes.duties.extend(duties(world.staff, COURSES, passed))
    notes.add("expired_training", expired)
    notes.add_rows("training_overdue", overdue)
    return records
