"""Check the formal records of a database, and update the database's quarantine entries."""

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
from include.quality.history import RuleCheck, close_entries_without_suite
from include.schema import json_keys
from include.schema.drift import DriftKind, find_drift
from include.schema.findings import findings as drift_findings
from include.schema.live import LiveSchema, read_schema
from include.state.locks import hold_exclusive_lock
from include.workflow.run_context import RunContext
from include.workflow.step import Step

CLAUSE = "4.1"
PATIENCE = timedelta(minutes=30)  # a manual check may have to wait for the daily check
# Counted only in mapped schemas, because other schemas may belong to another application.
UNDECLARED = {DriftKind.UNDECLARED_COLUMN, DriftKind.UNDECLARED_TABLE}
OVER_COLLECTED = "expect_column_values_to_not_be_collected"


class QualityCheck(StepResult):
    """The result of checking a database.

    Attributes:
        collections: results of the collections for which the policy pack has expectations, in the
            order of the policy pack.
        rules: number of expectations for the database, including those that could not be checked.
    """

    collections: list[CheckedCollection]
    rules: int


@dataclass(frozen=True)
class Checked:
    """The result of checking a database, and the data for its Data Docs.

    Attributes:
        result: result for the step record.
        validations: results of the expectations for Data Docs, by name of the collection.
    """

    result: QualityCheck
    validations: dict[str, list[RuleResult]]


def check(run: RunContext[None], findings: StepFindings) -> QualityCheck:
    """Check the records of a database, and update the database's quarantine entries.

    The quarantine register lists the keys of the records that break expectations. The function also
    writes the Data Docs of each collection.

    Raises:
        ServiceError: another check of this database did not end within the waiting time. See
            `check_database` for further errors.
    """
    # Imported here, because only this step renders pages.
    from include.expectations.docs import data_docs

    database = run.database(findings.part)
    purpose = f"a check of {database.name}"
    with hold_exclusive_lock(run.state, f"quality:{database.name}", purpose, PATIENCE):
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
    """Check the records of a database in one snapshot, and update its quarantine entries.

    The schema of the database is also compared with the data map. The function may be called again
    in the same run: the quarantine register never lists a record twice.

    Args:
        run: context of the run.
        findings: findings of the step.
        database: data map of the database.
        at: time of the check.

    Raises:
        UsageError: the user, the password or the database name is wrong.
        DatabaseUnavailable: the server does not answer.
    """
    address, suites = run.services.database(database.connection), run.pack.suites_of(database.name)
    others = [
        other
        for other in run.pack.databases.values()
        if other.connection == database.connection and not other.is_faulty
    ]
    findings.subject_titles |= {
        f"{database.name}.{name}": database.collection_title(name) for name in database.collections
    }
    checks: list[RuleCheck] = []
    history_rows: list[RuleCheck] = []
    summaries: list[CheckedCollection] = []
    validations: dict[str, list[RuleResult]] = {}
    load_engine()  # takes seconds, in which an open snapshot would delay the server's vacuum
    with snapshot(address) as view, run.state.connect() as conn:
        live = read_schema(view.connection)
        drifts = find_drift(live, database, others)
        findings.findings += drift_findings(drifts, database)
        undeclared = sum(change.kind in UNDECLARED for change in drifts)
        mapped_objects = json_keys.mapped_objects(live, database)
        clean_objects: list[json_keys.MappedObject] = []  # examined together with the records
        indexed = _indexed(live, database)
        for suite in suites:
            collection = database.collections[suite.collection]
            table = live.tables.get((collection.schema_name, collection.table))
            inside = [
                mapped for mapped in mapped_objects if mapped.collection.name == collection.name
            ]
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
            clean_objects += checking.clean_objects
            history_rows += checking.history_rows
            summaries.append(checking.summary())
        unexamined = [mapped for mapped in mapped_objects if mapped not in clean_objects]
        unknown = json_keys.undeclared_keys(view.connection, database.name, unexamined)
        findings.findings += json_keys.findings(unknown, database)
        undeclared += sum(member.keys for member in unknown)
        _state_coverage(findings, database, summaries)
        examined_all = not any(member.sqlstate for member in unknown)
        collections = {suite.collection for suite in suites}
        close_entries_without_suite(findings, conn, run, at, database.name, collections)
        with conn.begin():
            history.record(
                conn,
                checks + history_rows,
                database=database.name,
                dag_id=run.run.dag_id,
                run_id=run.run.run_id,
                at=at,
            )
    # Zero counts only if all JSON columns were examined.
    counted = undeclared if examined_all or undeclared else None
    has_purposes = any(database.name in purpose.fields for purpose in run.pack.purposes)
    _measure(findings, suites, checks, counted, has_purposes=has_purposes)
    return Checked(QualityCheck(collections=summaries, rules=len(checks)), validations)


def _indexed(live: LiveSchema, database: MappedDatabase) -> frozenset[tuple[str, str]]:
    """Return the pairs of collection and field for which the live database has an index."""
    return frozenset(
        (name, field)
        for name, collection in database.collections.items()
        if (table := live.tables.get((collection.schema_name, collection.table))) is not None
        for field in table.indexed
    )


def _state_coverage(
    findings: StepFindings, database: MappedDatabase, collections: Sequence[CheckedCollection]
) -> None:
    """State which subjects of findings the check examined completely.

    An incremental check reads only changed records. It therefore examines neither its collection
    nor the keys of JSON columns completely.
    """
    full = [checked.collection for checked in collections if checked.incremental is None]
    codes = {f"schema.drift.{kind}" for kind in DriftKind}
    if len(full) == len(collections):
        codes |= json_keys.CODES
    findings.examine_only((f"{database.name}.{collection}" for collection in full), codes)


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
    # Without required rules the count is missing: zero would claim that all rules were met.
    findings.measure("quality.rules_broken", unmet if required else None, "1")
    findings.measure("quality.rules_unchecked", broken.count(None), "1")
    findings.measure("quality.broken", _sum(broken), "rows")
    findings.measure("quality.undeclared", undeclared, "1")
    if unneeded or has_purposes:  # zero is a result if the pack has purposes
        findings.measure("quality.over_collected", _sum(over), "rows")


def _sum(figures: Sequence[int | None]) -> int | None:
    """Return the sum of record counts; None if a count is None, because it was not measured."""
    available = [figure for figure in figures if figure is not None]
    return sum(available) if len(available) == len(figures) else None


CHECK = Step(
    name="check",
    title=_("The check of {part}", part=""),
    clause=CLAUSE,
    work=check,
    result=QualityCheck,
)
