"""The conclusion and report of a run of `review_intake`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from include.approvals import registry
from include.approvals.registry import APPROVE
from include.evidence.model import Approval, Finding, Metric, Outcome
from include.intake.names import CLAUSE
from include.intake.review import CHECK, FIND, REVIEW, BatchCheck, Review
from include.intake.settle import SETTLE, VERIFY, Settlement, Verification
from include.messages import Message, _
from include.reports.conclusion import Conclusion, missing_record
from include.reports.model import (
    Bar,
    BarChart,
    Fact,
    Paragraph,
    Section,
    Steps,
    Target,
    must_be_zero,
    table_of,
)
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

TITLE = _("Review before storing")
MOST_RULES = 30  # bars of broken rules; the table of batches counts them all


@dataclass(frozen=True)
class _Results:
    """The results of the steps of a run.

    Attributes:
        records: of the run.
        asked: batches that the run asks about.
        not_asked: number of other batches that wait.
        verification: counts after all settlements; None if they were not made.
    """

    records: RunRecords
    asked: Sequence[str]
    not_asked: int
    verification: Verification | None

    @cached_property
    def checks(self) -> dict[str, BatchCheck]:
        """The checks by batch."""
        return self.records.results(CHECK)

    @cached_property
    def decisions(self) -> dict[str, Review]:
        """The answers that count, by batch."""
        reviews = self.records.results(REVIEW)
        return {part: review for part, review in reviews.items() if review.counts}

    @cached_property
    def settlements(self) -> dict[str, Settlement]:
        """The settlements by batch."""
        return self.records.results(SETTLE)

    @property
    def decided(self) -> int:
        """The number of batches of this run that were decided on."""
        return sum(part in self.decisions for part in self.asked)

    def waited(self, part: str) -> float | None:
        """Return the seconds from the entry of a batch to its decision; None if not known."""
        decision, check = self.decisions.get(part), self.checks.get(part)
        if decision is None or check is None or check.oldest is None:
            return None
        return (decision.decided_at - check.oldest).total_seconds()


def conclude(run: RunContext[None], records: RunRecords) -> Conclusion:
    """Conclude a run: no batch waits past its deadline, and each record let in had its reviewer."""
    with run.state.connect() as conn:
        approvals = registry.approvals_of(conn, run.run.dag_id, run.run.run_id)
    deadlines = [rule.deadline.span for rule in run.pack.intake]
    hours = min(deadlines).total_seconds() / 3600 if deadlines else None
    return concluded(records, hours=hours, approvals=approvals)


def concluded(
    records: RunRecords, *, hours: float | None = None, approvals: Sequence[Approval] = ()
) -> Conclusion:
    """Return the conclusion of the records of a run.

    Args:
        records: of the run.
        hours: the shortest deadline of the pack, for the chart; None if it has no intake.
        approvals: decisions of this run.
    """
    waiting = records.result(FIND)
    results = _Results(
        records,
        waiting.batches if waiting else [],
        waiting.not_asked if waiting else 0,
        records.result(VERIFY),
    )
    findings = _missing(results)
    verification = results.verification
    return records.conclude(
        TITLE,
        _summary(results, records.outcome(findings)),
        findings=findings,
        metrics=[
            Metric(
                name="intake_batches_past_deadline",
                value=verification.past_deadline if verification else None,
                unit="1",
            ),
            Metric(
                name="formal_records_without_independent_review",
                value=verification.unreviewed if verification else None,
                unit="rows",
            ),
        ],
        facts=_facts(results),
        sections=[
            _batches(results),
            _decisions(results),
            *_rules(results),
            *_waits(results, hours),
            _meaning(),
        ],
        approvals=approvals,
    )


def _missing(results: _Results) -> list[Finding]:
    records = results.records
    if records.find(FIND.name) is None:
        return [missing_record(FIND.title, "review_intake", "intake.missing", CLAUSE)]
    findings = []
    for part in results.asked:
        for step in (CHECK, REVIEW, SETTLE):
            record = records.find(step.name, part)
            if record is None:
                code = f"intake.{step.name}.missing"
                findings.append(missing_record(step.title_of(part), part, code, CLAUSE))
                break
            if record.outcome is Outcome.FAIL:
                break  # its findings say why the batch went no further
    if records.find(VERIFY.name) is None:
        findings.append(
            missing_record(VERIFY.title, "review_intake", "intake.verify.missing", CLAUSE)
        )
    return findings


def _summary(results: _Results, outcome: Outcome) -> Message:
    asked, verification = len(results.asked), results.verification
    if verification and verification.past_deadline:
        return _(
            "{count} batches still wait for their review, past their deadline.",
            count=verification.past_deadline,
        )
    if outcome is Outcome.FAIL:
        return _("Something is wrong with the review of collected records: see the findings.")
    if verification is None:
        return _("The policy pack names no incoming table (intake.yaml).")
    if not asked:
        return _("No collected record waits for its review.")
    if results.decided < asked:
        return _(
            "{decided} of {asked} batches were reviewed; the others wait within their deadline.",
            decided=results.decided,
            asked=asked + results.not_asked,
        )
    if results.not_asked:
        return _(
            "All {asked} batches that were asked about were reviewed; {more} more wait within "
            "their deadline.",
            asked=asked,
            more=results.not_asked,
        )
    return _("All {asked} batches that waited were reviewed.", asked=asked)


def _facts(results: _Results) -> list[Fact]:
    waited = len(results.asked) + results.not_asked
    settled = [results.settlements[part] for part in results.asked if part in results.settlements]
    verification = results.verification
    late = verification.past_deadline if verification else None
    unreviewed = verification.unreviewed if verification else None
    return [
        Fact(
            label=_("Batches reviewed"),
            value=_("{made} of {wanted}", made=results.decided, wanted=waited),
            status=Outcome.PASS if results.decided == waited else Outcome.ATTENTION,
        ),
        Fact(
            label=_("Batches past their deadline"),
            value=late,
            status=must_be_zero(late),
            note=_("still waiting at the end of the run"),
        ),
        Fact(
            label=_("Records let in"),
            value=sum(settlement.promoted for settlement in settled),
            unit="records",
        ),
        Fact(
            label=_("Records set aside"),
            value=sum(settlement.set_aside for settlement in settled),
            unit="records",
            note=_("they break a rule"),
        ),
        Fact(
            label=_("Records let in without independent review"),
            value=unreviewed,
            status=must_be_zero(unreviewed),
        ),
    ]


def _batches(results: _Results) -> Section:
    rows = [
        (part, results.checks.get(part), results.settlements.get(part)) for part in results.asked
    ]
    table = table_of(
        _(
            "Oldest first; a person is named by user id. Rules broken: when the batch was "
            "checked, before the question; let in, set aside and rejected: when it was "
            "settled, by the rules as they were broken then"
        ),
        rows,
        [
            (_("Batch"), "code", lambda row: row[0]),
            (_("Records"), "number", lambda row: row[1].rows if row[1] else None),
            (_("Entered"), "datetime", lambda row: row[1].oldest if row[1] else None),
            (
                _("Entered by"),
                "code",
                lambda row: ", ".join(row[1].enterers) or None if row[1] else None,
            ),
            (
                _("Rules broken at the check"),
                "number",
                lambda row: sum(bool(rule.broken) for rule in row[1].rules) if row[1] else None,
            ),
            (_("Let in"), "number", lambda row: row[2].promoted if row[2] else None),
            (_("Set aside"), "number", lambda row: row[2].set_aside if row[2] else None),
            (_("Rejected"), "number", lambda row: row[2].rejected if row[2] else None),
        ],
    )
    return Section(heading=_("Batches of this run"), blocks=[table])


def _decisions(results: _Results) -> Section:
    table = table_of(
        _("Each is bound to the hash of the batch; result.json names it"),
        [(part, results.decisions.get(part)) for part in results.asked],
        [
            (_("Batch"), "code", lambda row: row[0]),
            (_("Decision"), "text", lambda row: _decision(row[1])),
            (_("Decided by"), "code", lambda row: row[1].decided_by if row[1] else None),
            (_("Decided"), "datetime", lambda row: row[1].decided_at if row[1] else None),
            (_("Waited"), "duration", lambda row: results.waited(row[0])),
            (_("Reason"), "text", lambda row: row[1].reason or "—" if row[1] else None),
        ],
    )
    return Section(heading=_("Decisions"), blocks=[table])


def _decision(review: Review | None) -> Message:
    if review is None:
        return _("none")
    return _("approved") if review.decision == APPROVE else _("rejected")


def _rules(results: _Results) -> list[Section]:
    broken: dict[str, int] = {}
    titles: dict[str, Message] = {}
    for part in results.asked:
        checked = results.checks.get(part)
        for verdict in checked.rules if checked else ():
            broken[verdict.rule] = broken.get(verdict.rule, 0) + (verdict.broken or 0)
            titles[verdict.rule] = verdict.title
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


def _waits(results: _Results, hours: float | None) -> list[Section]:
    bars = []
    for part in results.asked:
        waited = results.waited(part)
        if waited is None or (due := results.checks[part].due) is None:
            continue
        is_late = results.decisions[part].decided_at > due
        status = Outcome.ATTENTION if is_late else Outcome.PASS
        bars.append(Bar(label=part, value=waited, status=status))
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
