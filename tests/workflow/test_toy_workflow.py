"""A new workflow needs only a package, a DAG file, a registry line and a policy pack file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from include.service_container import ROOT

DECLARATION = '''\
"""Declaration of `check_scales`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from include.evidence.step_findings import StepFindings
from include.evidence.step_findings import StepResult
from include.messages import _
from include.policy.section import Loc, PackNames, RuleSection, SectionRules
from include.reports.conclusion import Conclusion, worst
from include.workflow.declaration import (
    AccessGroup,
    Cadence,
    DatabaseLogin,
    LoginQuery,
    NotificationKind,
    Workflow,
)
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords
from include.workflow.step import Step


class ScaleRules(SectionRules):
    """scales.yaml."""

    connection: str = "scales_db"
    most_grams: Annotated[int, Field(ge=1)]
    database: str


class Weighing(StepResult):
    """The result of the check."""

    most_grams: int


def check_rules(rules: ScaleRules, pack: PackNames) -> Iterator[tuple[Loc, str]]:
    """Yield what scales.yaml names and the rest of the pack does not have."""
    if rules.database not in pack.databases:
        yield ("database",), f"the pack maps no database {rules.database!r}"


def weigh(run: RunContext[ScaleRules], findings: StepFindings) -> Weighing:
    """Weigh a parcel."""
    findings.measure("scales.checked", 1, "1")
    return Weighing(most_grams=run.rules.most_grams)


def conclude(run: RunContext[ScaleRules], records: RunRecords) -> Conclusion:
    """Judge a run by the records of its steps."""
    del run
    weighing = records.result(WEIGH)
    grams = weighing.most_grams if weighing else 0
    return Conclusion(
        title=_("Scales"),
        summary=_("Every parcel weighs at most {grams} grams.", grams=grams),
        outcome=worst(records.records, []),
        findings=records.findings,
        metrics=records.metrics,
    )


def still_due(run: RunContext[ScaleRules], keys: Sequence[str]) -> set[str]:
    """Return the keys that are still due."""
    del run
    return set(keys)


def login_queries(run: RunContext[ScaleRules]) -> Iterator[LoginQuery]:
    """Yield the query of the parcels."""
    yield LoginQuery(run.rules.connection, run.rules.database, "SELECT weight FROM parcel")


WEIGH = Step(name="weigh", title=_("The weighing"), clause="4.1", work=weigh, result=Weighing)
CHECK_SCALES = Workflow[ScaleRules](
    id="check_scales",
    title=_("Scales"),
    summary="Weigh a parcel, seal.",
    topic="scales",
    clauses=("4.1",),
    cadence=Cadence.DAILY,
    owner="compliance",
    access=AccessGroup.RECORDS,
    steps=(WEIGH,),
    conclude=conclude,
    without_rules=_("The policy pack has no scales.yaml: nothing is weighed."),
    rules=RuleSection("scales.yaml", ScaleRules, check_rules, page="scales.md"),
    login=DatabaseLogin("scales_db", Path(__file__).with_name("sample_grants.sql")),
    queries=login_queries,
    notifications=(NotificationKind("scales.reminder", _("scales reminder"), still_due),),
)
'''
DAG = '''\
"""### Scales"""

from __future__ import annotations

from airflow.sdk import dag

from include.orchestration.tasks import dag_settings, tasks_of
from include.scales.workflow import CHECK_SCALES


@dag(**dag_settings(CHECK_SCALES, schedule="0 6 * * *", page=__doc__))
def check_scales() -> None:
    """Weigh a parcel and leave a sealed bundle."""
    tasks = tasks_of(CHECK_SCALES)
    tasks.seal_after(tasks.weigh() >> tasks.send())


