"""The trigger forms of both incident workflows: their fields, and the check of what was entered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from include.approvals.form import Field, FormSections, Kind
from include.approvals.reasons import says_something, value_free_reason
from include.holds.keys import refuse_personal_key
from include.incident.rules import IncidentRules, Titled
from include.incident.selection import MOST_KEYS, Selection, checked, moment
from include.incident.timeline import canonical
from include.messages import Message, verbatim
from include.policy.period import earlier
from include.services.errors import UsageError

LONGEST = 2_000  # characters of a text that is entered
_NUMBER = "^[A-Z]{2,8}-[0-9]{4}-[0-9]{4,}$"


class Action(StrEnum):
    """What an update does."""

    NOTE = "note"
    HAND_OVER = "hand_over"
    TAKE_OFF = "take_off"
    ASSIGN = "assign"
    REGRADE = "regrade"
    TOLD_OTHERWISE = "told_otherwise"
    CORRECT = "correct"
    WIDEN = "widen"
    CANCEL = "cancel"


_ACTIONS = {
    Action.NOTE: "Note / 记录",
    Action.HAND_OVER: "Hand over the shift / 交接班",
    Action.TAKE_OFF: "Take a person off / 回避或移出人员",
    Action.ASSIGN: "Assign a person / 指派人员",
    Action.REGRADE: "Change the grade / 调整级别",
    Action.TOLD_OTHERWISE: "People were told otherwise / 已通过其他方式告知",
    Action.CORRECT: "An entry was a mistake / 更正误记",
    Action.WIDEN: "More is affected / 扩大影响范围",
    Action.CANCEL: "Cancel: it was none / 撤销（误报）",
}


def trigger_form(rules: IncidentRules | None) -> FormSections:
    """Return the fields of `respond_to_incident`, by section; only type and words are required.

    Args:
        rules: incident.yaml; None if the pack has none.
    """
    types = _titles(rules.types) if rules else {}
    choices = types or {"none": verbatim("none")}
    helps = " ".join(
        f"{kind.title['en']}: {kind.help['en']}" for kind in (rules.types if rules else ())
    )
    happened = [
        _field(
            "type",
            "Type / 类型",
            f"What contains it depends on it. 处置清单因类型而异。 {helps}",
            "choice",
            options=choices,
            value=next(iter(choices)),
            required=True,
        ),
        _field(
            "what",
            "What happened / 发生了什么",
            "A sentence or two, which authorities will read as it is. No customer's name, number "
            "or address. 一两句话，监管部门将看到原文；勿写客户信息。",
            "long_text",
            value="",
            required=True,
            longest=LONGEST,
        ),
        _field(
            "noticed_by",
            "Noticed by / 发现人",
            "Who noticed: a person, a system. 由谁（人员或系统）发现。",
        ),
        _field(
            "aware_at",
            "Aware since / 知悉时间",
            "When the company became aware; clocks begin here. Empty: now. "
            "公司知悉的时间，各项时限由此起算；留空为现在。",
            "moment",
        ),
        _field(
            "began_at",
            "Began / 开始时间",
            "When the leak began, if known. 泄露开始的时间（如已知）。",
            "moment",
        ),
        _field(
            "another",
            "This is another incident / 这是另一起事件",
            "Only if the same form was sent before and this is not the same incident. "
            "仅在此前提交过相同表单、且并非同一事件时勾选。",
            "yes_no",
        ),
    ]
    drill = _field(
        "tabletop",
        "Drill / 演练",
        "A scenario: nothing leaves, nobody is told, nothing is held. Empty: real. "
        "演练情景：不外发、不告知、不保全；留空为真实事件。",
        "choice",
        options=_titles(rules.scenarios) if rules else {},
    )
    return {
        "1. What happened": happened,
        "2. What is affected, as far as known": _affected_fields(rules),
        "3. Drill": [drill],
    }


def update_form(rules: IncidentRules | None) -> FormSections:
    """Return the fields of `update_incident`, by section.

    Args:
        rules: incident.yaml; None if the pack has none.
    """
    update = [
        _field("incident", "Incident / 事件编号", "INC-2026-0001", schema={"pattern": _NUMBER}),
        _field(
            "action",
            "What / 操作",
            "It stands on the timeline with your name; nothing there is changed. "
            "以你的名义记入时间线；已有记录不会改动。",
            "choice",
            options={str(action): verbatim(_ACTIONS[action]) for action in Action},
            value=str(Action.NOTE),
            required=True,
        ),
        _field(
            "words",
            "What happened, or why / 说明",
            "No customer's name, number or address. 勿写客户信息。",
            "long_text",
            value="",
            required=True,
            longest=LONGEST,
        ),
        _field(
            "at",
            "When / 时间",
            "When it happened. 2026-11-26T03:15:00+08:00; without an offset it is the policy "
            "pack's timezone. Empty: now, as for a grade, a correction or a cancellation always. "
            "调整级别、更正或撤销时留空。",
            "moment",
        ),
        _field(
            "account",
            "Account / 账号",
            "Who is taken off, assigned, or takes over. 被移出、被指派或接班的人员。",
        ),
        _field(
            "duty",
            "Duty / 职责",
            "To which somebody is assigned. 指派的职责。",
            "choice",
            options=_titles(rules.team) if rules else {},
        ),
        _field(
            "grade",
            "Grade / 级别",
            "The other grade. 调整后的级别。",
            "choice",
            options=_titles(rules.grades) if rules else {},
        ),
        _field(
            "entry",
            "Entry / 条目",
            "Number in the timeline of what was entered by mistake. 误记条目在时间线中的序号。",
            "number",
            schema={"minimum": 1},
        ),
    ]
    affected = _affected_fields(rules)
    return {
        "Which incident, and what": update,
        "2. What is affected, as far as known": affected,
    }


def _affected_fields(rules: IncidentRules | None) -> list[Field]:
    scopes = rules.scope if rules else ()
    collections = [
        f"{scope.database}.{records.collection}" for scope in scopes for records in scope.records
    ]
    return [
        _list_field(
            "databases",
            "Systems / 系统",
            "Empty: all of them. 留空为全部。",
            [scope.database for scope in scopes],
        ),
        _list_field(
            "collections",
            "Tables / 数据表",
            "Empty: all of the systems'. 留空为所选系统的全部数据表。",
            collections,
        ),
        _field(
            "since",
            "From / 起",
            "Records made, or opened by the accounts, from then on. "
            "自此时起产生、或被上述账号查看的记录。",
            "moment",
        ),
        _field("until", "Until / 止", "Before then. 此时之前。", "moment"),
        _list_field(
            "departments", "Departments / 部门", "Names; empty: all. 部门名称；留空为全部。"
        ),
        _list_field(
            "accounts",
            "Accounts / 账号",
            "Whose doing it was, or whose password leaked: what they opened is affected. They are "
            "not asked in any step. "
            "当事人或口令泄露的账号：其查看过的记录视为受影响；这些人不参与任何步骤。",
        ),
        _field(
            "partner",
            "Partner / 合作方",
            "Number in the register, of a breach at a partner. 合作方泄露时，其登记编号。",
        ),
        _field(
            "keys_of",
            "Keys of / 编号所属数据表",
            "Table of the keys below; empty: people. 下列编号所属的数据表；留空为个人。",
        ),
        _field(
            "keys",
            "Listed keys / 编号清单",
            "One a line: database/key. Never a phone or ID number. "
            "每行一个：数据库/主键；不得填写电话或证件号码。",
            "long_text",
            value="",
            longest=MOST_KEYS * 500,  # characters of all keys
        ),
    ]


def _field(name: str, title: str, help_text: str, kind: Kind = "text", **more: Any) -> Field:
    return Field(name, verbatim(title), kind, verbatim(help_text), **more)


def _list_field(name: str, title: str, help_text: str, known: Iterable[str] = ()) -> Field:
    options = {value: verbatim(value) for value in known}
    return _field(name, title, help_text, "list", options=options, value=())


def _titles(items: Iterable[Titled]) -> dict[str, Message]:
    return {item.id: verbatim(f"{item.title['en']} / {item.title['zh-CN']}") for item in items}


@dataclass(frozen=True)
class Form:
    """The trigger form of `respond_to_incident` as it was filled in.

    Attributes:
        type: of the incident.
        what: what happened, value-free.
        noticed_by: who noticed, value-free; empty where nobody said.
        aware_at: when the company became aware; clocks begin here.
        began_at: when the leak began, None where nobody knows.
        selection: what is affected; with the databases that it means.
        another: that it is another incident though the form is the same.
        scenario: of a drill; empty for a real incident.
    """

    type: str
    what: str
    noticed_by: str
    aware_at: datetime
    began_at: datetime | None
    selection: Selection
    another: bool
    scenario: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what makes it the same incident: type, words and what is affected.

        Not the moment of awareness: whoever leaves it empty means now, and presses twice.
        """
        same = {"type": self.type, "what": self.what, "selection": self.selection.as_json()}
        return hashlib.sha256(canonical(same)).hexdigest()


