"""Whoever queues notices is asked, just before they are sent, which are still wanted."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.composition import workplace_of
from include.registry import notification_kinds
from tests.support.contexts import pack_of

ROOT = Path(__file__).parents[2] / "include"
pytestmark = pytest.mark.airflow
NAMES = ("training/standing.py", "partners/rules.py", "sampling/rules.py", "incident/names.py")
OURS = ("training", "partners", "audit", "incident")


def queued() -> set[str]:
    """Every kind that the module with a workflow's names calls its own."""
    found = set()
    for file in NAMES:
        for node in ast.parse((ROOT / file).read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                value = str(node.value.value)
                if value.count(".") == 1 and not value.endswith((".csv", ".json", ".xlsx")):
                    found.add(value)
    return found


def test_every_kind_that_is_queued_is_declared():
    """A kind that no workflow declares would be sent whatever happened since."""
    declared = set(notification_kinds())
    assert {kind for kind in queued() if kind.split(".")[0] in OURS} == declared


def test_a_pack_without_the_workflows_file_has_no_notification_due():
    """What an earlier pack queued is not sent any more."""
    services: Any = SimpleNamespace(pack=pack_of({}, {}))
    for name, (workflow, _kind) in notification_kinds().items():
        run = workflow.context(services)
        assert (run is None) == (not name.startswith("audit."))


@pytest.mark.parametrize(("extra", "caught"), [({"catcher": True}, True), ({}, False)])
def test_a_catcher_is_no_mail_server(extra: dict[str, Any], caught: bool):
    """The stack's own is a connection like any other, and nobody gets what it takes."""
    connection = {"conn_type": "smtp", "host": "mail", "extra": extra}
    environment = {"AIRFLOW_CONN_MAIL": json.dumps(connection)}
    assert workplace_of(environment).mail_is_caught() is caught


def test_mail_that_stays_on_this_machine_is_not_called_sent():
    """A forgotten connection looks like success otherwise; a run that sent nothing is silent."""
    from include.evidence.model import Outcome
    from include.evidence.step_findings import StepFindings
    from include.notify.sending import report_caught_mail

    caught = StepFindings("send", "6.2")
    report_caught_mail(caught, 3)
    record = caught.record({})
    assert record.outcome is Outcome.ATTENTION
    assert [finding.code for finding in record.findings] == ["notices.local_only"]
    nothing = StepFindings("send", "6.2")
    report_caught_mail(nothing, 0)
    assert not nothing.findings
