"""The running stack, as the checks of tests/compose see it: Docker Compose and Airflow's API."""

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
from include.services.errors import ServiceError
from include.workplace import ROOT

PATIENCE = 1800  # seconds for one run of a workflow
RUNNING = {"queued", "running"}


class NotShown(Exception):
    """A check did not find what it has to."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


@dataclass
class Stack:
    """A stack that was started.

    Args:
        folder: of docker-compose.yaml and .env.
        down: seconds for which scenarios stop a server.
        share: processors of each backup worker where one and two are compared.
    """

    folder: Path
    down: int = 600
    share: float = 0.4

    def compose(
        self, *words: str, check: bool = True, seconds: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run Docker Compose; its messages go where ours go."""
        done = subprocess.run(
            ["docker", "compose", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and done.returncode:
            raise NotShown(f"docker compose {' '.join(words)}:\n{done.stdout}\n{done.stderr}")
        return done

    def init(self) -> None:
        """Run `./parcelseal compose init` again."""
        words = ["compose", "init", "--folder", str(self.folder)]
        subprocess.run([sys.executable, "-m", "include.cli", *words], check=True, cwd=ROOT)

    def docker(self, *words: str) -> str:
        return subprocess.run(
            ["docker", *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    def inside(self, *words: str, service: str = "worker-backup") -> Any:
        """Run ParcelSeal's command line in a worker and return its JSON."""
        done = self.compose("exec", "-T", service, "./parcelseal", *words, "--json", check=False)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise NotShown(f"./parcelseal {' '.join(words)}: {done.stdout}{done.stderr}") from None

    @cached_property
    def settings(self) -> dict[str, str]:
        """What .env says."""
        return private.read_settings(self.folder / private.DOTENV)

    @property
    def private(self) -> Path:
        """The private folder."""
        return self.folder / self.settings["PARCELSEAL_PRIVATE"]

    @property
    def url(self) -> str:
        """Of Airflow, from this machine."""
        return f"http://{self.settings.get('PARCELSEAL_LISTEN', '127.0.0.1:8080')}"

    def api(self, user: str = "admin") -> AirflowApi:
        """Log in to Airflow; waits for the API server."""
        password = json.loads((self.private / "passwords.json").read_text())[user]
        return self.patiently(lambda: AirflowApi.login(self.url, user, password), "a log-in")

    def accounts(self) -> set[str]:
        """Whom `compose init` made a password for."""
        return set(json.loads((self.private / "passwords.json").read_text()))

    def patiently(self, work: Callable[[], Any], what: str, seconds: float = 180) -> Any:
        """Repeat until it succeeds: for what comes back by itself."""
        end = time.monotonic() + seconds
        while True:
            try:
                return work()
            except (ServiceError, OSError) as error:
                if time.monotonic() > end:
                    raise NotShown(f"{what}: {error}") from None
                time.sleep(2)

    def containers(self, service: str) -> list[str]:
        """The ids of a service's running containers, the first replica first."""
        rows = self.compose("ps", "--format", "json", service).stdout.splitlines()
        found = [json.loads(row) for row in rows]
        return [one["ID"] for one in sorted(found, key=lambda one: one["Name"])]

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        api = self.api()
        api.call("PATCH", f"dags/{dag_id}", {"is_paused": False})
        return self.patiently(lambda: api.trigger(dag_id, conf), f"a run of {dag_id}")

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances?limit=200"
        found: list[dict[str, Any]] = self.patiently(
            lambda: self.api().call("GET", path)["task_instances"], "tasks"
        )
        return found

    def wait_for_task(self, dag_id: str, run_id: str, task: str, state: str) -> dict[str, Any]:
        """Wait until a task (its id, or its last part) is in a state, and return it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for one in self.tasks(dag_id, run_id):
                if one["task_id"].split(".")[-1] == task and one["state"] == state:
                    return one
            if self.dag_run(dag_id, run_id)["state"] not in RUNNING:
                raise NotShown(f"{dag_id} ended, and {task} was never {state}")
            time.sleep(0.3)
        raise NotShown(f"{dag_id}: {task} was never {state}")

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"
        found: dict[str, Any] = self.patiently(lambda: self.api().call("GET", path), "a run", 600)
        return found

    def wait(self, dag_id: str, run_id: str, seconds: float = PATIENCE) -> tuple[str, float]:
        """Wait for a run's end; returns its state and the seconds since it was started."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            run = self.dag_run(dag_id, run_id)
            if run["state"] not in RUNNING:
                return run["state"], float(run["duration"] or 0)
            time.sleep(2)
        raise NotShown(f"{dag_id} did not end in {seconds:.0f} s")

    def run(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> tuple[str, str, float]:
        """Run a workflow; returns the run's id, state and seconds."""
        run_id = self.trigger(dag_id, conf)
        state, seconds = self.wait(dag_id, run_id)
        return run_id, state, seconds

    def verify(self) -> dict[str, Any]:
        """Verify all evidence in the store, inside a worker."""
        found: dict[str, Any] = self.inside("verify", "--all")
        if not found["verified"]:
            raise NotShown(f"evidence does not verify: {found}")
        return found

    def restore_points(self, database: str) -> list[dict[str, Any]]:
        found = self.inside("backup", "list")
        points: Sequence[dict[str, Any]] = found["restore_points"]
        return [one for one in points if one["database"] == database]

    def bundle(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return the row of the evidence ledger that a run left at its end: exactly one."""
        sql = (
            "SELECT coalesce(json_agg(row_to_json(l)), '[]') FROM evidence_ledger l "
            f"WHERE dag_id = '{dag_id}' AND run_id = '{run_id}'"
        )
        rows = json.loads(self.state(sql))
        if len(rows) != 1:
            raise NotShown(f"{len(rows)} bundles of {dag_id} {run_id}")
        return rows[0]

    def state(self, sql: str, host: str = "postgres", database: str = "parcelseal_state") -> str:
        """Ask a database of the stack as its superuser."""
        words = 'PGPASSWORD="$(cat /run/secrets/database_superuser)" psql -At -h /tmp -U postgres'
        command = f"{words} -d {database} -v ON_ERROR_STOP=1"
        done = subprocess.run(
            ["docker", "compose", "exec", "-T", host, "sh", "-c", command],
            cwd=self.folder,
            input=sql,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotShown(f"{sql}: {done.stderr}")
        return done.stdout.strip()
