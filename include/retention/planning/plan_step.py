"""The step of `enforce_retention` that makes the disposition plan."""

from __future__ import annotations

from datetime import date

from include.approvals import registry
from include.approvals.registry import Request
from include.erasure import ledger
from include.erasure.ledger import require_no_missing_entry
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, keep_artifact
from include.holds import records as record_holds
from include.holds import registry as holds
from include.messages import _
from include.retention.database import RetentionDatabase
from include.retention.hold_keys import report_unmatched_holds
from include.retention.planning import breaker
from include.retention.planning.approval import has_approvers, people_of_plan
from include.retention.planning.breaker import ExceededLimit
from include.retention.planning.plan import Plan, file_name
from include.retention.planning.planner import plan_database
from include.retention.results import KIND, EffectiveHold, PlanResult


def plan(
    database: RetentionDatabase, findings: StepFindings, as_of: str | None = None
) -> PlanResult:
    """Make the disposition plan of a database, and request its approval if needed.

    The plan is stored as a file of the evidence bundle.

    Args:
        database: database for which the plan is made.
        findings: collector of the findings of the planning step.
        as_of: time for which the plan is made, as text that
            `include.retention.planning.planner.parse_as_of` reads. It must not be in the future.

    Raises:
        ControlFailed: system clocks differ, or entries of the database are missing in the erasure
            ledger.
        UsageError: the time is in the future, or the retention schedule does not fit the database.
    """
    run, name = database.run, database.name
    findings.subject_titles |= database.subject_titles
    with run.state.connect() as conn:
        require_no_missing_entry(conn, name)
    new_plan = _plan_in_progress(database) or plan_database(database, as_of)
    exceeded = exceeded_limits(database, new_plan)
    with run.state.connect() as conn:
        expired = breaker.read_past_runs(conn, new_plan, database.run_key, "expired")
    with run.state.begin() as conn:
        waiting = {limit.name for limit in exceeded}
        breaker.enter_plan(conn, new_plan, database.run_key, run.clock, waiting)
        keep_artifact(conn, *database.run_key, file_name(name), new_plan.content)
        active = holds.active_holds(conn)
        due = holds.holds_due_for_review(conn, run.today)
        on_records = record_holds.load_record_holds(conn, name)
    request = _request_approval(database, findings, new_plan) if exceeded else None
    _report_unmapped(findings, new_plan)
    _report_nothing_expires(findings, new_plan, expired)
    _report_due_reviews(findings, [hold.review_on for hold in due])
    report_unmatched_holds(findings, database.reader, database.mapped, database.rules, on_records)
    for planned in new_plan.classes:
        findings.measure(f"retention.{planned.name}.planned", planned.planned, "rows")
    keeping = {held.hold for planned in new_plan.classes for held in planned.held_by}
    return PlanResult(
        as_of=new_plan.as_of,
        sha256=new_plan.sha256,
        classes=list(new_plan.classes),
        tripped=exceeded,
        started_by=run.triggered_by,
        key_id=new_plan.key_id,
        holds_that_counted=len(new_plan.holds),
        holds=[_effective_hold(hold) for hold in active if hold.id in keeping],
        reactions=list(new_plan.reactions),
        request=request.id if request else None,
        asked_at=request.requested_at if request else None,
        asked_for=request.requested_by if request else (),
    )


def _effective_hold(hold: holds.Hold) -> EffectiveHold:
    return EffectiveHold(
        hold=hold.id,
        kind=hold.kind,
        reason=hold.reason,
        owner=hold.owner,
        case=hold.case_ref,
        review_on=hold.review_on,
    )


def _plan_in_progress(database: RetentionDatabase) -> Plan | None:
    """Return the stored plan of this run, if the run has already acted on it, or None.

    The run has acted on the plan if it requested an approval or erased records. A retry of the
    planning step must keep such a plan: approvers decide on the request for this plan, and the run
    continues to execute it.

    Args:
        database: database of the plan.
    """
    run = database.run
    with run.state.connect() as conn:
        request = registry.latest_request(conn, *database.run_key, KIND, database.name)
        if request is None and not ledger.has_batches(conn, database.name, *database.run_key):
            return None
    content = run.records().artifacts.get(file_name(database.name))
    return Plan.model_validate_json(content) if content else None


