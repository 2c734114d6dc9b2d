"""Test findings of restore drills about missed targets and about differences from the original."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.backup.compare import Comparison, Definitions
from include.backup.drill_findings import judge_newest, judge_schema, judge_tables, judge_targets
from include.backup.offsite import CLOCK_TOLERANCE
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.policy.rules import Drill
from include.reports.i18n import Translator
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
def test_judge_newest_reports_newest_record_that_is_too_old_or_in_the_future(
    taken: Taken, ages: list[timedelta | None], expected: dict[str, Outcome]
) -> None:
    """The newest value of all columns is compared with the time of the backup."""
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
def test_judge_targets_has_no_finding_for_restore_time_and_age_equal_to_their_targets(
    seconds: float, age: timedelta, expected: dict[str, Outcome]
) -> None:
    examined = examination()
    judge_targets(examined, mapped(rto=2 * HOUR), seconds, age)
    assert codes(examined) == expected
    assert {figure.name: (figure.value, figure.target) for figure in examined.metrics} == {
        "drill.rto_seconds": (seconds, 7200),
        "drill.rpo_seconds": (age.total_seconds(), 24 * 3600),
    }


@pytest.mark.parametrize(("number", "more"), [(1, ""), (10, ""), (11, " and 1 more")])
@pytest.mark.parametrize("kind", ["missing", "added", "changed"])
@pytest.mark.parametrize("other_version", [False, True])
def test_judge_schema_finding_contains_at_most_ten_definitions(
    taken: Taken, kind: str, number: int, more: str, other_version: bool
) -> None:
    """If the server versions differ, only the finding about changed definitions says so."""
    names = tuple(f"TABLE t{at:02}" for at in range(number))
    version = "17.9" if other_version else taken.manifest.server_version
    comparison = Comparison(1, (), (), (), Definitions(**{kind: names}), version)
    examined = examination()
    judge_schema(examined, comparison, taken.manifest)
    (finding,) = examined.findings
    shown = finding.message.values["names"]
    assert Translator("en", "UTC").value(shown) == ", ".join(names[:10]) + more
    versions = {"original": taken.manifest.server_version, "drill": version}
    is_explained = kind == "changed" and other_version
    explained = finding.for_engineers.values if finding.for_engineers else {}
    assert explained == (versions if is_explained else {})


def test_table_with_different_row_count_and_content_has_only_the_finding_about_row_count() -> None:
    """A table with fewer rows also has other content. The finding names only the number of rows."""
    examined = examination()
    judge_tables(examined, ["b", "a", "a"], ["c", "b"])
    named = [(finding.code, finding.message.values["table"]) for finding in examined.findings]
    assert named == [("drill.rows", "a"), ("drill.rows", "b"), ("drill.content", "c")]
