"""Tasks of `check_quality`: services in, step records out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import get_current_context

from include.evidence.model import StepRecord
from include.evidence.steps import keep_artifact
from include.expectations.docs import data_docs
from include.messages import _
from include.orchestration.run import run_key, seal_run, step
from include.quality import check as checks
from include.quality import history, report
from include.quality.run import Run
from include.reports.conclusion import Conclusion
from include.state.locks import exclusive
from include.workplace import Workplace

PATIENCE = timedelta(minutes=30)  # with a check by hand that runs into the daily one


def check(database: str, *, full: bool) -> dict[str, Any]:
    """Check the records of one database."""
    dag_id, run_id = run_key()

    def work(place: Workplace) -> StepRecord:
        mapped = place.pack.database(database)
        with exclusive(place.state, f"quality:{database}", f"a check of {database}", PATIENCE):
            run = Run(
                dag_id,
                run_id,
                place.clock.now(),
                place.state,
                place.erasure_keys,
                full=full,
                timezone=place.pack.calendar.timezone,
                purposes=any(database in one.fields for one in place.pack.purposes),
            )
            done = checks.check_database(
                mapped,
                place.database(mapped.connection),
                place.pack.suites_of(database),
                run,
                [
                    one
                    for one in place.pack.databases.values()
                    if one.connection == mapped.connection and not one.is_faulty
                ],
            )
        incremental = {
            one["collection"] for one in done.record.data["collections"] if one["incremental"]
        }
        with place.state.begin() as conn:
            for collection, results in done.results.items():
                name = f"datadocs.{database}.{collection}.html"
                title = f"{database}.{collection}"
                if collection in incremental:
                    title += " (incremental; records were counted by the last full check)"
                page = data_docs(title, results, run_id, run.at)
                keep_artifact(conn, dag_id, run_id, name, page)
        return done.record

    title = _("The check of {database}", database=database)
    return step(checks.STEP, database, title, work, checks.CLAUSE)


def seal_quality() -> dict[str, Any]:
    """Seal the evidence of a check."""

    def conclude(
        place: Workplace, records: Sequence[StepRecord], _artifacts: dict[str, bytes]
    ) -> Conclusion:
        databases = list(place.pack.databases.values())
        suites = {
            one.name: (
                *place.pack.suites_of(one.name),
                *place.pack.suites_of(one.name, incoming=True),
            )
            for one in databases
        }
        with place.state.connect() as conn:
            trends = {one.name: history.trend(conn, one.name) for one in databases}
        asked = get_current_context()["params"].get("databases") or list(suites)
        return report.conclude(records, databases, suites, trends, asked=asked)

    return seal_run(conclude)
