"""The last step of `sample_audit`: what the seed draws, entered at once, with its workpapers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import BaseModel
from sqlalchemy import Connection

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, StepResult, keep_artifact
from include.messages import _
from include.sampling import issue, register
from include.sampling.commitment import Commitment, Committed, sealed_content
from include.sampling.frame import PIECE
from include.sampling.freezing import COMMIT
from include.sampling.issue import workpapers
from include.sampling.rules import (
    CLAUSE,
    COMMITMENT_FILE,
    SEED_FILE,
    WORKPAPERS_FILE,
    AuditRules,
    sample_file,
)
from include.sampling.samples import STAND_IN, Sample, Seed, sample
from include.sampling.seed_entry import SEED
from include.sampling.workpapers.writing import write
from include.services.errors import ControlFailed
from include.state.connect import StateLock, lock_for_transaction
from include.workflow.run_context import RunContext
from include.workflow.step import Step


class SampleSize(BaseModel):
    """Items to look at in the first stage, and draws that came again in all stages."""

    items: int
    rejected: int


class DrawnSamples(StepResult):
    """The samples of a run.

    Attributes:
        drawn: by population.
        drawn_by: run that drew a population between commitment and draw, by population.
    """

    drawn: dict[str, SampleSize]
    drawn_by: dict[str, str]


NOTHING_DRAWN = DrawnSamples(drawn={}, drawn_by={})


def draw(run: RunContext[AuditRules], findings: StepFindings) -> DrawnSamples:
    """Draw every population by the seed and write the workpapers; a repeated draw is the same.

    Raises:
        ControlFailed: there is no seed, the commitment was edited, a frame was changed, or another
            run drew everything meanwhile.
    """
    records = run.records()
    with run.state.connect() as conn:
        seed = register.seed_of(conn, run.run)
        refused = register.refusals_of(conn, run.run)
    content = records.artifacts.get(COMMITMENT_FILE, b"")
    sealed, asked = records.result(COMMIT), records.find(SEED.name)
    if sealed is not None and not sealed.committed:
        return NOTHING_DRAWN
    if seed is None and asked is not None and asked.outcome is Outcome.FAIL:
        return NOTHING_DRAWN  # the finding of the human task gives the reason
    store = run.services.store("evidence_store")
    if seed is not None and sealed_content(store, seed.commitment) != content:
        raise ControlFailed(
            "The commitment is not the one that was sealed before the seed was known.",
            "Find out who changed it; start a new run.",
        )
    digest = hashlib.sha256(content).hexdigest()
    if seed is None or sealed is None or sealed.sha256 != digest:
        raise ControlFailed(
            "There is no seed for this run's commitment.", "Start the workflow again."
        )
    commitment = Commitment.model_validate_json(content)
    drawn = {
        frame.population: _drawn(run, commitment, frame, seed) for frame in commitment.populations
    }
    with run.state.begin() as conn:
        lock_for_transaction(conn, StateLock.AUDIT)  # of two runs one draws all that both froze
        lost = _remember(conn, run, drawn)
        own = {name: drawn_sample for name, drawn_sample in drawn.items() if name not in lost}
        if not own:
            raise ControlFailed(
                f"All of {commitment.audit} was drawn by another run meanwhile.",
                "Work with those samples.",
            )
        _issue(conn, run, commitment, own, seed)
    for name, run_id in lost.items():  # nobody else can draw what this run drew: it goes on
        findings.fail(
            "sampling.drawn_meanwhile",
            _("It was drawn for {audit} before; that sample stands.", audit=commitment.audit),
            _("Work with the bundle of the run {run}.", run=run_id),
            subject=name,
        )
    if seed.source.startswith(STAND_IN):
        findings.warn(
            "sampling.seed_stand_in",
            _("The seed is not from the source that was named beforehand; it stands in for it."),
            _("Good for the sample company; in production an auditor enters the public value."),
        )
    if refused:
        findings.warn(
            "sampling.seeds_refused",
            _("{count} seeds were refused before one was taken.", count=len(refused)),
            _("The report lists them; ask the auditor about each."),
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


DRAW = Step(name="draw", title=_("The draw"), clause=CLAUSE, work=draw, result=DrawnSamples)


def _drawn(
    run: RunContext[AuditRules], commitment: Commitment, committed: Committed, seed: Seed
) -> Sample:
    digest = hashlib.sha256()
    with run.unsealed_folder.reader(committed.file) as frame:
        while piece := frame.read(PIECE):
            digest.update(piece)
    if digest.hexdigest() != committed.sha256:
        raise ControlFailed(
            f"The frame of {committed.population} was changed after it was committed to.",
            "Keep the file and find out who changed it; start a new run.",
        )
    with run.unsealed_folder.reader(committed.file) as frame:
        return sample(seed.seed, commitment.audit, committed, frame)


def _remember(
    conn: Connection, run: RunContext[AuditRules], drawn: Mapping[str, Sample]
) -> dict[str, str]:
    """Enter the samples; returns the run that drew a population before, by population."""
    lost = {}
    for name, drawn_sample in drawn.items():
        content = drawn_sample.to_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if register.remember_sample(conn, run.run, drawn_sample, digest, run.clock.now()):
            keep_artifact(conn, run.run.dag_id, run.run.run_id, sample_file(name), content)
        else:
            earlier = register.drawn_by(conn, drawn_sample.audit, name)
            lost[name] = earlier.run_id if earlier else ""
    return lost


def _issue(
    conn: Connection,
    run: RunContext[AuditRules],
    commitment: Commitment,
    own: Mapping[str, Sample],
    seed: Seed,
) -> None:
    """Write the workpapers of the first stage, and keep their sources."""
    files = {name: drawn_sample.to_bytes() for name, drawn_sample in own.items()}
    papers = workpapers(commitment, files, run.rules, seed, 1, run.pack.calendar.timezone)
    committed = {frame.population: frame for frame in commitment.populations}
    keep_artifact(conn, run.run.dag_id, run.run.run_id, SEED_FILE, seed.to_bytes())
    keep_artifact(conn, run.run.dag_id, run.run.run_id, WORKPAPERS_FILE, write(papers))
    issue.remember(conn, run.run, papers, committed, own)
