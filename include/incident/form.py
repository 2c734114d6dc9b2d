"""The trigger forms of the incident workflows, and the check of the values that people enter."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from include.approvals.form import HAS_WORDS, IN_THE_PAST, Field, FormSections, Kind
from include.approvals.reasons import has_words, redact_reason
from include.holds.keys import refuse_personal_key
from include.incident.rules import IncidentRules, Titled
from include.incident.selection import MAX_KEYS, MAX_NAMES, Selection, check_selection, parse_moment
from include.incident.timeline import canonical
from include.messages import Message, verbatim
from include.policy.period import subtract_period
from include.services.errors import UsageError

MAX_TEXT = 2_000  # characters of an entered text
_NUMBER = r"^[A-Z]{2,8}-[0-9]{4}-[0-9]{4,}$(?!\n)"
_ACCOUNT = r"^\s*[\w.@-]{0,100}\s*$"  # an empty line is ignored


class Action(StrEnum):
    """The action that a person chooses in the form of `update_incident`."""

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
    Action.TAKE_OFF: "Remove a person from the team / 回避或移出人员",
    Action.ASSIGN: "Assign a person / 指派人员",
    Action.REGRADE: "Change the grade / 调整级别",
    Action.TOLD_OTHERWISE: "People were notified in another way / 已通过其他方式告知",
    Action.CORRECT: "Correct a wrong entry / 更正误记",
    Action.WIDEN: "Widen the scope / 扩大影响范围",
    Action.CANCEL: "Cancel: not an incident / 撤销（不构成事件）",
}


def trigger_form(rules: IncidentRules | None) -> FormSections:
    """Return the fields of the trigger form of `respond_to_incident`, by section.

    Args:
        rules: content of incident.yaml; None if the policy pack has no such file.
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
            "The checklist of containment depends on the type. A drill uses the type of its "
            f"scenario. 处置清单因类型而异；演练使用其场景的类型。 {helps}",
            "choice",
            options=choices,
            required=True,
            may_be_omitted=True,
        ),
        _field(
            "what",
            "Description / 事件描述",
            "One or two sentences; authorities read this text as written. Do not enter customer "
            "data. 一两句话，监管部门将看到原文；不得填写客户信息。",
            "long_text",
            required=True,
            may_be_omitted=True,
            max_length=MAX_TEXT,
            schema=HAS_WORDS,
        ),
        _field(
            "noticed_by",
            "Noticed by / 发现人",
            "The person or system that noticed the incident. 由谁（人员或系统）发现。",
        ),
        _field(
            "aware_at",
            "Aware since / 知悉时间",
            "Time at which the company became aware; time limits count from it. Empty: now. "
            "公司知悉的时间，各项时限由此起算；留空为现在。",
            "moment",
            schema=IN_THE_PAST,
        ),
        _field(
            "began_at",
            "Began / 开始时间",
            "Start of the leak, if known. 泄露开始的时间（如已知）。",
            "moment",
            schema=IN_THE_PAST,
        ),
        _field(
            "another",
            "This is another incident / 这是另一起事件",
            "Tick only if the same form was submitted before for a different incident. "
            "仅在此前提交过相同表单、且并非同一事件时勾选。",
            "yes_no",
        ),
    ]
    drill = _field(
        "tabletop",
        "Drill / 演练",
        "Scenario of a drill: no message is sent, no legal hold is placed. Empty: real incident. "
        "演练场景：不对外发送、不告知个人、不实施法律保全；留空为真实事件。",
        "choice",
        options=_titles(rules.scenarios) if rules else {},
    )
    return {
        "1. Incident / 事件": happened,
        "2. Scope, as far as known / 已知的影响范围": _affected_fields(rules),
        "3. Drill / 演练": [drill],
    }


