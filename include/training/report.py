"""What `remind_training` says to compliance staff."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from include.evidence.model import Outcome, StepRecord
from include.messages import Message, _
from include.notify.report import messages
from include.policy.rules import Control
from include.reports.conclusion import Conclusion, by_step, missing_record, worst
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Cell,
    Column,
    Fact,
    Paragraph,
    Section,
    Table,
    Target,
    TrendChart,
    TrendPoint,
)
from include.training.coverage import Point
from include.training.names import CLAUSE, OVERDUE_FILE, STEP_PLAN, TOPICS
from include.training.obligations import SOON

_TITLE = _("Training reminders")
_MOST_BARS = 40  # departments in the chart; the table has all


def conclude(
    records: Sequence[StepRecord],
    *,
    controls: Sequence[Control],
    trend: Sequence[Point],
    send: str,
) -> Conclusion:
    """Judge a run from what its steps left.

    Args:
        records: of the run.
        controls: of the workflow, for the target of the coverage.
        trend: of the coverage, the oldest first.
        send: name of the step that sends.
    """
    found = by_step(records)
    planned = found.get((STEP_PLAN, ""))
    told = [one for record in records for one in record.findings]
    if not any(one.outcome is Outcome.FAIL for one in records):
        steps = {STEP_PLAN: _("The plan"), send: _("The sending")}
        told += [
            missing_record(title, step, f"training.{step}.missing", CLAUSE)
            for step, title in steps.items()
            if (step, "") not in found
        ]
    data = planned.data if planned is not None and "departments" in planned.data else None
    sent = found.get((send, ""))
    sections = _sections(data, _target(controls), trend) if data else []
    return Conclusion(
        title=_TITLE,
        summary=_summary(data, sent),
        outcome=worst(records, told),
        findings=told,
        metrics=[one for record in records for one in record.metrics],
        facts=_facts(data, sent, _target(controls)),
        sections=[*sections, *([messages(sent)] if sent is not None else [])],
    )


def nothing_to_train(records: Sequence[StepRecord]) -> Conclusion:
    """Say that the pack has no training.yaml: nothing was done, and nothing is shown."""
    return Conclusion(
        title=_TITLE,
        summary=_("The policy pack has no training.yaml: nobody is reminded of courses."),
        outcome=worst(records, []),
        findings=[one for record in records for one in record.findings],
        metrics=[],
    )


def _target(controls: Sequence[Control]) -> float | None:
    """The share of people that the policy asks for, from 0 to 1."""
    for one in controls:
        if one.indicator.name == "training_coverage":
            figure = one.indicator.target.lstrip("<>= ")
            return float(figure.rstrip("%")) / (100 if figure.endswith("%") else 1)
    return None


def _share(data: Mapping[str, Any]) -> float | None:
    """Rounded down: a share just below the target must not read like it."""
    if not data["people"]:
        return None
    return float(math.floor(data["covered"] / data["people"] * 10_000) / 10_000)


def _summary(data: Mapping[str, Any] | None, sent: StepRecord | None) -> Message:
    if data is None:
        return _("Nobody could see who is trained.")
    share = _share(data)
    if share is None:
        return _("The roster has nobody who has to be trained.")
    if not data["whole"]:
        return _("People or courses are missing in the records: nobody can say who is trained.")
    values = {
        "covered": data["covered"],
        "people": data["people"],
        "share": share,
        "overdue": data["overdue_all"],
        "untrained": _without(data),
    }
    if _without(data):
        return _(
            "{covered} of {people} people ({share:percent}) have no overdue course; {untrained} "
            "may open customer records without valid training.",
            **values,
        )
    return _(
        "{covered} of {people} people ({share:percent}) have no overdue course; courses overdue: "
        "{overdue}.",
        **values,
    )


def _facts(
    data: Mapping[str, Any] | None, sent: StepRecord | None, target: float | None
) -> list[Fact]:
    whole = data is not None and data["whole"]
    share = _share(data) if data and whole else None
    without = _without(data) if data and whole else None
    status = None
    if share is not None and target is not None:
        status = Outcome.PASS if share >= target else Outcome.FAIL
    told = sent.data.get("messages") if sent is not None else None
    return [
        Fact(
            label=_("Trained"),
            value=share,
            unit="percent",
            status=status,
            note=_("at least {target:percent}", target=target) if target is not None else None,
        ),
        Fact(
            label=_("Access without valid training"),
            value=without,
            unit="people",
            status=None if without is None else _zero(without),
        ),
        Fact(label=_("Courses overdue"), value=data["overdue_all"] if data else None),
        Fact(
            label=_("Messages sent in this run"),
            value=told,
            note=None if data is None or data["workday"] else _("today is a day off"),
        ),
    ]


def _without(data: Mapping[str, Any]) -> int:
    """Who may open customer records and has no valid training: people who left among them."""
    return int(data["untrained_all"] + data["not_employed"])


def _zero(count: int) -> Outcome:
    return Outcome.FAIL if count else Outcome.PASS


def _sections(
    data: Mapping[str, Any], target: float | None, trend: Sequence[Point]
) -> list[Section]:
    return [
        _coverage(data, target, trend),
        *([_untrained(data)] if data["untrained"] else []),
        _overdue(data),
        *([_waived(data)] if data["waived"] else []),
    ]


def _coverage(data: Mapping[str, Any], target: float | None, trend: Sequence[Point]) -> Section:
    departments = data["departments"]
    line = None if target is None else Target(value=target, label=_("Target"))
    shares = [
        (one, one["covered"] / one["people"] if one["people"] else None) for one in departments
    ]
    shares.sort(key=lambda one: (one[1] is None, one[1] or 0, one[0]["name"]))
    bars = [
        Bar(
            label=one["name"],
            value=share,
            status=None
            if share is None or target is None
            else (Outcome.PASS if share >= target else Outcome.FAIL),
        )
        for one, share in shares[:_MOST_BARS]
    ]
    rows: list[list[Cell]] = [
        [
            one["name"],
            one["people"],
            one["covered"],
            share,
            one["overdue"],
            one["soon"],
            one["on_leave"],
        ]
        for one, share in shares
    ]
    topics: list[list[Cell]] = [
        [
            TOPICS.get(one["name"], one["name"]),
            one["courses"],
            one["obligations"],
            one["overdue"],
            1 - one["overdue"] / one["obligations"] if one["obligations"] else None,
        ]
        for one in data["topics"]
    ]
    blocks: list[Block] = [
        Paragraph(
            text=_(
                "Trained is whoever has no overdue course today. People on leave are not counted, "
                "waived courses neither."
            )
        ),
        BarChart(
            caption=_("People without an overdue course, by department"),
            category=_("Department"),
            unit="percent",
            bars=bars,
            target=line,
        ),
        TrendChart(
            caption=_("People without an overdue course, over time"),
            unit="percent",
            points=[TrendPoint(at=one.at, value=one.share) for one in trend],
            target=line,
        ),
        Table(
            caption=_("Departments"),
            columns=[
                Column(label=_("Department")),
                Column(label=_("People"), kind="number"),
                Column(label=_("Without overdue course"), kind="number"),
                Column(label=_("Share"), kind="percent"),
                Column(label=_("Courses overdue"), kind="number"),
                Column(label=_("Due in {days} days", days=SOON), kind="number"),
                Column(label=_("On leave"), kind="number"),
            ],
            rows=rows,
        ),
        Table(
            caption=_("Topics"),
            columns=[
                Column(label=_("Topic")),
                Column(label=_("Courses"), kind="number"),
                Column(label=_("Obligations"), kind="number"),
                Column(label=_("Overdue"), kind="number"),
                Column(label=_("Share in time"), kind="percent"),
            ],
            rows=topics,
        ),
    ]
    return Section(heading=_("Coverage"), blocks=blocks)


def _untrained(data: Mapping[str, Any]) -> Section:
    rows: list[list[Cell]] = [
        [
            one["person"],
            one["department"],
            _("never passed") if one["onboarding"] else _("passed"),
            one["overdue"],
        ]
        for one in data["untrained"]
    ]
    return Section(
        heading=_("Access without valid training"),
        blocks=[
            Paragraph(
                text=_(
                    "These people may open customer records, and have not passed the onboarding "
                    "course or have an overdue course."
                )
            ),
            Table(
                caption=_shown(_("People"), len(rows), data["untrained_all"]),
                columns=[
                    Column(label=_("Staff number"), kind="code"),
                    Column(label=_("Department")),
                    Column(label=_("Onboarding")),
                    Column(label=_("Courses overdue"), kind="number"),
                ],
                rows=rows,
            ),
        ],
    )


def _overdue(data: Mapping[str, Any]) -> Section:
    today = date.fromisoformat(data["day"])
    rows: list[list[Cell]] = []
    for one in data["overdue"]:
        due = date.fromisoformat(one["due_on"])
        rows.append([one["person"], one["department"], one["title"], due, (today - due).days])
    text = _("All of them are in the file {file}.", file=OVERDUE_FILE)
    blocks: list[Block] = [Paragraph(text=text if rows else _("No course is overdue."))]
    if rows:
        blocks.append(
            Table(
                caption=_shown(_("Overdue courses"), len(rows), data["overdue_all"]),
                columns=[
                    Column(label=_("Staff number"), kind="code"),
                    Column(label=_("Department")),
                    Column(label=_("Course")),
                    Column(label=_("Due")),
                    Column(label=_("Days overdue"), kind="number"),
                ],
                rows=rows,
            )
        )
    return Section(heading=_("Overdue"), blocks=blocks)


def _waived(data: Mapping[str, Any]) -> Section:
    rows: list[list[Cell]] = [
        [
            one["person"],
            one["course"],
            date.fromisoformat(one["until"]),
            one["reason"] if one["waives"] else _("waives nothing: no such person or course"),
        ]
        for one in data["waived"]
    ]
    return Section(
        heading=_("Waived"),
        blocks=[
            Table(
                caption=_("Courses that people need not take for a while"),
                columns=[
                    Column(label=_("Staff number"), kind="code"),
                    Column(label=_("Course"), kind="code"),
                    Column(label=_("Until")),
                    Column(label=_("Reason")),
                ],
                rows=rows,
            )
        ],
    )


def _shown(what: Message, shown: int, every: int) -> Message:
    if shown == every:
        return what
    return _("{what}: the first {shown} of {every}", what=what, shown=shown, every=every)
