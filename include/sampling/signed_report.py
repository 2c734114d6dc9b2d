"""The sections of the audit report that auditors sign, from the scope to the signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from include.evidence.model import Outcome
from include.messages import Message, _
from include.policy.rates import percent_text
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Columns,
    Paragraph,
    Section,
    SignatureLine,
    Steps,
    Target,
    signature_section,
    table_of,
)
from include.sampling.closing import Evaluation, WorkpaperPopulation
from include.sampling.evaluation import Decision, Deviation, Verdict
from include.sampling.quarter_texts import quarter_text
from include.sampling.workpapers.form import Answer

_DECISIONS: dict[Decision, tuple[Outcome, Message]] = {
    "accepted": (Outcome.PASS, _("accepted")),
    "not_accepted": (Outcome.FAIL, _("not accepted")),
    "next_stage": (Outcome.ATTENTION, _("next stage")),
}
ANSWERS = {
    Answer.DEVIATES: _("does not meet the criterion"),
    Answer.NOT_FOUND: _("not found"),
    Answer.MISSING: _("not answered"),
    Answer.NOT_APPLICABLE: _("no question applies"),
}


TestedPopulations = Mapping[str, WorkpaperPopulation]
"""The tested populations by id, as in their workpapers."""


def signed_sections(evaluation: Evaluation) -> list[Section]:
    """Return the sections of the report that auditors sign, for one set of workpapers.

    The first section states the scope of the audit, and the last section is for the signatures.
    """
    verdicts, remarks = evaluation.verdicts, evaluation.remarks
    tested_populations = {population.population: population for population in evaluation.asked}
    heading = _(
        "Audit of the {quarter}, stage {stage}",
        quarter=quarter_text(evaluation.audit),
        stage=evaluation.stage,
    )
    return [
        Section(heading=heading, blocks=_scope(evaluation, tested_populations)),
        Section(heading=_("Results"), blocks=_results(verdicts, tested_populations)),
        *([Section(heading=_("Remarks"), blocks=[Steps(items=remarks)])] if remarks else []),
        Section(heading=_("Conclusion"), blocks=_conclusion(verdicts, tested_populations)),
        _signatures(evaluation),
    ]


def _scope(evaluation: Evaluation, tested_populations: TestedPopulations) -> list[Block]:
    verdicts = evaluation.verdicts
    tested = [
        (tested_populations[verdict.population].title, attribute)
        for verdict in verdicts
        for attribute in tested_populations[verdict.population].attributes
    ]
    return [
        Paragraph(
            text=_(
                "Scope: {count} populations of the {quarter}, {items} sample items.",
                count=len(verdicts),
                quarter=quarter_text(evaluation.audit),
                items=sum(verdict.items for verdict in verdicts),
            )
        ),
        Paragraph(
            text=_(
                "Criteria: the following test questions, which are the questions in the "
                "workpapers with the draw digest {sha256}.",
                sha256=evaluation.draw[:12],
            )
        ),
        table_of(
            _("Tested questions"),
            tested,
            [
                (_("Population"), "text", lambda row: row[0]),
                (_("Test question"), "text", lambda row: row[1].question),
                (_("Source"), "text", lambda row: row[1].source),
            ],
        ),
        Paragraph(
            text=_(
                "Independence: the items were drawn with a random seed that was published "
                "after the populations were frozen; no person chose them. The policy pack "
                "names the auditors who may enter the seed. The person who did the work may "
                "not review it."
            )
        ),
        Paragraph(
            text=_(
                "Method: attribute sampling, planned and evaluated with exact one-sided "
                "binomial or hypergeometric probabilities. An item that was not found, or a "
                "question without an answer, counts as a deviation. The plan was fixed before "
                "the draw; no items were added after the draw."
            )
        ),
    ]


def _results(verdicts: Sequence[Verdict], tested_populations: TestedPopulations) -> list[Block]:
    blocks: list[Block] = [
        table_of(
            _("Results of the populations"),
            verdicts,
            [
                (
                    _("Population"),
                    "text",
                    lambda verdict: tested_populations[verdict.population].title,
                ),
                (_("Tested items"), "number", lambda verdict: verdict.items),
                (_("Deviating items"), "number", lambda verdict: verdict.deviating),
                (_("Accepted deviations"), "number", lambda verdict: verdict.acceptable),
                (
                    _("Estimated rate"),
                    "code",
                    lambda verdict: percent_text(Fraction(verdict.point_estimate), 2),
                ),
                (_("Upper limit"), "code", lambda verdict: f"{verdict.upper_limit_pct}%"),
                (
                    _("Tolerable rate"),
                    "code",
                    lambda verdict: percent_text(Fraction(verdict.tolerable)),
                ),
                (_("Conclusion"), "text", lambda verdict: _DECISIONS[verdict.decision][1]),
            ],
        ),
        BarChart(
            caption=_("Upper limit as a share of the tolerable rate"),
            category=_("Population"),
            unit="percent",
            bars=[
                Bar(
                    label=tested_populations[verdict.population].title,
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
        for population in tested_populations.values()
        for attribute in population.attributes
    }
    deviations = [
        (verdict.population, deviation) for verdict in verdicts for deviation in verdict.deviations
    ]
    if deviations:
        columns: Columns[tuple[str, Deviation]] = (
            (_("Population"), "text", lambda row: tested_populations[row[0]].title),
            (_("Item"), "code", lambda row: row[1].key),
            (_("Stratum"), "text", lambda row: row[1].stratum),
            (_("Test question"), "text", lambda row: questions[row[0], row[1].attribute]),
            (_("Answer"), "text", lambda row: ANSWERS[row[1].answer]),
            (_("Auditor's note"), "text", lambda row: row[1].note),
        )
        blocks.append(table_of(_("Deviations"), deviations, columns))
    return blocks


def _conclusion(verdicts: Sequence[Verdict], tested_populations: TestedPopulations) -> list[Block]:
    items = []
    for verdict in verdicts:
        values = {
            "population": tested_populations[verdict.population].title,
            "confidence": percent_text(Fraction(verdict.confidence)),
            "limit": verdict.upper_limit_pct,
            "tolerable": percent_text(Fraction(verdict.tolerable)),
        }
        match verdict.decision:
            case "accepted":
                items.append(
                    _(
                        "{population}: accepted. With {confidence} confidence, at most "
                        "{limit}% of the population deviate. The deviation rate has to be "
                        "below the tolerable rate, which is {tolerable}.",
                        **values,
                    )
                )
            case "not_accepted":
                items.append(
                    _(
                        "{population}: not accepted. With {confidence} confidence, the "
                        "deviation rate may be as high as {limit}%. It has to be below the "
                        "tolerable rate, which is {tolerable}.",
                        **values,
                    )
                )
            case "next_stage":
                items.append(
                    _(
                        "{population}: exactly one item deviates. The plan, which was fixed "
                        "before the draw, requires the next stage.",
                        population=values["population"],
                    )
                )
    return [Steps(items=items)]


def _signatures(evaluation: Evaluation) -> Section:
    return signature_section(
        SignatureLine(
            role=_("Performed by"), name=evaluation.performed_by, day=evaluation.performed_on
        ),
        SignatureLine(role=_("Reviewed by"), name=evaluation.reviewed_by),
        SignatureLine(
            role=_("Handed in by"), name=evaluation.returned_by, day=evaluation.returned_at.date()
        ),
    )
