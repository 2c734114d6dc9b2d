"""The first steps of `sample_audit`: freeze a quarter's populations and seal the commitment."""

from __future__ import annotations

import hashlib
from datetime import datetime

from include.evidence.step_findings import StepFindings, StepResult, keep_artifact
from include.messages import _
from include.sampling import register
from include.sampling.commitment import (
    Commitment,
    CommitmentLocation,
    CommittedPopulation,
    commitment_conclusion,
    plan_for,
)
from include.sampling.frame import Frame, Quarter, freeze, quarter_of
from include.sampling.quarter_texts import quarter_text
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
    """The quarter that a run of `sample_audit` audits.

    Attributes:
        audit: id of the audited quarter, such as ``2026Q3``.
        starts: first moment of the quarter.
        ends: first moment after the quarter.
        populations: ids of the populations in audit.yaml.
        earlier: ids of other runs that already sealed a commitment for the quarter.
    """

    audit: str
    starts: datetime
    ends: datetime
    populations: list[str]
    earlier: list[str]


class FrozenPopulation(StepResult):
    """The result of freezing a population.

    Attributes:
        frame: population with its sampling frame and plan; None if the population has no items, or
            if another run already drew a sample of it.
        drawn_by: id of the other run that already drew the sample; empty if no other run drew a
            sample.
    """

    frame: CommittedPopulation | None = None
    drawn_by: str = ""


class SealedCommitment(StepResult):
    """The result of the step that seals a run's commitment.

    Attributes:
        committed: whether any population was frozen. If not, there is no commitment, and the other
            fields are empty.
        sha256: hex digest of commitment.json.
        bundle: folder of the commitment's bundle in the evidence store.
        sums_sha256: hex digest of the SHA256SUMS of that bundle.
        sealed_at: time at which that bundle was entered in the evidence ledger.
    """

    committed: bool
    sha256: str = ""
    bundle: str = ""
    sums_sha256: str = ""
    sealed_at: datetime | None = None


def name_populations(run: RunContext[AuditRules], findings: StepFindings) -> AuditedQuarter:
    """Return the quarter to audit and the populations to freeze.

    A finding warns of earlier runs that sealed a commitment for the quarter but drew no sample.

    Raises:
        UsageError: the parameter ``quarter`` is not a quarter, or the quarter has not ended.
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
                "{count} earlier runs froze populations of the {quarter} but drew no sample.",
                count=len(undrawn),
                quarter=quarter_text(quarter.id),
            ),
            _(
                "Ask the auditors why no random seed was entered. If a run is abandoned after "
                "the seed is published, the auditors can choose between samples."
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
    title=_("The choice of quarter and populations"),
    clause=CLAUSE,
    work=name_populations,
    result=AuditedQuarter,
    parts=lambda quarter: quarter.populations,
)


def _quarter(run: RunContext[AuditRules], text: str | None) -> Quarter:
    return quarter_of(text, run.clock.now(), run.pack.calendar.timezone)


def freeze_population(run: RunContext[AuditRules], findings: StepFindings) -> FrozenPopulation:
    """Write the sampling frame of a population, and plan its sample.

    The population is the one whose id is in `findings.part`. If another run already drew a sample
    of the population for this quarter, nothing is frozen and that sample remains valid. Otherwise a
    person could choose between two samples, or change the sampling plan after the draw.

    Raises:
        ControlFailed: ids of items are missing or not unique, another run drew a sample from the
            same frame under another population id, or this run has already sealed its commitment.
        UsageError: the SQL of the population fails, or no sample can prove that the deviation rate
            is below the tolerable rate.
        ServiceError: a connection was lost.
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
            _(
                "{population}: the sample of the {quarter} was already drawn and remains valid.",
                population=population.message,
                quarter=quarter_text(quarter.id),
            ),
            _("Use the sample in the evidence bundle of the run that drew it."),
            for_engineers=_("The run `{run}` drew the sample.", run=earlier.run_id),
        )
        return FrozenPopulation(drawn_by=earlier.run_id)
    if sealed is not None:
        raise ControlFailed(
            "The commitment of this run is sealed, so no population can be frozen.",
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
            _(
                "{population}: the population has no items in the {quarter}.",
                population=population.message,
                quarter=quarter_text(quarter.id),
            ),
            _(
                "Check that records of this population were written in the quarter, and that "
                "the audit rules still select them."
            ),
            for_engineers=_(
                "The key `sql` of the population `{population}` in `audit.yaml` selects the items.",
                population=name,
            ),
        )
        return FrozenPopulation()
    with run.state.connect() as conn:
        same_frame = register.frame_drawn_by(conn, quarter.id, frame.sha256, run.run)
    if same_frame is not None:
        raise ControlFailed(
            f"The run {same_frame.run_id} drew exactly these items for {quarter.id} under another "
            "name.",
            "Use that sample; a second sample would allow a choice.",
        )
    return FrozenPopulation(frame=_plan_population(run.rules, name, frame))


