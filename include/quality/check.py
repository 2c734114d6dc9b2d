"""Checking the formal records of one database: counts, broken records, quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.expectations.check import RuleResult, load_engine, snapshot
from include.policy.datamap import MappedDatabase
from include.policy.expectations import Suite
from include.quality import history
from include.quality.collection import CollectionCheck
from include.quality.dropped import notice_dropped
from include.quality.history import RuleCheck
from include.quality.run import Run
from include.schema import json_keys
from include.schema.drift import DriftKind, drift
from include.schema.findings import findings as drift_findings
from include.schema.live import LiveSchema, read_schema
from include.services.database import DatabaseAddress

STEP, CLAUSE = "check", "4.1"
# Of the mapped schemas: what lies beside them may be another application's, and asks for attention.
UNDECLARED = {DriftKind.UNDECLARED_COLUMN, DriftKind.UNDECLARED_TABLE}
OVER_COLLECTED = "expect_column_values_to_not_be_collected"


@dataclass
class Checked:
    """What one database's check leaves.

    Attributes:
        record: of the step.
        results: by collection, for Data Docs.
    """

    record: StepRecord
    results: dict[str, list[RuleResult]] = field(default_factory=dict)


def check_database(
    database: MappedDatabase,
    address: DatabaseAddress,
    suites: Sequence[Suite],
    run: Run,
    others: Sequence[MappedDatabase] = (),
) -> Checked:
    """Check every suite of a database on one snapshot, and its schema against the data map.

    May be repeated: what an earlier try entered is found again.

    Args:
        database: the data map.
        address: of the database.
        suites: of it.
        run: the run that checks.
        others: further data maps of the same live database.

    Raises:
        UsageError: user, password or database name is wrong.
        DatabaseUnavailable: the server does not answer.
    """
    seen = StepFindings(STEP, CLAUSE, database.name)
    checks: list[RuleCheck] = []
    kept: list[RuleCheck] = []
    summaries: list[dict[str, Any]] = []
    done = Checked(seen.record({}))
    load_engine()  # takes seconds: not while the snapshot holds the server's clean-up back
    with snapshot(address) as view, run.state.connect() as conn:
        live = read_schema(view.connection)
        drifts = drift(live, database, others)
        seen.findings += drift_findings(drifts)
        undeclared = sum(one.kind in UNDECLARED for one in drifts)
        places = json_keys.places(live, database)
        clean: list[json_keys.JsonPlace] = []  # looked at together with the records
        indexed = _indexed(live, database)
        for suite in suites:
            collection = database.collections[suite.collection]
            table = live.tables.get((collection.schema_name, collection.table))
            inside = [place for place in places if place.collection.name == collection.name]
            one = CollectionCheck(
                database, collection, suite, table, live, view, conn, run, seen, indexed, inside
            )
            results = one.check()
            checks += one.checks
            clean += one.clean
            kept += one.kept
            summaries.append(one.summary())
            done.results[collection.name] = results
        left = [place for place in places if place not in clean]
        unknown = json_keys.undeclared_keys(view.connection, database.name, left)
        seen.findings += json_keys.findings(unknown)
        undeclared += sum(one.keys for one in unknown)
        looked_everywhere = not any(one.fault for one in unknown)
        notice_dropped(seen, conn, run, database.name, {suite.collection for suite in suites})
        with conn.begin():
            history.record(
                conn,
                checks + kept,
                database=database.name,
                dag_id=run.dag_id,
                run_id=run.run_id,
                at=run.at,
            )
    # What is undeclared is a figure however much was not looked at; none of it is one only then.
    _measure(seen, suites, checks, undeclared if looked_everywhere or undeclared else None, run)
    done.record = seen.record({"collections": summaries, "rules": len(checks)})
    return done


def _indexed(live: LiveSchema, database: MappedDatabase) -> frozenset[tuple[str, str]]:
    """Collections and fields by which PostgreSQL finds records without reading them all."""
    return frozenset(
        (name, field)
        for name, one in database.collections.items()
        if (table := live.tables.get((one.schema_name, one.table))) is not None
        for field in table.indexed
    )


def _measure(
    seen: StepFindings,
    suites: Sequence[Suite],
    checks: Sequence[RuleCheck],
    undeclared: int | None,
    run: Run,
) -> None:
    unneeded = {
        (suite.collection, one.id)
        for suite in suites
        for one in suite.expectations
        if one.type == OVER_COLLECTED
    }
    over = [one.broken for one in checks if (one.collection, one.rule) in unneeded]
    known = [one for one in over if one is not None]
    seen.measure("quality.rules", len(checks), "1")
    required = {
        (suite.collection, one.id)
        for suite in suites
        for one in suite.expectations
        if one.severity == "fail"
    }
    seen.measure("quality.rules_required", len(required), "1")
    unmet = sum(one.outcome is Outcome.FAIL for one in checks)
    # Where nothing is required nothing is shown, which is not the same as nothing unmet.
    seen.measure("quality.rules_broken", unmet if required else None, "1")
    seen.measure("quality.rules_unchecked", sum(one.broken is None for one in checks), "1")
    broken = [one.broken for one in checks if one.broken is not None]
    seen.measure("quality.broken", sum(broken) if len(broken) == len(checks) else None, "rows")
    seen.measure("quality.undeclared", undeclared, "1")
    if unneeded or run.purposes:  # no unneeded field at all is a figure too
        complete = len(known) == len(over)
        seen.measure("quality.over_collected", sum(known) if complete else None, "rows")
