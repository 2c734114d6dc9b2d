"""The first steps of `sample_audit`: freeze the populations of a quarter and commit to them."""

from __future__ import annotations

import hashlib
from datetime import datetime

from include.evidence.step_findings import StepFindings, StepResult, keep_artifact
from include.messages import _
from include.sampling import register
from include.sampling.commitment import (
    Commitment,
    Committed,
    Sealed,
    commitment_conclusion,
    plan_for,
)
from include.sampling.frame import Frame, Quarter, freeze, quarter_of
from include.sampling.rules import (
    CLAUSE,
    COMMITMENT_FILE,
    COMMITMENT_WORKFLOW,
    AuditRules,
    frame_file,
)
from include.sampling.workpapers.form import MOST_ITEMS
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import ObjectDamaged
from include.workflow.declaration import Queue
from include.workflow.run_context import RunContext
from include.workflow.step import Step


class AuditedQuarter(StepResult):
    """The quarter of a run.

    Attributes:
        audit: the quarter, ``2026Q3``.
        starts: its first moment.
        ends: the first moment after it.
        populations: ids in audit.yaml.
        earlier: other runs that committed to populations of the quarter.
    """

    audit: str
    starts: datetime
    ends: datetime
    populations: list[str]
    earlier: list[str]


class FrozenPopulation(StepResult):
    """A population after its freezing.

    Attributes:
        frame: its frame and plan; None if it has no items or was drawn before.
        drawn_by: run that drew it before; empty if none did.
    """

    frame: Committed | None = None
    drawn_by: str = ""


class SealedCommitment(StepResult):
    """The commitment of a run.

    Attributes:
        committed: whether anything was frozen; without it nothing else is set.
        sha256: hex digest of commitment.json.
        bundle: folder of its bundle in the evidence store.
        sums_sha256: hex digest of the bundle's SHA256SUMS.
        sealed_at: when the ledger took it.
    """

    committed: bool
    sha256: str = ""
    bundle: str = ""
    sums_sha256: str = ""
    sealed_at: datetime | None = None


def name_populations(run: RunContext[AuditRules], findings: StepFindings) -> AuditedQuarter:
    """Name the quarter and the populations to freeze.

    Raises:
        UsageError: the run was asked for something that is no quarter, or is not over.
    """
    quarter = _quarter(run, run.parameters.get("quarter"))
    with run.state.connect() as conn:
        before = register.commitments_before(conn, quarter.id, run.run)
        undrawn = [
            earlier
            for earlier in before
            if not register.has_drawn(conn, quarter.id, earlier.run_id)
        ]
    if undrawn:
        findings.warn(
            "sampling.committed_before",
            _(
                "{count} earlier runs froze populations of {audit} and drew nothing.",
                count=len(undrawn),
                audit=quarter.id,
            ),
            _(
                "Ask the auditors why no seed was entered: whoever gives up a run after the seed "
                "is public chooses the sample."
            ),
        )
    return AuditedQuarter(
        audit=quarter.id,
        starts=quarter.starts,
        ends=quarter.ends,
        populations=[population.id for population in run.rules.populations],
        earlier=[earlier.run_id for earlier in before],
    )


POPULATIONS = Step(
    name="populations",
    title=_("The beginning"),
    clause=CLAUSE,
    work=name_populations,
    result=AuditedQuarter,
    parts=lambda quarter: quarter.populations,
)


def _quarter(run: RunContext[AuditRules], text: str | None) -> Quarter:
    return quarter_of(text, run.clock.now(), run.pack.calendar.timezone)


def freeze_population(run: RunContext[AuditRules], findings: StepFindings) -> FrozenPopulation:
    """Write down every item of a population; plan how many to draw.

    The sample that another run has drawn for this quarter stands: a second one would be one to
    choose from, and stages are planned before.

    Raises:
        ControlFailed: its ids are missing or not unique, just this frame was drawn under another
            name, or the run has committed already.
        UsageError: its SQL fails, or no sample can show what it asks for.
        ServiceError: a server went away.
    """
    name = findings.part
    population = run.rules.population(name)
    quarter = _quarter(run, run.require(POPULATIONS).audit)
    with run.state.connect() as conn:
        earlier = register.drawn_by(conn, quarter.id, name)
        sealed = register.commitment_of(conn, run.run)
    if earlier is not None and earlier.run_id != run.run.run_id:
        findings.warn(
            "sampling.drawn_before",
            _("It was drawn for {audit} before; that sample stands.", audit=quarter.id),
            _("Work with the bundle of the run {run}.", run=earlier.run_id),
        )
        return FrozenPopulation(drawn_by=earlier.run_id)
    if sealed is not None:
        raise ControlFailed(
            "The commitment of this run is sealed: nothing can be frozen after it.",
            "Start a new run.",
        )
    with run.unsealed_folder.writer(frame_file(name)) as writer:
        database = population.database
        frame = freeze(run.reader(database), run.database(database), population, quarter, writer)
        if frame.items:
            writer.commit()
    findings.measure("sampling.population", frame.items, "items")
    if not frame.items:
        findings.warn(
            "sampling.empty",
            _("The population has no items in {audit}.", audit=quarter.id),
            _("See that its log was written, and that its SQL in audit.yaml still fits."),
        )
        return FrozenPopulation()
    with run.state.connect() as conn:
        same = register.frame_drawn_by(conn, quarter.id, frame.sha256, run.run)
    if same is not None:
        raise ControlFailed(
            f"Just these items were drawn for {quarter.id} before, under another name, by the run "
            f"{same.run_id}.",
            "Work with that sample; a second one would be one to choose from.",
        )
    return FrozenPopulation(frame=_planned(run.rules, name, frame))