def read(
    parameters: Mapping[str, Any], rules: IncidentRules, triggered_at: datetime, zone: ZoneInfo
) -> Form:
    """Read the form of `respond_to_incident`.

    Args:
        parameters: of the run.
        rules: incident.yaml.
        triggered_at: when the run was triggered; that is when the company became aware, if the
            form does not say when.
        zone: of moments without offset.

    Raises:
        UsageError: a field cannot be used; names all that cannot.
    """
    reader = _Reader(parameters, zone)
    scenarios = {scenario.id: scenario for scenario in rules.scenarios}
    scenario, drill = reader.text("tabletop"), scenarios.get(reader.text("tabletop"))
    if scenario and not drill:
        reader.faults.append(f"tabletop: there is no scenario {scenario}")
    kind = drill.type if drill else reader.text("type")
    if not reader.faults and kind not in {each.id for each in rules.types}:
        reader.faults.append(f"type: there is none called {kind or '(nothing)'}")
    aware, began = reader.moment("aware_at") or triggered_at, reader.moment("began_at")
    if aware > triggered_at:
        reader.faults.append("aware_at is yet to come: enter when the company became aware")
    if began and began > aware:
        reader.faults.append("began_at is after aware_at: nobody knows of a leak before it begins")
    what = value_free_reason(drill.story["en"] if drill else reader.text("what"), LONGEST)
    if not drill and not says_something(what):
        reader.faults.append("what says nothing: write in a sentence what happened")
    affected = reader.selection()
    if drill and drill.aware_before is not None and not parameters.get("aware_at"):
        aware = earlier(triggered_at, drill.aware_before, zone)
    return Form(
        type=kind,
        what=what,
        noticed_by=value_free_reason(reader.text("noticed_by")),
        aware_at=aware.astimezone(UTC),
        began_at=began,
        selection=checked(affected, rules),
        another=bool(parameters.get("another")),
        scenario=scenario,
    )


