"""Plans as people read them: how many items, in how many stages, and what is accepted."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

from include.messages import Message, _
from include.policy.rates import percent
from include.reports.model import Cell, Column, Fact, Table
from include.sampling.commitment import Commitment
from include.sampling.plans import Plan
from include.sampling.rules import AuditRules


def plans_table(made: Commitment, rules: AuditRules) -> Table:
    """What is drawn of each population, and with what it is accepted."""
    rows: list[list[Cell]] = [
        [
            rules.population(one.population).message,
            one.items,
            percent(one.tolerable),
            percent(one.expected),
            percent(one.confidence),
            items_of(one.plan),
            _kind_of(one.plan),
            accepted_by(one.plan),
            percent_of(one.plan.achieved_risk),
        ]
        for one in made.populations
    ]
    return Table(
        caption=_("Populations and plans"),
        columns=[
            Column(label=_("Population")),
            Column(label=_("Items"), kind="number"),
            Column(label=_("Tolerable rate"), kind="code"),
            Column(label=_("Expected rate"), kind="code"),
            Column(label=_("Confidence"), kind="code"),
            Column(label=_("Items to draw"), kind="number"),
            Column(label=_("Plan")),
            Column(label=_("Accepted deviations")),
            Column(label=_("Risk"), kind="number"),  # never broken before its sign
        ],
        rows=rows,
    )


def items_of(plan: Plan) -> int | str:
    """Items to draw: ``66 + 66`` of two stages, the second of which may not be needed."""
    return plan.n if plan.stages == 1 else " + ".join([str(plan.n)] * plan.stages)


def accepted_by(plan: Plan) -> int | Message:
    """With how many deviations a population is accepted, in all stages of its plan."""
    return plan.acceptable if plan.stages == 1 else _("0, or 1 and then 0")


def percent_of(risk: str) -> str:
    """Return a risk in per cent, rounded up."""
    return percent(Fraction(risk), 2)


def _kind_of(plan: Plan) -> Message:
    if plan.method == "census":
        return _("all items")
    match plan.kind:
        case "staged":
            return _("two stages")
        case "discovery":
            return _("discovery")
        case _:
            return _("one stage")


def quarter_fact(made: Commitment) -> Fact:
    """Its first and last day; both moments carry the offset of the pack's timezone."""
    first, last = made.starts.date(), (made.ends - timedelta(days=1)).date()
    return Fact(
        label=_("Audited quarter"),
        value=made.audit,
        note=_("{first} to {last}", first=first, last=last),
    )