FREEZE = Step(
    name="freeze",
    title=_("The sampling frame of {part}", part=""),
    clause=CLAUSE,
    work=freeze_population,
    result=FrozenPopulation,
)


def _plan_population(rules: AuditRules, name: str, frame: Frame) -> CommittedPopulation:
    population = rules.population(name)
    stratified = population.strata is not None
    return CommittedPopulation(
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
    """Seal the commitment in a bundle of its own, before the seed is known.

    The commitment fixes the frozen populations and their sampling plans. A repeated call returns
    the commitment that the first call sealed.

    Raises:
        ControlFailed: an earlier, interrupted call sealed a commitment, and a population was frozen
            again afterwards.
        UsageError: the samples would have more items than workpapers can have.
    """
    with run.state.connect() as conn:
        sealed = register.commitment_of(conn, run.run)
    content = stored_commitment(run) if sealed else None
    commitment = Commitment.model_validate_json(content) if content else _commitment(run)
    if commitment is None:
        return SealedCommitment(committed=False)
    content = commitment.to_bytes()
    digest = hashlib.sha256(content).hexdigest()
    sealed = sealed or _seal_commitment(run, commitment, content, digest)
    with run.state.begin() as conn:
        register.record_commitment(conn, run.run, commitment.audit, digest, sealed)
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


def stored_commitment(run: RunContext[AuditRules]) -> bytes:
    """Return the bytes of a run's commitment.json from the state database.

    Raises:
        ControlFailed: the state database does not have the file.
    """
    content = run.records().artifacts.get(COMMITMENT_FILE)
    if content is None:
        raise ControlFailed("The commitment of this run is missing.", "Start a new run.")
    return content


def _commitment(run: RunContext[AuditRules]) -> Commitment | None:
    """Build the commitment, which lists the frozen populations in the order of audit.yaml.

    The result is None if no population was frozen.

    Raises:
        UsageError: the samples would have more items than workpapers can have.
    """
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
            f"The samples would have {items:,} items; workpapers can have {MOST_ITEMS:,}.",
            "Raise the tolerable rate, or lower the expected rate or the confidence in audit.yaml.",
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


def _seal_commitment(
    run: RunContext[AuditRules], commitment: Commitment, content: bytes, digest: str
) -> CommitmentLocation:
    conclusion = commitment_conclusion(commitment, digest, run.rules)
    row = run.task.seal_interim(COMMITMENT_WORKFLOW, conclusion, {COMMITMENT_FILE: content})
    store = run.services.store("evidence_store")
    try:
        sealed = store.get(f"{row.bundle}/{COMMITMENT_FILE}", limit=len(content))
    except ObjectDamaged:
        sealed = b""  # too long, so it differs from this run's commitment
    if sealed != content:
        raise ControlFailed(
            "Another commitment of this run was sealed before.",
            "A population was frozen again in the meantime. Start a new run.",
        )
    return CommitmentLocation(
        bundle=row.bundle, sums_sha256=row.sums_sha256, sealed_at=row.sealed_at
    )
