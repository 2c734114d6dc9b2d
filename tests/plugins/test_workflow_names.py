"""Tests of the names that the pages show for workflows and for files of evidence bundles."""

from __future__ import annotations

import ast

import pytest

from include.messages import Message, _, verbatim
from include.registry import workflow
from include.reports.i18n import LOCALES, Translator
from include.service_container import ROOT
from plugins.compliance_ui.bundle import content_of
from plugins.compliance_ui.workflow_names import dag_of, title_of
from tests.plugins.company import DAG_OF

DAGS = sorted(path.stem for path in (ROOT / "dags").glob("*.py"))
AIRFLOW = "airflow.api_fastapi."
ASKING = tuple(AIRFLOW + package for package in ("app", "auth", "core_api"))


@pytest.mark.parametrize("name", [*DAGS, "sample_commitment", "respond_to_incident.summary-0a1b"])
def test_every_workflow_has_a_title(name: str) -> None:
    assert title_of(name) != verbatim(name)


@pytest.mark.parametrize("name", DAGS)
def test_dag_display_name_is_the_workflow_title_in_both_languages(name: str) -> None:
    from include.orchestration.tasks import dag_settings

    settings = dag_settings(workflow(name), schedule=None, page="")
    titles = [Translator(locale).text(title_of(name)) for locale in LOCALES]
    assert settings["dag_display_name"] == " / ".join(titles)
    assert len(set(titles)) == 2


def test_title_of_a_removed_workflow_is_its_id() -> None:
    """The ledger may hold evidence of workflows that no longer exist."""
    assert title_of("a_workflow_of_yesterday") == verbatim("a_workflow_of_yesterday")


@pytest.mark.parametrize(("name", "dag"), sorted(DAG_OF.items()))
def test_dag_of_returns_the_dag_that_sealed_the_evidence_bundle_with_the_given_name(
    name: str, dag: str
) -> None:
    assert dag_of(name) == dag


def test_access_py_is_the_only_plugin_module_that_imports_the_auth_manager_of_airflow() -> None:
    asking = set()
    for path in (ROOT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(ASKING):
                asking.add(path.name)
    assert asking == {"access.py"}


def test_plugin_module_imports_no_page_modules_at_top_level() -> None:
    """Every task and every parse of a DAG file loads the plugins, so their import must be fast."""
    tree = ast.parse((ROOT / "plugins" / "compliance_plugin.py").read_text())
    brought = {
        node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module
    }
    assert brought == {
        "__future__",
        "typing",
        "airflow.plugins_manager",
        "airflow.sdk.bases.operatorlink",
        "plugins.compliance_ui",
    }
    package = ast.parse((ROOT / "plugins" / "compliance_ui" / "__init__.py").read_text())
    assert not [
        statement
        for statement in package.body
        if isinstance(statement, ast.Import | ast.ImportFrom)
    ]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("seed.json", _("random seed")),
        ("frames/disposal.csv", _("sampling frame")),
        ("report.zh-CN.html", _("report in Chinese")),
        ("notice.html", _("document (web page)")),
        ("unknown.bin", _("data")),
    ],
)
def test_content_of_bundle_file_follows_from_its_name(file: str, content: Message) -> None:
    assert content_of(file) == content
