"""The report of a commitment, sealed before the seed is known, and the table of its plans."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

from include.evidence.model import Metric, Outcome
from include.messages import Message, _
from include.policy.rates import percent
from include.reports.conclusion import Conclusion
from include.reports.model import Fact, Paragraph, Section, Table, table_of
from include.sampling.commitment import Commitment
from include.sampling.names import COMMITMENT_FILE
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


def commitment_conclusion(commitment: Commitment, sha256: str, rules: AuditRules) -> Conclusion:
    """Return the conclusion of a commitment's bundle."""
    count = len(commitment.populations)
    return Conclusion(
        title=_("Commitment of the audit {audit}", audit=commitment.audit),
        summary=_(
            "{count} populations were frozen before the seed was known. What will be drawn from "
            "them follows from the seed alone.",
            count=count,
        ),
        outcome=Outcome.PASS,
        findings=[],
        metrics=[Metric(name="sampling.populations_committed", value=count, unit="1")],
        facts=[
            quarter_fact(commitment),
            Fact(label=_("Populations"), value=count),
            Fact(
                label=_("Items in the populations"),
                value=sum(frame.items for frame in commitment.populations),
            ),
        ],
        sections=[
            Section(
                heading=_("What was frozen"),
                blocks=[plans_table(commitment, rules), _frames(commitment)],
            ),
            Section(
                heading=_("What the seed will be"),
                blocks=[
                    Paragraph(text=_("The seed: {source}.", source=rules.seed.message)),
                    Paragraph(
                        text=_("SHA-256 of {file}: {sha256}", file=COMMITMENT_FILE, sha256=sha256)
                    ),
                ],
            ),
        ],
    )


def _frames(commitment: Commitment) -> Table:
    return table_of(
        _("Frozen frames"),
        commitment.populations,
        [
            (_("File"), "code", lambda population: population.file),
            (_("Items"), "number", lambda population: population.items),
            (_("SHA-256"), "code", lambda population: population.sha256),
        ],
    )
