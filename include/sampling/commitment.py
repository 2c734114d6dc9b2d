"""The commitment of an audit: its sampling frames and plans, sealed before the seed is known."""

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
from include.policy.rates import ExactRate, percent_text, round_up
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
from include.sampling.frame import NO_STRATUM
from include.sampling.quarter_texts import quarter_text
from include.sampling.rules import COMMITMENT_FILE, AuditRules
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore

RISK_PLACES = 12  # decimal places of a risk, which is rounded up
PlanKind = Literal["single", "staged", "discovery"]


class Plan(FrozenModel):
    """The sampling plan of a population, fixed before the random seed is known.

    Attributes:
        kind: ``single`` for one stage, ``staged`` for two stages that are planned together, or
            ``discovery`` for a sample that searches for a single deviation.
        method: ``binomial``, ``hypergeometric``, or ``census`` if all items are examined.
        stages: number of stages. A later stage is tested only if the previous stage had exactly one
            deviation.
        n: number of items to draw in each stage.
        acceptable: largest number of deviations in the first stage with which the population is
            accepted without a further stage.
        achieved_risk: risk of accepting a population whose deviation rate is the tolerable rate, as
            a decimal, rounded up.
        drawn: stratum -> number of items to draw in each stage. Without strata, the only key is
            ``""``.
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
    """Return the sampling plan for a frozen sampling frame.

    If a stratum is too small for two stages, the plan has a single stage with the same risk.

    Args:
        kind: kind of plan in audit.yaml.
        tolerable: tolerable rate. A population with this or a higher deviation rate is not
            accepted.
        expected: expected deviation rate.
        confidence: one minus the risk of accepting a population with the tolerable rate.
        strata: stratum -> number of its items; at least one item in total.
        stratified: whether every stratum must contribute its share of the sample.

    Raises:
        UsageError: no sample can prove that the deviation rate is below the tolerable rate.
    """
    if kind == "staged":
        try:
            return _staged(tolerable, confidence, strata, stratified)
        except UsageError:
            kind = "single"
    if stratified:
        size, allocation = stratified_size(tolerable, confidence, expected, strata)
    else:
        items = strata[NO_STRATUM]
        size = smallest_size(tolerable, confidence, expected=expected, population=items)
        allocation = Allocation(strata, {NO_STRATUM: size.n})
    accepted = 0 if kind == "discovery" and size.method == CENSUS else size.acceptable
    return Plan(
        kind=kind,
        method=size.method,
        stages=1,
        n=size.n,
        acceptable=accepted,
        achieved_risk=_as_decimal(size.achieved_risk),
        drawn=dict(allocation.drawn),
    )


def _staged(
    tolerable: Fraction, confidence: Fraction, strata: Mapping[str, int], stratified: bool
) -> Plan:
    if stratified:
        staged, allocation = stratified_stages(tolerable, confidence, 2, strata)
        drawn = dict(allocation.drawn)
    else:
        staged = smallest_stages(tolerable, confidence, 2, strata[NO_STRATUM])
        drawn = {NO_STRATUM: staged.n}
    return Plan(
        kind="staged",
        method=staged.method,
        stages=staged.stages,
        n=staged.n,
        acceptable=0,
        achieved_risk=_as_decimal(staged.achieved_risk),
        drawn=drawn,
    )


def _as_decimal(risk: Fraction) -> str:
    return f"{round_up(risk, RISK_PLACES):f}"


FORM = "parcelseal-commitment/1"


class CommittedPopulation(FrozenModel):
    """A population in a commitment, with its sampling frame and its sampling plan.

    Attributes:
        population: id of the population in audit.yaml.
        file: file name of the sampling frame in the evidence bundle.
        sha256: hex digest of the sampling frame.
        items: number of lines of the sampling frame; each line is one item.
        strata: stratum -> number of its items, in the order in which the strata are drawn. Without
            strata, the only key is ``""``.
        stratified: whether the sampling frame has a column of strata.
        tolerable: tolerable rate. A population with this or a higher deviation rate is not
            accepted.
        expected: expected deviation rate.
        confidence: one minus the risk of accepting a population with the tolerable rate.
        planned_as: kind of sampling plan in audit.yaml. The plan has another kind if a stratum is
            too small for two stages.
        plan: sampling plan of the population.
        attributes: ids of the questions about each sample item.
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
    """The content of ``commitment.json``, which fixes an audit before the random seed is known.

    Attributes:
        form: format of the file.
        audit: id of the audited quarter, such as ``2026Q3``.
        starts: first moment of the quarter.
        ends: first moment after the quarter.
        algorithm: algorithm of the draw, with its version.
        seed_source: description, in English, of the public value that will be the seed. The
            commitment contains it so that nobody can choose another value later.
        policy_hash: digest of the policy pack.
        code_version: version of ParcelSeal.
        populations: populations with their frozen sampling frames. A population is omitted if it
            has no items, if another run already drew its sample, or if its freezing failed.
    """

    form: str = FORM
    audit: str
    starts: AwareDatetime
    ends: AwareDatetime
    algorithm: str = ALGORITHM
    seed_source: str
    policy_hash: str
    code_version: str
    populations: tuple[CommittedPopulation, ...]

    def to_bytes(self) -> bytes:
        """Return the bytes of the file ``commitment.json``."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def sealed_content(store: ObjectStore, sealed: CommitmentLocation) -> bytes | None:
    """Return the bytes of a sealed commitment.json; None if its bundle is missing or was changed.

    Args:
        store: the evidence store.
        sealed: location of the commitment according to the evidence ledger.
    """
    folder = StoreFolder(store, sealed.bundle)
    try:
        sums = folder.read(SUMS, LARGEST_SUMS)
        content = folder.read(COMMITMENT_FILE)
        digests = Sums.parse(sums).files
    except (ObjectMissing, ObjectDamaged, ValueError):
        return None
    own = hashlib.sha256(content).hexdigest()
    is_intact = hashlib.sha256(sums).hexdigest() == sealed.sums_sha256
    return content if is_intact and digests.get(COMMITMENT_FILE) == own else None


class CommitmentLocation(FrozenModel):
    """The location of a sealed commitment in the evidence store.

    Attributes:
        bundle: folder of the evidence bundle that was sealed only for the commitment.
        sums_sha256: hex digest of the bundle's SHA256SUMS. The next bundle of the evidence chain
            contains this digest.
        sealed_at: time at which the bundle was entered in the evidence ledger. A seed must be
            published after this time.
    """

    bundle: str
    sums_sha256: str
    sealed_at: AwareDatetime


def plans_table(commitment: Commitment, rules: AuditRules) -> Table:
    """Return the report's table of sampling plans, with items to draw and accepted deviations."""
    return table_of(
        _("Populations and plans"),
        commitment.populations,
        [
            (_("Population"), "text", lambda frame: rules.population(frame.population).message),
            (_("Items"), "number", lambda frame: frame.items),
            (_("Tolerable rate"), "code", lambda frame: percent_text(frame.tolerable)),
            (_("Expected rate"), "code", lambda frame: percent_text(frame.expected)),
            (_("Confidence"), "code", lambda frame: percent_text(frame.confidence)),
            (_("Items to draw"), "number", lambda frame: items_of(frame.plan)),
            (_("Plan"), "text", lambda frame: _kind_of(frame.plan)),
            (_("Accepted deviations"), "text", lambda frame: accepted_by(frame.plan)),
            (_("Risk"), "number", lambda frame: percent_of(frame.plan.achieved_risk)),
        ],
    )


