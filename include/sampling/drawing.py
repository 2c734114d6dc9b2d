"""The last step of `sample_audit`: draw the samples with the seed, and issue the workpapers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import BaseModel
from sqlalchemy import Connection

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, StepResult, keep_artifact
from include.messages import _
from include.sampling import issue, register
from include.sampling.commitment import Commitment, CommittedPopulation, sealed_content
from include.sampling.frame import PIECE
from include.sampling.freezing import COMMIT
from include.sampling.issue import workpapers
from include.sampling.quarter_texts import quarter_text
from include.sampling.rules import (
    CLAUSE,
    COMMITMENT_FILE,
    SEED_FILE,
    WORKPAPERS_FILE,
    AuditRules,
    sample_file,
)
from include.sampling.samples import Sample, Seed, sample
from include.sampling.seed_entry import SEED
from include.sampling.workpapers.writing import write
from include.services.errors import ControlFailed
from include.state.connect import StateLock, lock_for_transaction
from include.workflow.run_context import RunContext
from include.workflow.step import Step


class SampleSize(BaseModel):
    """The size of the sample of a population.

    Attributes:
        items: number of items in the first stage.
        rejected: number of draws, in all stages, that were rejected because they gave an item that
            had been drawn before.
    """

    items: int
    rejected: int


class DrawnSamples(StepResult):
    """The samples that a run drew.

    Attributes:
        drawn: population -> size of the sample that this run drew and recorded.
        drawn_by: population -> id of another run that recorded a sample of the population first.
            The sample that this run drew is then not used.
    """

    drawn: dict[str, SampleSize]
    drawn_by: dict[str, str]


NOTHING_DRAWN = DrawnSamples(drawn={}, drawn_by={})


def draw(run: RunContext[AuditRules], findings: StepFindings) -> DrawnSamples:
    """Draw the sample of every population with the random seed, and issue the workpapers.

    A repeated call gives the same result. Nothing is drawn if no population was frozen, or if the
    task in which an auditor enters the seed failed.

    Raises:
        ControlFailed: the run has a commitment but no seed, the commitment or a sampling frame was
            changed, or another run drew the samples of all populations after this run's commitment.
    """
    records = run.records()
    with run.state.connect() as conn:
        seed = register.seed_of(conn, run.run)
        refused = register.refusals_of(conn, run.run)
    content = records.artifacts.get(COMMITMENT_FILE, b"")
    sealed, seed_step = records.result(COMMIT), records.find(SEED.name)
    if sealed is not None and not sealed.committed:
        return NOTHING_DRAWN
    if seed is None and seed_step is not None and seed_step.outcome is Outcome.FAIL:
        return NOTHING_DRAWN  # the finding of the human task gives the reason
    store = run.services.store("evidence_store")
    if seed is not None and sealed_content(store, seed.commitment) != content:
        raise ControlFailed(
            "The commitment differs from the one that was sealed before the seed was known.",
            "Find out who changed it, and start a new run.",
        )
    digest = hashlib.sha256(content).hexdigest()
    if seed is None or sealed is None or sealed.sha256 != digest:
        raise ControlFailed(
            "This run has a commitment but no random seed.", "Start the workflow again."
        )
    commitment = Commitment.model_validate_json(content)
    drawn = {
        frame.population: _drawn(run, commitment, frame, seed) for frame in commitment.populations
    }
    with run.state.begin() as conn:
        lock_for_transaction(conn, StateLock.AUDIT)  # serialises runs of the same populations
        lost = _record_samples(conn, run, drawn)
        own = {name: drawn_sample for name, drawn_sample in drawn.items() if name not in lost}
        if not own:
            raise ControlFailed(
                f"Another run has drawn all samples of {commitment.audit}.",
                "Use those samples.",
            )
        _issue_workpapers(conn, run, commitment, own, seed)
    findings.subject_titles |= {name: run.rules.population(name).message for name in lost}
    for name, run_id in lost.items():  # no other run can draw the rest, so continue
        findings.fail(
            "sampling.drawn_meanwhile",
            _(
                "The sample of the {quarter} was already drawn and remains valid.",
                quarter=quarter_text(commitment.audit),
            ),
            _("Use the sample in the evidence bundle of the run that drew it."),
            subject=name,
            for_engineers=_("The run `{run}` drew the sample.", run=run_id),
        )
    if seed.is_stand_in:
        findings.warn(
            "sampling.seed_stand_in",
            _(
                "The random seed is a replacement value. It is not from the public source that "
                "the commitment names."
            ),
            _(
                "In production, have an auditor enter the random seed from the public source. "
                "A replacement value is suitable only for the sample company."
            ),
        )
    if refused:
        findings.warn(
            "sampling.seeds_refused",
            _(
                "Random seeds that were refused before a valid seed was entered: {count}.",
                count=len(refused),
            ),
            _(
                "Ask the auditors why they entered random seeds that had to be refused. The "
                "report lists these seeds."
            ),
        )
    sizes = {
        name: SampleSize(
            items=len(drawn_sample.of_stage(1)),
            rejected=sum(map(len, drawn_sample.rejected.values())),
        )
        for name, drawn_sample in own.items()
    }
    findings.measure("sampling.items_drawn", sum(size.items for size in sizes.values()), "items")
    return DrawnSamples(drawn=sizes, drawn_by=lost)


DRAW = Step(
    name="draw", title=_("The draw of the samples"), clause=CLAUSE, work=draw, result=DrawnSamples
)


def _drawn(
    run: RunContext[AuditRules], commitment: Commitment, committed: CommittedPopulation, seed: Seed
) -> Sample:
    digest = hashlib.sha256()
    with run.unsealed_folder.reader(committed.file) as frame:
        while piece := frame.read(PIECE):
            digest.update(piece)
    if digest.hexdigest() != committed.sha256:
        raise ControlFailed(
            f"The frame of {committed.population} was changed after the commitment.",
            "Keep the changed file, find out who changed it, and start a new run.",
        )
    with run.unsealed_folder.reader(committed.file) as frame:
        return sample(seed.seed, commitment.audit, committed, frame)


def _record_samples(
    conn: Connection, run: RunContext[AuditRules], drawn: Mapping[str, Sample]
) -> dict[str, str]:
    """Record the drawn samples in the register of audits.

    A sample is not recorded if another run has already recorded a sample of the same population for
    the quarter.

    Args:
        conn: the state database, in a transaction.
        run: context of the run.
        drawn: population -> sample that this run drew.

    Returns:
        Population -> id of the other run, for each sample that was not recorded.
    """
    lost = {}
    for name, drawn_sample in drawn.items():
        content = drawn_sample.to_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if register.record_sample(conn, run.run, drawn_sample, digest, run.clock.now()):
            keep_artifact(conn, run.run.dag_id, run.run.run_id, sample_file(name), content)
        else:
            earlier = register.drawn_by(conn, drawn_sample.audit, name)
            lost[name] = earlier.run_id if earlier else ""
    return lost


def _issue_workpapers(
    conn: Connection,
    run: RunContext[AuditRules],
    commitment: Commitment,
    own: Mapping[str, Sample],
    seed: Seed,
) -> None:
    """Issue the workpapers of the first stage for the samples that this run drew.

    Args:
        conn: the state database, in a transaction.
        run: context of the run.
        commitment: commitment of the run.
        own: population -> sample that this run drew and recorded.
        seed: random seed of the draw.
    """
    files = {name: drawn_sample.to_bytes() for name, drawn_sample in own.items()}
    papers = workpapers(commitment, files, run.rules, seed, 1, run.pack.calendar.timezone)
    committed = {frame.population: frame for frame in commitment.populations}
    keep_artifact(conn, run.run.dag_id, run.run.run_id, SEED_FILE, seed.to_bytes())
    keep_artifact(conn, run.run.dag_id, run.run.run_id, WORKPAPERS_FILE, write(papers))
    issue.record_workpapers(conn, run.run, papers, committed, own)
