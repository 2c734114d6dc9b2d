"""The columns of each kind of file in English and Chinese, and the templates to fill in."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from include.training.rules import TOPICS
from include.training.uploads import cells
from include.training.uploads.cells import Value

_YEARS = 3660  # days


class Kind(StrEnum):
    """What a file holds."""

    ROSTER = "roster"
    COURSES = "courses"
    COMPLETIONS = "completions"


@dataclass(frozen=True)
class Column:
    """One column of a file, and of the table it is stored in.

    Attributes:
        name: in the table, and the English one in files.
        chinese: the Chinese one in files.
        read: makes its value of a cell that is not blank; raises Unreadable.
        optional: whether a cell may be blank.
        aliases: further names that are understood.
    """

    name: str
    chinese: str
    read: Callable[[str], Value]
    optional: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Both names, for people."""
        return f"{self.name} ({self.chinese})"


_PERSON = Column("person", "工号", cells.code, aliases=("员工编号", "staff_number"))
_COURSE = Column("course", "课程代码", cells.code, aliases=("课程编号",))
_VERSION = Column("version", "版本", cells.whole(1, 1_000_000), aliases=("课程版本",))
_TOPIC_NAMES = {
    "入职": "onboarding",
    "入职培训": "onboarding",
    "法律法规": "law",
    "法律": "law",
    "保护技能": "protection",
    "应急处置": "emergency",
    "应急": "emergency",
} | {one: one for one in TOPICS}

COLUMNS: Mapping[Kind, tuple[Column, ...]] = {
    Kind.ROSTER: (
        _PERSON,
        Column("name", "姓名", cells.name),
        Column("mail", "邮箱", cells.words, optional=True, aliases=("电子邮箱", "email", "e-mail")),
        Column("department", "部门", cells.words),
        Column("supervisor", "主管工号", cells.code, optional=True, aliases=("上级工号",)),
        Column("head", "部门负责人", cells.yes_no, aliases=("是否部门负责人",)),
        Column("joined_on", "入职日期", cells.day),
        Column("left_on", "离职日期", cells.day, optional=True),
        Column("leave_from", "休假开始", cells.day, optional=True, aliases=("休假开始日期",)),
        Column("leave_until", "休假结束", cells.day, optional=True, aliases=("休假结束日期",)),
        Column("access", "客户信息权限", cells.yes_no, aliases=("是否有客户信息权限",)),
    ),
    Kind.COURSES: (
        _COURSE,
        Column("title", "课程名称", cells.name, aliases=("名称",)),
        Column("topic", "主题", cells.one_of(_TOPIC_NAMES), aliases=("课程主题",)),
        _VERSION,
        Column("published_on", "发布日期", cells.day),
        Column("within_days", "完成天数", cells.whole(0, _YEARS), aliases=("完成期限(天)",)),
        Column("repeat_months", "复训月数", cells.whole(1, 120), optional=True),
        Column("due_each_year", "每年截止日", cells.day_of_year, optional=True),
        Column("retake_within_days", "新版补学天数", cells.whole(0, _YEARS), optional=True),
    ),
    Kind.COMPLETIONS: (
        _PERSON,
        _COURSE,
        _VERSION,
        Column("completed_on", "完成日期", cells.day),
        Column("passed", "通过", cells.yes_no, aliases=("是否通过", "结果")),
    ),
}
"""The columns of each kind; a file has all of them, in any order."""


def known_names(kind: Kind) -> Mapping[str, Column]:
    """The columns by every name that is understood, as `same` makes it."""
    return {
        same(name): column
        for column in COLUMNS[kind]
        for name in (column.name, column.chinese, *column.aliases)
    }


def same(name: str) -> str:
    """A column's name as it is compared: without what is between its words."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(
        one for one in text if one not in "_-" and unicodedata.category(one)[0] not in "CZ"
    )


Row = Mapping[str, Value]


def contradictions(kind: Kind, row: Row) -> list[tuple[str, str]]:
    """Say which cells of a line cannot be true together: the name of a column, and what is wrong.

    What may be true, though it is odd, such as a completion before joining, is left to the run.
    """
    found = []
    if kind is Kind.ROSTER:
        found = [
            ("left_on", "is before joined_on") if _before(row, "left_on", "joined_on") else None,
            ("leave_until", "is before leave_from")
            if _before(row, "leave_until", "leave_from")
            else None,
            ("leave_from", "is empty, and the leave has an end")
            if row["leave_from"] is None and row["leave_until"] is not None
            else None,
        ]
    if kind is Kind.COURSES and row["repeat_months"] is not None and row["due_each_year"]:
        found = [("due_each_year", "is given beside repeat_months: leave one of them empty")]
    return [one for one in found if one is not None]


def _before(row: Row, first: str, second: str) -> bool:
    one, other = row[first], row[second]
    return isinstance(one, date) and isinstance(other, date) and one < other


def template(kind: Kind, *, chinese: bool = False) -> bytes:
    """Return a CSV file with nothing but its header.

    Args:
        kind: what the file is to hold.
        chinese: whether its columns are named in Chinese.
    """
    text = io.StringIO()
    csv.writer(text).writerow([one.chinese if chinese else one.name for one in COLUMNS[kind]])
    return text.getvalue().encode("utf-8-sig")  # without the mark Excel takes it for another one