def update_form(rules: IncidentRules | None) -> FormSections:
    """Return the fields of the trigger form of `update_incident`, by section.

    Args:
        rules: content of incident.yaml; None if the policy pack has no such file.
    """
    update = [
        _field(
            "incident",
            "Incident / 事件编号",
            "INC-2026-0001",
            required=True,
            may_be_omitted=True,
            schema={"pattern": _NUMBER},
        ),
        _field(
            "action",
            "Action / 操作",
            "The timeline records it with your name; earlier entries are not changed. "
            "以您的名义记入时间线；已有记录不会改动。",
            "choice",
            options={str(action): verbatim(_ACTIONS[action]) for action in Action},
            value=str(Action.NOTE),
            required=True,
        ),
        _field(
            "words",
            "Description or reason / 说明",
            "Do not enter customer data. 不得填写客户信息。",
            "long_text",
            required=True,
            may_be_omitted=True,
            max_length=MAX_TEXT,
            schema=HAS_WORDS,
        ),
        _field(
            "at",
            "When / 时间",
            "Time of the event, such as 2026-11-26T03:15:00+08:00; without an offset, in the "
            "timezone of the policy pack. Empty: now. Always leave it empty for a grade, a "
            "correction or a cancellation. "
            "事件发生时间，留空为现在；调整级别、更正或撤销时须留空。",
            "moment",
            schema=IN_THE_PAST,
        ),
        _field(
            "account",
            "Account / 账号",
            "Person who is removed, is assigned, or takes over. 被移出、被指派或接班的人员。",
            schema={"pattern": _ACCOUNT},
        ),
        _field(
            "duty",
            "Duty / 职责",
            "Duty of the assigned person. 指派的职责。",
            "choice",
            options=_titles(rules.team) if rules else {},
        ),
        _field(
            "grade",
            "Grade / 级别",
            "New grade. 调整后的级别。",
            "choice",
            options=_titles(rules.grades) if rules else {},
        ),
        _field(
            "entry",
            "Entry / 条目",
            "Number of the wrong entry in the timeline. 误记条目在时间线中的序号。",
            "number",
            schema={"minimum": 1},
        ),
    ]
    affected = _affected_fields(rules)
    return {
        "1. Update / 补充记录": update,
        "2. Scope, as far as known / 已知的影响范围": affected,
    }


def _affected_fields(rules: IncidentRules | None) -> list[Field]:
    scopes = rules.scope if rules else ()
    collections = [
        f"{scope.database}.{records.collection}" for scope in scopes for records in scope.records
    ]
    named = [
        f"{scope.database}.{records.collection}"
        for scope in scopes
        for records in scope.records
        if records.named
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
            "Records created, or opened by the accounts, from this time on. "
            "自此时起产生的记录，或此后被下述账号查阅的记录。",
            "moment",
            schema=IN_THE_PAST,
        ),
        _field("until", "Until / 止", "Records before this time. 此时之前。", "moment"),
        _list_field(
            "departments", "Departments / 部门", "Names; empty: all. 部门名称；留空为全部。"
        ),
        _list_field(
            "accounts",
            "Accounts / 账号",
            "Accounts of suspects, or with leaked passwords: the records that they opened are "
            "affected. These people may not answer any step. "
            "当事人或口令泄露的账号：其查阅过的记录视为受影响；这些人不参与任何步骤。",
            pattern=_ACCOUNT,
        ),
        _field(
            "partner",
            "Partner / 合作方",
            "For a breach at a partner: its number in the register. 合作方泄露时，其登记编号。",
        ),
        _field(
            "keys_of",
            "Keys of / 编号所属数据表",
            "Table of the keys below; empty: the table of people. "
            "下列编号所属的数据表；留空为个人。",
            "choice",
            options={name: verbatim(name) for name in named},
        ),
        _field(
            "keys",
            "Listed keys / 编号清单",
            "One key in each line: database/key. Do not enter phone or ID numbers. "
            "每行一个：数据库/主键；不得填写电话或证件号码。",
            "long_text",
            value="",
            max_length=MAX_KEYS * 500,  # characters of all keys
        ),
    ]


def _field(name: str, title: str, help_text: str, kind: Kind = "text", **more: Any) -> Field:
    return Field(name, verbatim(title), kind, verbatim(help_text), **more)


def _list_field(
    name: str, title: str, help_text: str, choices: Iterable[str] = (), pattern: str = ""
) -> Field:
    options = {value: verbatim(value) for value in choices}
    schema: dict[str, Any] = {}
    if not options:  # otherwise, the options are the only valid items
        item = {"type": "string", "maxLength": MAX_TEXT}
        item |= {"pattern": pattern} if pattern else {}
        schema = {"items": item, "maxItems": MAX_NAMES}
    return _field(name, title, help_text, "list", options=options, value=(), schema=schema)


def _titles(items: Iterable[Titled]) -> dict[str, Message]:
    return {item.id: verbatim(f"{item.title['en']} / {item.title['zh-CN']}") for item in items}


