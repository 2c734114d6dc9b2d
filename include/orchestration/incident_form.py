"""The trigger forms of incidents: what the person on call is asked, with safe defaults."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param

from include.incident.rule_checks import INCIDENT
from include.incident.rules import IncidentRules
from include.incident.updating import Action
from include.orchestration.workflow import policy

_WHAT, _SCOPE, _DRILL = "1. What happened", "2. What is affected, as far as known", "3. Drill"
_MOMENT = "2026-11-26T03:15:00+08:00; without an offset it is the policy pack's timezone."


def trigger() -> dict[str, Param]:
    """The form of `respond_to_incident`; every field may stay as it is but type and words."""
    rules = policy().section(INCIDENT)
    return {**_happened(rules), **_affected(rules), **_drill(rules)}


def _happened(rules: IncidentRules | None) -> dict[str, Param]:
    types = (
        {one.id: f"{one.title['en']} / {one.title['zh-CN']}" for one in rules.types}
        if rules
        else {}
    )
    helps = " ".join(f"{one.title['en']}: {one.help['en']}" for one in rules.types) if rules else ""
    return {
        "type": Param(
            next(iter(types), "none"),
            type="string",
            enum=list(types) or ["none"],
            values_display=types,
            title="Type / 类型",
            description=f"What contains it depends on it. 处置清单因类型而异。 {helps}",
            section=_WHAT,
        ),
        "what": Param(
            "",
            type="string",
            format="multiline",
            maxLength=2_000,
            title="What happened / 发生了什么",
            description="A sentence or two, which authorities will read as it is. No customer's "
            "name, number or address. 一两句话，监管部门将看到原文；勿写客户信息。",
            section=_WHAT,
        ),
        "noticed_by": _text(
            "Noticed by / 发现人",
            "Who noticed: a person, a system. 由谁（人员或系统）发现。",
            _WHAT,
        ),
        "aware_at": _moment(
            "Aware since / 知悉时间",
            "When the company became aware; clocks begin here. Empty: now. "
            "公司知悉的时间，各项时限由此起算；留空为现在。",
            _WHAT,
        ),
        "began_at": _moment(
            "Began / 开始时间", "When the leak began, if known. 泄露开始的时间（如已知）。", _WHAT
        ),
        "another": Param(
            False,
            type="boolean",
            title="This is another incident / 这是另一起事件",
            description="Only if the same form was sent before and this is not the same incident. "
            "仅在此前提交过相同表单、且并非同一事件时勾选。",
            section=_WHAT,
        ),
    }


def _affected(rules: IncidentRules | None) -> dict[str, Param]:
    databases = [one.database for one in rules.scope] if rules else []
    collections = (
        [f"{one.database}.{records.collection}" for one in rules.scope for records in one.records]
        if rules
        else []
    )
    return {
        "databases": _several("Systems / 系统", "Empty: all of them. 留空为全部。", databases),
        "collections": _several(
            "Tables / 数据表",
            "Empty: all of the systems'. 留空为所选系统的全部数据表。",
            collections,
        ),
        "since": _moment(
            "From / 起",
            "Records made, or opened by the accounts, from then on. "
            "自此时起产生、或被上述账号查看的记录。",
            _SCOPE,
        ),
        "until": _moment("Until / 止", "Before then. 此时之前。", _SCOPE),
        "departments": _several(
            "Departments / 部门", "Names; empty: all. 部门名称；留空为全部。", []
        ),
        "accounts": _several(
            "Accounts / 账号",
            "Whose doing it was, or whose password leaked: what they opened is affected. They are "
            "not asked in any step. "
            "当事人或口令泄露的账号：其查看过的记录视为受影响；这些人不参与任何步骤。",
            [],
        ),
        "partner": _text(
            "Partner / 合作方",
            "Number in the register, of a breach at a partner. 合作方泄露时，其登记编号。",
            _SCOPE,
        ),
        "keys_of": _text(
            "Keys of / 编号所属数据表",
            "Table of the keys below; empty: people. 下列编号所属的数据表；留空为个人。",
            _SCOPE,
        ),
        "keys": Param(
            "",
            type=["null", "string"],
            format="multiline",
            title="Listed keys / 编号清单",
            description="One a line: database/key. Never a phone or ID number. "
            "每行一个：数据库/主键；不得填写电话或证件号码。",
            section=_SCOPE,
        ),
    }


def _drill(rules: IncidentRules | None) -> dict[str, Param]:
    scenarios = (
        {one.id: f"{one.title['en']} / {one.title['zh-CN']}" for one in rules.scenarios}
        if rules
        else {}
    )
    return {
        "tabletop": Param(
            None,
            type=["null", "string"],
            enum=[None, *scenarios],
            values_display=scenarios,
            title="Drill / 演练",
            description="A scenario: nothing leaves, nobody is told, nothing is held. Empty: real. "
            "演练情景：不外发、不告知、不保全；留空为真实事件。",
            section=_DRILL,
        )
    }


def _text(title: str, description: str, section: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        maxLength=500,
        title=title,
        description=description,
        section=section,
    )


def _moment(title: str, description: str, section: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        format="date-time",
        title=title,
        description=description,
        section=section,
    )


def _several(title: str, description: str, known: list[str]) -> Param:
    more: dict[str, Any] = (
        {"items": {"type": "string", "enum": known}, "examples": known}
        if known
        else {"items": {"type": "string"}}
    )
    return Param(
        [], type=["null", "array"], title=title, description=description, section=_SCOPE, **more
    )


def update() -> dict[str, Param]:
    """The form of `update_incident`."""
    rules = policy().section(INCIDENT)
    duties = (
        {one.id: f"{one.title['en']} / {one.title['zh-CN']}" for one in rules.team} if rules else {}
    )
    grades = (
        {one.id: f"{one.title['en']} / {one.title['zh-CN']}" for one in rules.grades}
        if rules
        else {}
    )
    first = "Which incident, and what"
    affected = {name: param for name, param in _affected(rules).items() if name not in ("another",)}
    return {
        "incident": Param(
            None,
            type=["null", "string"],
            pattern="^[A-Z]{2,8}-[0-9]{4}-[0-9]{4,}$",
            title="Incident / 事件编号",
            description="INC-2026-0001",
            section=first,
        ),
        "action": Param(
            str(Action.NOTE),
            type="string",
            enum=[str(one) for one in Action],
            values_display=_ACTIONS,
            title="What / 操作",
            description="It stands on the timeline with your name; nothing there is changed. "
            "以你的名义记入时间线；已有记录不会改动。",
            section=first,
        ),
        "words": Param(
            "",
            type="string",
            format="multiline",
            maxLength=2_000,
            title="What happened, or why / 说明",
            description="No customer's name, number or address. 勿写客户信息。",
            section=first,
        ),
        "at": _moment(
            "When / 时间",
            f"When it happened. {_MOMENT} Empty: now, as for a grade, a correction or a "
            "cancellation always. "
            "调整级别、更正或撤销时留空。",
            first,
        ),
        "account": _text(
            "Account / 账号",
            "Who is taken off, assigned, or takes over. 被移出、被指派或接班的人员。",
            first,
        ),
        "duty": _choice(
            "Duty / 职责", "To which somebody is assigned. 指派的职责。", duties, first
        ),
        "grade": _choice("Grade / 级别", "The other grade. 调整后的级别。", grades, first),
        "entry": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Entry / 条目",
            description="Number in the timeline of what was entered by mistake. "
            "误记条目在时间线中的序号。",
            section=first,
        ),
        **affected,
    }


_ACTIONS = {
    str(Action.NOTE): "Note / 记录",
    str(Action.HAND_OVER): "Hand over the shift / 交接班",
    str(Action.TAKE_OFF): "Take a person off / 回避或移出人员",
    str(Action.ASSIGN): "Assign a person / 指派人员",
    str(Action.REGRADE): "Change the grade / 调整级别",
    str(Action.TOLD_OTHERWISE): "People were told otherwise / 已通过其他方式告知",
    str(Action.CORRECT): "An entry was a mistake / 更正误记",
    str(Action.WIDEN): "More is affected / 扩大影响范围",
    str(Action.CANCEL): "Cancel: it was none / 撤销（误报）",
}


def _choice(title: str, description: str, known: dict[str, str], section: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        enum=[None, *known],
        values_display=known,
        title=title,
        description=description,
        section=section,
    )
