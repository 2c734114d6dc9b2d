"""What a run of `review_intake` adds up to, for machines and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from include.approvals.registry import APPROVE
from include.evidence.model import Approval, Finding, Metric, Outcome, StepRecord
from include.intake.names import (
    CLAUSE,
    STEP_BATCHES,
    STEP_CHECK,
    STEP_REVIEW,
    STEP_SETTLE,
    STEP_VERIFY,
)
from include.messages import Message, _
from include.reports.conclusion import Conclusion, by_step, missing_record, worst
from include.reports.model import (
    Bar,
    BarChart,
    Column,
    Fact,
    Paragraph,
    Section,
    Steps,
    Table,
    Target,
)

TITLE = _("Review before storing")
MOST_RULES = 30  # bars of broken rules; the table of batches counts them all

Records = Mapping[tuple[str, str], StepRecord]


def conclude(
    records: Sequence[StepRecord],
    *,
    hours: float | None = None,
    approvals: Sequence[Approval] = (),
) -> Conclusion:
    """Judge a run: no batch waits past its deadline, and each record let in had its reviewer.

    Args:
        records: what the steps left.
        hours: the shortest deadline of the pack, for the chart; None when it has no intake.
        approvals: decisions of this run.
    """
    steps = by_step(records)
    asked = _asked(steps)
    findings = [finding for record in records for finding in record.findings]
    findings += _missing(steps, asked)
    outcome = worst(records, findings)
    verify = steps.get((STEP_VERIFY, ""))
    figures = verify.data if verify else {}
    return Conclusion(
        title=TITLE,
        summary=_summary(asked, _more(steps), steps, figures, outcome),
        outcome=outcome,
        findings=findings,
        metrics=[
            *(metric for record in records for metric in record.metrics),
            Metric(
                name="intake_batches_past_deadline", value=figures.get("past_deadline"), unit="1"
            ),
            Metric(
                name="formal_records_without_independent_review",
                value=figures.get("unreviewed"),
                unit="rows",
            ),
        ],
        facts=_facts(steps, asked, _more(steps), figures),
        sections=[
            _batches(steps, asked),
            _decisions(steps, asked),
            *_rules(steps, asked),
            *_waits(steps, asked, hours),
            _meaning(),
        ],
        approvals=list(approvals),
    )


def _asked(steps: Records) -> list[str]:
    record = steps.get((STEP_BATCHES, ""))
    return list(record.data.get("batches", ())) if record else []


def _more(steps: Records) -> int:
    """Batches that waited and were not asked about."""
    record = steps.get((STEP_BATCHES, ""))
    if record is None:
        return 0
    data = record.data
    return sum(map(int, data.get("left", {}).values())) + int(data.get("unfit", 0))


def _missing(steps: Records, asked: Sequence[str]) -> list[Finding]:
    if (STEP_BATCHES, "") not in steps:
        return [missing_record(_("The search"), "review_intake", "intake.missing", CLAUSE)]
    findings = []
    names = {
        STEP_CHECK: _("The check"),
        STEP_REVIEW: _("The review"),
        STEP_SETTLE: _("The settlement"),
    }
    for part in asked:
        for step, name in names.items():
            record = steps.get((step, part))
            if record is None:
                findings.append(missing_record(name, part, f"intake.{step}.missing", CLAUSE))
                break
            if record.outcome is Outcome.FAIL:
                break  # it says itself why the batch went no further
    if (STEP_VERIFY, "") not in steps:
        findings.append(
            missing_record(_("The count"), "review_intake", "intake.verify.missing", CLAUSE)
        )
    return findings


def _summary(
    asked: Sequence[str],
    more: int,
    steps: Records,
    figures: Mapping[str, Any],
    outcome: Outcome,
) -> Message:
    decided = sum(1 for part in asked if _decision(steps, part))
    late = figures.get("past_deadline")
    if late:
        return _("{count} batches still wait for their review, past their deadline.", count=late)
    if outcome is Outcome.FAIL:
        return _("Something is wrong with the review of collected records: see the findings.")
    if late is None:
        return _("The policy pack names no incoming table (intake.yaml).")
    if not asked:
        return _("No collected record waits for its review.")
    if decided < len(asked):
        return _(
            "{decided} of {asked} batches were reviewed; the others wait within their deadline.",
            decided=decided,
            asked=len(asked) + more,
        )
    if more:
        return _(
            "All {asked} batches that were asked about were reviewed; {more} more wait within "
            "their deadline.",
            asked=len(asked),
            more=more,
        )
    return _("All {asked} batches that waited were reviewed.", asked=len(asked))


def _decision(steps: Records, part: str) -> Mapping[str, Any] | None:
    """The answer that counted, None without one."""
    record = steps.get((STEP_REVIEW, part))
    return record.data if record and "reason" in record.data else None


def _figure(steps: Records, asked: Sequence[str], name: str) -> int:
    return sum(
        int(record.data.get(name) or 0)
        for part in asked
        if (record := steps.get((STEP_SETTLE, part)))
    )


def _facts(
    steps: Records, asked: Sequence[str], more: int, figures: Mapping[str, Any]
) -> list[Fact]:
    waited = len(asked) + more
    decided = sum(1 for part in asked if _decision(steps, part))
    late, unreviewed = figures.get("past_deadline"), figures.get("unreviewed")
    return [
        Fact(
            label=_("Batches reviewed"),
            value=_("{made} of {wanted}", made=decided, wanted=waited),
            status=Outcome.PASS if decided == waited else Outcome.ATTENTION,
        ),
        Fact(
            label=_("Batches past their deadline"),
            value=late,
            status=None if late is None else Outcome.FAIL if late else Outcome.PASS,
            note=_("still waiting at the end of the run"),
        ),
        Fact(label=_("Records let in"), value=_figure(steps, asked, "promoted"), unit="records"),
        Fact(
            label=_("Records set aside"),
            value=_figure(steps, asked, "set_aside"),
            unit="records",
            note=_("they break a rule"),
        ),
        Fact(
            label=_("Records let in without independent review"),
            value=unreviewed,
            status=None if unreviewed is None else Outcome.FAIL if unreviewed else Outcome.PASS,
        ),
    ]


def _batches(steps: Records, asked: Sequence[str]) -> Section:
    rows: list[list[Any]] = []
    for part in asked:
        checked, settled = steps.get((STEP_CHECK, part)), steps.get((STEP_SETTLE, part))
        data = checked.data if checked else {}
        done = settled.data if settled else {}
        broken = [one["broken"] for one in data.get("rules", ()) if one["broken"]]
        rows.append(
            [
                part,
                data.get("rows"),
                _moment(data.get("oldest")),
                ", ".join(data.get("enterers", ())) or None,
                len(broken) if data else None,
                done.get("promoted", 0) if settled else None,
                done.get("set_aside", 0) if settled else None,
                done.get("rejected", 0) if settled else None,
            ]
        )
    return Section(
        heading=_("Batches of this run"),
        blocks=[
            Table(
                caption=_(
                    "Oldest first; a person is named by user id. Rules broken: when the batch was "
                    "checked, before the question; let in, set aside and rejected: when it was "
                    "settled, by the rules as they were broken then"
                ),
                columns=[
                    Column(label=_("Batch"), kind="code"),
                    Column(label=_("Records"), kind="number"),
                    Column(label=_("Entered"), kind="datetime"),
                    Column(label=_("Entered by"), kind="code"),
                    Column(label=_("Rules broken at the check"), kind="number"),
                    Column(label=_("Let in"), kind="number"),
                    Column(label=_("Set aside"), kind="number"),
                    Column(label=_("Rejected"), kind="number"),
                ],
                rows=rows,
            )
        ],
    )


def _decisions(steps: Records, asked: Sequence[str]) -> Section:
    rows: list[list[Any]] = []
    for part in asked:
        found = _decision(steps, part)
        checked = steps.get((STEP_CHECK, part))
        if not found:
            rows.append([part, _("none"), None, None, None, None])
            continue
        oldest = _moment(checked.data.get("oldest")) if checked else None
        at = datetime.fromisoformat(found["decided_at"])
        rows.append(
            [
                part,
                _("approved") if found["decision"] == APPROVE else _("rejected"),
                found["decided_by"],
                at,
                (at - oldest).total_seconds() if oldest else None,
                found["reason"] or "—",
            ]
        )
    return Section(
        heading=_("Decisions"),
        blocks=[
            Table(
                caption=_("Each is bound to the hash of the batch; result.json names it"),
                columns=[
                    Column(label=_("Batch"), kind="code"),
                    Column(label=_("Decision")),
                    Column(label=_("Decided by"), kind="code"),
                    Column(label=_("Decided"), kind="datetime"),
                    Column(label=_("Waited"), kind="duration"),
                    Column(label=_("Reason")),
                ],
                rows=rows,
            )
        ],
    )


def _rules(steps: Records, asked: Sequence[str]) -> list[Section]:
    broken: dict[str, int] = {}
    titles: dict[str, Message] = {}
    for part in asked:
        checked = steps.get((STEP_CHECK, part))
        for one in checked.data.get("rules", ()) if checked else ():
            broken[one["rule"]] = broken.get(one["rule"], 0) + int(one["broken"] or 0)
            titles[one["rule"]] = Message.model_validate(one["title"])
    worst = sorted(((count, rule) for rule, count in broken.items() if count), reverse=True)
    if not worst:
        return []
    return [
        Section(
            heading=_("Records that break a rule"),
            blocks=[
                BarChart(
                    caption=_(
                        "By rule, when the batches were checked; what was let in since can make "
                        "more be set aside"
                    ),
                    category=_("Rule"),
                    unit="records",
                    bars=[
                        Bar(label=titles[rule], value=count) for count, rule in worst[:MOST_RULES]
                    ],
                )
            ],
        )
    ]


def _waits(steps: Records, asked: Sequence[str], hours: float | None) -> list[Section]:
    bars = []
    for part in asked:
        found, checked = _decision(steps, part), steps.get((STEP_CHECK, part))
        oldest = _moment(checked.data.get("oldest")) if checked else None
        due = _moment(checked.data.get("due")) if checked else None
        if not found or oldest is None or due is None:
            continue
        at = datetime.fromisoformat(found["decided_at"])
        status = Outcome.ATTENTION if at > due else Outcome.PASS
        bars.append(Bar(label=part, value=(at - oldest).total_seconds(), status=status))
    if not bars:
        return []
    target = Target(value=hours * 3600, label=_("deadline")) if hours else None
    return [
        Section(
            heading=_("How long the batches waited"),
            blocks=[
                BarChart(
                    caption=_("From entry to decision"),
                    category=_("Batch"),
                    unit="seconds",
                    bars=bars,
                    target=target,
                )
            ],
        )
    ]


def _meaning() -> Section:
    return Section(
        heading=_("What this report proves, and what it does not"),
        blocks=[
            Paragraph(
                text=_(
                    "A batch is let in by one decision of a reviewer who entered none of its "
                    "records and whom the policy pack entitles."
                )
            ),
            Steps(
                items=[
                    _(
                        "Every record was held against the rules; one that could not be checked "
                        "is a finding. Reviewers saw a masked sample."
                    ),
                    _("What was let in is, by hash, what was decided on."),
                    _(
                        "Independent review is shown for the records of this run; other ways into "
                        "the formal tables are not looked at here."
                    ),
                ]
            ),
        ],
    )


def _moment(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
