"""Five incidents at once, led in processes of their own and answered over REST by the people."""

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
from include.incident.form import Action
from include.incident.incident_run import IncidentRecord, record_of
from include.incident.names import Kind
from include.incident.register import of_run
from include.incident.rule_checks import INCIDENT
from include.incident.updating import Update, enter
from include.local.airflow import ADMIN, stop_tree
from include.notify.outbox import Run
from include.workflow.run_context import context_of
from include.workplace import ROOT, Workplace
from tests.e2e.incidents.people import People, api_server
from tests.e2e.incidents.sample import Sample
from tests.e2e.incidents.script import (
    DUTY,
    IN_PROCESS,
    OTHERWISE,
    TOLD_OTHERWISE,
    Move,
    Script,
)

if TYPE_CHECKING:
    from tests.e2e.conftest import Cli

DAG = "respond_to_incident"
TIMEOUT = 1500  # seconds, of all of them; they take 100 on a quiet machine
LOOK_EVERY = 1.0
ERRORS = "logs/incidents.err"
AGAIN = "{}_again"  # the second press
PATH = re.compile(r"Word; Chinese and English\) lies in (\S+)")


@dataclass
class Played:
    """An incident that was led to its end.

    Attributes:
        script: what was played.
        home: of the company.
        number: of the incident.
        run_id: of its run.
        state: of the run at its end.
        bundle: what the run sealed.
        again: what the run of the second press sealed, where Trigger was pressed twice.
        pages: every question that was answered, in order: its move, and as Airflow showed it.
        refused: what Airflow said to who was not asked, by task and user.
        documents: what lay in the bundle that a page named while the page was shown, by task and
            index.
        team: who does which duty.
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
        """What its bundle says."""
        return dict(json.loads((self.bundle / "result.json").read_text()))

    @property
    def timeline(self) -> list[dict[str, Any]]:
        """The timeline in its bundle."""
        lines = (self.bundle / "timeline.jsonl").read_text().splitlines()
        return [json.loads(one) for one in lines]

    def page(self, task: str, index: int = -1) -> dict[str, Any]:
        """The last question of a task."""
        return [page for move, page in self.pages if move.key == (task, index)][-1]


def assigned(question: Mapping[str, Any]) -> list[str]:
    """Who may answer."""
    return [str(one["id"]) for one in question["assigned_users"]]


@dataclass
class Leading:
    """Answers the questions of one incident, one after the other as its script has them.

    Attributes:
        played: what comes of it.
        place: the workplace.
        people: at the API.
        left: moves that are to come.
        add: adds to the incident in the name of somebody, by what a move has to come first.
        patience: seconds that a question waits before it is answered: who is faster meets a runner
            that still writes it.
        seen: when each question was seen first, by the monotonic clock.
    """

    played: Played
    place: Workplace
    people: People
    left: list[Move]
    add: Mapping[str, Callable[[Played], None]]
    patience: float = 0.5
    seen: dict[str, float] = field(default_factory=dict)

    def look(self, waiting: Mapping[tuple[str, int], dict[str, Any]]) -> None:
        """Answer what comes next, once it is asked and may be answered."""
        for one in waiting.values():
            self.seen.setdefault(_name(one), time.monotonic())
        if not self.left:
            return
        move = self.left[0]
        question = waiting.get(move.key)
        if question is None or time.monotonic() - self.seen[_name(question)] < self.patience:
            return
        if not self._is_time(move):
            return
        duty = move.duty or DUTY[move.task]
        able = [one for one in assigned(question) if one in self.played.team[duty]]
        if not able:
            return  # others are asked first
        if move.first:
            self.add[move.first](self.played)
        self._refuse(move, question)
        self._documents(move, question)
        status = self.people.answer(able[0], question, move.option, move.entered)
        assert status == 200, (move, status)
        self.played.pages.append((move, question))
        self.left.pop(0)

    def _is_time(self, move: Move) -> bool:
        """Whether what has to be there is, and every answer before was taken."""
        entries = record_of_played(self.place, self.played).entries
        taken = [one for one in entries if "step" in one.data and one.kind is not Kind.UNANSWERED]
        kinds = {str(one.kind) for one in entries}
        return len(taken) == len(self.played.pages) and set(move.after) <= kinds

    def _refuse(self, move: Move, question: Mapping[str, Any]) -> None:
        """Let somebody try who is not asked: another of the team, whom it is about, the admin."""
        asked = set(assigned(question))
        others = [ADMIN, *(one for group in self.played.team.values() for one in group)]
        strangers = [one for one in others if one not in asked]
        tried = self.played.script.suspects or strangers[len(self.left) % 5 :][:1]
        for one in tried:
            said = self.people.answer(one, question, move.option, move.entered)
            self.played.refused[move.task, one] = said

    def _documents(self, move: Move, question: Mapping[str, Any]) -> None:
        if found := PATH.search(question["body"]):
            folder = Path(found[1].rstrip("."))
            self.played.documents[move.key] = sorted(one.name for one in folder.iterdir())


def _name(question: Mapping[str, Any]) -> str:
    """What tells a question from the same one when it is asked again."""
    return f"{question['task_instance']['id']} {question['created_at']}"


def record_of_played(place: Workplace, played: Played) -> IncidentRecord:
    """All that is known of an incident, from the moment on in which its run began."""
    run = context_of(INCIDENT, place)
    if not played.number:
        with place.state.connect() as conn:
            found = of_run(conn, Run(DAG, played.run_id))
        assert found is not None
        played.number = found.number
    return record_of(run, played.number)


def _told_otherwise(place: Workplace) -> Callable[[Played], None]:
    """As somebody enters it whose Airflow is down; `update_incident` is played in Airflow."""

    def add(played: Played) -> None:
        who = played.team["command"][0]
        enter(
            context_of(INCIDENT, place),
            played.number,
            Update(Action.TOLD_OTHERWISE, OTHERWISE),
            by=who,
        )

    return add


def lead(cli: Cli) -> dict[str, Played]:
    """Lead one incident of each type but the one that is led in a running Airflow."""
    now = cli.place.clock.now()
    sample = Sample(cli.postgres("courier"))
    scripts = [make(sample, now) for make in IN_PROCESS]
    dags = cli.home / "dags"
    dags.mkdir(exist_ok=True)
    for name in (DAG, "update_incident"):
        shutil.copy(ROOT / "dags" / f"{name}.py", dags)
    environment = {**cli.environment, "AIRFLOW__CORE__DAGS_FOLDER": str(dags)}
    wanted = [
        {"name": name, "conf": {"type": one.name, **one.form}, "hasty": one.hasty}
        for one in scripts
        for name in ((one.name, AGAIN.format(one.name)) if one.twice else (one.name,))
    ]
    team = sample.team()
    played = {one.name: Played(one, cli.home, team) for one in scripts}
    logs = cli.home / "logs"
    logs.mkdir(exist_ok=True)
    with (cli.home / ERRORS).open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.incidents.inprocess", str(logs)],
            env=environment,
            cwd=cli.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(wanted).encode())
    process.stdin.close()
    try:
        with api_server(cli.place, environment, sample_people(cli.place)) as people:
            _answer(process, cli.place, people, played)
    finally:
        stop_tree(process.pid)
    assert process.stdout is not None
    with process.stdout:
        ended = json.loads(process.stdout.read())
    states = {one["run_id"]: one["state"] for one in ended.values()}
    runs = {name: one["run_id"] for name, one in ended.items()}
    for name, one in played.items():
        one.state, one.bundle = states[one.run_id], _bundle(cli.home, one.run_id)
        if one.script.twice:  # either may be the one that is led
            (other,) = {runs[name], runs[AGAIN.format(name)]} - {one.run_id}
            one.again = _bundle(cli.home, other)
            assert states[other] == "success"
    return played


def _answer(
    process: subprocess.Popen[bytes],
    place: Workplace,
    people: People,
    played: Mapping[str, Played],
) -> None:
    """Answer everything that is asked, until all runs have ended."""
    leading: dict[str, Leading] = {}
    otherwise = _told_otherwise(place)
    end = time.monotonic() + TIMEOUT
    while process.poll() is None:
        assert time.monotonic() < end, {name: one.left for name, one in leading.items()}
        waiting: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
        for one in people.questions(DAG):
            task = one["task_instance"]
            run = waiting.setdefault(task["dag_run_id"], {})
            run[task["task_id"], task["map_index"]] = one
        for run_id, questions in waiting.items():
            if run_id not in leading:
                conf = people.api().call("GET", f"dags/{DAG}/dagRuns/{run_id}")["conf"]
                mine = played[conf["type"]]
                mine.run_id = run_id
                left = list(mine.script.moves)
                leading[run_id] = Leading(mine, place, people, left, {TOLD_OTHERWISE: otherwise})
            leading[run_id].look(questions)
        time.sleep(LOOK_EVERY)
    assert process.returncode == 0, (place.home / ERRORS).read_text()[-9_000:]
    left = {name: one.left for name, one in leading.items() if one.left}
    assert not left, left


def _bundle(home: Path, run_id: str) -> Path:
    (found,) = [
        path.parent
        for path in (home / "evidence" / DAG).rglob("result.json")
        if json.loads(path.read_text())["run"]["run_id"] == run_id
    ]
    return found
