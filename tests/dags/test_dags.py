"""Tests of the conventions for all DAG files."""

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
SEVERAL = {"respond_to_incident", "update_incident", "update_finding", "use_information"}
MAY_IMPORT = {"__future__", "typing", "airflow", "include"}
# Headings that the person on call looks for on the page of every workflow.
ON_THE_PAGE = (
    "**Policy clause",
    "**Schedule:**",
    "**Writes:**",
    "**Red means**",
    "**Action:**",
    "**Owner:**",
)


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    """The DAG of every file, by the file's name."""
    from airflow.sdk import DAG

    all_dags: dict[str, Any] = {}
    for path in FILES:
        make = runpy.run_path(str(path))[path.stem]
        all_dags[path.stem] = make()
    assert all(isinstance(dag, DAG) for dag in all_dags.values())
    return all_dags


def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / "dags" / f"{name}.py").read_text())


def test_dags_folder_contains_the_dags_backup_offsite_and_drill_restore():
    """Without any DAG, the parametrized tests below would pass without a check."""
    assert {"backup_offsite", "drill_restore"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_dag_file_function_and_id_have_the_same_name(dags: dict[str, Any], name: str):
    assert dags[name].dag_id == name
    functions = [node.name for node in tree(name).body if isinstance(node, ast.FunctionDef)]
    assert functions == [name]
    last = tree(name).body[-1]
    assert isinstance(last, ast.Expr)
    assert ast.unparse(last) == f"{name}()"


@pytest.mark.parametrize("name", NAMES)
def test_dag_documentation_contains_all_sections_for_the_person_on_call(
    dags: dict[str, Any], name: str
):
    """Airflow shows the docstring of the DAG's module as the page of the DAG."""
    page = dags[name].doc_md
    assert page == ast.get_docstring(tree(name), clean=False)
    assert page.startswith("### ")
    assert [part for part in ON_THE_PAGE if part not in page] == []
    assert dags[name].description
    assert dags[name].dag_display_name != name


@pytest.mark.parametrize("name", NAMES)
def test_dag_tags_equal_the_tags_that_the_workflow_declares(dags: dict[str, Any], name: str):
    """Users filter workflows by tags, so a mistyped tag would hide a workflow."""
    from include.orchestration.human_step import human_steps

    declared = workflow(name)
    tags = set(dags[name].tags)
    assert tags == set(declared.tags)
    assert ("asks people" in tags) == bool(human_steps(dags[name]))
    clauses = {tag for tag in tags if tag.startswith("clause ")}
    assert clauses
    assert not tags - clauses - TAGS


@pytest.mark.parametrize("name", NAMES)
def test_dag_schedule_has_timezone_of_policy_pack_and_catchup_is_disabled(
    dags: dict[str, Any], name: str
):
    from include.policy import SHIPPED
    from include.registry import load_pack

    (settings,) = _decorator(name).keywords
    assert isinstance(settings.value, ast.Call)
    assert {"schedule", "page"} <= {keyword.arg for keyword in settings.value.keywords}
    dag = dags[name]
    assert dag.catchup is False
    # Several incidents may be open at once.
    assert dag.max_active_runs == (16 if name in SEVERAL else 1)
    if dag.schedule is not None:
        zone = load_pack(SHIPPED).calendar.timezone
        assert str(dag.timetable.timezone) == zone


@pytest.mark.parametrize("name", NAMES)
def test_dag_params_have_title_description_and_type(dags: dict[str, Any], name: str):
    params = dags[name].params
    for key in params:
        schema = params.get_param(key).schema
        assert schema.get("title"), key
        assert params.get_param(key).description, key
        assert "type" in schema or "enum" in schema, key
        params.get_param(key).resolve()  # fails if the default is invalid


@pytest.mark.parametrize("name", NAMES)
def test_task_seal_runs_even_after_failed_tasks_and_task_gate_runs_only_if_task_seal_succeeds(
    dags: dict[str, Any], name: str
):
    """The task `seal` also runs if other tasks failed."""
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
def test_tasks_have_owner_retries_and_docstring(dags: dict[str, Any], name: str):
    from include.orchestration.workflow import DEFAULT_ARGS, SEAL_ARGS, SEND_ARGS

    roles = load_pack(SHIPPED).roles
    for task in dags[name].tasks:
        assert task.owner in roles
        usual = {"send": SEND_ARGS, "seal": SEAL_ARGS}.get(task.task_id, DEFAULT_ARGS)
        # a task that waits for weeks survives more restarts of workers
        longer = {20, 100} if name in SEVERAL and task.task_id not in AT_ONCE else set()
        assert task.retries in {0, usual["retries"]} | longer
        assert getattr(task, "python_callable", task).__doc__, task.task_id
        assert hasattr(task, "python_callable") or task.doc_md, task.task_id


@pytest.mark.parametrize("name", NAMES)
def test_only_workflows_that_people_trigger_start_unpaused(dags: dict[str, Any], name: str):
    """In an emergency, the person on call may lack the right to unpause a DAG."""
    assert dags[name].is_paused_upon_creation == (False if name in SEVERAL else None)


@pytest.mark.parametrize("name", NAMES)
def test_task_retries_last_longer_than_a_service_outage_of_ten_minutes(
    dags: dict[str, Any], name: str
):
    """The retries of the task `seal` even last for more than an hour."""
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
def test_last_retry_of_send_task_starts_after_message_claims_of_a_killed_try_have_expired(
    dags: dict[str, Any], name: str
):
    """A task claims the messages that it is about to send, so that no other task sends them.

    If the task is killed, its claims expire later. The last retry has to start after that, to send
    these messages.
    """
    from include.notify.claims import LEASE

    task = dags[name].get_task("send")
    assert task.retries * task.retry_delay > LEASE
    assert task.owner != "airflow"


def test_sample_audit_dag_has_one_required_human_task_which_asks_for_the_random_seed(
    dags: dict[str, Any],
):
    """The task itself requests another seed if a seed is refused, so a run needs no second task."""
    from include.orchestration.human_step import human_steps

    steps = human_steps(dags["sample_audit"])
    assert [name for name, step in steps.items() if not step.optional] == ["seed"]
    assert steps["seed"].upstream_task_ids == {"commit"}


@pytest.mark.parametrize("name", NAMES)
def test_dag_file_has_limited_length_and_each_task_function_has_at_most_three_statements(name: str):
    """Logic belongs in include/."""
    text = (ROOT / "dags" / f"{name}.py").read_text()
    assert SHORTEST <= len(text.splitlines()) <= LONGEST
    for function in ast.walk(tree(name)):
        if isinstance(function, ast.FunctionDef) and _is_task(function):
            assert len(function.body) <= 3, f"{function.name}: a docstring and one or two lines"


@pytest.mark.parametrize("name", NAMES)
def test_dag_file_imports_only_airflow_sdk_and_include(name: str):
    """Airflow often parses DAG files, so their top level must not read settings, files or time."""
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


def test_every_dag_schedule_has_the_timezone_that_the_policy_pack_configures(tmp_path: Path):
    pack = write_pack(tmp_path, calendar="timezone: Europe/Berlin\n")
    zones = _read(
        pack, "{d.dag_id: str(d.timetable.timezone) for d in bag.dags.values() if d.schedule}"
    )
    assert zones == dict.fromkeys(sorted({*NAMES} - SEVERAL), "Europe/Berlin")


def test_dag_parameter_databases_accepts_only_databases_with_a_data_map(tmp_path: Path):
    pack = write_pack(tmp_path)
    schema = "bag.dags['backup_offsite'].params.get_param('databases').schema"
    offered, mapped = _read(pack, schema), list(load_pack(pack).databases)
    assert mapped
    assert offered["examples"] == mapped
    assert offered["items"]["enum"] == mapped


def test_every_dag_has_an_import_error_that_contains_all_faults_of_an_invalid_policy_pack(
    tmp_path: Path,
):
    pack = write_pack(
        tmp_path, calendar="timezone: Mars/Olympus\n", roles="- {id: 3}\n", backup="keeep: 1\n"
    )
    message = _read(pack, "{**bag.import_errors, 'dags': list(bag.dags)}")
    assert message.pop("dags") == []
    assert len(message) == len(NAMES)
    for text in message.values():
        for part in ("calendar.yaml:1", "roles.yaml:1", "backup.yaml:1"):
            assert part in text


def _read(pack: Path, expression: str) -> Any:
    """Load the DAG files in a new process with a policy pack, and return an expression's value.

    Args:
        pack: folder of the policy pack.
        expression: Python expression, which can use `bag`, Airflow's DagBag.
    """
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
    function = next(node for node in tree(name).body if isinstance(node, ast.FunctionDef))
    (decorator,) = function.decorator_list
    assert isinstance(decorator, ast.Call)
    return decorator


def _is_task(function: ast.FunctionDef) -> bool:
    return any(
        ast.unparse(decorator).split("(")[0] == "task" for decorator in function.decorator_list
    )


@pytest.mark.parametrize("name", ["sample_audit", "conclude_audit"])
def test_checking_run_parameters_raises_usage_error_if_the_quarter_is_mistyped(
    dags: dict[str, Any], name: str
):
    """The refusal ends the command with exit code 2, which means wrong usage."""
    from include.orchestration import in_process_run

    for value in ("2026Q3", None):
        in_process_run._check_parameters(dags[name], {"quarter": value})
    for value in ("2026q3", "2026Q5", "1926Q3", "2026-Q3", " 2026Q3", "20266Q3", "2026Q3\n"):
        with pytest.raises(UsageError) as caught:
            in_process_run._check_parameters(dags[name], {"quarter": value})
        assert caught.value.exit_code == 2
        assert f"The parameter quarter of {name}: {value!r}" in caught.value.message
        assert "\n" not in caught.value.message
        assert "such as 2026Q3" in caught.value.action


def test_checking_run_parameters_raises_usage_error_if_as_of_date_is_invalid_or_in_the_future(
    dags: dict[str, Any],
) -> None:
    from include.orchestration import in_process_run

    now = SystemClock().now()
    valid = (None, "", "2026-01-31", "2026-01-31T03:30:00+08:00", "2026-01-31T03:30Z")
    for value in valid:
        in_process_run._check_parameters(dags["enforce_retention"], {"as_of": value})
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
    for value in wrong:
        with pytest.raises(UsageError) as caught:
            in_process_run._check_parameters(dags["enforce_retention"], {"as_of": value})
        assert caught.value.exit_code == 2
        assert "The parameter as_of of enforce_retention" in caught.value.message
        assert caught.value.action.startswith("Day (2026-11-25) or time with offset")


def test_serialized_dag_raises_validation_error_if_as_of_date_is_invalid_or_in_the_future(
    dags: dict[str, Any],
) -> None:
    """The API server validates parameters with the serialized DAG only."""
    from airflow.exceptions import ParamValidationError
    from airflow.serialization.serialized_objects import DagSerialization

    serialized = DagSerialization.from_dict(DagSerialization.to_dict(dags["enforce_retention"]))
    for value in ("tomorrow", f"{SystemClock().now().date() + timedelta(days=2)}"):
        with pytest.raises(ParamValidationError):
            serialized.params.deep_merge({"as_of": value}).validate()
    serialized.params.deep_merge({"as_of": "2026-01-31"}).validate()


def test_checking_run_parameters_raises_usage_error_if_the_quarter_has_not_ended(
    dags: dict[str, Any],
) -> None:
    """The populations of an unfinished quarter are not complete."""
    from include.orchestration import in_process_run

    now = SystemClock().now()
    quarter = f"{now.year + 1}Q{(now.month - 1) // 3 + 1}"
    with pytest.raises(UsageError):
        in_process_run._check_parameters(dags["sample_audit"], {"quarter": quarter})
    in_process_run._check_parameters(dags["sample_audit"], {"quarter": f"{now.year - 1}Q4"})
