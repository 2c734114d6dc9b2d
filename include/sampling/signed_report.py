"""The report of one set of workpapers, from scope to signatures: what an auditor signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import Any

from include.evidence.model import Outcome, StepRecord
from include.messages import Message, _
from include.policy.rates import percent
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Cell,
    Column,
    Paragraph,
    Section,
    Steps,
    Table,
    Target,
    table_of,
)
from include.sampling.evaluation import Decision, Verdict
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


@dataclass(frozen=True)
class Asked:
    """A population as its workpapers have it, whatever the policy pack says of it by now.

    Attributes:
        title: for people.
        questions: by attribute, each with its source.
    """

    title: Message
    questions: Mapping[str, tuple[Message, Message]]


def signed(record: StepRecord) -> list[Section]:
    """The report of one set of workpapers, from scope to signatures."""
    data = record.data
    verdicts = [Verdict.model_validate(one) for one in data["verdicts"]]
    asked = {one["population"]: _asked(one) for one in data["asked"]}
    remarks = [Message.model_validate(one) for one in data["remarks"]]
    heading = _("Audit {audit}, stage {stage}", audit=data["audit"], stage=data["stage"])
    return [
        Section(heading=heading, blocks=_scope(data, verdicts, asked)),
        Section(heading=_("Results"), blocks=_results(verdicts, asked)),
        *([Section(heading=_("Remarks"), blocks=[Steps(items=remarks)])] if remarks else []),
        Section(heading=_("Conclusion"), blocks=_conclusion(verdicts, asked)),
        Section(heading=_("Signatures"), blocks=[_signatures(data)]),
    ]


def _asked(told: Mapping[str, Any]) -> Asked:
    questions = {
        one["id"]: (Message.model_validate(one["question"]), Message.model_validate(one["source"]))
        for one in told["attributes"]
    }
    return Asked(Message.model_validate(told["title"]), questions)


def _scope(
    data: Mapping[str, Any], verdicts: Sequence[Verdict], asked: Mapping[str, Asked]
) -> list[Block]:
    tested: list[list[Cell]] = [
        [asked[one.population].title, question, source]
        for one in verdicts
        for question, source in asked[one.population].questions.values()
    ]
    return [
        Paragraph(
            text=_(
                "Scope: {count} populations of the quarter {audit}, {items} items.",
                count=len(verdicts),
                audit=data["audit"],
                items=sum(one.items for one in verdicts),
            )
        ),
        Paragraph(
            text=_(
                "Criteria: the questions below, as they stand on the workpapers of the draw "
                "{sha256}.",
                sha256=data["draw"][:12],
            )
        ),
        Table(
            caption=_("What was tested"),
            columns=[
                Column(label=_("Population")),
                Column(label=_("Question")),
                Column(label=_("Source")),
            ],
            rows=tested,
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


def _results(verdicts: Sequence[Verdict], asked: Mapping[str, Asked]) -> list[Block]:
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
                    label=asked[one.population].title,
                    value=float(Fraction(one.upper_limit) / Fraction(one.tolerable)),
                    status=_DECISIONS[one.decision][0],
                )
                for one in verdicts
            ],
            target=Target(value=1, label=_("Tolerable rate")),
        ),
    ]
    deviations: list[list[Cell]] = [
        [
            asked[one.population].title,
            deviation.key,
            deviation.stratum,
            asked[one.population].questions[deviation.attribute][0],
            ANSWERS[deviation.answer],
            deviation.note,
        ]
        for one in verdicts
        for deviation in one.deviations
    ]
    if deviations:
        blocks.append(
            Table(
                caption=_("Deviations"),
                columns=[
                    Column(label=_("Population")),
                    Column(label=_("Item"), kind="code"),
                    Column(label=_("Stratum")),
                    Column(label=_("Question")),
                    Column(label=_("Answer")),
                    Column(label=_("Auditor's note")),
                ],
                rows=deviations,
            )
        )
    return blocks


def _conclusion(verdicts: Sequence[Verdict], asked: Mapping[str, Asked]) -> list[Block]:
    items = []
    for one in verdicts:
        values = {
            "population": asked[one.population].title,
            "confidence": percent(Fraction(one.confidence)),
            "limit": one.upper_limit_pct,
            "tolerable": percent(Fraction(one.tolerable)),
        }
        match one.decision:
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


def _signatures(data: Mapping[str, Any]) -> Table:
    performed_on = data["performed_on"]
    rows: list[list[Cell]] = [
        [
            _("Performed by"),
            data["performed_by"],
            date.fromisoformat(performed_on) if performed_on else None,
            "",
        ],
        [_("Reviewed by"), data["reviewed_by"] or None, "", ""],
        [
            _("Handed in by"),
            data["returned_by"],
            datetime.fromisoformat(data["returned_at"]).date(),
            "",
        ],
    ]
    return Table(
        caption=_("Who answers for the work"),
        columns=[
            Column(label=_("Duty")),
            Column(label=_("Name")),
            Column(label=_("Day")),
            Column(label=_("Signature")),
        ],
        rows=rows,
    )
