"""Tests of human steps and of a polling task, in a run within one process."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cli
from tests.e2e.forked import DAGS_FOLDER

pytestmark = pytest.mark.airflow
TIMES = 3  # number of requests of the step `one`
SCRIPT = f"""
import json, os, sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from include.cli.console import output_to
from include.cli.stack import command_services
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.service_container import ROOT
profile = LocalProfile(command_services().home)
os.environ.update(local_airflow.settings(profile, ROOT, AIRFLOW_RUNS, None))
from include.orchestration import human_step
from include.orchestration.auto_answer import SubmittedAnswer, submit_answer
from include.orchestration.in_process_run import prepare
human_step.RESCHEDULE_DELAY = timedelta(0)  # no scheduler looks at workers here
with output_to(Path(sys.argv[1])):
    ready = prepare(Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]), "asks", {{}}, [
        'one=done:{{"words": ""}}', 'each=Done:{{"words": "seen"}}'
    ])
    step, asked = ready.dag.task_dict["one"], []
    def fill(words, at):
        asked.append(words)
        return {{"words": "seen" if len(asked) == {TIMES} else ""}}
    step.auto_answer = partial(submit_answer, SubmittedAnswer("Done", "", fill))
    step.can_ask_again = True  # as where people are
    done = ready.run()
    from airflow import settings
    settings.configure_orm()
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    with create_session() as session:
        found = session.query(TaskInstance).filter_by(dag_id="asks", run_id=done.run_id)
        tasks = [[one.task_id, one.map_index, one.state, one.try_number] for one in found]
print(json.dumps([done.state, sorted(tasks)]))
"""


@dataclass(frozen=True)
class HumanStepRun:
    """The result of the run.

    Attributes:
        state: state of the run.
        tasks: task id, map index, state and number of tries of each task.
        kept: events that the DAG wrote, by file.
    """

    state: str
    tasks: list[list[Any]]
    kept: dict[str, list[Any]]


@pytest.fixture(scope="module")
def human_step_run(
    cli: Cli, backed_up: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> HumanStepRun:
    """A run of the DAG in asks/asks.py, in the Airflow database that the backup's run created."""
    del backed_up
    kept = tmp_path_factory.mktemp("asks")
    folder = {DAGS_FOLDER: str(Path(__file__).parent / "asks")}
    completed = cli.script(SCRIPT, str(kept / "log"), ASKS_KEPT=str(kept), **folder)
    assert completed.returncode == 0, completed.stderr
    state, tasks = json.loads(completed.stdout)
    lines = {
        path.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in kept.iterdir()
        if path.name != "log"
    }
    return HumanStepRun(state, tasks, lines)


def test_human_step_asks_again_until_an_answer_is_accepted(human_step_run: HumanStepRun) -> None:
    """Each form has current values and assignees.

    A repeated request is no failure and no new try.
    """
    assert len(human_step_run.kept["one.asked"]) == TIMES
    answers = [
        (user, entered["time"])
        for _option, user, entered, _read in human_step_run.kept["one.taken"]
    ]
    assert answers == [("E1", 1), ("E2", 2), ("E3", 3)]
    assert human_step_run.kept["one.contents"] == ["one:1", "one:2", "one:3"]
    assert ["one", -1, "success", 1] in human_step_run.tasks
    assert human_step_run.state == "success"


def test_boolean_and_number_entered_in_a_form_have_the_same_types_in_the_airflow_database(
    human_step_run: HumanStepRun,
) -> None:
    """A boolean and a number keep their types in Airflow's database."""
    option, _who, entered, read = human_step_run.kept["one.taken"][-1]
    assert (option, entered["told"], entered["people"]) == ("Done", True, 12)
    assert read == {"words": "seen", "told": True, "people": 12}


def test_each_task_instance_of_a_mapped_human_step_asks_for_one_answer(
    human_step_run: HumanStepRun,
) -> None:
    """Each part gets its own answer."""
    for part, index in (("first", 0), ("second", 1)):
        assert (
            len(human_step_run.kept[f"{part}.asked"])
            == len(human_step_run.kept[f"{part}.taken"])
            == 1
        )
        assert ["each", index, "success", 1] in human_step_run.tasks


def test_watch_task_polls_about_once_a_second_and_ends_after_human_steps_are_answered(
    human_step_run: HumanStepRun,
) -> None:
    """The task `watch` polls about once a second and does not delay the end of the run."""
    assert Counter(task for task, *_ in human_step_run.tasks)["watch"] == 1
    assert ["watch", -1, "success", 1] in human_step_run.tasks
    assert 2 <= len(human_step_run.kept["looks"]) < 60
