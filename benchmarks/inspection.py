"""Measure the memory and the speed of inspection packs of 200 MiB and of 1 GiB.

``./parcelseal bench inspection [--rounds N]``. The benchmark starts an embedded PostgreSQL, seals
bundles of 2.1 MiB, and writes a pack of them in a separate process. It exits with 1 if the memory
grows with the size of the pack.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import psycopg
from rich.table import Table

from benchmarks._measure import Targets, console, machine
from include.evidence.bundle import seal
from include.evidence.model import Metric, Outcome, Result, RunContext, judge
from include.evidence.signing import Signer, generate_key
from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.registry import load_pack
from include.service_container import ROOT
from include.services.clock import FixedClock
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from include.state.migrate import migrate

MIB = 1024 * 1024
SIZES = {"200 MiB": 96, "1 GiB": 480}  # number of bundles in the pack, 24 a day
FILES = {"plan.bin": 1024 * MIB // 960, "manifest.bin": 1024 * MIB // 960}  # bytes
WORKFLOW, CLAUSE = "enforce_retention", "5.3"
BEGIN = datetime(2024, 12, 31, 16, tzinfo=UTC)  # midnight in the timezone of the policy pack
GROWTH = 1.15  # memory of the large pack, divided by that of the small one
SETTINGS = {"fsync": "off"}


def fill(server: EmbeddedPostgres, folder: Path, signer: Signer) -> None:
    """Seal the bundles of the largest pack, one an hour."""
    store = folder / "evidence"
    store.mkdir()
    controls = load_pack(SHIPPED).controls_of(WORKFLOW)
    metrics = [Metric(name=control.indicator.name, value=0, unit="1") for control in controls]
    with engine(server.conninfo("state")).connect() as conn:
        for number in range(max(SIZES.values())):
            at = BEGIN + timedelta(hours=number)
            run = RunContext(
                dag_id=WORKFLOW, run_id=f"scheduled__{at.isoformat()}", started_at=at,
                code_version="-", policy_hash="-", policy_name="-", clock_source="-",
            )  # fmt: skip
            result = Result(
                run=run, controls=judge(controls, metrics), outcome=Outcome.PASS, finished_at=at,
                metrics=metrics, findings=[],
            )  # fmt: skip
            files = {name: os.urandom(size) for name, size in FILES.items()}
            seal(
                DirectoryStore(store), conn, signer, result=result, files=files,
                clock=FixedClock(at),
            )  # fmt: skip


def write(folder: Path, conninfo: str, bundles: int) -> Mapping[str, float]:
    """Write a pack in a separate process, and return its measurements."""
    wish = {
        "store": str(folder / "evidence"),
        "key": str(folder / "evidence.pub"),
        "conninfo": conninfo,
        "out": str(folder / "pack.zip"),
        "clause": CLAUSE,
        "first": BEGIN.isoformat(),
        "last": (BEGIN + timedelta(hours=bundles)).isoformat(),
    }
    completed = subprocess.run(
        [sys.executable, "-m", "benchmarks._inspection_once"],
        input=json.dumps(wish),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured: Mapping[str, float] = json.loads(completed.stdout)
    return measured


def main() -> int:
    """Measure, print, and return 1 if a target is missed."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rounds", type=int, default=3)
    args = words.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-bench-inspection-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "pg", SETTINGS)
    server.start()
    try:
        with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
            admin.execute("CREATE DATABASE state")
        migrate(engine(server.conninfo("state")))
        signer = Signer.from_pem(generate_key())
        (folder / "evidence.pub").write_bytes(signer.public_pem)
        fill(server, folder, signer)
        rounds = [
            {
                name: write(folder, server.conninfo("state"), bundles)
                for name, bundles in SIZES.items()
            }
            for _number in range(args.rounds)
        ]
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    table = Table(title=f"Inspection packs: {machine()}")
    for column in ("pack", "bundles", "size", "seconds", "peak memory"):
        table.add_column(column, justify="left" if column == "pack" else "right")
    peaks = {}
    for name in SIZES:
        runs = [measured[name] for measured in rounds]
        peaks[name] = max(run["peak"] for run in runs)
        table.add_row(
            name,
            f"{runs[0]['bundles']:.0f}",
            f"{runs[0]['size'] / MIB:.0f} MiB",
            f"{median(run['seconds'] for run in runs):.1f}",
            f"{peaks[name] / MIB:.0f} MiB",
        )
    console.print(table)
    targets = Targets()
    small, large = peaks.values()
    targets.most("memory of 1 GiB, divided by that of 200 MiB", large / small, GROWTH)
    return 1 if targets.missed else 0


if __name__ == "__main__":
    sys.exit(main())
