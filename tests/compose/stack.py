"""A running Docker Compose stack, which tests control by Docker Compose and Airflow's REST API."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from include.deployment import private
from include.local.airflow_api import AirflowApi
from include.service_container import ROOT
from include.services.errors import ServiceError

PATIENCE = 1800  # seconds for one run of a workflow
RUNNING = {"queued", "running"}


class NotShown(Exception):
    """An error raised if a scenario does not have its required result."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


@dataclass
class Stack:
    """A running Docker Compose stack.

    Args:
        folder: folder of docker-compose.yaml and .env.
        down: number of seconds for which scenarios stop a server.
        share: number of processors that a backup worker may use when one and two workers are
            compared.
    """

    folder: Path
    down: int = 600
    share: float = 0.4

    def compose(
        self, *words: str, check: bool = True, seconds: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run Docker Compose, and return the completed process with its output."""
        completed = subprocess.run(
            ["docker", "compose", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and completed.returncode:
            raise NotShown(
                f"docker compose {' '.join(words)}:\n{completed.stdout}\n{completed.stderr}"
            )
        return completed

    def init(self) -> None:
        """Run `./parcelseal compose init` again on this stack's folder."""
        words = ["compose", "init", "--folder", str(self.folder)]
        subprocess.run([sys.executable, "-m", "include.cli", *words], check=True, cwd=ROOT)

    def docker(self, *words: str) -> str:
        return subprocess.run(
            ["docker", *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    def inside(self, *words: str, service: str = "worker-backup") -> Any:
        """Run ParcelSeal's command line in a service's container, and return its JSON output."""
        completed = self.compose(
            "exec", "-T", service, "./parcelseal", *words, "--json", check=False
        )
        try:
            return json.loads(completed.stdout)
        except ValueError:
            raise NotShown(
                f"./parcelseal {' '.join(words)}: {completed.stdout}{completed.stderr}"
            ) from None

    @cached_property
    def settings(self) -> dict[str, str]:
        """The variables in .env."""
        return private.read_settings(self.folder / private.DOTENV)

    @property
    def private(self) -> Path:
        """The folder with keys, connections and passwords."""
        return self.folder / self.settings["PARCELSEAL_PRIVATE"]

    @property
    def url(self) -> str:
        """URL of Airflow on this machine."""
        return f"http://{self.settings.get('PARCELSEAL_LISTEN', '127.0.0.1:8080')}"

    def api(self, user: str = "admin") -> AirflowApi:
        """Log in to Airflow's REST API, and return the client.

        Wait until the API server answers.
        """
        password = json.loads((self.private / "passwords.json").read_text())[user]
        return self.patiently(lambda: AirflowApi.login(self.url, user, password), "a log-in")

    def accounts(self) -> set[str]:
        """Return the user ids for which `compose init` generated a password."""
        return set(json.loads((self.private / "passwords.json").read_text()))

    def patiently(self, work: Callable[[], Any], title: str, seconds: float = 180) -> Any:
        """Repeat a call until it succeeds, because stopped services restart by themselves.

        Raises:
            NotShown: the call still fails after `seconds`.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                return work()
            except (ServiceError, OSError) as error:
                if time.monotonic() > end:
                    raise NotShown(f"{title}: {error}") from None
                time.sleep(2)

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's running containers, first replica first."""
        rows = self.compose("ps", "--format", "json", service).stdout.splitlines()
        result = [json.loads(row) for row in rows]
        return [row["ID"] for row in sorted(result, key=lambda row: row["Name"])]

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        api = self.api()
        api.call("PATCH", f"dags/{dag_id}", {"is_paused": False})
        return self.patiently(lambda: api.trigger(dag_id, conf), f"a run of {dag_id}")

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances?limit=200"
        result: list[dict[str, Any]] = self.patiently(
            lambda: self.api().call("GET", path)["task_instances"], "tasks"
        )
        return result

    def wait_for_task(self, dag_id: str, run_id: str, task: str, state: str) -> dict[str, Any]:
        """Wait until a task is in a state, and return the task.

        Args:
            dag_id: id of the workflow.
            run_id: id of the run.
            task: task id, or its part after the last dot.
            state: expected state.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for row in self.tasks(dag_id, run_id):
                if row["task_id"].split(".")[-1] == task and row["state"] == state:
                    return row
            if self.dag_run(dag_id, run_id)["state"] not in RUNNING:
                raise NotShown(f"{dag_id} ended, and {task} was never {state}")
            time.sleep(0.3)
        raise NotShown(f"{dag_id}: {task} was never {state}")

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"
        result: dict[str, Any] = self.patiently(lambda: self.api().call("GET", path), "a run", 600)
        return result

    def wait(self, dag_id: str, run_id: str, seconds: float = PATIENCE) -> tuple[str, float]:
        """Wait for the end of a run, and return its state and its duration in seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            run = self.dag_run(dag_id, run_id)
            if run["state"] not in RUNNING:
                return run["state"], float(run["duration"] or 0)
            time.sleep(2)
        raise NotShown(f"{dag_id} did not end in {seconds:.0f} s")

    def run(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> tuple[str, str, float]:
        """Run a workflow to its end, and return the run's id, state and duration in seconds."""
        run_id = self.trigger(dag_id, conf)
        state, seconds = self.wait(dag_id, run_id)
        return run_id, state, seconds

    def verify(self) -> dict[str, Any]:
        """Verify all evidence in the store from inside a worker, and return the result."""
        result: dict[str, Any] = self.inside("verify", "--all")
        if not result["verified"]:
            raise NotShown(f"evidence does not verify: {result}")
        return result

    def restore_points(self, database: str) -> list[dict[str, Any]]:
        result = self.inside("backup", "list")
        points: Sequence[dict[str, Any]] = result["restore_points"]
        return [point for point in points if point["database"] == database]

    def bundle(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return the row of the evidence ledger for a run. There must be exactly one row."""
        sql = (
            "SELECT coalesce(json_agg(row_to_json(l)), '[]') FROM evidence_ledger l "
            f"WHERE dag_id = '{dag_id}' AND run_id = '{run_id}'"
        )
        rows = json.loads(self.state(sql))
        if len(rows) != 1:
            raise NotShown(f"{len(rows)} bundles of {dag_id} {run_id}")
        return rows[0]

    def state(self, sql: str, host: str = "postgres", database: str = "parcelseal_state") -> str:
        """Run a query on a database of the stack as superuser, and return its output."""
        words = 'PGPASSWORD="$(cat /run/secrets/database_superuser)" psql -At -h /tmp -U postgres'
        command = f"{words} -d {database} -v ON_ERROR_STOP=1"
        completed = subprocess.run(
            ["docker", "compose", "exec", "-T", host, "sh", "-c", command],
            cwd=self.folder,
            input=sql,
            capture_output=True,
            text=True,
            check=False,
        )
        if completed.returncode:
            raise NotShown(f"{sql}: {completed.stderr}")
        return completed.stdout.strip()
