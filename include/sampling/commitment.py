"""The commitment of an audit, sealed before the seed is known: frames, plans, and its report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from fractions import Fraction
from typing import Literal

from pydantic import AwareDatetime

from include.evidence.folder import LARGEST_SUMS, SUMS, StoreFolder, Sums
from include.evidence.model import Metric, Outcome
from include.frozen import FrozenModel
from include.messages import Message, _
from include.policy.rates import ExactRate, ceiling, percent
from include.reports.conclusion import Conclusion
from include.reports.model import Fact, Paragraph, Section, Table, table_of
from include.sampling.exact.selection import ALGORITHM
from include.sampling.exact.sizes import CENSUS, smallest_size
from include.sampling.exact.strata import (
    Allocation,
    smallest_stages,
    stratified_size,
    stratified_stages,
)
from include.sampling.frame import WHOLE
from include.sampling.rules import COMMITMENT_FILE, AuditRules
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore

RISK_PLACES = 12  # digits after the point of a risk, rounded up
PlanKind = Literal["single", "staged", "discovery"]


class Plan(FrozenModel):
    """What will be drawn, fixed before anybody knows the seed.

    Attributes:
        kind: ``single`` stage, two ``staged`` ones planned together, or ``discovery``.
        method: ``binomial``, ``hypergeometric`` or ``census``.
        stages: how many; a later one is looked at only if the one before had exactly one deviation.
        n: items of each stage.
        acceptable: deviations of the (first) stage with which the population is accepted.
        achieved_risk: of accepting at the tolerable rate, as a decimal, rounded up.
        drawn: items of each stage by stratum; one named ``""`` where there are none.
    """

    kind: PlanKind
    method: str
    stages: int
    n: int
    acceptable: int
    achieved_risk: str
    drawn: dict[str, int]


def plan_for(
    kind: PlanKind,
    tolerable: Fraction,
    expected: Fraction,
    confidence: Fraction,
    strata: Mapping[str, int],
    *,
    stratified: bool,
) -> Plan:
    """Plan the sample of a frozen frame.

    Where a stratum is too small for two stages, the plan is a single one of the same risk.

    Args:
        kind: as audit.yaml asks.
        tolerable: rate of deviations from which on the population is not accepted.
        expected: rate that is expected.
        confidence: one minus the risk of accepting what deviates at the tolerable rate.
        strata: items of each stratum; at least one item in all.
        stratified: whether every stratum has to give its share.

    Raises:
        UsageError: no sample can show what the population asks for.
    """
    if kind == "staged":
        try:
            return _staged(tolerable, confidence, strata, stratified)
        except UsageError:
            kind = "single"
    if stratified:
        size, allocation = stratified_size(tolerable, confidence, expected, strata)
    else:
        items = strata[WHOLE]
        size = smallest_size(tolerable, confidence, expected=expected, population=items)
        allocation = Allocation(strata, {WHOLE: size.n})
    accepted = 0 if kind == "discovery" and size.method == CENSUS else size.acceptable
    return Plan(
        kind=kind,
        method=size.method,
        stages=1,
        n=size.n,
        acceptable=accepted,
        achieved_risk=_told(size.achieved_risk),
        drawn=dict(allocation.drawn),
    )


def _staged(
    tolerable: Fraction, confidence: Fraction, strata: Mapping[str, int], stratified: bool
) -> Plan:
    if stratified:
        staged, allocation = stratified_stages(tolerable, confidence, 2, strata)
        drawn = dict(allocation.drawn)
    else:
        staged = smallest_stages(tolerable, confidence, 2, strata[WHOLE])
        drawn = {WHOLE: staged.n}
    return Plan(
        kind="staged",
        method=staged.method,
        stages=staged.stages,
        n=staged.n,
        acceptable=0,
        achieved_risk=_told(staged.achieved_risk),
        drawn=drawn,
    )


def _told(risk: Fraction) -> str:
    return f"{ceiling(risk, RISK_PLACES):f}"


FORM = "parcelseal-commitment/1"


class Committed(FrozenModel):
    """One population of a commitment.

    Attributes:
        population: its id in audit.yaml.
        file: of its frame in the bundle.
        sha256: hex digest of that file.
        items: how many lines it has.
        strata: items of each stratum by name, in the order in which they are drawn; one named
            ``""`` where there are none.
        stratified: whether the frame has a column of strata.
        tolerable: rate of deviations from which on the population is not accepted.
        expected: rate that is expected.
        confidence: one minus the risk of accepting what deviates at the tolerable rate.
        planned_as: the kind of plan that audit.yaml asks for.
        plan: what will be drawn.
        attributes: ids of what is tested.
    """

    population: str
    file: str
    sha256: str
    items: int
    strata: dict[str, int]
    stratified: bool
    tolerable: ExactRate
    expected: ExactRate
    confidence: ExactRate
    planned_as: PlanKind
    plan: Plan
    attributes: tuple[str, ...]


class Commitment(FrozenModel):
    """``commitment.json``.

    Attributes:
        form: of the file.
        audit: the quarter, ``2026Q3``.
        starts: its first moment.
        ends: the first moment after it.
        algorithm: of the selection, with its version.
        seed_source: which public value will be the seed, in English; named here so that nobody can
            choose another one when it is known.
        policy_hash: of the policy pack.
        code_version: of ParcelSeal.
        populations: what will be drawn from; those that are empty or could not be frozen are not
            among them.
    """

    form: str = FORM
    audit: str
    starts: AwareDatetime
    ends: AwareDatetime
    algorithm: str = ALGORITHM
    seed_source: str
    policy_hash: str
    code_version: str
    populations: tuple[Committed, ...]

    def to_bytes(self) -> bytes:
        """Return the file."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def sealed_content(store: ObjectStore, sealed: Sealed) -> bytes | None:
    """Return commitment.json as it was sealed; None when its bundle is not the one that was.

    Args:
        store: the evidence store.
        sealed: by the ledger.
    """
    folder = StoreFolder(store, sealed.bundle)
    try:
        sums = folder.read(SUMS, LARGEST_SUMS)
        content = folder.read(COMMITMENT_FILE)
        digests = Sums.parse(sums).files
    except (ObjectMissing, ObjectDamaged, ValueError):
        return None
    own = hashlib.sha256(content).hexdigest()
    whole = hashlib.sha256(sums).hexdigest() == sealed.sums_sha256
    return content if whole and digests.get(COMMITMENT_FILE) == own else None


class Sealed(FrozenModel):
    """Where a commitment was sealed.

    Attributes:
        bundle: folder of the commitment's own bundle in the evidence store.
        sums_sha256: hex digest of its SHA256SUMS, which the next bundle of the chain names.
        sealed_at: when the ledger took it; a seed has to be younger.
    """

    bundle: str
    sums_sha256: str
    sealed_at: AwareDatetime


def plans_table(commitment: Commitment, rules: AuditRules) -> Table:
    """Return the table of plans: items to draw and accepted deviations of each population."""
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
