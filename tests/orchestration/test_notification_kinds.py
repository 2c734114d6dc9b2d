"""The workflow that queued a notification confirms before sending that it is still due."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.composition import services_from
from include.messages import _
from include.registry import notification_kinds
from include.reports.i18n import Translator
from tests.support.contexts import pack_of

ROOT = Path(__file__).parents[2] / "include"
pytestmark = pytest.mark.airflow
NAMES = (
    "training/training_status.py",
    "partners/rules.py",
    "sampling/rules.py",
    "incident/incident_ids.py",
    "disclosure/notification_kinds.py",
)
TOPICS = ("training", "partners", "audit", "incident", "use")


def queued() -> set[str]:
    """Return the notification kinds that the modules of workflows define."""
    kinds = set()
    for file in NAMES:
        for node in ast.parse((ROOT / file).read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                value = str(node.value.value)
                if value.count(".") == 1 and not value.endswith((".csv", ".json", ".xlsx")):
                    kinds.add(value)
    return kinds


def test_every_queued_notification_kind_is_declared():
    """Notifications of an undeclared kind would be sent even if they are no longer due."""
    declared = set(notification_kinds())
    assert {kind for kind in queued() if kind.split(".")[0] in TOPICS} == declared


def test_every_kind_of_notification_has_a_title_in_both_languages():
    for _workflow, kind in notification_kinds().values():
        assert Translator("zh_CN").text(kind.title) != Translator("en").text(kind.title)


def test_context_of_workflow_other_than_audit_is_none_if_policy_pack_has_no_section_for_it():
    services: Any = SimpleNamespace(pack=pack_of({}, {}))
    for name, (workflow, _kind) in notification_kinds().items():
        run = workflow.context(services)
        assert (run is None) == (not name.startswith("audit."))


@pytest.mark.parametrize(("extra", "caught"), [({"catcher": True}, True), ({}, False)])
def test_attribute_mail_is_caught_is_true_only_if_the_mail_connection_has_option_catcher(
    extra: dict[str, Any], caught: bool
):
    connection = {"conn_type": "smtp", "host": "mail", "extra": extra}
    environment = {"AIRFLOW_CONN_MAIL": json.dumps(connection)}
    assert services_from(environment).mail_is_caught() is caught


def test_step_record_has_outcome_attention_if_only_a_mail_catcher_received_mails():
    """A run that sent no mail has no such finding, and does not close that of an earlier run."""
    from include.evidence.model import Outcome
    from include.evidence.step_findings import StepFindings
    from include.notify.sending import report_caught_mail

    caught = StepFindings("send", "6.2")
    report_caught_mail(caught, 3)
    record = caught.record({})
    assert record.outcome is Outcome.ATTENTION
    assert [finding.code for finding in record.findings] == ["notices.local_only"]
    assert record.findings[0].subject_title == _("Mail server")
    nothing = StepFindings("send", "6.2")
    report_caught_mail(nothing, 0)
    assert not nothing.findings
    assert nothing.coverage.subjects == ("send",)
    assert "notices.local_only" not in nothing.coverage.codes
    assert "notices.undeliverable" in nothing.coverage.codes
