"""Data for the benchmark of the compliance pages: a ledger of many bundles, and many controls.

Most bundles exist only as signed rows of the ledger and rows of the history index. Real bundles
exist where pages verify them: the newest bundle of each workflow, at present and on some past days.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import yaml

from include.evidence.bundle import seal
from include.evidence.compliance_history import end_of_day
from include.evidence.folder import RESULT, SIGNATURE, SIGNER, SUMS, Link, Sums, bundle_path
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
PAST_DAYS = 40  # past days that readers look at
FINDINGS = 300  # open findings of the register
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


def fill(conninfo: str, store: Path, signer: Signer, rules: PolicyPack, bundles: int) -> list[date]:
    """Fill the ledger and the history index with rows, and store the bundles that pages verify.

    Args:
        conninfo: connection string of the migrated state database.
        store: folder of the evidence store.
        signer: key that signs the bundles.
        rules: the policy pack.
        bundles: number of rows of the ledger in the end.

    Returns:
        The past days whose newest bundles are in the store.
    """
    now = datetime.now(UTC)  # noqa: TID251 - the server that shows them has the real time
    zone = rules.calendar.zone
    count = bundles - len(WEIGHTS)
    days = _past_days(now, count, zone)
    plan = _plan(count, now)
    real = _newest_by(plan, [end_of_day(day, zone) for day in days])
    columns = ", ".join(COLUMNS)
    indexed: list[tuple[object, ...]] = []
    with psycopg.connect(conninfo, autocommit=True) as conn:
        with conn.cursor().copy(f"COPY evidence_ledger ({columns}) FROM STDIN") as copy:
            for row, result in _rows(plan, real, store, signer, rules):
                copy.write_row([getattr(row, name) for name in COLUMNS])
                indexed += [
                    (row.seq, status.id, status.clause, str(status.state), status.value, at)
                    for status, at in ((status, result.finished_at) for status in result.controls)
                ]
        index = "seq, control, clause, state, value, finished_at"
        with conn.cursor().copy(f"COPY evidence_control ({index}) FROM STDIN") as copy:
            for entry in indexed:
                copy.write_row(entry)
        conn.execute("VACUUM ANALYZE evidence_ledger, evidence_control")
        for number in range(FINDINGS):
            conn.execute(
                "INSERT INTO finding (kind, reference, description, owner, opened_at, due_on)"
                " VALUES ('audit', %s, '{\"text\": \"-\"}', %s, %s, %s)",
                [str(number), f"owner_{number % 6}", now - timedelta(days=number), now.date()],
            )
    for number, workflow in enumerate(WEIGHTS):
        at = now - timedelta(minutes=len(WEIGHTS) - number)
        result = _result(rules, workflow, f"manual__{at.isoformat()}", at, "pass")
        with engine(conninfo).connect() as connection:
            seal(
                DirectoryStore(store), connection, signer, result=result, clock=FixedClock(at),
                files=_reports(result), pack_controls=[control.id for control in rules.controls],
            )  # fmt: skip
    return days


def _past_days(now: datetime, count: int, zone: ZoneInfo) -> list[date]:
    """Return the past days that readers look at, spread over the time of all bundles."""
    oldest = min(count * EVERY, timedelta(days=5 * 365))
    step = oldest / (PAST_DAYS + 1)
    return [(now - step * number).astimezone(zone).date() for number in range(1, PAST_DAYS + 1)]


def _plan(count: int, now: datetime) -> list[tuple[str, datetime]]:
    """Return workflow and time of each bundle, the oldest first."""
    chance = random.Random(8)  # noqa: S311 - examples
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    return [
        (chance.choices(names, weights)[0], now - EVERY * (count - seq + 2 * len(names)))
        for seq in range(1, count + 1)
    ]


def _newest_by(plan: list[tuple[str, datetime]], moments: list[datetime]) -> set[int]:
    """Return the positions of each workflow's newest bundle at some moments."""
    newest: dict[str, int] = {}
    positions: set[int] = set()
    remaining = sorted(moments)
    for position, (workflow, at) in enumerate(plan):
        while remaining and at > remaining[0]:
            positions |= set(newest.values())
            remaining.pop(0)
        newest[workflow] = position
    return positions


def _rows(
    plan: list[tuple[str, datetime]],
    real: set[int],
    store: Path,
    signer: Signer,
    rules: PolicyPack,
) -> Iterator[tuple[LedgerRow, Result]]:
    """Yield the ledger rows with their results. Bundles of the positions `real` are stored."""
    chance = random.Random(9)  # noqa: S311 - examples
    reports: dict[str, bytes] = {}
    previous: Link | None = None
    for position, (name, at) in enumerate(plan):
        run_id = f"scheduled__{at.isoformat()}"
        outcome = chance.choices(list(Outcome), (90, 7, 3))[0]
        result = _result(rules, name, run_id, at, str(outcome))
        bundle = bundle_path(name, run_id, at)
        sums_sha256 = f"{position + 1:064x}"
        if position in real:
            reports = reports or _reports(result)
            content = {
                **reports,
                RESULT: (result.model_dump_json(indent=2) + "\n").encode(),
                SIGNER: signer.public_pem,
            }
            digests = {file: sha256(data).hexdigest() for file, data in content.items()}
            sums = Sums(digests, previous).to_bytes()
            folder = DirectoryStore(store)
            for file, data in {**content, SUMS: sums, SIGNATURE: signer.sign(sums)}.items():
                folder.put(f"{bundle}/{file}", data)
            sums_sha256 = sha256(sums).hexdigest()
        row = LedgerRow(
            seq=position + 1,
            bundle=bundle,
            dag_id=name,
            run_id=run_id,
            outcome=str(outcome),
            controls=[control.id for control in result.controls],
            started_at=at,
            sealed_at=at,
            sums_sha256=sums_sha256,
            previous_sums_sha256=previous.sums_sha256 if previous else "",
            key_fingerprint=signer.fingerprint,
        )
        yield (
            LedgerRow(**asdict(row) | {"row_signature": signer.sign(row.signed_content())}),
            result,
        )
        previous = row.link


def _result(rules: PolicyPack, workflow: str, run_id: str, at: datetime, outcome: str) -> Result:
    """Return the result of a run; a failed run did not meet the targets of its controls."""
    value = 0 if outcome != Outcome.FAIL else 3
    controls = rules.controls_of(workflow)
    metrics = [Metric(name=control.indicator.name, value=value, unit="1") for control in controls]
    run = RunContext(
        dag_id=workflow, run_id=run_id, started_at=at, code_version="-", policy_hash=rules.sha256,
        policy_name=rules.name, clock_source="-",
    )  # fmt: skip
    return Result(
        run=run, controls=judge(controls, metrics), outcome=Outcome(outcome), finished_at=at,
        metrics=metrics, findings=[],
    )  # fmt: skip


def _reports(result: Result) -> dict[str, bytes]:
    report = Report(
        title=_("Off-site backup"), summary=_("Off-site backup"), run=result.run,
        outcome=result.outcome, finished_at=result.finished_at, controls=result.controls,
    )  # fmt: skip
    return dict(render_all(report, pdf=False).files)
