"""Run one backup or restore of ParcelSeal in a separate process, as its tasks do.

``python -m benchmarks._backup_once backup|restore FOLDER CONNINFO [--pdf]``. The folder contains
keys and stores, which ``benchmarks.backup`` creates.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

from include.backup import manifest as manifests
from include.backup import offsite
from include.encryption.recipients import opening_key_from_pem, recipient_from_pem
from include.evidence.model import Outcome, Result, RunContext
from include.evidence.signing import Signer
from include.evidence.step_findings import StepFindings
from include.messages import verbatim
from include.notify.outbox import Run
from include.policy.datamap import MappedDatabase
from include.policy.rules import BackupRules, Calendar
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from include.workflow import run_context

DATABASE = MappedDatabase(
    name="bench",
    title=verbatim("bench"),
    connection="customer_db",
    schema_name="public",
    rto=timedelta(hours=4),
    rpo=timedelta(hours=24),
    collections={},
)


def backup(folder: Path, conninfo: str, state: str, pdf: bool) -> None:
    """Back up a database with preflight, dump, publication, pruning, reports and seal.

    Args:
        folder: folder of keys and stores.
        conninfo: connection string of the database.
        state: connection string of the state database.
        pdf: whether the reports are rendered as PDF too.
    """
    clock, rules = SystemClock(), BackupRules()
    signer = Signer.from_pem((folder / "evidence.key").read_bytes())
    recipients = [
        recipient_from_pem(name, (folder / f"{name}.crt").read_bytes())
        for name in ("operations", "escrow")
    ]
    ledger = engine(state)
    run_id = f"bench-{clock.now():%Y%m%dT%H%M%S%f}"
    context = RunContext(
        dag_id="backup_offsite",
        run_id=run_id,
        started_at=clock.now(),
        code_version="bench",
        policy_hash="bench",
        policy_name="bench",
        clock_source=clock.source,
    )
    pack = SimpleNamespace(
        databases={"bench": DATABASE},
        database=lambda _name: DATABASE,
        backup=rules,
        calendar=Calendar(),
    )
    services: Any = SimpleNamespace(
        pack=pack,
        state=ledger,
        clock=clock,
        store=lambda _connection: DirectoryStore(folder / "offsite"),
        recipients=lambda: (recipients, []),
        signer=signer,
        trusted=[signer.public_pem],
        database=lambda _connection: DatabaseAddress.from_conninfo(conninfo),
        require_complete_registers=lambda *_registers: None,
        is_local=lambda _connection: False,
        routes=list,
    )
    run = run_context.RunContext(services, None, Run("backup_offsite", run_id))
    load = Once(_load_reports)  # import the reports while the dump runs
    records = []
    for step, work, part in (
        (offsite.PREFLIGHT, offsite.check, ""),
        (offsite.BACKUP, partial(offsite.back_up, progress=load), "bench"),
        (offsite.PRUNE, offsite.prune_restore_points, "bench"),
    ):
        findings = StepFindings(step.name, step.clause, part)
        records.append(findings.record(work(run, findings)))
    from include.backup import offsite_report
    from include.evidence.bundle import seal
    from include.reports.html import render_html
    from include.reports.i18n import LOCALES, language_tag
    from include.reports.model import Report
    from include.reports.render import render_all
    from include.workflow.run_records import RunRecords

    kept = run.records().artifacts
    conclusion = offsite_report.conclude(run, RunRecords(records, kept))
    if conclusion.outcome is Outcome.FAIL:
        sys.exit(
            "The measured backup failed: "
            + "; ".join(finding.code for finding in conclusion.findings)
        )
    report = Report(
        title=conclusion.title,
        summary=conclusion.summary,
        run=context,
        outcome=conclusion.outcome,
        finished_at=clock.now(),
        facts=conclusion.facts,
        sections=conclusion.sections,
        findings=conclusion.findings,
    )
    if pdf:
        files = render_all(report).files
    else:
        files = {
            f"report.{language_tag(locale)}.html": render_html(report, locale).encode()
            for locale in LOCALES
        }
    result = Result(
        run=context,
        controls=[],
        outcome=conclusion.outcome,
        finished_at=clock.now(),
        metrics=conclusion.metrics,
        findings=conclusion.findings,
    )
    with ledger.connect() as conn:
        seal(
            DirectoryStore(folder / "evidence"),
            conn,
            signer,
            result=result,
            files={**kept, **files},
            clock=clock,
        )


class Once:
    """Runs a function in a thread at the first call."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._thread = Thread(target=work, daemon=True)

    def __call__(self, *_: object) -> None:
        if not self._thread.ident:
            self._thread.start()


def _load_reports() -> None:
    for name in ("backup.offsite_report", "evidence.bundle", "reports.render"):
        import_module(f"include.{name}")


def restore_latest(folder: Path, conninfo: str) -> None:
    """Check, decrypt, load and compare the newest restore point."""
    from include.backup.restore import restore
    from include.backup.source import Source

    signer = Signer.from_pem((folder / "evidence.key").read_bytes())
    store = DirectoryStore(folder / "offsite")
    points, _rejected = manifests.restore_points(store, "bench", [signer.public_pem])
    key = opening_key_from_pem((folder / "escrow.key").read_bytes(), "escrow.key")
    source = Source(store, points[-1].manifest, key)
    restored = restore(source, DatabaseAddress.from_conninfo(conninfo))
    if restored.differences:
        raise RuntimeError(f"{points[-1].id} does not match its manifest: {restored.differences}")


def main() -> None:
    """Run the backup or the restore that the command line names."""
    verb, folder, conninfo = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if verb == "backup":
        backup(folder, conninfo, sys.argv[4], "--pdf" in sys.argv)
    else:
        restore_latest(folder, conninfo)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # as Airflow's tasks do; a normal exit of Python takes 0.2 s
