"""Run five incidents at once, each in its own process, and answer their requests over REST."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.cli.answers import people as sample_people
from include.evidence import ledger
from include.incident.form import Action
from include.incident.incident_ids import Kind
from include.incident.incident_run import IncidentRecord, record_of
from include.incident.register import find_by_run
from include.incident.rule_checks import INCIDENT
from include.incident.updates import Update, record_update
from include.local.airflow import ADMIN, stop_tree
from include.notify.outbox import Run
from include.service_container import ROOT, Services
from include.workflow.run_context import context_of
from tests.e2e.incidents.airflow_people import People, api_server
from tests.e2e.incidents.incident_scripts import (
    DUTY,
    IN_PROCESS,
    OTHERWISE,
    TOLD_OTHERWISE,
    Move,
    Script,
)
from tests.e2e.incidents.sample_queries import Sample

if TYPE_CHECKING:
    from tests.e2e.conftest import Cli

DAG = "respond_to_incident"
TIMEOUT = 1500  # seconds for all incidents; they take 100 on an idle machine
LOOK_EVERY = 1.0
ERRORS = "logs/incidents.err"
AGAIN = "{}_again"  # name of the second run if Trigger is pressed twice
PATH = re.compile(r"Word; Chinese and English\) is stored in (\S+)")
ADDRESS = re.compile(r"Word; Chinese and English\): \S+/compliance/evidence/([0-9]+)")


@dataclass
class Played:
    """A scripted incident that ran to its end.

    Attributes:
        script: the script of the incident.
        home: home folder of the company.
        team: user ids by duty.
        number: number of the incident.
        run_id: id of the incident's run.
        state: final state of the run.
        bundle: folder of the bundle that the run sealed.
        again: folder of the second run's bundle, if the incident was triggered twice.
        pages: the answered requests in order: the move of the script, and the request as Airflow
            showed it.
        refused: HTTP statuses for people who are not assigned, by task and user.
        documents: files in the bundle that a request named, by task and index.
    """

    script: Script
    home: Path
    team: Mapping[str, Sequence[str]]
    number: str = ""
    run_id: str = ""
    state: str = ""
    bundle: Path = Path()
    again: Path = Path()
    pages: list[tuple[Move, dict[str, Any]]] = field(default_factory=list)
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    documents: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json in the bundle."""
        return dict(json.loads((self.bundle / "result.json").read_text()))

    @property
    def timeline(self) -> list[dict[str, Any]]:
        """The entries of the timeline in the bundle."""
        lines = (self.bundle / "timeline.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def page(self, task: str, index: int = -1) -> dict[str, Any]:
        """Return the last answered request of a task.

        Args:
            task: task id.
            index: map index of the task; -1 for a task that is not mapped.
        """
        return [page for move, page in self.pages if move.key == (task, index)][-1]


def assigned(action: Mapping[str, Any]) -> list[str]:
    """Return the user ids of the people who may answer a required action."""
    return [str(user["id"]) for user in action["assigned_users"]]


@dataclass
class IncidentDriver:
    """Answers the requests of an incident in the order of its script.

    Attributes:
        played: the incident.
        services: services of the company.
        people: the people who use the REST API.
        left: moves of the script that are not made yet.
        add: name of an update -> function that adds this update to the incident. A move may need an
            update before its answer.
        patience: seconds to wait before a request is answered, because the runner may still be
            writing it.
        seen: time of the monotonic clock at which each request first appeared.
    """

    played: Played
    services: Services
    people: People
    left: list[Move]
    add: Mapping[str, Callable[[Played], None]]
    patience: float = 0.5
    seen: dict[str, float] = field(default_factory=dict)

    def look(self, waiting: Mapping[tuple[str, int], dict[str, Any]]) -> None:
        """Make the next move of the script if its request waits and its conditions are met."""
        for waiting_action in waiting.values():
            self.seen.setdefault(_name(waiting_action), time.monotonic())
        if not self.left:
            return
        move = self.left[0]
        action = waiting.get(move.key)
        if action is None or time.monotonic() - self.seen[_name(action)] < self.patience:
            return
        if not self._is_time(move):
            return
        duty = move.duty or DUTY[move.task]
        answerers = [
            waiting_action
            for waiting_action in assigned(action)
            if waiting_action in self.played.team[duty]
        ]
        if not answerers:
            return  # the request is still assigned to the original duty
        if move.first:
            self.add[move.first](self.played)
        self._refuse(move, action)
        self._documents(move, action)
        status = self.people.answer(answerers[0], action, move.option, move.entered)
        assert status == 200, (move, status)
        self.played.pages.append((move, action))
        self.left.pop(0)

    def _is_time(self, move: Move) -> bool:
        """Return whether the next move may be made.

        The entries that the move needs must be on the timeline, and so must every earlier answer.
        """
        entries = record_of_played(self.services, self.played).entries
        answers = [
            entry for entry in entries if "step" in entry.data and entry.kind is not Kind.UNANSWERED
        ]
        kinds = {str(entry.kind) for entry in entries}
        return len(answers) == len(self.played.pages) and set(move.after) <= kinds

    def _refuse(self, move: Move, action: Mapping[str, Any]) -> None:
        """Try to answer as people who are not assigned, and record the HTTP statuses.

        They are the suspects or, without suspects, another team member or the administrator.
        """
        assigned_ids = set(assigned(action))
        others = [ADMIN, *(user for group in self.played.team.values() for user in group)]
        strangers = [user for user in others if user not in assigned_ids]
        users = self.played.script.suspects or strangers[len(self.left) % 5 :][:1]
        for user in users:
            status = self.people.answer(user, action, move.option, move.entered)
            self.played.refused[move.task, user] = status

    def _documents(self, move: Move, action: Mapping[str, Any]) -> None:
        if folder := self._document_folder(action["body"]):
            self.played.documents[move.key] = sorted(path.name for path in folder.iterdir())

    def _document_folder(self, body: str) -> Path | None:
        """Return the folder of the document that a form names or links to; None without one."""
        if match := ADDRESS.search(body):
            with self.services.state.connect() as conn:
                row = ledger.row_at(conn, int(match[1]))
            assert row is not None
            return Path(self.services.store("evidence_store").description) / row.bundle
        match = PATH.search(body)
        return Path(match[1].rstrip(".")) if match else None


def _name(action: Mapping[str, Any]) -> str:
    """Return a name of a request that differs each time the same step asks."""
    return f"{action['task_instance']['id']} {action['created_at']}"


def record_of_played(services: Services, played: Played) -> IncidentRecord:
    """Return the incident record of a scripted incident whose run has started."""
    run = context_of(INCIDENT, services)
    if not played.number:
        with services.state.connect() as conn:
            incident = find_by_run(conn, Run(DAG, played.run_id))
        assert incident is not None
        played.number = incident.number
    return record_of(run, played.number)


def _told_otherwise(services: Services) -> Callable[[Played], None]:
    """Return a function that records that affected people were notified in another way.

    The function adds this update to the incident as the command line does.
    """

    def add(played: Played) -> None:
        user = played.team["command"][0]
        record_update(
            context_of(INCIDENT, services),
            played.number,
            Update(Action.TOLD_OTHERWISE, OTHERWISE),
            by=user,
        )

    return add


def lead(cli: Cli) -> dict[str, Played]:
    """Run one incident of each type, except the type that runs in a complete Airflow."""
    now = cli.services.clock.now()
    sample = Sample(cli.postgres("courier"))
    scripts = [make(sample, now) for make in IN_PROCESS]
    dags = cli.home / "dags"
    dags.mkdir(exist_ok=True)
    for name in (DAG, "update_incident"):
        shutil.copy(ROOT / "dags" / f"{name}.py", dags)
    environment = {**cli.environment, "AIRFLOW__CORE__DAGS_FOLDER": str(dags)}
    incidents = [
        {"name": name, "conf": {"type": script.name, **script.form}, "hasty": script.hasty}
        for script in scripts
        for name in ((script.name, AGAIN.format(script.name)) if script.twice else (script.name,))
    ]
    team = sample.team()
    played = {script.name: Played(script, cli.home, team) for script in scripts}
    logs = cli.home / "logs"
    logs.mkdir(exist_ok=True)
    with (cli.home / ERRORS).open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.incidents.in_process_runs", str(logs)],
            env=environment,
            cwd=cli.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(incidents).encode())
    process.stdin.close()
    try:
        with api_server(cli.services, environment, sample_people(cli.services)) as people:
            _answer(process, cli.services, people, played)
    finally:
        stop_tree(process.pid)
    assert process.stdout is not None
    with process.stdout:
        ended = json.loads(process.stdout.read())
    states = {case["run_id"]: case["state"] for case in ended.values()}
    runs = {name: case["run_id"] for name, case in ended.items()}
    for name, case in played.items():
        case.state, case.bundle = states[case.run_id], _bundle(cli.home, case.run_id)
        if case.script.twice:  # either of the two runs may be the duplicate
            (other,) = {runs[name], runs[AGAIN.format(name)]} - {case.run_id}
            case.again = _bundle(cli.home, other)
            assert states[other] == "success"
    return played


