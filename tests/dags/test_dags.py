"""The shape of every DAG file, so that whoever knows one knows all."""

from __future__ import annotations

import ast
import json
import os
import runpy
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from include.policy import SHIPPED
from include.registry import load_pack, workflow, workflows
from include.services.clock import SystemClock
from include.services.errors import UsageError
from include.workflow.declaration import Cadence
from tests.policy.packs import write_pack

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "dags").glob("*.py"))
NAMES = [path.stem for path in FILES]
SHORTEST, LONGEST = 35, 120  # lines
AT_ONCE = {
    "open_incident",
    "assess",
    "preserve",
    "notify",
    "send",
    "enter",
    "widen",
    "seal",
    "gate",
}
TOPICS = {topic for each in workflows() for topic in (each.topic, *each.further_topics)}
TAGS = {*TOPICS, "asks people", *Cadence}
SEVERAL = {"respond_to_incident", "update_incident"}
MAY_IMPORT = {"__future__", "typing", "airflow", "include"}
# What the person on call looks for, in the words that every page uses.
ON_THE_PAGE = (
    "**Policy clause",
    "**Schedule:**",
    "**Writes:**",
    "**Red means**",
    "**What to do:**",
    "**Owner:**",
)


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    """Every DAG of every file, by the file's name."""
    from airflow.sdk import DAG

    found: dict[str, Any] = {}
    for path in FILES:
        make = runpy.run_path(str(path))[path.stem]
        found[path.stem] = make()
    assert all(isinstance(one, DAG) for one in found.values())
    return found


def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / "dags" / f"{name}.py").read_text())


