"""Tasks of `sample_audit`: services in, step records out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Param

from include.approvals.answer import Answer
from include.approvals.people import members
from include.approvals.question import Question
from include.evidence.ahead import FolderAhead
from include.evidence.model import Outcome, StepRecord
from include.evidence.names import bundle_path
from include.evidence.steps import artifacts_of, steps_of
from include.messages import _
from include.orchestration.human import wait
from include.orchestration.run import (
    open_run,
    run_context,
    run_key,
    seal_aside,
    seal_run,
    step,
)
from include.orchestration.workflow import policy
from include.reports.conclusion import Conclusion
from include.sampling import commitment_report, drawing, register, report, seeds, steps
from include.sampling.commitment import Commitment, Sealed, sealed_content
from include.sampling.desk import Desk
from include.sampling.names import (
    CLAUSE,
    COMMITMENT_FILE,
    COMMITMENT_WORKFLOW,
    STEP_AUDIT,
    STEP_COMMIT,
    STEP_DRAW,
    STEP_FREEZE,
    STEP_SEED,
)
from include.sampling.question import question
from include.sampling.rules import AUDIT
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import ObjectDamaged
from include.workplace import Workplace

CHOICES = (steps.ENTER, steps.CANCEL)
_DEFAULT_WAIT = timedelta(days=14)


def response_timeout() -> timedelta:
    """Return how long a run waits for the auditor who enters the seed."""
    rules = policy().section(AUDIT)
    response = rules.seed.response if rules else None
    return wait(response.months, response.days, response.seconds) if response else _DEFAULT_WAIT


def form() -> dict[str, Param]:
    """Return what an auditor enters."""
    return {
        "seed": Param(
            "",
            type=["null", "string"],
            maxLength=seeds.LONGEST,
            title="Seed / 种子",
            description="Exactly as published; every character counts. 按公布内容原样填写。",
        ),
        "source": Param(
            "",
            type=["null", "string"],
            maxLength=seeds.LONGEST,
            title="Read at / 来源",
            description="Where others can read it: page, date. 他人可查证的出处（网页、日期）。",
        ),
        "published_at": Param(
            "",
            type=["null", "string"],
            maxLength=40,
            title="Published at / 公布时间",
            description="2026-10-08T15:00:00+08:00",
        ),
    }


def in_advance(words: str, at: datetime) -> dict[str, str]:
    """Return what the form holds when the seed was given with the command, or dice were."""
    from include.approvals.reasons import COMMAND_LINE

    entered = seeds.thrown(COMMAND_LINE, at)  # told as a stand-in in the evidence
    return entered | (
        {"seed": words, "source": f"{seeds.STAND_IN} {COMMAND_LINE}"} if words.strip() else {}
    )


def begin(asked: str | None) -> list[str]:
    """Name the quarter; returns the populations to freeze."""
    found: list[str] = []

    def work(place: Workplace) -> StepRecord:
        if place.pack.section(AUDIT) is None:
            return StepRecord(step=STEP_AUDIT, outcome=Outcome.PASS, data={"populations": []})
        record = steps.begin(desk_of(place), asked)
        found.extend(record.data["populations"])
        return record

    step(STEP_AUDIT, "", _("The beginning"), work, CLAUSE)
    return found


def freeze(population: str) -> dict[str, Any]:
    """Write the frame of a population and plan its sample."""
    title = _("The frame of {population}", population=population)

    def work(place: Workplace) -> StepRecord:
        return steps.freeze_population(desk_of(place), population)

    return step(STEP_FREEZE, population, title, work, CLAUSE)


def commit() -> dict[str, Any]:
    """Seal what was frozen, in a bundle of its own, before anybody knows the seed."""

    def work(place: Workplace) -> StepRecord:
        if place.pack.section(AUDIT) is None:
            return steps.nothing_committed()
        desk = desk_of(place)
        with desk.state.connect() as conn:
            sealed = register.commitment_of(conn, desk.run)
        made = _committed(desk) if sealed else steps.commitment(desk)
        if made is None:
            return steps.nothing_committed()
        return steps.committed(desk, made, sealed or _sealed(place, made))

    return step(STEP_COMMIT, "", _("The commitment"), work, CLAUSE)


def _committed(desk: Desk) -> Commitment:
    """What a run committed to, when its commit is repeated."""
    with desk.state.connect() as conn:
        content = artifacts_of(conn, *desk.run).get(COMMITMENT_FILE)
    if content is None:
        raise ControlFailed("The commitment of this run is gone.", "Start a new run.")
    return Commitment.model_validate_json(content)


def _sealed(place: Workplace, made: Commitment) -> Sealed:
    content = made.to_bytes()
    digest = hashlib.sha256(content).hexdigest()
    conclusion = commitment_report.commitment_conclusion(made, digest, place.pack.require(AUDIT))
    row = seal_aside(COMMITMENT_WORKFLOW, place, conclusion, {COMMITMENT_FILE: content})
    store = place.store("evidence_store")
    try:
        sealed = store.get(f"{row.bundle}/{COMMITMENT_FILE}", limit=len(content))
    except ObjectDamaged:
        sealed = b""  # longer than ours, so it is another one
    if sealed != content:
        raise ControlFailed(
            "Another commitment of this run was sealed before.",
            "Somebody froze a population again meanwhile. Start a new run.",
        )
    return Sealed(bundle=row.bundle, sums_sha256=row.sums_sha256, sealed_at=row.sealed_at)


def ask(_part: str) -> Question | None:
    """Ask an auditor for the seed: what was committed to, and which public value it will be."""
    return _question(again=False)


def ask_again(_part: str) -> Question | None:
    """Ask once more, and say why: the seed entered before was refused. Else nobody is asked."""
    return _question(again=True)


# A task each: a repeated one would show the page of its first try, which Airflow keeps. So many,
# since people err more often than services fail.
QUESTIONS = {"seed": ask} | {f"seed_{number}": ask_again for number in range(2, 6)}


def _question(*, again: bool) -> Question | None:
    """Return the question for a seed, None where no auditor has to be asked."""
    with open_run().state.connect() as conn:
        committed = register.commitment_of(conn, run_key()) is not None
        has_seed = register.seed_of(conn, run_key()) is not None
        refused = register.refusals_of(conn, run_key())
        answers = [record.data for record in steps_of(conn, *run_key()) if record.step == STEP_SEED]
    is_answered = any("decided_by" in data for data in answers)
    if has_seed and not is_answered:
        _keep_seed()
    if not committed or has_seed or is_answered or (again and not refused):
        return None
    return _asked()


def _keep_seed() -> None:
    """Keep the record of a seed whose task was killed after it had registered it."""

    def work(place: Workplace) -> StepRecord:
        record = steps.seed_entered(desk_of(place))
        assert record is not None
        return record

    step(STEP_SEED, "", _("The seed"), work, CLAUSE)


def _asked() -> Question:
    made: list[Question] = []

    def work(place: Workplace) -> StepRecord:
        desk = desk_of(place)
        with desk.state.connect() as conn:
            sealed = register.commitment_of(conn, desk.run)
            refused = register.refusals_of(conn, desk.run)
        if sealed is None:
            raise ControlFailed("There is no commitment of this run.", "Start a new run.")
        committed = _committed(desk)
        digest = hashlib.sha256(committed.to_bytes()).hexdigest()
        auditors = _auditors(desk)
        made.append(
            question(committed, digest, sealed, desk.rules, auditors, refused, desk.timezone)
        )
        return StepRecord(step=STEP_SEED, outcome=Outcome.PASS, data={"asked": True})

    step(STEP_SEED, "", _("The question for the seed"), work, CLAUSE)
    return made[0]


def _auditors(desk: Desk) -> Sequence[str]:
    rules, staff = desk.rules, desk.staff
    if staff is None:
        found = members(None, None, rules.staff, rules.auditors)
    else:
        # one transaction: a pooler may hand out another session for the next one
        with staff[1].connect(autocommit=True) as connection, connection.transaction():
            path = [staff[0].schema_name]
            connection.execute("SELECT set_config('search_path', quote_ident(%s), true)", path)
            found = members(connection, staff[0], rules.staff, rules.auditors)
    if not found:  # an empty list would let everybody answer
        raise UsageError("Nobody may enter the seed.", "Name auditors in audit.yaml.")
    return found


def take(_part: str, answer: Answer) -> dict[str, Any]:
    """Take the seed, or keep why it cannot be taken: then the next question asks again."""

    def work(place: Workplace) -> StepRecord:
        desk = desk_of(place)
        at = answer.at or place.clock.now()
        auditors = _auditors(desk) if answer.user else ()
        given = dict(answer.given)
        try:
            return steps.take_seed(
                desk, answer.option, given, answer.user, at, auditors, answer.content
            )
        except steps.SeedRefused:
            with desk.state.connect() as conn:
                count = len(register.refusals_of(conn, desk.run))
            return steps.refused(count, len(QUESTIONS))

    return step(STEP_SEED, "", _("The seed"), work, CLAUSE)


def draw() -> dict[str, Any]:
    """Draw every committed population by the seed."""

    def work(place: Workplace) -> StepRecord:
        if place.pack.section(AUDIT) is None:
            return StepRecord(step=STEP_DRAW, outcome=Outcome.PASS, data={"drawn": {}})
        return drawing.draw(desk_of(place))

    return step(STEP_DRAW, "", _("The draw"), work, CLAUSE)


def seal_sample() -> dict[str, Any]:
    """Seal the evidence of a draw."""

    def conclude(
        place: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        if place.pack.section(AUDIT) is None:
            return report.nothing_to_audit(records)
        with place.state.connect() as conn:
            seed = register.seed_of(conn, run_key())
            refused = register.refusals_of(conn, run_key())
            sealed = register.commitment_of(conn, run_key())
        store = place.store("evidence_store")
        content = sealed_content(store, sealed) if sealed else None
        made = Commitment.model_validate_json(content) if content else None
        edited = sealed is not None and content != artifacts.get(COMMITMENT_FILE)
        folder = desk_of(place).folder
        frames = {one.file: folder.sha256(one.file) for one in made.populations} if made else {}
        return report.conclude(
            records,
            rules=place.pack.require(AUDIT),
            made=made,
            seed=seed,
            refused=refused,
            frames=frames,
            edited=edited,
            timezone=place.pack.calendar.timezone,
        )

    return seal_run(conclude)


def desk_of(place: Workplace) -> Desk:
    """Return what the steps of a run work with.

    Args:
        place: of the task.

    Raises:
        UsageError: the pack has no audit.yaml.
    """
    pack, rules = place.pack, place.pack.section(AUDIT)
    if rules is None:
        raise UsageError(
            "The policy pack has no audit.yaml: nothing is audited by samples.",
            "Write one: docs/audit.md.",
        )
    dag_id, run_id = run_key()
    mapped = {one.database: pack.database(one.database) for one in rules.populations}
    staff = rules.staff
    holder = pack.database_of(staff.collection, staff.database) if staff else None
    bundle = bundle_path(dag_id, run_id, run_context(place).started_at)
    return Desk(
        rules=rules,
        databases=mapped,
        readers={
            name: place.role_database(rules.connection, one.connection)
            for name, one in mapped.items()
        },
        staff=(holder, place.role_database(rules.connection, holder.connection))
        if holder
        else None,
        state=place.state,
        clock=place.clock,
        folder=FolderAhead(place.store("evidence_store"), bundle),
        timezone=pack.calendar.timezone,
        dag_id=dag_id,
        run_id=run_id,
        policy_hash=pack.sha256,
        code_version=place.code_version,
        roles=pack.roles,
        notices=pack.notices,
    )
