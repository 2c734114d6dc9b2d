"""Build the report of the workflow `remind_training`."""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.model import Outcome
from include.evidence.step_findings import result_of
from include.messages import Message, _
from include.notify.sending import SEND_TITLE, STEP_SEND, SentMessages
from include.policy.rules import Control
from include.reports.conclusion import Conclusion
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Fact,
    Paragraph,
    Section,
    Target,
    TrendChart,
    TrendPoint,
    must_be_zero,
    table_of,
)
from include.training import training_status
from include.training.obligations import SOON_DAYS, share_of
from include.training.plan import PLAN, TrainingPlan
from include.training.rules import TrainingRules
from include.training.training_status import CLAUSE, TOPICS, CoveragePoint
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

_MAX_BARS = 40  # departments in the chart; the table lists all departments


def conclude(run: RunContext[TrainingRules], records: RunRecords) -> Conclusion:
    """Build the report of a run from the records of its steps."""
    steps = {(PLAN.name, ""): PLAN.title, (STEP_SEND, ""): SEND_TITLE}
    plan = records.result(PLAN)
    target = _target(run.controls)
    with run.state.connect() as conn:
        trend = training_status.coverage_trend(conn, run.clock.now())
    return records.conclude(
        _("Training reminders"),
        _summary(plan),
        findings=records.missing("training", CLAUSE, steps),
        facts=_facts(plan, result_of(records.find(STEP_SEND), SentMessages), target),
        sections=_sections(plan, target, trend) if plan else (),
    )


def _target(controls: Sequence[Control]) -> float | None:
    """Return the training coverage that the controls require, from 0 to 1.

    Return None if no control has the training coverage as its indicator.
    """
    for control in controls:
        if control.indicator.name == "training_coverage":
            figure = control.indicator.target.lstrip("<>= ")
            return float(figure.rstrip("%")) / (100 if figure.endswith("%") else 1)
    return None


def _share(plan: TrainingPlan) -> float | None:
    """Return the training coverage from 0 to 1, or None if no person needs training."""
    return share_of(plan.covered, plan.people)


def _summary(plan: TrainingPlan | None) -> Message:
    if plan is None:
        return _("The training of people could not be checked.")
    share = _share(plan)
    if share is None:
        return _("The roster has no people who need training.")
    if not plan.whole:
        return _(
            "The records of people or of courses are incomplete, so the coverage of training "
            "is not known."
        )
    values = {"covered": plan.covered, "people": plan.people, "share": share}
    if untrained := _untrained_count(plan):
        return _(
            "{covered} of {people} people ({share:percent}) have no overdue course; "
            "{untrained} people have access to customer records although they have no valid "
            "training or are not employed.",
            untrained=untrained,
            **values,
        )
    return _(
        "{covered} of {people} people ({share:percent}) have no overdue course; {overdue} "
        "courses are overdue.",
        overdue=plan.overdue_all,
        **values,
    )


def _facts(
    plan: TrainingPlan | None, sent: SentMessages | None, target: float | None
) -> list[Fact]:
    measured = plan if plan and plan.whole else None
    share = _share(measured) if measured else None
    untrained = _untrained_count(measured) if measured else None
    return [
        Fact(
            label=_("Share of trained people"),
            value=share,
            unit="percent",
            status=_target_outcome(share, target),
            note=_("at least {target:percent}", target=target) if target is not None else None,
        ),
        Fact(
            label=_("People who should not have access"),
            value=untrained,
            unit="people",
            status=must_be_zero(untrained),
            note=_(
                "{untrained} without valid training, {not_employed} not employed",
                untrained=measured.untrained_all,
                not_employed=measured.not_employed,
            )
            if measured
            else None,
        ),
        Fact(label=_("Courses overdue"), value=plan.overdue_all if plan else None),
        Fact(
            label=_("Messages sent in this run"),
            value=sent.messages if sent else None,
            note=None
            if plan is None or plan.workday
            else _("today is a day off, so no reminders are sent"),
        ),
    ]


def _untrained_count(plan: TrainingPlan) -> int:
    """Return the number of people who may access customer records but have no valid training.

    People who have access although they are not employed are counted as well.
    """
    return int(plan.untrained_all + plan.not_employed)


def _target_outcome(share: float | None, target: float | None) -> Outcome | None:
    if share is None or target is None:
        return None
    return Outcome.PASS if share >= target else Outcome.FAIL


def _sections(
    plan: TrainingPlan, target: float | None, trend: Sequence[CoveragePoint]
) -> list[Section]:
    return [
        _coverage(plan, target, trend),
        *([_untrained(plan)] if plan.untrained else []),
        _overdue(plan),
        *([_waived(plan)] if plan.waived else []),
    ]


