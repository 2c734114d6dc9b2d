"""The steps of `enforce_retention` up to the execution: plan, ask, take the answer, execute."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import date, datetime
from typing import Any

from psycopg.sql import Identifier

from include.approvals import registry
from include.approvals.question import Question
from include.approvals.registry import Cause, Decision, Refusal
from include.erasure import ledger
from include.evidence.examination import Examination
from include.evidence.model import Outcome, StepRecord
from include.evidence.steps import artifacts_of, keep_artifact
from include.holds import registry as holds
from include.messages import Message, _
from include.retention import breaker, told
from include.retention.breaker import Tripped
from include.retention.desk import Desk
from include.retention.execute import Executor
from include.retention.names import CLAUSE, KIND, STEP_APPROVE, STEP_EXECUTE, STEP_PLAN
from include.retention.people import People, people_of
from include.retention.plan import Plan, file_name, read_plan
from include.retention.question import question, why
from include.retention.session import prepare
from include.retention.work import Progress, Tally
from include.services.errors import ControlFailed


def plan(desk: Desk, as_of: str | None = None) -> StepRecord:
    """Make the plan, keep it as a file of the bundle, and ask for approval where it is needed.

    Args:
        desk: of the database.
        as_of: see `include.retention.desk.moment_of`; never in the future.

    Raises:
        ControlFailed: clocks disagree.
        UsageError: the moment lies in the future, or the schedule does not fit the database.
    """
    seen = Examination(STEP_PLAN, CLAUSE, part=desk.database.name)
    made = _begun(desk) or desk.plan(as_of)
    tripped, past = _tripped(desk, made)
    data: dict[str, Any] = {
        "as_of": made.as_of.isoformat(),
        "sha256": made.sha256,
        "classes": [one.model_dump(mode="json") for one in made.classes],
        "tripped": [vars(one) for one in tripped],
    }
    with desk.state.begin() as conn:
        breaker.remember(conn, made, desk.run, desk.clock)
        keep_artifact(conn, *desk.run, file_name(made.database), made.content)
        data |= told.of_plan(conn, desk, made)
        due = holds.due_for_review(conn, desk.clock.now().date())
    if tripped:
        data |= _asked(desk, seen, made)
    _unmapped(seen, made)
    _still(seen, made, past)
    _due(seen, [one.review_on for one in due])
    for one in made.classes:
        seen.measure(f"retention.{one.name}.planned", one.planned, "rows")
    return seen.record(data)


def _begun(desk: Desk) -> Plan | None:
    """The plan that this run asked about, or has begun to execute.

    Somebody repeats the run's first step. Another plan now would be one that nobody was shown: what
    is answered is what was asked, and what is executed is what was begun.
    """
    name = desk.database.name
    with desk.state.connect() as conn:
        asked = registry.request_of(conn, *desk.run, KIND, name)
        if asked is None and not ledger.has_begun(conn, name, *desk.run):
            return None
        found = artifacts_of(conn, *desk.run).get(file_name(name))
    return Plan.model_validate_json(found) if found else None


def _tripped(desk: Desk, made: Plan) -> tuple[list[Tripped], dict[str, list[int]]]:
    with desk.state.connect() as conn:
        past = breaker.past_runs(conn, made, desk.run)
        recent = breaker.recent_runs(conn, made, desk.run, desk.clock.now())
    limits = {one.record_class: one.limit or desk.disposition.limit for one in desk.rules}
    found = [
        breaker.trips(one, limits[one.name], past[one.name], recent.get(one.name, 0))
        for one in made.classes
    ]
    return [one for one in found if one], past


def _asked(desk: Desk, seen: Examination, made: Plan) -> dict[str, Any]:
    """Enter the request for a decision; what stands in the way of one is a finding."""
    people = _people(desk)
    if not people.owners or not people.approvers:
        seen.find(
            "retention.nobody_to_ask",
            Outcome.FAIL,
            _("The plan is larger than usual, and nobody may approve it."),
            _("Name owners and approvers, who are other people, in disposition.yaml."),
        )
        return {}
    with desk.state.begin() as conn:
        asked = registry.ask(
            conn,
            desk.clock,
            kind=KIND,
            subject=desk.database.name,
            sha256=made.sha256,
            requested_by=people.owners,
            dag_id=desk.dag_id,
            run_id=desk.run_id,
        )
    return told.of_request(asked)


def _people(desk: Desk) -> People:
    staff = desk.staff
    place = staff[1].connect(autocommit=True) if staff else nullcontext()
    with place as connection:
        if connection is not None and staff is not None:
            prepare(connection, staff[0])
        database = staff[0] if staff else None
        return people_of(connection, database, desk.disposition.approval, desk.starter)


def _unmapped(seen: Examination, made: Plan) -> None:
    for one in made.classes:
        for found in one.referred_by:
            if found.collection is None:
                seen.find(
                    "retention.unmapped_reference",
                    Outcome.FAIL,
                    _(
                        "{count} expired records stay: {table}, which the data map lacks, refers "
                        "to them.",
                        count=found.records,
                        table=found.table,
                    ),
                    _("Add the table to the data map and say what becomes of its records."),
                    subject=one.name,
                )


def _still(seen: Examination, made: Plan, past: dict[str, list[int]]) -> None:
    """Say when nothing goes of a class of which something always goes: its clock may be broken."""
    for one in made.classes:
        usual = past[one.name]
        if len(usual) >= breaker.FEWEST and min(usual) > 0 and not (one.expired or one.requested):
            seen.find(
                "retention.nothing_expires",
                Outcome.ATTENTION,
                _("No record has expired, as in none of the last {runs} runs.", runs=len(usual)),
                _("See that the clock of the class is still filled in."),
                subject=one.name,
            )


def _due(seen: Examination, reviews: list[date]) -> None:
    if reviews:
        seen.find(
            "retention.hold_review_due",
            Outcome.ATTENTION,
            _("{count} legal holds are past their review date.", count=len(reviews)),
            _("Ask their owners, and release what is not needed: `hold list --due` names them."),
        )


def planned(desk: Desk, record: StepRecord) -> Plan:
    """Return the plan of this run from its file.

    Raises:
        ControlFailed: it is not there, or was edited.
    """
    name = file_name(desk.database.name)
    with desk.state.connect() as conn:
        found = artifacts_of(conn, *desk.run).get(name)
    if found is None:
        raise ControlFailed(f"The plan of {desk.database.name} is gone.", "Run the workflow again.")
    return read_plan(found, str(record.data["sha256"]))


def ask(desk: Desk, record: StepRecord) -> Question | None:
    """Make the page of a question; None where nobody has to be asked.

    Raises:
        ControlFailed: the plan was edited, or nobody may be asked.
    """
    if "request" not in record.data:
        return None
    made = planned(desk, record)
    people = _people(desk)
    if not people.approvers:  # an empty list would let everybody answer
        raise ControlFailed(f"Nobody may approve the plan of {made.database}.", "Name approvers.")
    rules = {one.record_class: one for one in desk.rules}
    tripped = [Tripped(**one) for one in record.data["tripped"]]
    return question(made, desk.database.title, rules, tripped, people, desk.timezone)


def take(
    desk: Desk,
    record: StepRecord,
    *,
    option: str,
    reason: str,
    user: str | None,
    at: datetime,
    name: str | None = None,
) -> StepRecord:
    """Enter the answer to a question, or that nobody answered.

    Airflow tells who started a run by name and who answered by id and name; where its auth manager
    keeps the two apart, either counts as the person.
    """
    seen = Examination(STEP_APPROVE, CLAUSE, part=desk.database.name)
    people = _people(desk)
    with desk.state.begin() as conn:
        asked = registry.request(conn, int(record.data["request"]))
        answer = registry.decide(
            conn,
            asked,
            decision=option,
            reason=reason,
            decided_by=name if name in asked.requested_by else user,
            decided_at=at,
            may_decide=people.approvers,
        )
    data: dict[str, Any] = {
        "decision": answer.decision,
        "decided_by": answer.decided_by,
        "decided_at": answer.decided_at.isoformat(),
    }
    if isinstance(answer, Decision):
        if not answer.approved:
            seen.find(
                "retention.rejected",
                Outcome.ATTENTION,
                _("{who} rejected the plan.", who=answer.decided_by),
                _("Read the reason; correct the schedule or its limits. The next run asks anew."),
            )
        return seen.record(data | {"reason": answer.reason})
    _refused(seen, answer)
    return seen.record(data | {"refused": str(answer.cause)})


def _refused(seen: Examination, answer: Refusal) -> None:
    severity, message = _REFUSALS[answer.cause]
    action = _("Ask the person why; raise an incident if it was no mistake.")
    if answer.cause in (Cause.NOBODY, Cause.NO_REASON):
        action = _("Remind the approvers; the next run asks again.")
    seen.find(
        f"retention.{answer.cause}",
        severity,
        Message(text=message.text, values={"who": answer.decided_by}),
        action,
    )


_REFUSALS: dict[Cause, tuple[Outcome, Message]] = {
    Cause.NOBODY: (Outcome.ATTENTION, _("Nobody answered in time; these classes stay.")),
    Cause.OWN_REQUEST: (
        Outcome.FAIL,
        _("{who} answered for a schedule or run of their own; it does not count.", who=""),
    ),
    Cause.NOT_ENTITLED: (
        Outcome.FAIL,
        _("{who} answered and may not approve; it does not count.", who=""),
    ),
    Cause.NO_REASON: (
        Outcome.ATTENTION,
        _("{who} rejected the plan and gave no reason; these classes stay.", who=""),
    ),
    Cause.DECIDED_BEFORE: (
        Outcome.FAIL,
        _("{who} answered a second time; the first decision stands.", who=""),
    ),
}


def execute(desk: Desk, record: StepRecord, progress: Progress | None = None) -> StepRecord:
    """Execute the plan as far as it was approved or needs no approval.

    Safe to repeat and to kill at any point: see `include.retention.execute`.

    Raises:
        ControlFailed: the plan was edited, or does not cover what would go.
        ServiceError: a database failed, or others hold locks; repeat it.
    """
    seen = Examination(STEP_EXECUTE, CLAUSE, part=desk.database.name)
    made = planned(desk, record)
    tripped = [Tripped(**one) for one in record.data["tripped"]]
    approved = _approved(desk, record, made)
    allowed = {one.name for one in made.classes}
    if not approved:
        allowed -= {one.name for one in tripped}
    executor = Executor(
        writer=desk.writer,
        state=desk.state,
        rules=desk.disposition,
        clock=desk.clock,
        dag_id=desk.dag_id,
        run_id=desk.run_id,
        progress=progress or (lambda _stage: None),
    )
    tally = executor.execute(made, desk.schedule(made.as_of), allowed)
    done = done_of(desk)
    with desk.state.begin() as conn:
        executed = {one.name: done.get(one.name, 0) for one in made.classes if one.name in allowed}
        breaker.executed(conn, made.database, desk.run, executed)
    for one in tripped if not approved else []:
        seen.find(
            "retention.not_approved",
            Outcome.ATTENTION,
            _(
                "{count} records stay, since nobody approved: {why}.",
                count=one.planned,
                why=why(one),
            ),
            _("Have the next run's question answered by somebody who may."),
            subject=one.name,
        )
    _shortfalls(seen, tally)
    return seen.record(
        {
            "done": done,
            "executed_as": desk.writer.parameters.get("user"),
            "counted": tally.done,
            "entered": {
                name: entered
                for name in done
                if (entered := done[name] - tally.before.get(name, 0))
            },
            "partitions": _dropped(desk, made),
            "stopped": tally.stopped,
            "refused": {f"{name} {code}": n for (name, code), n in tally.refused.items()},
            "busy": tally.busy,
            "longest_transaction_ms": round(tally.seconds * 1000),
            "not_approved": [] if approved else [one.name for one in tripped],
        }
    )


def _dropped(desk: Desk, made: Plan) -> dict[str, int]:
    """Partitions of the plan that are gone, by class: over all tries of this run."""
    gone = {}
    with desk.reader.connect(autocommit=True) as connection:
        for one in made.classes:
            planned = made.table(one.collection).partitions if one.to_drop_partitions else ()
            names = [
                Identifier(*each.table.split(".", 1)).as_string(connection) for each in planned
            ]
            row = connection.execute(
                "SELECT count(*) FROM unnest(%s::text[]) AS n WHERE to_regclass(n) IS NULL",
                [names],
            ).fetchone()
            if row is not None and row[0]:
                gone[one.name] = int(row[0])
    return gone


def _approved(desk: Desk, record: StepRecord, made: Plan) -> bool:
    """Whether a second person approved this very plan.

    Raises:
        ControlFailed: the approval is of another plan.
    """
    if "request" not in record.data:
        return False
    request = int(record.data["request"])
    with desk.state.connect() as conn:
        decision = registry.decision_on(conn, request)
        if decision is None or not decision.approved:
            return False
        registry.require(conn, request, made.sha256)
    return True


def done_of(desk: Desk) -> dict[str, int]:
    """Records that this run erased, by class: the ledger says so, over all its tries."""
    with desk.state.connect() as conn:
        counted = ledger.counted(conn, *desk.run)
    done: dict[str, int] = {}
    for (database, name, _action), found in counted.items():
        if database == desk.database.name:
            done[name] = done.get(name, 0) + found
    return done


def _shortfalls(seen: Examination, tally: Tally) -> None:
    if tally.stopped:
        reason = (
            _("the run's time was used up")
            if tally.stopped == "budget"
            else _("the time of day in which records may be deleted ended")
        )
        seen.find(
            "retention.stopped",
            Outcome.ATTENTION,
            _("The execution stopped before its end: {reason}.", reason=reason),
            _(
                "The next run goes on. If it repeats, widen `window` or `budget` "
                "(disposition.yaml)."
            ),
        )
    for name, records in sorted(tally.knots.items()):
        seen.find(
            "retention.knot",
            Outcome.FAIL,
            _(
                "{count} records or more refer to each other in a circle that one transaction "
                "cannot delete.",
                count=records,
            ),
            _("Set one of the foreign keys of the circle to null: `detach` in retention.yaml."),
            subject=name,
        )
    for (name, code), records in sorted(tally.refused.items()):
        seen.find(
            "retention.refused",
            Outcome.FAIL,
            _(
                "The database refused to let {count} records go (SQLSTATE {code}).",
                count=records,
                code=code,
            ),
            _("See its log: a trigger, a check, or a foreign key with RESTRICT forbids it."),
            subject=name,
        )
