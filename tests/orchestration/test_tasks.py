"""Airflow tasks that are created from declared steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from include.evidence.model import Outcome, StepRecord
from include.messages import verbatim
from include.partners.rules import PARTNERS
from include.registry import workflows
from include.services.errors import UsageError
from include.workflow.run_context import context_of
from include.workflow.step import HumanTask
from tests.support.contexts import pack_of

pytestmark = pytest.mark.airflow

STEPS = [
    (each, step)
    for each in workflows()
    if each.rules and not each.needs_rules
    for step in each.steps
]


@pytest.mark.parametrize(("workflow", "step"), STEPS, ids=[step.name for _each, step in STEPS])
def test_step_passes_without_result_if_policy_pack_omits_section_of_its_workflow(
    workflow: Any, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration import tasks

    services: Any = SimpleNamespace(pack=pack_of({}, {}))
    records: list[StepRecord] = []

    def execute_step(
        _name: str, _part: str, _title: Any, work: Any, _clause: str, _make: Any
    ) -> dict[str, Any]:
        records.append(work(services))
        return {}

    monkeypatch.setattr(tasks, "execute_step", execute_step)
    monkeypatch.setattr(tasks, "get_current_context", lambda: {"params": {}})
    monkeypatch.setattr(tasks, "_context", lambda workflow, services: workflow.context(services))
    if isinstance(step, HumanTask):
        assert tasks.ask_people(workflow, step, "") is None
    else:
        tasks.run_step(workflow, step)
    assert [(record.step, record.outcome) for record in records] == [(step.name, Outcome.PASS)]
    conclusion = workflow.conclude_without_rules(records)
    assert conclusion.outcome is Outcome.PASS
    assert conclusion.summary == workflow.without_rules


def test_finding_about_a_database_has_the_title_of_its_data_map() -> None:
    from include.orchestration import tasks

    title = verbatim("Courier operations")
    run: Any = SimpleNamespace(
        pack=SimpleNamespace(databases={"courier": SimpleNamespace(title=title)})
    )
    step: Any = SimpleNamespace(name="check", clause="4.2", title_of=lambda part: verbatim(part))
    findings = tasks._new_findings(run, step, "")
    for subject in ("courier", "offsite/courier"):
        findings.warn("x.y", verbatim("a"), verbatim("b"), subject=subject)
    assert [finding.subject_title for finding in findings.findings] == [title, None]


def test_tasks_of_raises_attribute_error_for_a_step_that_the_workflow_does_not_declare() -> None:
    """A mistyped name of a step is an error when Airflow parses the DAG file."""
    from include.orchestration.tasks import tasks_of

    (partners,) = [each for each in workflows() if each.id == "review_partners"]
    with pytest.raises(AttributeError, match="review_partners has no step chekc"):
        _ = tasks_of(partners).chekc


def test_context_of_raises_usage_error_if_the_policy_pack_has_no_section_for_the_workflow() -> None:
    services: Any = SimpleNamespace(pack=pack_of({}, {}))
    with pytest.raises(UsageError, match=r"has no partners\.yaml"):
        context_of(PARTNERS, services)
