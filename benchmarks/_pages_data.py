"""Data for the benchmark of the compliance pages: a ledger of many bundles, and many controls."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import yaml

from include.evidence.bundle import seal
from include.evidence.ledger import LedgerRow
from include.evidence.model import Metric, Outcome, Result, RunContext, judge
from include.evidence.signing import Signer
from include.messages import _
from include.policy import SHIPPED, PolicyPack
from include.registry import load_pack
from include.reports.model import Report
from include.reports.render import render_all
from include.services.clock import FixedClock
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine

CONTROLS = 40
EVERY = timedelta(minutes=30)  # time between two bundles, so 100,000 take about six years
COLUMNS = tuple(LedgerRow.__dataclass_fields__)
# Relative frequency of each workflow's runs.
WEIGHTS = {
    "backup_offsite": 20, "check_quality": 20, "review_intake": 20, "enforce_retention": 10,
    "remind_training": 10, "review_partners": 5, "drill_restore": 5, "conclude_audit": 5,
    "sample_commitment": 1, "sample_audit": 1, "respond_to_incident": 1, "update_incident": 1,
}  # fmt: skip


def pack(folder: Path) -> PolicyPack:
    """Write a policy pack with as many controls as a large company has, and load it."""
    shutil.copytree(SHIPPED, folder)
    file = folder / "controls.yaml"
    controls = yaml.safe_load(file.read_text())
    more = [
        {**controls[number % len(controls)], "id": f"more.control_{number}"}
        for number in range(CONTROLS - len(controls))
    ]
    file.write_text(yaml.safe_dump([*controls, *more], allow_unicode=True))
    loaded_pack = load_pack(folder)
    assert len(loaded_pack.controls) == CONTROLS
    return loaded_pack


def fill(conninfo: str, store: Path, signer: Signer, rules: PolicyPack, bundles: int) -> None:
    """Fill the evidence ledger with signed rows, and seal a real bundle of each workflow.

    Args:
        conninfo: connection string of the migrated state database.
        store: folder of the evidence store.
        signer: key that signs the bundles.
        rules: the policy pack.
        bundles: number of rows of the ledger in the end.
    """
    now = datetime.now(UTC)  # noqa: TID251 - the server that shows them has the real time
    columns = ", ".join(COLUMNS)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        with conn.cursor().copy(f"COPY evidence_ledger ({columns}) FROM STDIN") as copy:
            for row in _rows(bundles - len(WEIGHTS), now, signer, rules):
                copy.write_row([getattr(row, name) for name in COLUMNS])
        conn.execute("VACUUM ANALYZE evidence_ledger")
    for number, workflow in enumerate(WEIGHTS):
        at = now - timedelta(minutes=len(WEIGHTS) - number)
        _seal(conninfo, store, signer, rules, workflow, at)


def _rows(count: int, now: datetime, signer: Signer, rules: PolicyPack) -> Iterator[LedgerRow]:
    chance = random.Random(8)  # noqa: S311 - examples
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    controls = {name: [control.id for control in rules.controls_of(name)] for name in names}
    outcomes = list(Outcome)
    for seq in range(1, count + 1):
        name = chance.choices(names, weights)[0]
        at = now - EVERY * (count - seq + 2 * len(names))
        run_id = f"scheduled__{at.isoformat()}"
        row = LedgerRow(
            seq=seq,
            bundle=f"{name}/{at:%Y/%m}/{seq}",
            dag_id=name,
            run_id=run_id,
            outcome=str(chance.choices(outcomes, (90, 7, 3))[0]),
            controls=controls[name],
            started_at=at,
            sealed_at=at,
            sums_sha256=f"{seq:064x}",
            previous_sums_sha256=f"{seq - 1:064x}" if seq > 1 else "",
            key_fingerprint=signer.fingerprint,
        )
        yield LedgerRow(**asdict(row) | {"row_signature": signer.sign(row.signed_content())})


def _seal(
    conninfo: str, store: Path, signer: Signer, rules: PolicyPack, workflow: str, at: datetime
) -> None:
    controls = rules.controls_of(workflow)
    metrics = [Metric(name=control.indicator.name, value=0, unit="1") for control in controls]
    run = RunContext(
        dag_id=workflow, run_id=f"manual__{at.isoformat()}", started_at=at, code_version="-",
        policy_hash=rules.sha256, policy_name=rules.name, clock_source="-",
    )  # fmt: skip
    judged = judge(controls, metrics)
    report = Report(
        title=_("Off-site backup"), summary=_("Off-site backup"), run=run, outcome=Outcome.PASS,
        finished_at=at, controls=judged,
    )  # fmt: skip
    result = Result(
        run=run, controls=judged, outcome=Outcome.PASS, finished_at=at, metrics=metrics,
        findings=[],
    )  # fmt: skip
    with engine(conninfo).connect() as conn:
        seal(
            DirectoryStore(store), conn, signer, result=result, clock=FixedClock(at),
            files=render_all(report, pdf=False).files,
        )  # fmt: skip
