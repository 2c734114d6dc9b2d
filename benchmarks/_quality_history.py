"""How long report and Data Docs of a check take, after few and after many past runs.

The size of the checked database plays no part in it, so this takes a small one.
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
    """Median seconds of trend, conclusion, both HTML reports and Data Docs, by past runs."""
    bench.create("small")
    with psycopg.connect(bench.conninfo("small")) as connection:
        load(connection, customers=CUSTOMERS, as_of=AS_OF)
    states = {}
    for runs in amounts:
        bench.create(f"past{runs}", "fresh")
        state = engine(bench.conninfo(f"past{runs}"))
        done = _check(bench, state)
        bench.execute(f"past{runs}", _PAST, runs=runs)
        bench.execute(f"past{runs}", "ANALYZE")
        states[runs] = state, done
    took: dict[int, list[float]] = {runs: [] for runs in amounts}
    for number in range(rounds + 1):  # the first loads what is loaded once
        for runs, (state, done) in states.items():
            begun = time.monotonic()
            _report(state, *done)
            if number:
                took[runs].append(time.monotonic() - begun)
    return {runs: median(found) for runs, found in took.items()}


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
    found = report.conclude(_run(state), RunRecords([record]))
    context = RunContext(
        dag_id="check_quality",
        run_id="now",
        started_at=AS_OF,
        code_version="bench",
        policy_hash="bench",
        policy_name="bench",
        clock_source="bench",
    )
    whole = Report(
        title=found.title,
        summary=found.summary,
        run=context,
        outcome=found.outcome,
        finished_at=AS_OF,
        facts=found.facts,
        sections=found.sections,
        findings=found.findings,
    )
    for locale in LOCALES:
        render_html(whole, locale)
    for collection, results in checked.validations.items():
        data_docs(f"courier.{collection}", results, "now", AS_OF)
