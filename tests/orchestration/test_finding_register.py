"""Owners of the findings of runs, and the runs that count as complete."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from include.evidence.model import CONTROLS_STEP, Finding, Outcome
from include.messages import verbatim
from include.orchestration import run as run_module
from include.orchestration.finding_register import entry_rules, owner_of
from include.policy import SHIPPED, PolicyPack
from include.registry import WORKFLOWS, load_pack

pytestmark = pytest.mark.airflow
ENDED = {"check": "success", "send": "skipped", "seal": "running", "gate": None}


@pytest.fixture(scope="module")
def pack() -> PolicyPack:
    return load_pack(SHIPPED)


def finding_of(**fields: Any) -> Finding:
    usual = {"code": "x", "severity": Outcome.FAIL, "subject": "courier"}
    return Finding(**usual | {"message": verbatim("x"), "action": verbatim("y")} | fields)


def test_finding_about_a_control_belongs_to_the_owner_of_the_control(pack: PolicyPack) -> None:
    for control in pack.controls:
        finding = finding_of(step=CONTROLS_STEP, subject=control.id, clause=control.clause)
        assert owner_of(pack, control.workflow, finding) == control.owner


def test_finding_belongs_to_the_owner_of_a_control_of_the_same_clause_and_workflow(
    pack: PolicyPack,
) -> None:
    assert owner_of(pack, "backup_offsite", finding_of(clause="4.2")) == "data_engineering"


def test_finding_of_a_clause_without_control_belongs_to_the_owner_of_the_workflow(
    pack: PolicyPack,
) -> None:
    assert owner_of(pack, "review_partners", finding_of(clause="9.9")) == "compliance"
    without = pack.model_copy(update={"controls": ()})
    assert owner_of(without, "sample_audit", finding_of(clause="6.1")) == "management"


def test_workflows_about_another_subject_in_each_run_need_a_retest(pack: PolicyPack) -> None:
    rules = entry_rules(pack)
    assert set(rules.closes_by_retest) == set(WORKFLOWS)
    assert {name for name, needs in rules.closes_by_retest.items() if needs} == {
        "sample_audit", "respond_to_incident", "update_incident", "update_finding",
        "use_information",
    }  # fmt: skip


def is_complete(
    monkeypatch: pytest.MonkeyPatch,
    states: dict[str, str | None] | None = None,
    conf: dict[str, Any] | None = None,
    *,
    interrupted: bool = False,
) -> bool:
    context = {
        "dag": SimpleNamespace(params={"choose": "policy", "full": False}),
        "dag_run": SimpleNamespace(dag_id="review_partners", run_id="r", conf=conf),
        "ti": SimpleNamespace(
            get_task_states=lambda dag_id, run_ids: {"r": ENDED if states is None else states}
        ),
    }
    monkeypatch.setattr(run_module, "get_current_context", lambda: context)
    monkeypatch.setattr(run_module, "is_interrupted", lambda: interrupted)
    services: Any = SimpleNamespace(pack=SimpleNamespace(databases={"courier": 1, "billing": 1}))
    return run_module._is_complete(services)


@pytest.mark.parametrize(
    "conf",
    [
        *(None, {}, {"databases": []}, {"databases": ["billing", "courier"]}, {"quarter": None}),
        *({"choose": "policy"}, {"full": True}, {"full": False}),
    ],
)
def test_run_whose_tasks_succeeded_or_were_skipped_is_complete(
    monkeypatch: pytest.MonkeyPatch, conf: dict[str, Any] | None
) -> None:
    assert is_complete(monkeypatch, conf=conf)


@pytest.mark.parametrize(
    "conf",
    [
        *({"databases": ["courier"]}, {"as_of": "2000-01-01"}, {"quarter": "2026Q3"}),
        {"choose": "latest"},
    ],
)
def test_run_with_changed_parameters_is_not_complete(
    monkeypatch: pytest.MonkeyPatch, conf: dict[str, Any]
) -> None:
    assert not is_complete(monkeypatch, conf=conf)


@pytest.mark.parametrize("state", ["failed", "upstream_failed", "removed", None])
def test_run_with_a_task_that_did_not_succeed_is_not_complete(
    monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    assert not is_complete(monkeypatch, ENDED | {"check": state})


def test_interrupted_run_or_run_without_steps_is_not_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not is_complete(monkeypatch, interrupted=True)
    assert not is_complete(monkeypatch, {"seal": "running"})
