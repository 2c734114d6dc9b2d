"""Checking the formal records of one database: counts, broken records, quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings, StepResult
from include.expectations.check import RuleResult, load_engine, snapshot
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.policy.expectations import Suite
from include.quality import history
from include.quality.collection import CheckedCollection, CollectionCheck
from include.quality.history import RuleCheck, notice_dropped
from include.schema import json_keys
from include.schema.drift import DriftKind, drift
from include.schema.findings import findings as drift_findings
from include.schema.live import LiveSchema, read_schema
from include.state.locks import exclusive
from include.workflow.run_context import RunContext
from include.workflow.step import Step

CLAUSE = "4.1"
PATIENCE = timedelta(minutes=30)  # with a check by hand that runs into the daily one
# In mapped schemas. Other schemas may belong to another application.
UNDECLARED = {DriftKind.UNDECLARED_COLUMN, DriftKind.UNDECLARED_TABLE}
OVER_COLLECTED = "expect_column_values_to_not_be_collected"


class QualityCheck(StepResult):
    """The check of a database.

    Attributes:
        collections: with a suite, in the order of the policy pack.
        rules: number of rules that were judged.
    """

    collections: list[CheckedCollection]
    rules: int


@dataclass(frozen=True)
class Checked:
    """The result of a check, and Great Expectations' results by collection for Data Docs."""

    result: QualityCheck
    validations: dict[str, list[RuleResult]]


def check(run: RunContext[None], findings: StepFindings) -> QualityCheck:
    """Count what breaks each expectation, and enter broken records in the register by key.

    Raises:
        ServiceError: another check of this database did not end in time; see `check_database`.
    """
    from include.expectations.docs import data_docs  # only this step renders its pages

    database = run.database(findings.part)
    what = f"a check of {database.name}"
    with exclusive(run.state, f"quality:{database.name}", what, PATIENCE):
        at = run.clock.now()
        checked = check_database(run, findings, database, at)
    for collection in checked.result.collections:
        title = f"{database.name}.{collection.collection}"
        file = f"datadocs.{title}.html"
        if collection.incremental:
            title += " (incremental; records were counted by the last full check)"
        validations = checked.validations[collection.collection]
        run.keep_file(file, data_docs(title, validations, run.run.run_id, at))
    return checked.result


def check_database(
    run: RunContext[None], findings: StepFindings, database: MappedDatabase, at: datetime
) -> Checked:
    """Check every suite of a database on one snapshot, and its schema against the data map.

    May be repeated: what an earlier try entered is found again.

    Args:
        run: the run that checks.
        findings: of the step.
        database: the data map.
        at: the moment of the check.

    Raises:
        UsageError: user, password or database name is wrong.
        DatabaseUnavailable: the server does not answer.
    """
    address, suites = run.services.database(database.connection), run.pack.suites_of(database.name)
    others = [
        other
        for other in run.pack.databases.values()
        if other.connection == database.connection and not other.is_faulty
    ]
    checks: list[RuleCheck] = []
    kept: list[RuleCheck] = []
    summaries: list[CheckedCollection] = []
    validations: dict[str, list[RuleResult]] = {}
    load_engine()  # takes seconds: not while the snapshot holds the server's clean-up back
    with snapshot(address) as view, run.state.connect() as conn:
        live = read_schema(view.connection)
        drifts = drift(live, database, others)
        findings.findings += drift_findings(drifts)
        undeclared = sum(each.kind in UNDECLARED for each in drifts)
        places = json_keys.places(live, database)
        clean: list[json_keys.JsonPlace] = []  # looked at together with the records
        indexed = _indexed(live, database)
        for suite in suites:
            collection = database.collections[suite.collection]
            table = live.tables.get((collection.schema_name, collection.table))
            inside = [place for place in places if place.collection.name == collection.name]
            checking = CollectionCheck(
                database,
                collection,
                suite,
                table,
                live,
                view,
                conn,
                run,
                at,
                findings,
                indexed,
                inside,
            )
            validations[collection.name] = checking.check()
            checks += checking.checks
            clean += checking.clean
            kept += checking.kept
            summaries.append(checking.summary())
        left = [place for place in places if place not in clean]
        unknown = json_keys.undeclared_keys(view.connection, database.name, left)
        findings.findings += json_keys.findings(unknown)
        undeclared += sum(each.keys for each in unknown)
        looked_everywhere = not any(each.fault for each in unknown)
        collections = {suite.collection for suite in suites}
        notice_dropped(findings, conn, run, at, database.name, collections)
        with conn.begin():
            history.record(
                conn,
                checks + kept,
                database=database.name,
                dag_id=run.run.dag_id,
                run_id=run.run.run_id,
                at=at,
            )
    # Zero counts only if all JSON columns were examined.
    counted = undeclared if looked_everywhere or undeclared else None
    has_purposes = any(database.name in purpose.fields for purpose in run.pack.purposes)
    _measure(findings, suites, checks, counted, has_purposes=has_purposes)
    return Checked(QualityCheck(collections=summaries, rules=len(checks)), validations)


def _indexed(live: LiveSchema, database: MappedDatabase) -> frozenset[tuple[str, str]]:
    """Return the collections and fields with an index."""
    return frozenset(
        (name, field)
        for name, collection in database.collections.items()
        if (table := live.tables.get((collection.schema_name, collection.table))) is not None
        for field in table.indexed
    )


def _measure(
    findings: StepFindings,
    suites: Sequence[Suite],
    checks: Sequence[RuleCheck],
    undeclared: int | None,
    *,
    has_purposes: bool,
) -> None:
    rules = [(suite.collection, rule) for suite in suites for rule in suite.expectations]
    unneeded = {(name, rule.id) for name, rule in rules if rule.type == OVER_COLLECTED}
    required = {(name, rule.id) for name, rule in rules if rule.severity == "fail"}
    unmet = sum(check.outcome is Outcome.FAIL for check in checks)
    broken = [check.broken for check in checks]
    over = [check.broken for check in checks if (check.collection, check.rule) in unneeded]
    findings.measure("quality.rules", len(checks), "1")
    findings.measure("quality.rules_required", len(required), "1")
    # Without a required rule nothing is shown, which differs from no unmet rule.
    findings.measure("quality.rules_broken", unmet if required else None, "1")
    findings.measure("quality.rules_unchecked", broken.count(None), "1")
    findings.measure("quality.broken", _sum(broken), "rows")
    findings.measure("quality.undeclared", undeclared, "1")
    if unneeded or has_purposes:  # no unneeded field at all is a figure too
        findings.measure("quality.over_collected", _sum(over), "rows")


def _sum(figures: Sequence[int | None]) -> int | None:
    """Return the sum; None if one of them is unknown."""
    known = [figure for figure in figures if figure is not None]
    return sum(known) if len(known) == len(figures) else None


CHECK = Step(
    name="check",
    title=_("The check of {part}", part=""),
    clause=CLAUSE,
    work=check,
    result=QualityCheck,
)