def test_there_are_dags():
    """The tests below see something."""
    assert {"backup_offsite", "drill_restore"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_file_function_and_dag_have_one_name(dags: dict[str, Any], name: str):
    """So a red run leads to its file."""
    assert dags[name].dag_id == name
    functions = [one.name for one in tree(name).body if isinstance(one, ast.FunctionDef)]
    assert functions == [name]
    last = tree(name).body[-1]
    assert isinstance(last, ast.Expr)
    assert ast.unparse(last) == f"{name}()"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_tells_the_person_on_call_what_to_do(dags: dict[str, Any], name: str):
    """The module's docstring is the DAG's page, and every page has the same parts."""
    page = dags[name].doc_md
    assert page == ast.get_docstring(tree(name), clean=False)
    assert page.startswith("### ")
    assert [part for part in ON_THE_PAGE if part not in page] == []
    assert dags[name].description
    assert dags[name].dag_display_name != name


@pytest.mark.parametrize("name", NAMES)
def test_tags_are_those_of_the_declaration(dags: dict[str, Any], name: str):
    """People filter by tags; a mistyped one hides a workflow."""
    from include.orchestration.human import human_steps

    declared = workflow(name)
    tags = set(dags[name].tags)
    assert tags == set(declared.tags)
    assert ("asks people" in tags) == bool(human_steps(dags[name]))
    clauses = {tag for tag in tags if tag.startswith("clause ")}
    assert clauses
    assert not tags - clauses - TAGS


@pytest.mark.parametrize("name", NAMES)
def test_the_schedule_is_explicit_and_in_the_companys_time(dags: dict[str, Any], name: str):
    """No run is made up for the past, and no two runs of a workflow meet."""
    from include.policy import SHIPPED
    from include.registry import load_pack

    (settings,) = _decorator(name).keywords
    assert isinstance(settings.value, ast.Call)
    assert {"schedule", "page"} <= {word.arg for word in settings.value.keywords}
    dag = dags[name]
    assert dag.catchup is False
    assert dag.max_active_runs == (16 if name in SEVERAL else 1)  # two incidents may meet
    if dag.schedule is not None:
        zone = load_pack(SHIPPED).calendar.timezone
        assert str(dag.timetable.timezone) == zone


@pytest.mark.parametrize("name", NAMES)
def test_parameters_explain_themselves(dags: dict[str, Any], name: str):
    """The form of a run shows a title, what it does and which values it takes."""
    params = dags[name].params
    for key in params:
        schema = params.get_param(key).schema
        assert schema.get("title"), key
        assert params.get_param(key).description, key
        assert "type" in schema or "enum" in schema, key
        params.get_param(key).resolve()  # the default fits


@pytest.mark.parametrize("name", NAMES)
def test_every_run_is_sealed_and_judged_last(dags: dict[str, Any], name: str):
    """`seal` runs whatever happened, after everything; `gate` alone decides on green or red."""
    dag = dags[name]
    leaves = [task.task_id for task in dag.tasks if not task.downstream_task_ids]
    assert leaves == ["gate"]
    seal, gate = dag.task_dict["seal"], dag.task_dict["gate"]
    assert seal.trigger_rule == "all_done"
    assert gate.upstream_task_ids == {"seal"}
    assert gate.trigger_rule == "all_success"
    before = seal.get_flat_relative_ids(upstream=True)
    assert before == set(dag.task_ids) - {"seal", "gate"}


@pytest.mark.parametrize("name", NAMES)
def test_tasks_have_an_owner_retries_and_a_docstring(dags: dict[str, Any], name: str):
    """What Airflow shows beside a task is there."""
    from include.orchestration.workflow import DEFAULT_ARGS, SEAL_ARGS, SEND_ARGS

    roles = load_pack(SHIPPED).roles
    for task in dags[name].tasks:
        assert task.owner in roles
        usual = {"send": SEND_ARGS, "seal": SEAL_ARGS}.get(task.task_id, DEFAULT_ARGS)
        # what waits for weeks outlives more workers that are killed
        longer = {20, 100} if name in SEVERAL and task.task_id not in AT_ONCE else set()
        assert task.retries in {0, usual["retries"]} | longer
        assert getattr(task, "python_callable", task).__doc__, task.task_id
        assert hasattr(task, "python_callable") or task.doc_md, task.task_id


@pytest.mark.parametrize("name", NAMES)
def test_an_incident_is_never_kept_waiting_by_a_pause(dags: dict[str, Any], name: str):
    """Who is on call may not unpause; all else waits until somebody does, however it is set up."""
    incidents = ("respond_to_incident", "update_incident")
    assert dags[name].is_paused_upon_creation == (False if name in incidents else None)


@pytest.mark.parametrize("name", NAMES)
def test_a_service_that_is_away_for_ten_minutes_fails_no_run(dags: dict[str, Any], name: str):
    """And the bundle waits for more than an hour; Airflow's own delays are longer still."""
    from include.orchestration.workflow import DEFAULT_ARGS

    def patience(task: Any) -> float:
        first, most = task.retry_delay.total_seconds(), task.max_retry_delay.total_seconds()
        return sum(min(first * 2**tried, most) for tried in range(task.retries))

    for task in dags[name].tasks:
        if task.retries:
            assert patience(task) > 600, task.task_id
    assert patience(dags[name].get_task("seal")) > 3600
    assert DEFAULT_ARGS["retry_exponential_backoff"]


@pytest.mark.parametrize("name", ["conclude_audit", "remind_training", "review_partners"])
def test_the_last_try_to_send_comes_when_nothing_is_held_any_more(dags: dict[str, Any], name: str):
    """What a killed one had in hand is free again by then, so the run itself still sends it."""
    from include.notify.claims import LEASE

    task = dags[name].get_task("send")
    assert task.retries * task.retry_delay > LEASE
    assert task.owner != "airflow"


def test_one_task_asks_for_the_seed(dags: dict[str, Any]):
    """It asks again after a refused seed; a run needs one answer."""
    from include.orchestration.human import human_steps

    steps = human_steps(dags["sample_audit"])
    assert [name for name, step in steps.items() if not step.optional] == ["seed"]
    assert steps["seed"].upstream_task_ids == {"commit"}


@pytest.mark.parametrize("name", NAMES)
def test_a_dag_file_is_thin(name: str):
    """It names tasks and their order; what they do lies in include."""
    text = (ROOT / "dags" / f"{name}.py").read_text()
    assert SHORTEST <= len(text.splitlines()) <= LONGEST
    for function in ast.walk(tree(name)):
        if isinstance(function, ast.FunctionDef) and _is_task(function):
            assert len(function.body) <= 3, f"{function.name}: a docstring and one or two lines"


@pytest.mark.parametrize("name", NAMES)
def test_a_dag_file_imports_airflow_sdk_and_include_only(name: str):
    """At its top, where parsing pays for it; and no setting, file or clock is asked there."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            pytest.fail(f"{name}: import {node.names[0].name}")
        if isinstance(node, ast.ImportFrom):
            assert node.module
            assert node.module.split(".")[0] in MAY_IMPORT
            if node.module.startswith("airflow"):
                assert node.module == "airflow.sdk"
            if node.module.startswith("include"):
                is_declaration = node.module.endswith(".workflow")
                assert is_declaration or node.module.startswith("include.orchestration")


def test_a_pack_sets_the_timezone_of_every_schedule(tmp_path: Path):
    """Another company's pack moves the schedule to that company's time."""
    pack = write_pack(tmp_path, calendar="timezone: Europe/Berlin\n")
    zones = _read(
        pack, "{d.dag_id: str(d.timetable.timezone) for d in bag.dags.values() if d.schedule}"
    )
    assert zones == dict.fromkeys(sorted({*NAMES} - SEVERAL), "Europe/Berlin")


def test_the_form_offers_the_mapped_databases(tmp_path: Path):
    """Nobody types a database's name, and one that is not mapped is refused before the run."""
    pack = write_pack(tmp_path)
    schema = "bag.dags['backup_offsite'].params.get_param('databases').schema"
    offered, mapped = _read(pack, schema), list(load_pack(pack).databases)
    assert mapped
    assert offered["examples"] == mapped
    assert offered["items"]["enum"] == mapped


def test_a_bad_pack_is_an_import_error_that_names_every_fault(tmp_path: Path):
    """Nobody has to mend one line to learn of the next; and no workflow runs on half a pack."""
    pack = write_pack(
        tmp_path, calendar="timezone: Mars/Olympus\n", roles="- {id: 3}\n", backup="keeep: 1\n"
    )
    said = _read(pack, "{**bag.import_errors, 'dags': list(bag.dags)}")
    assert said.pop("dags") == []
    assert len(said) == len(NAMES)
    for text in said.values():
        for part in ("calendar.yaml:1", "roles.yaml:1", "backup.yaml:1"):
            assert part in text


def _read(pack: Path, expression: str) -> Any:
    """Read the DAG files in a fresh process, as Airflow does, under a policy pack."""
    code = (
        "import json; from airflow.dag_processing.dagbag import DagBag; "
        f"bag = DagBag({str(ROOT / 'dags')!r}); print(json.dumps({expression}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PARCELSEAL_POLICY": str(pack)},
    )
    return json.loads(done.stdout.splitlines()[-1])


