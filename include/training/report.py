"""The report of `remind_training`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import result_of
from include.messages import Message, _
from include.notify.sending import STEP_SEND, messages
from include.policy.rules import Control
from include.reports.conclusion import Conclusion, worst
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
from include.training import standing
from include.training.obligations import SOON
from include.training.plan import TrainingPlan
from include.training.rules import TrainingRules
from include.training.standing import CLAUSE, OVERDUE_FILE, STEP_PLAN, TOPICS, Point
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

_TITLE = _("Training reminders")
_MOST_BARS = 40  # departments in the chart; the table has all


def conclude(run: RunContext[TrainingRules], records: RunRecords) -> Conclusion:
    """Judge a run by the records of its steps."""
    steps = {STEP_PLAN: _("The plan"), STEP_SEND: _("The sending")}
    findings = [*records.findings, *records.missing("training", steps, CLAUSE)]
    plan = result_of(records.find(STEP_PLAN), TrainingPlan)
    sent = records.find(STEP_SEND)
    target = _target(run.controls)
    with run.state.connect() as conn:
        trend = standing.trend(conn, run.clock.now())
    sections = _sections(plan, target, trend) if plan else []
    return Conclusion(
        title=_TITLE,
        summary=_summary(plan),
        outcome=worst(records.records, findings),
        findings=findings,
        metrics=records.metrics,
        facts=_facts(plan, sent, target),
        sections=[*sections, *([messages(sent)] if sent is not None else [])],
    )


def _target(controls: Sequence[Control]) -> float | None:
    """The share of people that the policy asks for, from 0 to 1."""
    for one in controls:
        if one.indicator.name == "training_coverage":
            figure = one.indicator.target.lstrip("<>= ")
            return float(figure.rstrip("%")) / (100 if figure.endswith("%") else 1)
    return None


def _share(plan: TrainingPlan) -> float | None:
    """Rounded down: a share just below the target must not read like it."""
    if not plan.people:
        return None
    return float(math.floor(plan.covered / plan.people * 10_000) / 10_000)


def _summary(plan: TrainingPlan | None) -> Message:
    if plan is None:
        return _("Nobody could see who is trained.")
    share = _share(plan)
    if share is None:
        return _("The roster has nobody who has to be trained.")
    if not plan.whole:
        return _("People or courses are missing in the records: nobody can say who is trained.")
    values = {
        "covered": plan.covered,
        "people": plan.people,
        "share": share,
        "overdue": plan.overdue_all,
        "untrained": _without(plan),
    }
    if _without(plan):
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


def _facts(plan: TrainingPlan | None, sent: StepRecord | None, target: float | None) -> list[Fact]:
    whole = plan is not None and plan.whole
    share = _share(plan) if plan and whole else None
    without = _without(plan) if plan and whole else None
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
        Fact(label=_("Courses overdue"), value=plan.overdue_all if plan else None),
        Fact(
            label=_("Messages sent in this run"),
            value=told,
            note=None if plan is None or plan.workday else _("today is a day off"),
        ),
    ]


def _without(plan: TrainingPlan) -> int:
    """Who may open customer records and has no valid training: people who left among them."""
    return int(plan.untrained_all + plan.not_employed)


def _zero(count: int) -> Outcome:
    return Outcome.FAIL if count else Outcome.PASS


def _sections(plan: TrainingPlan, target: float | None, trend: Sequence[Point]) -> list[Section]:
    return [
        _coverage(plan, target, trend),
        *([_untrained(plan)] if plan.untrained else []),
        _overdue(plan),
        *([_waived(plan)] if plan.waived else []),
    ]


def _coverage(plan: TrainingPlan, target: float | None, trend: Sequence[Point]) -> Section:
    departments = plan.departments
    line = None if target is None else Target(value=target, label=_("Target"))
    shares = [(one, one.covered / one.people if one.people else None) for one in departments]
    shares.sort(key=lambda one: (one[1] is None, one[1] or 0, one[0].name))
    bars = [
        Bar(
            label=one.name,
            value=share,
            status=None
            if share is None or target is None
            else (Outcome.PASS if share >= target else Outcome.FAIL),
        )
        for one, share in shares[:_MOST_BARS]
    ]
    rows: list[list[Cell]] = [
        [
            one.name,
            one.people,
            one.covered,
            share,
            one.overdue,
            one.soon,
            one.on_leave,
        ]
        for one, share in shares
    ]
    topics: list[list[Cell]] = [
        [
            TOPICS.get(one.name, one.name),
            one.courses,
            one.obligations,
            one.overdue,
            1 - one.overdue / one.obligations if one.obligations else None,
        ]
        for one in plan.topics
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


def _untrained(plan: TrainingPlan) -> Section:
    rows: list[list[Cell]] = [
        [
            one.person,
            one.department,
            _("never passed") if one.onboarding else _("passed"),
            one.overdue,
        ]
        for one in plan.untrained
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
                caption=_shown(_("People"), len(rows), plan.untrained_all),
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


def _overdue(plan: TrainingPlan) -> Section:
    today = plan.day
    rows: list[list[Cell]] = []
    for one in plan.overdue:
        due = one.due_on
        rows.append([one.person, one.department, one.title, due, (today - due).days])
    text = _("All of them are in the file {file}.", file=OVERDUE_FILE)
    blocks: list[Block] = [Paragraph(text=text if rows else _("No course is overdue."))]
    if rows:
        blocks.append(
            Table(
                caption=_shown(_("Overdue courses"), len(rows), plan.overdue_all),
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


def _waived(plan: TrainingPlan) -> Section:
    rows: list[list[Cell]] = [
        [
            one.person,
            one.course,
            one.until,
            one.reason if one.waives else _("waives nothing: no such person or course"),
        ]
        for one in plan.waived
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
