"""What workflows are called on pages, and whose bundles they are."""

from __future__ import annotations

import ast

import pytest

from include.messages import verbatim
from include.registry import workflow
from include.workplace import ROOT
from plugins.compliance_ui.names import dag_of, title_of
from tests.plugins.company import DAG_OF

DAGS = sorted(path.stem for path in (ROOT / "dags").glob("*.py"))
AIRFLOW = "airflow.api_fastapi."
ASKING = tuple(AIRFLOW + one for one in ("app", "auth", "core_api"))


@pytest.mark.parametrize("name", [*DAGS, "sample_commitment", "respond_to_incident.summary-0a1b"])
def test_every_workflow_has_a_name_for_people(name: str) -> None:
    """A new one is not shown by its id."""
    assert title_of(name) != verbatim(name)


@pytest.mark.parametrize("name", DAGS)
def test_a_workflow_is_called_the_same_in_airflow(name: str) -> None:
    """One thing has one name: on pages, and in Airflow's list of workflows."""
    from include.orchestration.tasks import dag_settings

    settings = dag_settings(workflow(name), schedule=None, page="")
    assert settings["dag_display_name"] == title_of(name).text


def test_what_nobody_knows_any_more_is_shown_by_its_id() -> None:
    """Evidence outlives the workflow that made it."""
    assert title_of("a_workflow_of_yesterday") == verbatim("a_workflow_of_yesterday")


@pytest.mark.parametrize(("name", "dag"), sorted(DAG_OF.items()))
def test_each_bundle_is_read_by_who_may_read_its_workflow(name: str, dag: str) -> None:
    """What is sealed aside belongs to the run that sealed it."""
    assert dag_of(name) == dag


def test_one_module_knows_how_airflow_authorises() -> None:
    """Another one that asked could forget to."""
    asking = set()
    for path in (ROOT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(ASKING):
                asking.add(path.name)
    assert asking == {"access.py"}


def test_airflows_other_processes_import_no_page() -> None:
    """Every task and every parse of a DAG file loads plugins: what they bring along costs there."""
    tree = ast.parse((ROOT / "plugins" / "compliance_plugin.py").read_text())
    brought = {
        node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module
    }
    assert brought == {"__future__", "typing", "airflow.plugins_manager", "plugins.compliance_ui"}
    package = ast.parse((ROOT / "plugins" / "compliance_ui" / "__init__.py").read_text())
    assert not [one for one in package.body if isinstance(one, ast.Import | ast.ImportFrom)]
