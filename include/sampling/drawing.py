"""The last step of `sample_audit`: what the seed draws, entered at once, with its workpapers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from sqlalchemy import Connection

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.evidence.steps import artifacts_of, keep_artifact
from include.messages import _
from include.sampling import issue, register
from include.sampling.commitment import Commitment, Committed, sealed_content
from include.sampling.desk import Desk
from include.sampling.names import (
    CLAUSE,
    COMMITMENT_FILE,
    SEED_FILE,
    STEP_COMMIT,
    STEP_DRAW,
    STEP_SEED,
    WORKPAPERS_FILE,
    sample_file,
)
from include.sampling.papers import workpapers
from include.sampling.samples import Sample, sample
from include.sampling.seeds import STAND_IN, Seed
from include.sampling.workpapers.writing import write
from include.services.errors import ControlFailed
from include.state.connect import StateLock, lock_for_transaction


def draw(desk: Desk) -> StepRecord:
    """Draw every committed population by the seed; whoever repeats it draws the same.

    Raises:
        ControlFailed: there is no seed, the commitment was edited, a frame was changed, or another
            run drew everything meanwhile.
    """
    seen = StepFindings(STEP_DRAW, CLAUSE)
    records = desk.records()
    with desk.state.connect() as conn:
        seed = register.seed_of(conn, desk.run)
        content = artifacts_of(conn, *desk.run).get(COMMITMENT_FILE, b"")
        refused = register.refusals_of(conn, desk.run)
    digest = hashlib.sha256(content).hexdigest()
    sealed = records.get((STEP_COMMIT, ""))
    asked = records.get((STEP_SEED, ""))
    nothing = sealed is not None and sealed.data.get("committed") is False
    if nothing or (seed is None and asked is not None and asked.outcome is Outcome.FAIL):
        return seen.record({"drawn": {}})  # why not is a finding of the step before
    if seed is not None and sealed_content(desk.folder.store, seed.commitment) != content:
        raise ControlFailed(
            "The commitment is not the one that was sealed before the seed was known.",
            "Find out who changed it; start a new run.",
        )
    if seed is None or sealed is None or sealed.data.get("sha256") != digest:
        raise ControlFailed(
            "There is no seed for this run's commitment.", "Start the workflow again."
        )
    made = Commitment.model_validate_json(content)
    drawn = {one.population: _drawn(desk, made, one, seed) for one in made.populations}
    with desk.state.begin() as conn:
        lock_for_transaction(conn, StateLock.AUDIT)  # of two runs one draws all that both froze
        lost = _remember(conn, desk, drawn)
        own = {name: one for name, one in drawn.items() if name not in lost}
        if not own:
            raise ControlFailed(
                f"All of {made.audit} was drawn by another run meanwhile.",
                "Work with those samples.",
            )
        _issue(conn, desk, made, own, seed)
    for name, run_id in lost.items():  # nobody else can draw what this run drew: it goes on
        seen.find(
            "sampling.drawn_meanwhile",
            Outcome.FAIL,
            _("It was drawn for {audit} before; that sample stands.", audit=made.audit),
            _("Work with the bundle of the run {run}.", run=run_id),
            subject=name,
        )
    told = {
        name: {
            "items": len(one.of_stage(1)),
            "rejected": sum(map(len, one.rejected.values())),
        }
        for name, one in own.items()
    }
    if seed.source.startswith(STAND_IN):
        seen.find(
            "sampling.seed_stand_in",
            Outcome.ATTENTION,
            _("The seed is not from the source that was named beforehand; it stands in for it."),
            _("Good for the sample company; in production an auditor enters the public value."),
        )
    if refused:
        seen.find(
            "sampling.seeds_refused",
            Outcome.ATTENTION,
            _("{count} seeds were refused before one was taken.", count=len(refused)),
            _("The report lists them; ask the auditor about each."),
        )
    seen.measure("sampling.items_drawn", sum(one["items"] for one in told.values()), "items")
    return seen.record({"drawn": told} | ({"drawn_by": lost} if lost else {}))


def _drawn(desk: Desk, made: Commitment, one: Committed, seed: Seed) -> Sample:
    _require_frame(desk, one)
    with desk.folder.reader(one.file) as frame:
        return sample(seed.seed, made.audit, one, frame)


def _remember(conn: Connection, desk: Desk, drawn: Mapping[str, Sample]) -> dict[str, str]:
    """Enter what was drawn; returns what another run drew before, with that run's id."""
    lost = {}
    for name, one in drawn.items():
        file = one.to_bytes()
        digest = hashlib.sha256(file).hexdigest()
        if register.remember_sample(conn, desk.run, one, digest, desk.clock.now()):
            keep_artifact(conn, *desk.run, sample_file(name), file)
        else:
            earlier = register.drawn_by(conn, one.audit, name)
            lost[name] = earlier.run_id if earlier else ""
    return lost


def _issue(
    conn: Connection, desk: Desk, made: Commitment, own: Mapping[str, Sample], seed: Seed
) -> None:
    """Write the workpapers of the first stage, and keep what they were made from."""
    files = {name: one.to_bytes() for name, one in own.items()}
    papers = workpapers(made, files, desk.rules, seed, 1, desk.timezone)
    committed = {one.population: one for one in made.populations}
    keep_artifact(conn, *desk.run, SEED_FILE, seed.to_bytes())
    keep_artifact(conn, *desk.run, WORKPAPERS_FILE, write(papers))
    issue.remember(conn, desk.run, papers, committed, own)


def _require_frame(desk: Desk, one: Committed) -> None:
    digest = hashlib.sha256()
    with desk.folder.reader(one.file) as frame:
        while piece := frame.read(1024 * 1024):
            digest.update(piece)
    if digest.hexdigest() != one.sha256:
        raise ControlFailed(
            f"The frame of {one.population} was changed after it was committed to.",
            "Keep the file and find out who changed it; start a new run.",
        )
