"""Each parallel task of a step has one step record.

Records and artifacts are read back unchanged.
"""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from include.evidence.model import Finding, Metric, Outcome, StepRecord
from include.evidence.step_findings import artifacts_of, keep_artifact, record_step, steps_of
from include.messages import _
from include.services.clock import FixedClock
from include.services.errors import UsageError
from tests.evidence.support import CLOCK, START, Evidence

LATER = FixedClock(START + timedelta(hours=1))


def test_step_records_are_read_back_unchanged(evidence: Evidence) -> None:
    """Texts that look like numbers are still texts."""
    record = StepRecord(
        step="backup",
        part="courier",
        outcome=Outcome.ATTENTION,
        findings=[
            Finding(
                code="a.b",
                severity=Outcome.ATTENTION,
                subject="courier",
                message=_("{point} of {name}", point="1700000000", name=_("database {n}", n=5)),
                action=_("Look"),
            )
        ],
        metrics=[Metric(name="m", value=1.5, unit="seconds", target=None)],
        data={"deep": [{"a": None, "b": "5", "c": 5, "d": 0.1, "编号": True}]},
    )
    record_step(evidence.conn, "d", "r", record, CLOCK)
    assert steps_of(evidence.conn, "d", "r") == [record]
    assert steps_of(evidence.conn, "d", "other") == []


def test_record_of_retried_step_replaces_earlier_record(evidence: Evidence) -> None:
    """Each task of a step has a single record. Records are sorted by the time of their storage."""
    for part, outcome, clock in (
        ("one", Outcome.FAIL, CLOCK),
        ("two", Outcome.PASS, CLOCK),
        ("one", Outcome.PASS, LATER),
    ):
        record = StepRecord(step="backup", part=part, outcome=outcome)
        record_step(evidence.conn, "d", "r", record, clock)
    records = [(record.part, record.outcome) for record in steps_of(evidence.conn, "d", "r")]
    assert records == [("two", Outcome.PASS), ("one", Outcome.PASS)]


def test_nan_metric_of_step_record_is_stored_as_none(evidence: Evidence) -> None:
    """JSON has no NaN. None means "not measured"."""
    metric = Metric(name="ratio", value=math.nan, unit="1")
    record = StepRecord(step="s", outcome=Outcome.PASS, metrics=[metric])
    record_step(evidence.conn, "d", "r", record, CLOCK)
    assert steps_of(evidence.conn, "d", "r")[0].metrics[0].value is None


def test_second_artifact_with_the_same_name_replaces_the_first(evidence: Evidence) -> None:
    """A retry replaces an artifact. A name that a bundle cannot have is refused."""
    conn = evidence.conn
    keep_artifact(conn, "d", "r", "plan.csv", b"old")
    keep_artifact(conn, "d", "r", "plan.csv", b"\0new")
    keep_artifact(conn, "d", "r", "docs/index.html", b"")
    keep_artifact(conn, "d", "other", "x", b"")
    assert artifacts_of(conn, "d", "r") == {"docs/index.html": b"", "plan.csv": b"\0new"}
    with pytest.raises(UsageError, match="evidence file name"):
        keep_artifact(conn, "d", "r", "../x", b"")
    assert artifacts_of(conn, "d", "other") == {"x": b""}


def test_finding_with_severity_pass_raises_value_error() -> None:
    with pytest.raises(ValueError, match="never a pass"):
        Finding(code="x", severity=Outcome.PASS, subject="", message=_("x"), action=_("y"))