def _decorator(name: str) -> ast.Call:
    function = next(one for one in tree(name).body if isinstance(one, ast.FunctionDef))
    (decorator,) = function.decorator_list
    assert isinstance(decorator, ast.Call)
    return decorator


def _is_task(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(one).split("(")[0] == "task" for one in function.decorator_list)


@pytest.mark.parametrize("name", ["sample_audit", "conclude_audit"])
def test_a_mistyped_quarter_is_refused_before_a_run_starts(dags: dict[str, Any], name: str):
    """With wrong usage's exit code, and how to write it."""
    from include.orchestration import inprocess

    for given in ("2026Q3", None):
        inprocess._check_parameters(dags[name], {"quarter": given})
    for given in ("2026q3", "2026Q5", "1926Q3", "2026-Q3", " 2026Q3", "20266Q3", "2026Q3\n"):
        with pytest.raises(UsageError) as caught:
            inprocess._check_parameters(dags[name], {"quarter": given})
        assert caught.value.exit_code == 2
        assert f"The parameter quarter of {name}: {given!r}" in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.action.startswith("2026Q3")


def test_wrong_as_of_is_refused_before_a_run_starts(dags: dict[str, Any]) -> None:
    """What is no day, no moment with offset, no real day, or has not begun."""
    from include.orchestration import inprocess

    now = SystemClock().now()
    good = (None, "", "2026-01-31", "2026-01-31T03:30:00+08:00", "2026-01-31T03:30Z")
    for given in good:
        inprocess._check_parameters(dags["enforce_retention"], {"as_of": given})
    wrong = (
        "tomorrow",
        "2026-02-30",
        "2026-13-01",
        "2026-01-31 ",
        "2026-01-31\n",
        "2026-01-31T03:30:00",
        "2026-01-31T25:30:00Z",
        "31.1.2026",
        f"{now.date() + timedelta(days=2)}",
        (now + timedelta(hours=1)).isoformat(timespec="seconds"),
    )
    for given in wrong:
        with pytest.raises(UsageError) as caught:
            inprocess._check_parameters(dags["enforce_retention"], {"as_of": given})
        assert caught.value.exit_code == 2
        assert "The parameter as_of of enforce_retention" in caught.value.message
        assert caught.value.action.startswith("Day (2026-11-25) or moment with offset")


def test_wrong_as_of_is_refused_by_the_serialized_workflow(dags: dict[str, Any]) -> None:
    """The API server, which knows a workflow as it was serialized, checks the same."""
    from airflow.exceptions import ParamValidationError
    from airflow.serialization.serialized_objects import DagSerialization

    serialized = DagSerialization.from_dict(DagSerialization.to_dict(dags["enforce_retention"]))
    for given in ("tomorrow", f"{SystemClock().now().date() + timedelta(days=2)}"):
        with pytest.raises(ParamValidationError):
            serialized.params.deep_merge({"as_of": given}).validate()
    serialized.params.deep_merge({"as_of": "2026-01-31"}).validate()


def test_quarter_that_is_not_over_is_refused_before_a_run_starts(dags: dict[str, Any]) -> None:
    """Its populations still grow; nothing can be drawn from them."""
    from include.orchestration import inprocess

    now = SystemClock().now()
    quarter = f"{now.year + 1}Q{(now.month - 1) // 3 + 1}"
    with pytest.raises(UsageError):
        inprocess._check_parameters(dags["sample_audit"], {"quarter": quarter})
    inprocess._check_parameters(dags["sample_audit"], {"quarter": f"{now.year - 1}Q4"})
