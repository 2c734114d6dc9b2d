"""Airflow imports ParcelSeal's modules before it forks, but reads no policy pack or connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, os, runpy, sys
from pathlib import Path

from airflow.listeners.listener import get_listener_manager

manager = get_listener_manager()
policy = os.environ.pop("THEN")
manager.hook.on_starting(component=None)
engine = ["great_expectations" in sys.modules]
sdk = ["aws_encryption_sdk" in sys.modules]
before = set(sys.modules)
os.environ["PARCELSEAL_POLICY"] = policy
for path in sorted(Path("dags").glob("*.py")):
    runpy.run_path(str(path))
more = sorted(name for name in set(sys.modules) - before if name.startswith("include"))
from include.reports.i18n import _catalogue
read = _catalogue.cache_info().currsize
loaded = "include.incident.workflow" in before
from airflow.jobs.job import Job
for executor in ("CeleryExecutor", "LocalExecutor"):
    os.environ["AIRFLOW__CORE__EXECUTOR"] = executor
    manager.hook.on_starting(component=Job(job_type="SchedulerJob"))
    engine.append("great_expectations" in sys.modules)
    sdk.append("aws_encryption_sdk" in sys.modules)
print(json.dumps({"more": more, "loaded": loaded, "languages": read, "engine": engine, "sdk": sdk}))
"""


def test_modules_that_dag_files_import_are_loaded_before_airflow_forks(
    tmp_path: Path,
) -> None:
    """The plugin's hook imports them, even if the policy pack does not exist yet.

    Great Expectations and the AWS Encryption SDK are imported only in a scheduler, and only if its
    executor forks tasks.
    """
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(ROOT),
        "PARCELSEAL_POLICY": str(tmp_path / "none"),
        "THEN": str(ROOT / "include/policy/pack"),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    state = json.loads(done.stdout.splitlines()[-1])
    tasks_are_forked = [False, False, True]
    assert state.pop("engine") == tasks_are_forked
    assert state.pop("sdk") == tasks_are_forked
    assert state == {"more": [], "loaded": True, "languages": 2}
