"""Measure the report and Data Docs of a check after few and after many past runs.

The checked database is small, because its size does not matter.
"""

from __future__ import annotations

import time
from statistics import median
from types import SimpleNamespace
from typing import Any

import psycopg
from sqlalchemy import Engine

from benchmarks._quality_bench import AS_OF, QualityBench
from include.erasure.ledger import ErasureKeys
from include.evidence.model import RunContext, StepRecord
from include.evidence.step_findings import StepFindings
from include.expectations.docs import data_docs
from include.notify.outbox import Run
from include.policy import SHIPPED
from include.quality import report
from include.quality.check import CHECK, Checked, check_database
from include.registry import load_pack
from include.reports.html import render_html
from include.reports.i18n import LOCALES
from include.reports.model import Report
from include.sample_company import load
from include.services.database import DatabaseAddress
from include.state.connect import engine
from include.workflow import run_context
from include.workflow.run_records import RunRecords

CUSTOMERS = 2_000
_PAST = """
WITH past AS (SELECT n, 'past-' || n AS run_id FROM generate_series(1, %(runs)s) AS n),
    checks AS (
    INSERT INTO quality_check
    SELECT c.dag_id, p.run_id, c.database, c.collection, c.rule, c.definition,
        c.checked_at - p.n * interval '1 day', c.whole, c.rows, c.broken, c.outcome, c.watermark
    FROM quality_check AS c CROSS JOIN past AS p)
INSERT INTO evidence_ledger
SELECT n, run_id, 'check_quality', run_id, 'pass', '{}', now(), now(), '', '', '', '' FROM past
"""


def measure(bench: QualityBench, amounts: tuple[int, ...], rounds: int) -> dict[int, float]:
    """Return the median seconds of a report, by the number of past runs.

    The report consists of trend, conclusion, HTML reports and Data Docs.
    """
    bench.create("small")
    with psycopg.connect(bench.conninfo("small")) as connection:
        load(connection, customers=CUSTOMERS, as_of=AS_OF)
    states = {}
    for runs in amounts:
        bench.create(f"past{runs}", "fresh")
        state = engine(bench.conninfo(f"past{runs}"))
        check = _check(bench, state)
        bench.execute(f"past{runs}", _PAST, runs=runs)
        bench.execute(f"past{runs}", "ANALYZE")
        states[runs] = state, check
    timings: dict[int, list[float]] = {runs: [] for runs in amounts}
    for number in range(rounds + 1):  # the first round includes one-time loading
        for runs, (state, check) in states.items():
            started = time.monotonic()
            _report(state, *check)
            if number:
                timings[runs].append(time.monotonic() - started)
    return {runs: median(seconds) for runs, seconds in timings.items()}


def _run(state: Engine, address: DatabaseAddress | None = None) -> run_context.RunContext[None]:
    services: Any = SimpleNamespace(
        pack=load_pack(SHIPPED),
        state=state,
        erasure_keys=ErasureKeys({"1": b"k" * 32}, "1"),
        database=lambda _connection: address,
    )
    parameters = {"databases": ["courier"], "full": True}
    return run_context.RunContext(
        services, None, Run("check_quality", "now"), parameters=parameters
    )


def _check(bench: QualityBench, state: Engine) -> tuple[StepRecord, Checked]:
    run = _run(state, DatabaseAddress.from_conninfo(bench.conninfo("small")))
    findings = StepFindings(CHECK.name, CHECK.clause, "courier")
    checked = check_database(run, findings, run.database("courier"), AS_OF)
    return findings.record(checked.result), checked


def _report(state: Engine, record: StepRecord, checked: Checked) -> None:
    conclusion = report.conclude(_run(state), RunRecords([record]))
    context = RunContext(
        dag_id="check_quality",
        run_id="now",
        started_at=AS_OF,
        code_version="bench",
        policy_hash="bench",
        policy_name="bench",
        clock_source="bench",
    )
    full_report = Report(
        title=conclusion.title,
        summary=conclusion.summary,
        run=context,
        outcome=conclusion.outcome,
        finished_at=AS_OF,
        facts=conclusion.facts,
        sections=conclusion.sections,
        findings=conclusion.findings,
    )
    for locale in LOCALES:
        render_html(full_report, locale)
    for collection, results in checked.validations.items():
        data_docs(f"courier.{collection}", results, "now", AS_OF)