def _answer(
    process: subprocess.Popen[bytes],
    services: Services,
    people: People,
    played: Mapping[str, Played],
) -> None:
    """Answer every request of all incidents until all runs have ended."""
    leading: dict[str, IncidentDriver] = {}
    otherwise = _told_otherwise(services)
    end = time.monotonic() + TIMEOUT
    while process.poll() is None:
        assert time.monotonic() < end, {name: driver.left for name, driver in leading.items()}
        waiting: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
        for action in people.required_actions(DAG):
            task = action["task_instance"]
            run = waiting.setdefault(task["dag_run_id"], {})
            run[task["task_id"], task["map_index"]] = action
        for run_id, actions in waiting.items():
            if run_id not in leading:
                conf = people.api().call("GET", f"dags/{DAG}/dagRuns/{run_id}")["conf"]
                incident = played[conf["type"]]
                incident.run_id = run_id
                left = list(incident.script.moves)
                leading[run_id] = IncidentDriver(
                    incident, services, people, left, {TOLD_OTHERWISE: otherwise}
                )
            leading[run_id].look(actions)
        time.sleep(LOOK_EVERY)
    assert process.returncode == 0, (services.home / ERRORS).read_text()[-9_000:]
    left = {name: driver.left for name, driver in leading.items() if driver.left}
    assert not left, left


def _bundle(home: Path, run_id: str) -> Path:
    (folder,) = [
        path.parent
        for path in (home / "evidence" / DAG).rglob("result.json")
        if json.loads(path.read_text())["run"]["run_id"] == run_id
    ]
    return folder
