"""The report of one set of workpapers, from scope to signatures: what an auditor signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from include.evidence.model import Outcome
from include.messages import Message, _
from include.policy.rates import percent
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Cell,
    Columns,
    Paragraph,
    Section,
    Steps,
    Table,
    Target,
    table_of,
    text_table,
)
from include.sampling.closing import AskedPopulation, Evaluation
from include.sampling.evaluation import Decision, Deviation, Verdict
from include.sampling.workpapers.form import Answer

_DECISIONS: dict[Decision, tuple[Outcome, Message]] = {
    "accepted": (Outcome.PASS, _("accepted")),
    "not_accepted": (Outcome.FAIL, _("not accepted")),
    "next_stage": (Outcome.ATTENTION, _("next stage")),
}
ANSWERS = {
    Answer.DEVIATES: _("does not meet it"),
    Answer.NOT_FOUND: _("not found"),
    Answer.MISSING: _("not answered"),
    Answer.NOT_APPLICABLE: _("no question applies"),
}


Asked = Mapping[str, AskedPopulation]
"""The populations by id, as their workpapers have them."""


def signed(evaluation: Evaluation) -> list[Section]:
    """Return the report of one set of workpapers, from scope to signatures."""
    verdicts, remarks = evaluation.verdicts, evaluation.remarks
    asked = {population.population: population for population in evaluation.asked}
    heading = _("Audit {audit}, stage {stage}", audit=evaluation.audit, stage=evaluation.stage)
    return [
        Section(heading=heading, blocks=_scope(evaluation, asked)),
        Section(heading=_("Results"), blocks=_results(verdicts, asked)),
        *([Section(heading=_("Remarks"), blocks=[Steps(items=remarks)])] if remarks else []),
        Section(heading=_("Conclusion"), blocks=_conclusion(verdicts, asked)),
        Section(heading=_("Signatures"), blocks=[_signatures(evaluation)]),
    ]


def _scope(evaluation: Evaluation, asked: Asked) -> list[Block]:
    verdicts = evaluation.verdicts
    tested = [
        (asked[verdict.population].title, attribute)
        for verdict in verdicts
        for attribute in asked[verdict.population].attributes
    ]
    return [
        Paragraph(
            text=_(
                "Scope: {count} populations of the quarter {audit}, {items} items.",
                count=len(verdicts),
                audit=evaluation.audit,
                items=sum(verdict.items for verdict in verdicts),
            )
        ),
        Paragraph(
            text=_(
                "Criteria: the questions below, as they stand on the workpapers of the draw "
                "{sha256}.",
                sha256=evaluation.draw[:12],
            )
        ),
        table_of(
            _("What was tested"),
            tested,
            [
                (_("Population"), "text", lambda row: row[0]),
                (_("Question"), "text", lambda row: row[1].question),
                (_("Source"), "text", lambda row: row[1].source),
            ],
        ),
        Paragraph(
            text=_(
                "Independence: the items follow from a seed that nobody knew when the populations "
                "were frozen; nobody chose them. The auditor who entered it is one whom the policy "
                "pack names; whoever did the work may not review it."
            )
        ),
        Paragraph(
            text=_(
                "Method: attribute sampling, planned and judged by exact binomial or "
                "hypergeometric probabilities, one-sided. An item that was not found, or a "
                "question that was not answered, counts as a deviation. The plan was made before "
                "the draw; no items were added."
            )
        ),
    ]


def _results(verdicts: Sequence[Verdict], asked: Asked) -> list[Block]:
    blocks: list[Block] = [
        table_of(
            _("Results of the populations"),
            verdicts,
            [
                (_("Population"), "text", lambda verdict: asked[verdict.population].title),
                (_("Items looked at"), "number", lambda verdict: verdict.items),
                (_("Deviating"), "number", lambda verdict: verdict.deviating),
                (_("Accepted deviations"), "number", lambda verdict: verdict.acceptable),
                (
                    _("Estimated rate"),
                    "code",
                    lambda verdict: percent(Fraction(verdict.point_estimate), 2),
                ),
                (_("Upper limit"), "code", lambda verdict: f"{verdict.upper_limit_pct}%"),
                (_("Tolerable rate"), "code", lambda verdict: percent(Fraction(verdict.tolerable))),
                (_("Conclusion"), "text", lambda verdict: _DECISIONS[verdict.decision][1]),
            ],
        ),
        BarChart(
            caption=_("Upper limit as a share of the tolerable rate"),
            category=_("Population"),
            unit="percent",
            bars=[
                Bar(
                    label=asked[verdict.population].title,
                    value=float(Fraction(verdict.upper_limit) / Fraction(verdict.tolerable)),
                    status=_DECISIONS[verdict.decision][0],
                )
                for verdict in verdicts
            ],
            target=Target(value=1, label=_("Tolerable rate")),
        ),
    ]
    questions = {
        (population.population, attribute.id): attribute.question
        for population in asked.values()
        for attribute in population.attributes
    }
    deviations = [
        (verdict.population, deviation) for verdict in verdicts for deviation in verdict.deviations
    ]
    if deviations:
        columns: Columns[tuple[str, Deviation]] = (
            (_("Population"), "text", lambda row: asked[row[0]].title),
            (_("Item"), "code", lambda row: row[1].key),
            (_("Stratum"), "text", lambda row: row[1].stratum),
            (_("Question"), "text", lambda row: questions[row[0], row[1].attribute]),
            (_("Answer"), "text", lambda row: ANSWERS[row[1].answer]),
            (_("Auditor's note"), "text", lambda row: row[1].note),
        )
        blocks.append(table_of(_("Deviations"), deviations, columns))
    return blocks


def _conclusion(verdicts: Sequence[Verdict], asked: Asked) -> list[Block]:
    items = []
    for verdict in verdicts:
        values = {
            "population": asked[verdict.population].title,
            "confidence": percent(Fraction(verdict.confidence)),
            "limit": verdict.upper_limit_pct,
            "tolerable": percent(Fraction(verdict.tolerable)),
        }
        match verdict.decision:
            case "accepted":
                items.append(
                    _(
                        "{population}: accepted. At {confidence} confidence at most {limit}% "
                        "deviate; tolerable is less than {tolerable}.",
                        **values,
                    )
                )
            case "not_accepted":
                items.append(
                    _(
                        "{population}: not accepted. At {confidence} confidence it cannot be ruled "
                        "out that {limit}% deviate; tolerable is less than {tolerable}.",
                        **values,
                    )
                )
            case "next_stage":
                items.append(
                    _(
                        "{population}: exactly one item deviates; the plan, made before the draw, "
                        "calls for the next stage.",
                        population=values["population"],
                    )
                )
    return [Steps(items=items)]


def _signatures(evaluation: Evaluation) -> Table:
    rows: list[list[Cell]] = [
        [_("Performed by"), evaluation.performed_by, evaluation.performed_on, ""],
        [_("Reviewed by"), evaluation.reviewed_by or None, "", ""],
        [_("Handed in by"), evaluation.returned_by, evaluation.returned_at.date(), ""],
    ]
    labels = (_("Duty"), _("Name"), _("Day"), _("Signature"))
    return text_table(_("Who answers for the work"), labels, rows)