def exceeded_limits(database: RetentionDatabase, plan: Plan) -> list[ExceededLimit]:
    """Return the limits that a plan exceeds. If there is at least one, the plan needs an approval.

    Recent erasures by other runs, which needed no approval, count towards the limits. Recent means
    within `breaker.RECENT` before the current time. If the plan is for a time in the future, it
    means within `breaker.RECENT` before this time.

    Args:
        database: database of the plan.
        plan: the plan.
    """
    run, default = database.run, database.disposition.limit
    with run.state.connect() as conn:
        past = breaker.read_past_runs(conn, plan, database.run_key)
        at = max(run.clock.now(), plan.as_of)
        recent = breaker.count_recent_erasures(conn, plan, database.run_key, at)
    limits = {rule.record_class: rule.limit or default for rule in database.rules}
    exceeded = [
        breaker.check_limit(
            planned,
            limits.get(planned.name, default),  # retention.yaml no longer has the class
            past[planned.name],
            recent.get(planned.name, 0),
        )
        for planned in plan.classes
    ]
    return [limit for limit in exceeded if limit]


def _request_approval(
    database: RetentionDatabase, findings: StepFindings, plan: Plan
) -> Request | None:
    """Request the approval of a plan.

    If the plan has no approver, add a finding and return None.
    """
    if not has_approvers(database, plan):
        findings.find(
            "retention.nobody_to_ask",
            Outcome.FAIL,
            _(
                "The disposition plan exceeds the limits for a disposition without approval, and "
                "no person is entitled to approve it."
            ),
            _(
                "Ask the data engineers to name owners and approvers of the retention schedule. "
                "An approver must not be an owner."
            ),
            for_engineers=_("Name them in `disposition.yaml`."),
        )
        return None
    dag_id, run_id = database.run_key
    with database.run.state.begin() as conn:
        return registry.create_request(
            conn,
            database.run.clock,
            kind=KIND,
            subject=database.name,
            sha256=plan.sha256,
            requested_by=people_of_plan(database, plan).owners,
            dag_id=dag_id,
            run_id=run_id,
        )


def _report_unmapped(findings: StepFindings, plan: Plan) -> None:
    for planned in plan.classes:
        for kept in planned.referred_by:
            if kept.collection is None:
                findings.find(
                    "retention.unmapped_reference",
                    Outcome.FAIL,
                    _(
                        "{count} expired records remain, because the table {table} refers to "
                        "them and is not in the data map.",
                        count=kept.records,
                        table=kept.table,
                    ),
                    _("Add the table to the data map, and define the disposition of its records."),
                    subject=planned.name,
                )


def _report_nothing_expires(findings: StepFindings, plan: Plan, past: dict[str, list[int]]) -> None:
    """Report each record class that has no expired records, but had some in each of the last runs.

    A possible cause is that the application no longer fills in the start of the retention period.

    Args:
        findings: collector of the findings of the planning step.
        plan: the plan of this run.
        past: record class -> numbers of expired records in the last runs.
    """
    for planned in plan.classes:
        usual = past[planned.name]
        if len(usual) >= breaker.MIN_RUNS and min(usual) > 0 and not planned.expired:
            findings.find(
                "retention.nothing_expires",
                Outcome.ATTENTION,
                _(
                    "No record of this record class has expired, although each of the last "
                    "{runs} runs found expired records of the class.",
                    runs=len(usual),
                ),
                _(
                    "Check that the records still contain the date from which the retention "
                    "period counts."
                ),
                subject=planned.name,
            )


def _report_due_reviews(findings: StepFindings, reviews: list[date]) -> None:
    if reviews:
        findings.find(
            "retention.hold_review_due",
            Outcome.ATTENTION,
            _("{count} legal holds are past their review date.", count=len(reviews)),
            _(
                "Ask the owners whether these legal holds are still needed. Have the legal "
                "holds that are not needed released."
            ),
            for_engineers=_("`./parcelseal hold list --due` lists them."),
        )
