"""Plans as people read them: how many items, in how many stages, and what is accepted."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

from include.messages import Message, _
from include.policy.rates import percent
from include.reports.model import Fact, Table, table_of
from include.sampling.commitment import Commitment
from include.sampling.plans import Plan
from include.sampling.rules import AuditRules


def plans_table(commitment: Commitment, rules: AuditRules) -> Table:
    """What is drawn of each population, and with what it is accepted."""
    return table_of(
        _("Populations and plans"),
        commitment.populations,
        [
            (_("Population"), "text", lambda frame: rules.population(frame.population).message),
            (_("Items"), "number", lambda frame: frame.items),
            (_("Tolerable rate"), "code", lambda frame: percent(frame.tolerable)),
            (_("Expected rate"), "code", lambda frame: percent(frame.expected)),
            (_("Confidence"), "code", lambda frame: percent(frame.confidence)),
            (_("Items to draw"), "number", lambda frame: items_of(frame.plan)),
            (_("Plan"), "text", lambda frame: _kind_of(frame.plan)),
            (_("Accepted deviations"), "text", lambda frame: accepted_by(frame.plan)),
            (_("Risk"), "number", lambda frame: percent_of(frame.plan.achieved_risk)),
        ],
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


def quarter_fact(commitment: Commitment) -> Fact:
    """Its first and last day; both moments carry the offset of the pack's timezone."""
    first, last = commitment.starts.date(), (commitment.ends - timedelta(days=1)).date()
    return Fact(
        label=_("Audited quarter"),
        value=commitment.audit,
        note=_("{first} to {last}", first=first, last=last),
    )