@dataclass(frozen=True)
class Form:
    """The completed trigger form of `respond_to_incident`.

    Attributes:
        type: id of the incident type in incident.yaml.
        what: description of the incident, without customer data.
        noticed_by: person or system that noticed the incident, without customer data; empty if not
            entered.
        aware_at: time at which the company became aware of the incident. Time limits count from it.
        began_at: time at which the leak started; None if unknown.
        selection: criteria of affected records; its field `databases` is never empty.
        another: whether the person states that this is a new incident, even if an earlier form was
            the same.
        scenario: id of a drill's scenario; empty for a real incident.
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
        """SHA-256 (hex) of the values that identify the incident: type, description and criteria.

        The time of awareness is not included. Its default is the time of the submission, so it
        differs if the same form is submitted twice.
        """
        identity = {"type": self.type, "what": self.what, "selection": self.selection.as_json()}
        return hashlib.sha256(canonical(identity)).hexdigest()


def read_trigger_form(
    parameters: Mapping[str, Any], rules: IncidentRules, triggered_at: datetime, zone: ZoneInfo
) -> Form:
    """Read and check the completed trigger form of `respond_to_incident`.

    Args:
        parameters: parameters of the run.
        rules: content of incident.yaml.
        triggered_at: time at which the run was triggered. It is the time of awareness if the form
            does not contain one.
        zone: timezone of entered times without UTC offset.

    Raises:
        UsageError: fields are invalid; the message names all of them.
    """
    reader = _Reader(parameters, zone)
    scenarios = {scenario.id: scenario for scenario in rules.scenarios}
    scenario, drill = reader.text("tabletop"), scenarios.get(reader.text("tabletop"))
    if scenario and not drill:
        reader.faults.append(f"tabletop: the scenario {scenario} does not exist")
    kind = drill.type if drill else reader.text("type")
    if not reader.faults and kind not in {incident_type.id for incident_type in rules.types}:
        reader.faults.append(f"type: the type {kind or '(empty)'} does not exist")
    aware, began = reader.moment("aware_at") or triggered_at, reader.moment("began_at")
    if aware > triggered_at:
        reader.faults.append("aware_at is in the future: enter when the company became aware")
    if began and began > aware:
        reader.faults.append("began_at is after aware_at: a leak cannot be known before it starts")
    description = redact_reason(drill.story["en"] if drill else reader.text("what"), MAX_TEXT)
    if not drill and not has_words(description):
        reader.faults.append("what contains no words: describe the incident in a sentence")
    affected = reader.selection()
    if drill and drill.aware_before is not None and not parameters.get("aware_at"):
        aware = subtract_period(triggered_at, drill.aware_before, zone)
    return Form(
        type=kind,
        what=description,
        noticed_by=redact_reason(reader.text("noticed_by")),
        aware_at=aware.astimezone(UTC),
        began_at=began,
        selection=check_selection(affected, rules),
        another=bool(parameters.get("another")),
        scenario=scenario,
    )


def read_selection(
    parameters: Mapping[str, Any], rules: IncidentRules, zone: ZoneInfo
) -> Selection:
    """Read the form fields that define which records are affected.

    The result always names the databases, even if none were entered.

    Args:
        parameters: parameters of the run.
        rules: content of incident.yaml.
        zone: timezone of entered times without UTC offset.

    Raises:
        UsageError: fields are invalid; the message names all of them.
    """
    return check_selection(_Reader(parameters, zone).selection(), rules)


class _Reader:
    """A reader of form fields that collects all faults, to report them in one error."""

    def __init__(self, parameters: Mapping[str, Any], zone: ZoneInfo) -> None:
        self._parameters, self._zone = parameters, zone
        self.faults: list[str] = []

    def text(self, name: str) -> str:
        return str(self._parameters.get(name) or "")

    def lines(self, name: str) -> tuple[str, ...]:
        """Return the items of a list field, or the lines of a text field.

        Blank and repeated items and lines are left out.
        """
        value = self._parameters.get(name)
        parts = value if isinstance(value, list | tuple) else str(value or "").splitlines()
        return tuple(dict.fromkeys(text for part in parts if (text := str(part).strip())))

    def moment(self, name: str) -> datetime | None:
        try:
            return parse_moment(self._parameters.get(name), self._zone)
        except ValueError:
            self.faults.append(f"{name} is not a valid time (2026-11-26T03:15:00+08:00)")
            return None

    def selection(self) -> Selection:
        """Return the criteria of affected records that the form fields define.

        Raises:
            UsageError: a field of the form is invalid; the message names all invalid fields.
        """
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
            raise UsageError(
                f"The form cannot be used: {faults}.",
                "Correct the form and trigger the workflow again.",
            )
        return selected