def _coverage(plan: TrainingPlan, target: float | None, trend: Sequence[CoveragePoint]) -> Section:
    line = None if target is None else Target(value=target, label=_("Target"))
    departments = sorted(
        plan.departments,
        key=lambda department: (not department.people, department.share or 0, department.name),
    )
    blocks: list[Block] = [
        Paragraph(
            text=_(
                "A person without an overdue course today counts as trained. People on leave "
                "and waived courses are not counted."
            )
        ),
        BarChart(
            caption=_("People without an overdue course, by department"),
            category=_("Department"),
            unit="percent",
            bars=[
                Bar(
                    label=department.name,
                    value=department.share,
                    status=_target_outcome(department.share, target),
                )
                for department in departments[:_MAX_BARS]
            ],
            target=line,
        ),
        TrendChart(
            caption=_("People without an overdue course, over time"),
            unit="percent",
            points=[TrendPoint(at=point.at, value=point.share) for point in trend],
            target=line,
        ),
        table_of(
            _("Departments"),
            departments,
            [
                (_("Department"), "text", lambda department: department.name),
                (_("People"), "number", lambda department: department.people),
                (_("Without overdue course"), "number", lambda department: department.covered),
                (_("Share"), "percent", lambda department: department.share),
                (_("Courses overdue"), "number", lambda department: department.overdue),
                (
                    _("Due in {days} days", days=SOON_DAYS),
                    "number",
                    lambda department: department.soon,
                ),
                (_("On leave"), "number", lambda department: department.on_leave),
            ],
        ),
        table_of(
            _("Topics"),
            plan.topics,
            [
                (_("Topic"), "text", lambda topic: TOPICS.get(topic.name, topic.name)),
                (_("Courses"), "number", lambda topic: topic.courses),
                (_("Required course completions"), "number", lambda topic: topic.obligations),
                (_("Overdue"), "number", lambda topic: topic.overdue),
                (_("Share not overdue"), "percent", lambda topic: topic.share_in_time),
            ],
        ),
    ]
    return Section(heading=_("Coverage"), blocks=blocks)


def _untrained(plan: TrainingPlan) -> Section:
    return Section(
        heading=_("People with access but without valid training"),
        blocks=[
            Paragraph(
                text=_(
                    "Each of these people has access to customer records, and either has not "
                    "passed the onboarding course or has an overdue course."
                )
            ),
            table_of(
                _list_caption(_("People"), len(plan.untrained), plan.untrained_all),
                plan.untrained,
                [
                    (_("Staff number"), "code", lambda person: person.person),
                    (_("Department"), "text", lambda person: person.department),
                    (
                        _("Onboarding"),
                        "text",
                        lambda person: _("never passed") if person.onboarding else _("passed"),
                    ),
                    (_("Courses overdue"), "number", lambda person: person.overdue),
                ],
            ),
        ],
    )


def _overdue(plan: TrainingPlan) -> Section:
    if not plan.overdue:
        nothing_overdue = Paragraph(text=_("No course is overdue."))
        return Section(heading=_("Overdue"), blocks=[nothing_overdue])
    table = table_of(
        _list_caption(_("Overdue courses"), len(plan.overdue), plan.overdue_all),
        plan.overdue,
        [
            (_("Staff number"), "code", lambda due: due.person),
            (_("Department"), "text", lambda due: due.department),
            (_("Course"), "text", lambda due: due.title),
            (_("Due"), "text", lambda due: due.due_on),
            (_("Days overdue"), "number", lambda due: (plan.day - due.due_on).days),
        ],
    )
    file_note = Paragraph(text=_("A table file in this evidence bundle lists all overdue courses."))
    return Section(heading=_("Overdue"), blocks=[file_note, table])


def _waived(plan: TrainingPlan) -> Section:
    table = table_of(
        _("Courses waived for a limited time"),
        plan.waived,
        [
            (_("Staff number"), "code", lambda waiver: waiver.person),
            (_("Course"), "code", lambda waiver: waiver.course),
            (_("Until"), "text", lambda waiver: waiver.until),
            (
                _("Reason"),
                "text",
                lambda waiver: (
                    waiver.reason
                    if waiver.waives
                    else _("the waiver has no effect: its person or course does not exist")
                ),
            ),
        ],
    )
    return Section(heading=_("Waived"), blocks=[table])


def _list_caption(title: Message, shown: int, every: int) -> Message:
    if shown == every:
        return title
    return _("{title}: the first {shown} of {total}", title=title, shown=shown, total=every)