def selection(parameters: Mapping[str, Any], rules: IncidentRules, zone: ZoneInfo) -> Selection:
    """Read the fields of affected records, with the databases that they mean.

    Args:
        parameters: of the run.
        rules: incident.yaml.
        zone: of moments without offset.

    Raises:
        UsageError: a field cannot be used; names all that cannot.
    """
    return checked(_Reader(parameters, zone).selection(), rules)


class _Reader:
    """Reads parameters of a run, and collects what is wrong with them."""

    def __init__(self, parameters: Mapping[str, Any], zone: ZoneInfo) -> None:
        self._parameters, self._zone = parameters, zone
        self.faults: list[str] = []

    def text(self, name: str) -> str:
        return str(self._parameters.get(name) or "")

    def lines(self, name: str) -> tuple[str, ...]:
        """A list, or lines of a text; without blanks around, empty ones and repetitions."""
        value = self._parameters.get(name)
        parts = value if isinstance(value, list | tuple) else str(value or "").splitlines()
        return tuple(dict.fromkeys(text for part in parts if (text := str(part).strip())))

    def moment(self, name: str) -> datetime | None:
        try:
            return moment(self._parameters.get(name), self._zone)
        except ValueError:
            self.faults.append(f"{name} is no moment (2026-11-26T03:15:00+08:00)")
            return None

    def selection(self) -> Selection:
        """The affected records; refuses the form if any field is wrong."""
        names = ("databases", "collections", "departments", "accounts", "keys")
        lists = {name: self.lines(name) for name in names}
        texts = {name: self.text(name).strip() or None for name in ("partner", "keys_of")}
        values = [
            (f"{name}, line {number},", value)
            for name in ("keys", "departments")
            for number, value in enumerate(lists[name], 1)
        ]
        for name, value in (*values, ("partner", texts["partner"] or "")):
            try:
                refuse_personal_key(name, value)
            except UsageError as error:
                self.faults.append(error.message.rstrip("."))
        since, until = self.moment("since"), self.moment("until")
        selected = Selection()
        try:
            selected = Selection(**lists, **texts, since=since, until=until)
        except ValidationError as error:
            self.faults += [
                str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors()
            ]
        if self.faults:
            faults = "; ".join(self.faults)
            raise UsageError(f"The form cannot be used: {faults}.", "Trigger it again.")
        return selected
