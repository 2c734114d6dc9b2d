"""Build the report of a run of the workflow `review_intake`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from include.approvals import registry
from include.approvals.reasons import reason_text
from include.approvals.registry import APPROVE
from include.evidence.model import Approval, Finding, Metric, Outcome
from include.intake.incoming import CLAUSE, split_part
from include.intake.review import CHECK, FIND, REVIEW, BatchCheck, Review
from include.intake.settle import SETTLE, VERIFY, Settlement, Verification
from include.messages import Message, _, listed
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
MAX_RULES = 30  # bars in the chart of broken rules; the table of batches has all rules


@dataclass(frozen=True)
class _Results:
    """The results of a run's steps from which the report is built.

    Attributes:
        records: step records of the run.
        submitted_batches: names of the batches that this run submits for review.
        not_asked: number of pending batches that this run does not submit for review.
        verification: result of the last step, which verifies the run; None if it has no result.
    """

    records: RunRecords
    submitted_batches: Sequence[str]
    not_asked: int
    verification: Verification | None

    @cached_property
    def checks(self) -> dict[str, BatchCheck]:
        """Return the check result of each batch, by batch name."""
        return self.records.results(CHECK)

    @cached_property
    def decisions(self) -> dict[str, Review]:
        """Return the reviewer's valid decision on each decided batch, by name of the batch."""
        reviews = self.records.results(REVIEW)
        return {part: review for part, review in reviews.items() if review.is_valid}

    @cached_property
    def settlements(self) -> dict[str, Settlement]:
        """Return the result of executing the decision on each batch, by name of the batch."""
        return self.records.results(SETTLE)

    def name_of(self, part: str) -> str:
        """Return the name of a batch, with its intake rule if the run has batches of several rules.

        Args:
            part: result of `Incoming.batch_label`.
        """
        several = len({split_part(batch)[0] for batch in self.submitted_batches}) > 1
        return part if several else split_part(part)[1]

    @property
    def decided(self) -> int:
        """Return the number of the submitted batches that have a valid decision."""
        return sum(part in self.decisions for part in self.submitted_batches)

    def waited(self, part: str) -> float | None:
        """Return the seconds between the earliest entry in a batch and the decision on the batch.

        The result is None if the batch has no valid decision or no valid time of entry.

        Args:
            part: name of the batch, such as ``customers/IN-000013``.
        """
        decision, check = self.decisions.get(part), self.checks.get(part)
        if decision is None or check is None or check.oldest is None:
            return None
        return (decision.decided_at - check.oldest).total_seconds()


def conclude(run: RunContext[None], records: RunRecords) -> Conclusion:
    """Build the report of a run of `review_intake` from its step records and approvals."""
    with run.state.connect() as conn:
        approvals = registry.approvals_of(conn, run.run.dag_id, run.run.run_id)
    deadlines = [rule.deadline.span for rule in run.pack.intake]
    hours = min(deadlines).total_seconds() / 3600 if deadlines else None
    return conclude_records(records, hours=hours, approvals=approvals)


def conclude_records(
    records: RunRecords, *, hours: float | None = None, approvals: Sequence[Approval] = ()
) -> Conclusion:
    """Build the report of a run of `review_intake` from its step records.

    Args:
        records: step records of the run.
        hours: shortest deadline for a review in the policy pack, in hours, which the chart shows;
            None if the policy pack has no intake rules.
        approvals: decisions on the approval requests of this run.
    """
    waiting = records.result(FIND)
    results = _Results(
        records,
        waiting.batches if waiting else [],
        waiting.not_asked if waiting else 0,
        records.result(VERIFY),
    )
    findings = _missing_records(results)
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


def _missing_records(results: _Results) -> list[Finding]:
    records = results.records
    if records.find(FIND.name) is None:
        return [
            missing_record(
                FIND.title, "review_intake", "intake.missing", CLAUSE, show_subject=False
            )
        ]
    findings = []
    for part in results.submitted_batches:
        for step in (CHECK, REVIEW, SETTLE):
            record = records.find(step.name, part)
            if record is None:
                code = f"intake.{step.name}.missing"
                findings.append(
                    missing_record(step.title_of(part), part, code, CLAUSE, show_subject=False)
                )
                break
            if record.outcome is Outcome.FAIL:
                break  # the findings of this step state why no further step ran
    if records.find(VERIFY.name) is None:
        findings.append(
            missing_record(
                VERIFY.title, "review_intake", "intake.verify.missing", CLAUSE, show_subject=False
            )
        )
    return findings


def _summary(results: _Results, outcome: Outcome) -> Message:
    asked_count, verification = len(results.submitted_batches), results.verification
    if verification and verification.past_deadline:
        return _(
            "{count} batches still wait for review after their deadline.",
            count=verification.past_deadline,
        )
    if outcome is Outcome.FAIL:
        return _("The review of collected records failed: see the findings.")
    if verification is None:
        return _("The policy pack names no incoming table, so no records have to be reviewed.")
    if not asked_count:
        return _("No collected records wait for review.")
    if results.decided < asked_count:
        return _(
            "{decided} of {total} batches were reviewed; the deadlines of the remaining "
            "batches have not passed.",
            decided=results.decided,
            total=asked_count + results.not_asked,
        )
    if results.not_asked:
        return _(
            "All {count} batches of this run were reviewed; {more} more batches wait for "
            "review, and their deadlines have not passed.",
            count=asked_count,
            more=results.not_asked,
        )
    return _("All {count} waiting batches were reviewed.", count=asked_count)


