"""The step of `enforce_retention` that plans."""

from __future__ import annotations

from datetime import date

from include.approvals import registry
from include.approvals.registry import Request
from include.erasure import ledger
from include.erasure.ledger import require_no_entry_missing
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, keep_artifact
from include.holds import records as record_holds
from include.holds import registry as holds
from include.messages import _
from include.retention.database import RetentionDatabase
from include.retention.hold_keys import find_unmatched
from include.retention.planning import breaker
from include.retention.planning.approval import may_be_approved, people_for
from include.retention.planning.breaker import Tripped
from include.retention.planning.plan import Plan, file_name
from include.retention.planning.planner import plan_of
from include.retention.results import KIND, EffectiveHold, PlanResult


def plan(
    database: RetentionDatabase, findings: StepFindings, as_of: str | None = None
) -> PlanResult:
    """Make the plan, store it as a file of the bundle, and request approval if needed.

    Args:
        database: to plan for.
        findings: of the step.
        as_of: see `include.retention.planning.planner.moment_of`; never in the future.

    Raises:
        ControlFailed: clocks disagree, or the erasure ledger lacks entries of the database.
        UsageError: the moment lies in the future, or the schedule does not fit the database.
    """
    run, name = database.run, database.name
    with run.state.connect() as conn:
        require_no_entry_missing(conn, name)
    made = _begun_plan(database) or plan_of(database, as_of)
    exceeded = tripped(database, made)
    with run.state.connect() as conn:
        expired = breaker.past_runs(conn, made, database.run_key, "expired")
    with run.state.begin() as conn:
        waiting = {each.name for each in exceeded}
        breaker.remember(conn, made, database.run_key, run.clock, waiting)
        keep_artifact(conn, *database.run_key, file_name(name), made.content)
        active = holds.active(conn)
        due = holds.due_for_review(conn, run.today)
        on_records = record_holds.on_records(conn, name)
    request = _request(database, findings, made) if exceeded else None
    _unmapped(findings, made)
    _nothing_expires(findings, made, expired)
    _due(findings, [hold.review_on for hold in due])
    find_unmatched(findings, database.reader, database.mapped, database.rules, on_records)
    for planned in made.classes:
        findings.measure(f"retention.{planned.name}.planned", planned.planned, "rows")
    keeping = {held.hold for planned in made.classes for held in planned.held_by}
    return PlanResult(
        as_of=made.as_of,
        sha256=made.sha256,
        classes=list(made.classes),
        tripped=exceeded,
        started_by=run.triggered_by,
        key_id=made.key_id,
        holds_that_counted=len(made.holds),
        holds=[_effective(hold) for hold in active if hold.id in keeping],
        reactions=list(made.reactions),
        request=request.id if request else None,
        asked_at=request.asked_at if request else None,
        asked_for=request.requested_by if request else (),
    )


def _effective(hold: holds.Hold) -> EffectiveHold:
    return EffectiveHold(
        hold=hold.id,
        kind=hold.kind,
        reason=hold.reason,
        owner=hold.owner,
        case=hold.case_ref,
        review_on=hold.review_on,
    )


def _begun_plan(database: RetentionDatabase) -> Plan | None:
    """Return the plan that this run requested approval for, or has begun to execute.

    A repeated step must not make another plan: people answer their approval request, and the run
    continues the plan that it began.
    """
    run = database.run
    with run.state.connect() as conn:
        request = registry.request_of(conn, *database.run_key, KIND, database.name)
        if request is None and not ledger.has_begun(conn, database.name, *database.run_key):
            return None
    content = run.records().artifacts.get(file_name(database.name))
    return Plan.model_validate_json(content) if content else None


def tripped(database: RetentionDatabase, plan: Plan) -> list[Tripped]:
    """Return the classes of a plan that a second person has to approve.

    Recent erasures do not count towards a plan for a day in the future.
    """
    run, default = database.run, database.disposition.limit
    with run.state.connect() as conn:
        past = breaker.past_runs(conn, plan, database.run_key)
        at = max(run.clock.now(), plan.as_of)
        recent = breaker.recent_runs(conn, plan, database.run_key, at)
    limits = {rule.record_class: rule.limit or default for rule in database.rules}
    exceeded = [
        breaker.trips(
            planned,
            limits.get(planned.name, default),  # of a class that is gone since
            past[planned.name],
            recent.get(planned.name, 0),
        )
        for planned in plan.classes
    ]
    return [each for each in exceeded if each]


def _request(database: RetentionDatabase, findings: StepFindings, plan: Plan) -> Request | None:
    """Request the approval of a plan; None, with a finding, if nobody may approve it."""
    if not may_be_approved(database, plan):
        findings.find(
            "retention.nobody_to_ask",
            Outcome.FAIL,
            _("The plan is larger than usual, and nobody may approve it."),
            _("Name owners and approvers, who are other people, in disposition.yaml."),
        )
        return None
    dag_id, run_id = database.run_key
    with database.run.state.begin() as conn:
        return registry.ask(
            conn,
            database.run.clock,
            kind=KIND,
            subject=database.name,
            sha256=plan.sha256,
            requested_by=people_for(database, plan).owners,
            dag_id=dag_id,
            run_id=run_id,
        )


def _unmapped(findings: StepFindings, plan: Plan) -> None:
    for planned in plan.classes:
        for kept in planned.referred_by:
            if kept.collection is None:
                findings.find(
                    "retention.unmapped_reference",
                    Outcome.FAIL,
                    _(
                        "{count} expired records stay: {table}, which the data map lacks, refers "
                        "to them.",
                        count=kept.records,
                        table=kept.table,
                    ),
                    _("Add the table to the data map and say what becomes of its records."),
                    subject=planned.name,
                )


def _nothing_expires(findings: StepFindings, plan: Plan, past: dict[str, list[int]]) -> None:
    """Warn when a class that always had expired records has none.

    Its clock column may no longer be filled.
    """
    for planned in plan.classes:
        usual = past[planned.name]
        if len(usual) >= breaker.FEWEST and min(usual) > 0 and not planned.expired:
            findings.find(
                "retention.nothing_expires",
                Outcome.ATTENTION,
                _(
                    "Nothing has expired; in each of the last {runs} runs something had.",
                    runs=len(usual),
                ),
                _("See that the clock of the class is still filled in."),
                subject=planned.name,
            )


def _due(findings: StepFindings, reviews: list[date]) -> None:
    if reviews:
        findings.find(
            "retention.hold_review_due",
            Outcome.ATTENTION,
            _("{count} legal holds are past their review date.", count=len(reviews)),
            _("Ask their owners, and release what is not needed: `hold list --due` names them."),
        )