check_scales()
'''
LINE = '    "check_scales": "include.scales.workflow:CHECK_SCALES",\n'


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the source code, to which a workflow is added.

    The workflow consists of a package, a DAG file and a line in the registry.
    """
    folder = tmp_path_factory.mktemp("tree")
    # Includes compiled files, which take seconds, but not temporary files that Python renames.
    ignore = shutil.ignore_patterns("*.pyc.*")
    for name in ("include", "dags", "plugins", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / ".importlinter", folder)
    package = folder / "include" / "scales"
    package.mkdir()
    (package / "__init__.py").write_text('"""Parcels are weighed."""\n')
    (package / "workflow.py").write_text(DECLARATION)
    (package / "sample_grants.sql").write_text("GRANT USAGE ON SCHEMA public TO courier_scales;\n")
    (folder / "dags" / "check_scales.py").write_text(DAG)
    registry = folder / "include" / "registry.py"
    begin = "WORKFLOWS: Mapping[str, str] = {\n"
    registry.write_text(registry.read_text().replace(begin, begin + LINE))
    return folder


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the shipped policy pack with the new workflow's file."""
    folder = tmp_path_factory.mktemp("packs") / "scales"
    shutil.copytree(ROOT / "include/policy/pack", folder)
    (folder / "scales.yaml").write_text("most_grams: 30000\ndatabase: courier\n")
    return folder


def run(tree: Path, words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    return subprocess.run(
        [sys.executable, *words], cwd=tree, capture_output=True, text=True, check=False,
        env={**kept, "PYTHONPATH": str(tree), "PARCELSEAL_HOME": str(tree / "home"), **environment},
    )  # fmt: skip


def answer(tree: Path, script: str, **environment: str) -> Any:
    completed = run(tree, ["-c", f"import json\n{script}"], **environment)
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout.splitlines()[-1])


def command(tree: Path, *words: str, code: int = 0, **environment: str) -> Mapping[str, Any]:
    completed = run(tree, ["-m", "include.cli", *words, "--json"], **environment)
    assert completed.returncode == code, completed.stderr
    return dict(json.loads(completed.stdout))


def test_dag_has_the_title_owner_and_tags_that_the_workflow_declares(tree: Path) -> None:
    script = """
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags/check_scales.py")
assert not bag.import_errors, bag.import_errors
dag = bag.dags["check_scales"]
shown = dag.dag_display_name, sorted(dag.tags), dag.get_task("weigh").owner
print(json.dumps([*shown, [task.task_id for task in dag.topological_sort()]]))
"""
    home = {"AIRFLOW_HOME": str(tree / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    title, tags, owner, tasks = answer(tree, script, **home)
    assert (title, owner) == ("Scales", "compliance")
    assert tags == ["clause 4.1", "daily", "scales"]
    assert tasks == ["weigh", "send", "seal", "gate"]


def test_only_roles_of_access_group_of_an_added_workflow_may_trigger_or_read_it(tree: Path) -> None:
    roles = {role["name"]: role for role in command(tree, "roles", "list")["roles"]}
    assert "check_scales" in roles["Data Engineer"]["triggers"]
    assert "check_scales" in roles["Information Management Reviewer"]["reads"]
    assert "check_scales" not in roles["On Call"]["reads"]


def test_compliance_pages_show_the_title_of_an_added_workflow(tree: Path) -> None:
    script = """
from plugins.compliance_ui.workflow_names import title_of
print(json.dumps(title_of("check_scales").text))
"""
    assert answer(tree, script) == "Scales"


def test_config_check_validates_the_policy_file_of_an_added_workflow(
    tree: Path, pack: Path
) -> None:
    assert command(tree, "config", "check", PARCELSEAL_POLICY=str(pack))["valid"]
    scales = pack / "scales.yaml"
    good = scales.read_text()
    scales.write_text("most_grams: 0\ndatabase: nowhere\n")
    problems = command(tree, "config", "check", code=2, PARCELSEAL_POLICY=str(pack))["problems"]
    scales.write_text(good)
    places = {(problem["file"], problem["line"], problem["path"]) for problem in problems}
    assert ("scales.yaml", 1, "most_grams") in places


def test_config_check_reports_database_that_has_no_data_map(tree: Path, pack: Path) -> None:
    scales = pack / "scales.yaml"
    good = scales.read_text()
    scales.write_text("most_grams: 5\ndatabase: nowhere\n")
    problems = command(tree, "config", "check", code=2, PARCELSEAL_POLICY=str(pack))["problems"]
    scales.write_text(good)
    assert [problem["message"] for problem in problems] == ["the pack maps no database 'nowhere'"]


def test_local_profile_has_login_and_notification_kind_of_an_added_workflow(tree: Path) -> None:
    script = """
from include.local.roles import sample_logins
from include.registry import notification_kinds
print(json.dumps([sample_logins()["scales_db"], "scales.reminder" in notification_kinds()]))
"""
    assert answer(tree, script) == ["courier_scales", True]


def test_database_login_of_an_added_workflow_exists_only_in_trust_zone_of_that_workflow(
    tree: Path,
) -> None:
    script = """
from include.deployment.zones import ZONES, logins_of
print(json.dumps([zone.queue for zone in ZONES.values() if "scales_db" in logins_of(zone)]))
"""
    assert answer(tree, script) == ["default"]


def test_reference_page_of_database_rights_includes_an_added_workflow(tree: Path) -> None:
    script = """
from include.reference.connection_pages import rights_table
print(json.dumps(rights_table()))
"""
    rows = [row for row in answer(tree, script).splitlines() if "scales_db" in row]
    assert len(rows) == 3
    assert all("check_scales" in row for row in rows)


def test_connection_check_returns_the_workflow_that_needs_each_database_right(
    tree: Path, pack: Path
) -> None:
    script = f"""
from pathlib import Path
from types import SimpleNamespace
from include.cli.config_connect import pack_queries
from include.registry import load_pack
services = SimpleNamespace(pack=load_pack(Path({str(pack)!r})))
needed = {{query.connection: rights[0].workflows for query, rights in pack_queries(services)}}
print(json.dumps([needed["scales_db"], needed["partners_db"]]))
"""
    assert answer(tree, script) == ["check_scales", "review_partners"]


def test_search_for_canary_values_includes_an_added_workflow(tree: Path) -> None:
    script = (
        "from tests.e2e.test_canary import EVERY_WORKFLOW\nprint(json.dumps(list(EVERY_WORKFLOW)))"
    )
    assert "check_scales" in answer(tree, script)


def test_import_linter_reports_forbidden_import_in_package_of_an_added_workflow(tree: Path) -> None:
    program = Path(sys.executable).parent / "lint-imports"
    completed = subprocess.run(
        [program, "--no-cache"], cwd=tree, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    planted = tree / "include" / "scales" / "planted.py"
    planted.write_text("from include.backup import dump\n")
    refused = subprocess.run(
        [program, "--no-cache"], cwd=tree, capture_output=True, text=True, check=False
    )
    planted.unlink()
    assert "include.scales is not allowed to import include.backup" in refused.stdout