def _facts(results: _Results) -> list[Fact]:
    waiting_count = len(results.submitted_batches) + results.not_asked
    settlements = [
        results.settlements[part]
        for part in results.submitted_batches
        if part in results.settlements
    ]
    verification = results.verification
    overdue = verification.past_deadline if verification else None
    unreviewed = verification.unreviewed if verification else None
    return [
        Fact(
            label=_("Batches reviewed"),
            value=_("{count} of {total}", count=results.decided, total=waiting_count),
            status=Outcome.PASS if results.decided == waiting_count else Outcome.ATTENTION,
        ),
        Fact(
            label=_("Batches past their deadline"),
            value=overdue,
            status=must_be_zero(overdue),
            note=_("batches that were not reviewed by the end of the run"),
        ),
        Fact(
            label=_("Records accepted"),
            value=sum(settlement.promoted for settlement in settlements),
            unit="records",
        ),
        Fact(
            label=_("Records quarantined"),
            value=sum(settlement.set_aside for settlement in settlements),
            unit="records",
            note=_("records that break a rule"),
        ),
        Fact(
            label=_("Records accepted without independent review"),
            value=unreviewed,
            status=must_be_zero(unreviewed),
        ),
    ]


def _batches(results: _Results) -> Section:
    rows = [
        (part, results.checks.get(part), results.settlements.get(part))
        for part in results.submitted_batches
    ]
    table = table_of(
        _(
            "The oldest batch is first; people are shown by user id. The number of broken "
            "rules is from the check before the review. The numbers of accepted, quarantined "
            "and rejected records are from the execution of the decision, which checks the "
            "rules again."
        ),
        rows,
        [
            (_("Batch"), "text", lambda row: results.name_of(row[0])),
            (_("Records"), "number", lambda row: row[1].rows if row[1] else None),
            (_("Entered"), "datetime", lambda row: row[1].oldest if row[1] else None),
            (
                _("Entered by"),
                "text",
                lambda row: listed(row[1].enterers) if row[1] and row[1].enterers else None,
            ),
            (
                _("Rules broken before the review"),
                "number",
                lambda row: sum(bool(rule.broken) for rule in row[1].rules) if row[1] else None,
            ),
            (_("Accepted"), "number", lambda row: row[2].promoted if row[2] else None),
            (_("Quarantined"), "number", lambda row: row[2].set_aside if row[2] else None),
            (_("Rejected"), "number", lambda row: row[2].rejected if row[2] else None),
        ],
    )
    return Section(heading=_("Batches of this run"), blocks=[table])


def _decisions(results: _Results) -> Section:
    table = table_of(
        _(
            "Each decision is valid only for the content that the reviewer saw; the evidence "
            "bundle contains the hash of this content"
        ),
        [(part, results.decisions.get(part)) for part in results.submitted_batches],
        [
            (_("Batch"), "text", lambda row: results.name_of(row[0])),
            (_("Decision"), "text", lambda row: _decision(row[1])),
            (_("Decided by"), "code", lambda row: row[1].decided_by if row[1] else None),
            (_("Decided"), "datetime", lambda row: row[1].decided_at if row[1] else None),
            (_("Waiting time"), "duration", lambda row: results.waited(row[0])),
            (
                _("Reason"),
                "text",
                lambda row: reason_text(row[1].reason or "—") if row[1] else None,
            ),
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
    for part in results.submitted_batches:
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
                        "Numbers of records that broke each rule when the batches were checked "
                        "before the review. Records that were accepted after this check can "
                        "cause further records to be quarantined."
                    ),
                    category=_("Rule"),
                    unit="records",
                    bars=[
                        Bar(label=titles[rule], value=count) for count, rule in worst[:MAX_RULES]
                    ],
                )
            ],
        )
    ]


def _waits(results: _Results, hours: float | None) -> list[Section]:
    bars = []
    for part in results.submitted_batches:
        waited = results.waited(part)
        if waited is None or (due := results.checks[part].due) is None:
            continue
        is_late = results.decisions[part].decided_at > due
        status = Outcome.ATTENTION if is_late else Outcome.PASS
        bars.append(Bar(label=results.name_of(part), value=waited, status=status))
    if not bars:
        return []
    target = Target(value=hours * 3600, label=_("deadline")) if hours else None
    return [
        Section(
            heading=_("Waiting time of the batches"),
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
        heading=_("Scope and limits of this report"),
        blocks=[
            Paragraph(
                text=_(
                    "Each batch was accepted by one decision of a reviewer. The policy pack "
                    "gives this reviewer the right to decide, and the reviewer did not enter "
                    "any record of the batch."
                )
            ),
            Steps(
                items=[
                    _(
                        "Every record was checked against the rules; a rule that could not be "
                        "checked is a finding. Reviewers saw a masked sample."
                    ),
                    _(
                        "The hash of the accepted records proves that they are the records on "
                        "which the reviewer decided."
                    ),
                    _(
                        "This report proves independent review only for the records that this "
                        "run accepted, not for records that reached the formal tables in "
                        "another way."
                    ),
                ]
            ),
        ],
    )