def items_of(plan: Plan) -> int | Message:
    """Return how many items a plan draws; for two stages, a text such as ``66 + 66``."""
    return plan.n if plan.stages == 1 else _("{first} + {second}", first=plan.n, second=plan.n)


def accepted_by(plan: Plan) -> int | Message:
    """Return the largest number of deviations with which a plan accepts a population.

    For a plan with two stages, return a text that states the number for each stage.
    """
    return (
        plan.acceptable
        if plan.stages == 1
        else _("0 in the first stage; or 1 in the first stage and 0 in the second")
    )


def percent_of(risk: str) -> str:
    """Return a risk as a percentage, rounded up.

    Args:
        risk: risk as a decimal, such as ``0.05``.
    """
    return percent_text(Fraction(risk), 2)


def _kind_of(plan: Plan) -> Message:
    if plan.method == "census":
        return _("all items")
    match plan.kind:
        case "staged":
            return _("two stages")
        case "discovery":
            return _("discovery sampling")
        case _:
            return _("one stage")


def quarter_fact(commitment: Commitment) -> Fact:
    """Return a fact for the report that shows the audited quarter with its first and last day."""
    first, last = commitment.starts.date(), (commitment.ends - timedelta(days=1)).date()
    return Fact(
        label=_("Audited quarter"),
        value=quarter_text(commitment.audit),
        note=_("{first} to {last}", first=first, last=last),
    )


def commitment_conclusion(commitment: Commitment, sha256: str, rules: AuditRules) -> Conclusion:
    """Return the conclusion and report of the bundle that is sealed only for a commitment.

    Args:
        commitment: the commitment.
        sha256: hex digest of commitment.json.
        rules: audit.yaml.
    """
    count = len(commitment.populations)
    return Conclusion(
        title=_(
            "Commitment for the audit of the {quarter}", quarter=quarter_text(commitment.audit)
        ),
        summary=_(
            "The sampling frames of {count} populations were frozen before the random seed was "
            "known. Only the random seed decides which items are drawn; no person can choose "
            "them.",
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
                heading=_("Frozen populations"),
                blocks=[plans_table(commitment, rules), _frames(commitment, rules)],
            ),
            Section(
                heading=_("Random seed"),
                blocks=[
                    Paragraph(
                        text=_("Source of the random seed: {source}.", source=rules.seed.message)
                    ),
                    Paragraph(
                        text=_(
                            "SHA-256 of the commitment: {sha256}",
                            sha256=sha256,
                        )
                    ),
                ],
            ),
        ],
    )


def _frames(commitment: Commitment, rules: AuditRules) -> Table:
    return table_of(
        _("Frozen sampling frames"),
        commitment.populations,
        [
            (
                _("Population"),
                "text",
                lambda population: rules.population(population.population).message,
            ),
            (_("Items"), "number", lambda population: population.items),
            (_("SHA-256"), "code", lambda population: population.sha256),
        ],
    )