FREEZE = Step(
    name="freeze",
    title=_("The frame of {part}", part=""),
    clause=CLAUSE,
    work=freeze_population,
    result=FrozenPopulation,
)


def _planned(rules: AuditRules, name: str, frame: Frame) -> Committed:
    population = rules.population(name)
    stratified = population.strata is not None
    return Committed(
        population=name,
        file=frame_file(name),
        sha256=frame.sha256,
        items=frame.items,
        strata=dict(frame.strata),
        stratified=stratified,
        tolerable=population.tolerable,
        expected=population.expected,
        confidence=population.confidence,
        plan=plan_for(
            population.plan,
            population.tolerable,
            population.expected,
            population.confidence,
            frame.strata,
            stratified=stratified,
        ),
        planned_as=population.plan,
        attributes=tuple(attribute.id for attribute in population.attributes),
    )


def commit(run: RunContext[AuditRules], findings: StepFindings) -> SealedCommitment:
    """Seal the frozen populations in a separate bundle before the seed is known.

    The first commitment of a run stands.

    Raises:
        ControlFailed: another commitment of this run was sealed before.
        UsageError: nobody could look at as many items as would be drawn.
    """
    with run.state.connect() as conn:
        sealed = register.commitment_of(conn, run.run)
    content = kept_commitment(run) if sealed else None
    commitment = Commitment.model_validate_json(content) if content else _commitment(run)
    if commitment is None:
        return SealedCommitment(committed=False)
    content = commitment.to_bytes()
    digest = hashlib.sha256(content).hexdigest()
    sealed = sealed or _sealed(run, commitment, content, digest)
    with run.state.begin() as conn:
        register.remember_commitment(conn, run.run, commitment.audit, digest, sealed)
        keep_artifact(conn, run.run.dag_id, run.run.run_id, COMMITMENT_FILE, content)
    findings.measure("sampling.populations_committed", len(commitment.populations), "1")
    return SealedCommitment(committed=True, sha256=digest, **sealed.model_dump())


COMMIT = Step(
    name="commit",
    title=_("The commitment"),
    clause=CLAUSE,
    work=commit,
    result=SealedCommitment,
    runs_always=True,
    queue=Queue.SEALING,
)


def kept_commitment(run: RunContext[AuditRules]) -> bytes:
    """Return commitment.json of a run that has sealed it.

    Raises:
        ControlFailed: the state database has lost it.
    """
    content = run.records().artifacts.get(COMMITMENT_FILE)
    if content is None:
        raise ControlFailed("The commitment of this run is gone.", "Start a new run.")
    return content


def _commitment(run: RunContext[AuditRules]) -> Commitment | None:
    """Return what the run froze, in the order of audit.yaml; None if it froze nothing."""
    quarter = _quarter(run, run.require(POPULATIONS).audit)
    results = run.records().results(FREEZE)
    populations = tuple(
        frozen.frame
        for population in run.rules.populations
        if (frozen := results.get(population.id)) is not None and frozen.frame is not None
    )
    if not populations:
        return None
    items = sum(population.plan.n for population in populations)
    if items > MOST_ITEMS:
        raise UsageError(
            f"{items:,} items would have to be looked at; workpapers hold {MOST_ITEMS:,}.",
            "Tolerate more, expect less or ask for less confidence in audit.yaml.",
        )
    return Commitment(
        audit=quarter.id,
        starts=quarter.starts,
        ends=quarter.ends,
        seed_source=run.rules.seed.source["en"],
        policy_hash=run.pack.sha256,
        code_version=run.services.code_version,
        populations=populations,
    )


def _sealed(
    run: RunContext[AuditRules], commitment: Commitment, content: bytes, digest: str
) -> Sealed:
    conclusion = commitment_conclusion(commitment, digest, run.rules)
    row = run.task.seal_interim(COMMITMENT_WORKFLOW, conclusion, {COMMITMENT_FILE: content})
    store = run.services.store("evidence_store")
    try:
        sealed = store.get(f"{row.bundle}/{COMMITMENT_FILE}", limit=len(content))
    except ObjectDamaged:
        sealed = b""  # longer than the commitment of this run
    if sealed != content:
        raise ControlFailed(
            "Another commitment of this run was sealed before.",
            "Somebody froze a population again meanwhile. Start a new run.",
        )
    return Sealed(bundle=row.bundle, sums_sha256=row.sums_sha256, sealed_at=row.sealed_at)
