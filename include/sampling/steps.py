"""The steps of `sample_audit`: name the quarter, freeze, commit, take the seed, draw."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import datetime

from include.approvals.names import is_among
from include.approvals.question import AskAgain
from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.evidence.steps import artifacts_of, keep_artifact
from include.messages import _, in_english
from include.sampling import register, seeds
from include.sampling.commitment import Commitment, Committed, Sealed
from include.sampling.desk import Desk
from include.sampling.frame import Frame, freeze
from include.sampling.names import (
    CLAUSE,
    COMMITMENT_FILE,
    STEP_AUDIT,
    STEP_COMMIT,
    STEP_FREEZE,
    STEP_SEED,
    frame_file,
)
from include.sampling.plans import plan_for
from include.sampling.quarters import quarter_of
from include.sampling.workpapers.form import MOST_ITEMS
from include.services.errors import ControlFailed, ServiceError, UsageError

ENTER, CANCEL = "Enter", "Cancel"


class SeedRefused(ServiceError):
    """A seed cannot be taken; the auditor may enter another one."""


def refused(count: int, most: int) -> StepRecord:
    """Say that a seed was refused: no fault, as long as it can be entered again.

    Args:
        count: of refused seeds of the run, with this one.
        most: after which nobody is asked again.
    """
    seen = StepFindings(STEP_SEED, CLAUSE)
    if count >= most:
        seen.find(
            "sampling.no_seed",
            Outcome.FAIL,
            _("{count} seeds were refused; nothing was drawn.", count=count),
            _("Start the workflow again, so that the quarter has its sample."),
        )
    return seen.record({"seed": False, "refused": count})


def begin(desk: Desk, asked: str | None) -> StepRecord:
    """Name the quarter of the run and its populations.

    Args:
        desk: of the run.
        asked: ``2026Q3``; the last quarter that is over where nothing is said.

    Raises:
        UsageError: it is no quarter, or not over yet.
    """
    quarter = quarter_of(asked, desk.clock.now(), desk.timezone)
    seen = StepFindings(STEP_AUDIT, CLAUSE)
    with desk.state.connect() as conn:
        before = register.commitments_before(conn, quarter.id, desk.run)
        undrawn = [one for one in before if not register.has_drawn(conn, quarter.id, one.run_id)]
    if undrawn:
        seen.find(
            "sampling.committed_before",
            Outcome.ATTENTION,
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
    return seen.record(
        {
            "audit": quarter.id,
            "starts": quarter.starts.isoformat(),
            "ends": quarter.ends.isoformat(),
            "populations": [one.id for one in desk.rules.populations],
            "earlier": [one.run_id for one in before],
        }
    )


def freeze_population(desk: Desk, name: str) -> StepRecord:
    """Write the frame of a population and plan its sample; tells nobody yet.

    What another run has drawn for this quarter stands: a second sample would be one to choose
    from, and stages are planned before.

    Raises:
        ControlFailed: its ids are missing or not unique, just this frame was drawn under another
            name, or the run has committed already.
        UsageError: its SQL fails, or no sample can show what it asks for.
        ServiceError: a server went away.
    """
    seen = StepFindings(STEP_FREEZE, CLAUSE, part=name)
    population, quarter = desk.rules.population(name), desk.quarter()
    with desk.state.connect() as conn:
        earlier = register.drawn_by(conn, quarter.id, name)
        committed = register.commitment_of(conn, desk.run)
    if earlier is not None and earlier.run_id != desk.run_id:
        seen.find(
            "sampling.drawn_before",
            Outcome.ATTENTION,
            _("It was drawn for {audit} before; that sample stands.", audit=quarter.id),
            _("Work with the bundle of the run {run}.", run=earlier.run_id),
        )
        return seen.record({"drawn_by": earlier.run_id})
    if committed is not None:
        raise ControlFailed(
            "The commitment of this run is sealed: nothing can be frozen after it.",
            "Start a new run.",
        )
    with desk.folder.writer(frame_file(name)) as writer:
        frame = freeze(
            desk.readers[population.database],
            desk.databases[population.database],
            population,
            quarter,
            writer,
        )
        if frame.items:
            writer.commit()
    seen.measure("sampling.population", frame.items, "items")
    if not frame.items:
        seen.find(
            "sampling.empty",
            Outcome.ATTENTION,
            _("The population has no items in {audit}.", audit=quarter.id),
            _("See that its log was written, and that its SQL in audit.yaml still fits."),
        )
        return seen.record({"items": 0})
    with desk.state.connect() as conn:
        same = register.frame_drawn_by(conn, quarter.id, frame.sha256, desk.run)
    if same is not None:
        raise ControlFailed(
            f"Just these items were drawn for {quarter.id} before, under another name, by the run "
            f"{same.run_id}.",
            "Work with that sample; a second one would be one to choose from.",
        )
    return seen.record(_frozen(desk, name, frame).model_dump(mode="json"))


def _frozen(desk: Desk, name: str, frame: Frame) -> Committed:
    population = desk.rules.population(name)
    return Committed(
        population=name,
        file=frame_file(name),
        sha256=frame.sha256,
        items=frame.items,
        strata=dict(frame.strata),
        stratified=population.strata is not None,
        tolerable=population.tolerable,
        expected=population.expected,
        confidence=population.confidence,
        plan=plan_for(
            population.plan,
            population.tolerable,
            population.expected,
            population.confidence,
            frame.strata,
            stratified=population.strata is not None,
        ),
        planned_as=population.plan,
        attributes=tuple(one.id for one in population.attributes),
    )


def commitment(desk: Desk) -> Commitment | None:
    """Gather what the run froze; None where it froze nothing.

    Raises:
        UsageError: nobody could look at as many items.
    """
    quarter, records = desk.quarter(), desk.records()
    frozen = [
        Committed.model_validate(record.data)
        for one in desk.rules.populations
        if (record := records.get((STEP_FREEZE, one.id))) is not None and record.data.get("items")
    ]
    if not frozen:
        return None
    items = sum(one.plan.n for one in frozen)
    if items > MOST_ITEMS:
        raise UsageError(
            f"{items:,} items would have to be looked at; workpapers hold {MOST_ITEMS:,}.",
            "Tolerate more, expect less or ask for less confidence in audit.yaml.",
        )
    return Commitment(
        audit=quarter.id,
        starts=quarter.starts,
        ends=quarter.ends,
        seed_source=desk.rules.seed.source["en"],
        policy_hash=desk.policy_hash,
        code_version=desk.code_version,
        populations=tuple(frozen),
    )


def nothing_committed() -> StepRecord:
    """Say that nothing was frozen: all was drawn before, is empty, or failed."""
    return StepFindings(STEP_COMMIT, CLAUSE).record({"committed": False})


def committed(desk: Desk, made: Commitment, sealed: Sealed) -> StepRecord:
    """Remember where the commitment was sealed; the first one of a run stands."""
    seen = StepFindings(STEP_COMMIT, CLAUSE)
    content = made.to_bytes()
    digest = hashlib.sha256(content).hexdigest()
    with desk.state.begin() as conn:
        register.remember_commitment(conn, desk.run, made.audit, digest, sealed)
        keep_artifact(conn, *desk.run, COMMITMENT_FILE, content)
    seen.measure("sampling.populations_committed", len(made.populations), "1")
    return seen.record({"sha256": digest} | sealed.model_dump(mode="json"))


def _commitment_sha256(desk: Desk) -> str | None:
    with desk.state.connect() as conn:
        content = artifacts_of(conn, *desk.run).get(COMMITMENT_FILE)
    return None if content is None else hashlib.sha256(content).hexdigest()


def take_seed(
    desk: Desk,
    option: str,
    given: dict[str, str],
    user: str | None,
    at: datetime,
    auditors: Collection[str],
    content: str,
) -> StepRecord:
    """Enter what an auditor answered.

    Args:
        desk: of the run.
        option: ``Enter`` or ``Cancel``; empty when nobody answered.
        given: ``seed``, ``source``, ``published_at``.
        user: user id of the auditor; None when nobody answered in time.
        at: when it was answered.
        auditors: user ids of those who may; Airflow lets others answer where it is set up so.
        content: of the form that was answered: the SHA-256 of the commitment that it showed.

    Raises:
        AskAgain: the form showed another commitment than the run's.
        SeedRefused: it is; the next question asks again and says why.
    """
    seen = StepFindings(STEP_SEED, CLAUSE)
    if user and content != _commitment_sha256(desk):
        raise AskAgain(_("The commitment is not the one that the form showed."))
    stranger = user is not None and not is_among(user, auditors)
    if not user or (option != ENTER and not stranger):
        seen.find(
            "sampling.cancelled" if user else "sampling.no_seed",
            Outcome.FAIL,
            _("{who} cancelled the draw.", who=user)
            if user
            else _("No auditor entered a seed in time; nothing was drawn."),
            _("Start the workflow again, so that the quarter has its sample."),
        )
        return seen.record({"seed": False, "decided_by": user or ""})
    seed, source = given.get("seed", "").strip(), " ".join(given.get("source", "").split())
    published = seeds.moment_of(given.get("published_at", ""), desk.now)
    with desk.state.begin() as conn:
        sealed = register.commitment_of(conn, desk.run)
        if sealed is None:
            raise ControlFailed("There is no commitment of this run.", "Start a new run.")
        taken = register.seed_of(conn, desk.run)
        if taken is None:
            shown = seeds.readable(seed)
            cause = (
                seeds.Cause.STRANGER
                if stranger
                else seeds.fault_of(
                    seed,
                    source,
                    published,
                    sealed_at=sealed.sealed_at,
                    now=desk.clock.now(),
                    used=register.is_used(conn, shown, desk.run),
                )
            )
            kept = register.keep_seed(
                conn,
                desk.run,
                seed=shown[: seeds.LONGEST],
                source=seeds.readable(source)[: seeds.LONGEST],
                published_at=published,
                entered_by=user,
                entered_at=at,
                refused=cause,
            )
            refused = seeds.Cause(kept) if kept else None
    if taken is not None:
        if taken.seed != seed:
            raise ControlFailed(
                "This run has its seed, and another one was entered.",
                "The first one stands; ask the auditor why.",
            )
        user, at = taken.entered_by, taken.entered_at
    elif refused is not None:
        raise SeedRefused(
            f"The seed was refused: {in_english(seeds.why(refused))}.",
            "The auditor is asked again.",
        )
    return _seed_record(user, at)


def seed_entered(desk: Desk) -> StepRecord | None:
    """Return the record of the run's seed, None while it has none.

    The task that took the seed may have been killed before its record was kept.

    Args:
        desk: of the run.
    """
    with desk.state.connect() as conn:
        seed = register.seed_of(conn, desk.run)
    return _seed_record(seed.entered_by, seed.entered_at) if seed else None


def _seed_record(user: str, at: datetime) -> StepRecord:
    return StepFindings(STEP_SEED, CLAUSE).record(
        {"seed": True, "decided_by": user, "entered_at": at.isoformat()}
    )
