"""Tests of the evidence and the logs of failed tasks."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Cli, Probed

pytestmark = pytest.mark.airflow


def test_evidence_bundle_has_a_finding_for_a_task_that_failed_before_its_step_began(probed: Probed):
    """The outcome is a failure although the step left no record."""
    assert probed.states["early"] == "failed"
    result = probed.runs["early"]
    assert result["outcome"] == "fail"
    assert [finding["subject"] for finding in result["findings"]] == ["before_its_step"]


def test_evidence_has_a_finding_for_every_failed_step(probed: Probed):
    """The finding has the message of ParcelSeal's own errors, and only the type of other errors."""
    assert probed.states["inside"] == "failed"
    messages = {
        finding["code"]: json.dumps(finding["message"])
        for finding in probed.runs["inside"]["findings"]
    }
    assert set(messages) == {"quoting.failed", "service.failed", "databases.failed"}
    assert "InvalidTextRepresentation" in messages["quoting.failed"]
    assert "does not answer" in messages["service.failed"]
    assert "nope" in messages["databases.failed"]


def test_log_contains_the_type_of_an_unexpected_error_and_not_its_message(cli: Cli, probed: Probed):
    """The log has error type, SQLSTATE and code line, but not the name that PostgreSQL quoted."""
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    names = [canary["value"] for canary in sheet["canaries"] if canary["kind"] == "name"]
    assert "InvalidTextRepresentation (SQLSTATE 22P02)" in probed.log
    assert "probe.py:" in probed.log
    assert [name for name in names if name in probed.log] == []
