"""What a run's evidence and log say about tasks that fail, whichever way."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Cli, Probed

pytestmark = pytest.mark.airflow


def test_a_task_that_fails_before_its_step_is_sealed_as_a_failure(probed: Probed):
    """Without a record nothing seems to have happened; the run is red all the same."""
    assert probed.states["early"] == "failed"
    result = probed.runs["early"]
    assert result["outcome"] == "fail"
    assert [one["subject"] for one in result["findings"]] == ["before_its_step"]


def test_every_failed_step_is_a_finding(probed: Probed):
    """With its own words where they are ours, by its kind where nobody foresaw it."""
    assert probed.states["inside"] == "failed"
    said = {one["code"]: json.dumps(one["message"]) for one in probed.runs["inside"]["findings"]}
    assert set(said) == {"quoting.failed", "service.failed", "databases.failed"}
    assert "InvalidTextRepresentation" in said["quoting.failed"]
    assert "does not answer" in said["service.failed"]
    assert "nope" in said["databases.failed"]


def test_an_unforeseen_error_is_found_in_the_log_without_its_words(cli: Cli, probed: Probed):
    """Kind, SQLSTATE and line of code stand there; the quoted name does not."""
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    names = [one["value"] for one in sheet["canaries"] if one["kind"] == "name"]
    assert "InvalidTextRepresentation (SQLSTATE 22P02)" in probed.log
    assert "probe.py:" in probed.log
    assert [name for name in names if name in probed.log] == []
