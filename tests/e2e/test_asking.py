"""A run in one process: a step asks again until an answer counts, and a watch sees the end."""

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
TIMES = 3  # the question of `one` is asked
SCRIPT = f"""
import json, os, sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from include.cli.console import output_to
from include.cli.stack import workplace
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.workplace import ROOT
os.environ.update(local_airflow.settings(LocalProfile(workplace().home), ROOT, AIRFLOW_RUNS, None))
from include.orchestration import human
from include.orchestration.answering import Given, give
from include.orchestration.inprocess import prepare
human.AGAIN_AFTER = timedelta(0)  # no scheduler looks at workers here
with output_to(Path(sys.argv[1])):
    ready = prepare(Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]), "asks", {{}}, [
        'one=done:{{"words": ""}}', 'each=Done:{{"words": "seen"}}'
    ])
    step, asked = ready.dag.task_dict["one"], []
    def fill(words, at):
        asked.append(words)
        return {{"words": "seen" if len(asked) == {TIMES} else ""}}
    step.answer_ahead = partial(give, Given("Done", "", fill))
    step.asks_again = True  # as where people are
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
class Asked:
    """How the run went.

    Attributes:
        state: of the run.
        tasks: task id, map index, state and number of tries.
        kept: what the DAG kept, by file.
    """

    state: str
    tasks: list[list[Any]]
    kept: dict[str, list[Any]]


@pytest.fixture(scope="module")
def asked(cli: Cli, backed_up: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """The run of asks/asks.py, on Airflow's database that the backup's run made."""
    del backed_up
    kept = tmp_path_factory.mktemp("asks")
    folder = {DAGS_FOLDER: str(Path(__file__).parent / "asks")}
    done = cli.script(SCRIPT, str(kept / "log"), ASKS_KEPT=str(kept), **folder)
    assert done.returncode == 0, done.stderr
    state, tasks = json.loads(done.stdout)
    lines = {
        path.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in kept.iterdir()
        if path.name != "log"
    }
    return Asked(state, tasks, lines)


def test_a_step_asks_again_until_an_answer_counts(asked: Asked) -> None:
    """Each time with the form and the people of then; it is no failure and no other try."""
    assert len(asked.kept["one.asked"]) == TIMES
    given = [(who, entered["time"]) for _option, who, entered, _read in asked.kept["one.taken"]]
    assert given == [("E1", 1), ("E2", 2), ("E3", 3)]
    assert asked.kept["one.contents"] == ["one:1", "one:2", "one:3"]
    assert ["one", -1, "success", 1] in asked.tasks
    assert asked.state == "success"


def test_what_stood_in_the_form_comes_back_as_what_it_was(asked: Asked) -> None:
    """A switch and a number, through Airflow's database and back."""
    option, _who, entered, read = asked.kept["one.taken"][-1]
    assert (option, entered["told"], entered["people"]) == ("Done", True, 12)
    assert read == {"words": "seen", "told": True, "people": 12}


def test_a_mapped_step_asks_for_each(asked: Asked) -> None:
    """One question a part, each taken for its own."""
    for part, index in (("first", 0), ("second", 1)):
        assert len(asked.kept[f"{part}.asked"]) == len(asked.kept[f"{part}.taken"]) == 1
        assert ["each", index, "success", 1] in asked.tasks


def test_a_watch_looks_while_people_are_waited_for_and_ends_with_them(asked: Asked) -> None:
    """The run neither hangs on it nor spins: about a look a second."""
    assert Counter(task for task, *_ in asked.tasks)["watch"] == 1
    assert ["watch", -1, "success", 1] in asked.tasks
    assert 2 <= len(asked.kept["looks"]) < 60
