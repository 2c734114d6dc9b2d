"""Findings of a drill: which measure is still in order, and how each difference is named."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.backup.compare import Comparison, Definitions
from include.backup.drill_findings import judge_newest, judge_schema, judge_tables, judge_targets
from include.backup.offsite import CLOCK_TOLERANCE
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.policy.rules import Drill
from tests.backup.support import Taken, mapped

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
RULES = Drill(newest_record_window_hours=24)


def examination() -> StepFindings:
    return StepFindings("drill", "4.3", "courier")


def codes(examined: StepFindings) -> dict[str, Outcome]:
    return {finding.code: finding.severity for finding in examined.findings}


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ([HOUR], {}),
        ([24 * HOUR], {}),
        ([24 * HOUR + SECOND], {"drill.stale": Outcome.FAIL}),
        ([-24 * HOUR], {}),
        ([-24 * HOUR - SECOND], {"drill.future": Outcome.ATTENTION}),
        ([99 * HOUR, None, HOUR], {}),
        ([HOUR, -25 * HOUR], {"drill.future": Outcome.ATTENTION}),
        ([None, None], {"drill.stale": Outcome.FAIL}),
        ([], {}),
    ],
)
def test_newest_record_is_judged_by_its_window(
    taken: Taken, ages: list[timedelta | None], expected: dict[str, Outcome]
) -> None:
    """The newest of all clocks counts, on either side of the moment of the backup."""
    examined, manifest = examination(), taken.manifest
    moments = [None if age is None else manifest.taken_at - age for age in ages]
    moments_known = [moment for moment in moments if moment is not None]
    newest = max(moments_known) if moments_known else "none" if moments else None
    assert judge_newest(examined, moments, manifest, RULES) == newest
    assert codes(examined) == expected


@pytest.mark.parametrize(
    ("seconds", "age", "expected"),
    [
        (7200, 24 * HOUR, {}),
        (7201, HOUR, {"drill.late": Outcome.FAIL}),
        (1, 24 * HOUR + SECOND, {"drill.old": Outcome.ATTENTION}),
        (1, -CLOCK_TOLERANCE, {}),
        (1, -CLOCK_TOLERANCE - SECOND, {"drill.from_the_future": Outcome.FAIL}),
    ],
)
def test_times_at_their_targets_are_in_order(
    seconds: float, age: timedelta, expected: dict[str, Outcome]
) -> None:
    """Measure each figure with its target, whatever the findings are."""
    examined = examination()
    judge_targets(examined, mapped(rto=2 * HOUR), seconds, age)
    assert codes(examined) == expected
    assert {figure.name: (figure.value, figure.target) for figure in examined.metrics} == {
        "drill.rto_seconds": (seconds, 7200),
        "drill.rpo_seconds": (age.total_seconds(), 24 * 3600),
    }


@pytest.mark.parametrize(("number", "more"), [(1, ""), (10, ""), (11, ", … (+1)")])
@pytest.mark.parametrize("kind", ["missing", "added", "changed"])
@pytest.mark.parametrize("other_version", [False, True])
def test_differing_definitions_are_named_ten_at_most(
    taken: Taken, kind: str, number: int, more: str, other_version: bool
) -> None:
    """Only a changed definition is explained by the servers' versions, where these differ."""
    names = tuple(f"TABLE t{at:02}" for at in range(number))
    version = "17.9" if other_version else taken.manifest.server_version
    comparison = Comparison(1, (), (), (), Definitions(**{kind: names}), version)
    examined = examination()
    judge_schema(examined, comparison, taken.manifest)
    (finding,) = examined.findings
    assert finding.message.values == {"names": ", ".join(names[:10]) + more}
    versions = {"before": taken.manifest.server_version, "after": version}
    is_explained = kind == "changed" and other_version
    assert finding.action.values == (versions if is_explained else {})


def test_table_with_other_rows_has_one_finding() -> None:
    """Fewer rows are other content too."""
    examined = examination()
    judge_tables(examined, ["b", "a", "a"], ["c", "b"])
    named = [(finding.code, finding.message.values["table"]) for finding in examined.findings]
    assert named == [("drill.rows", "a"), ("drill.rows", "b"), ("drill.content", "c")]
