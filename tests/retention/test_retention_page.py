"""Tests that the retention pages of the documentation match the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import yaml

from include.approvals.registry import RefusalCause
from include.policy.retention import MaskKind, RetentionRule
from include.retention.certificate.database_run import REQUEST_STATES
from include.retention.execution import batches, cycles, executor
from include.retention.planning import breaker, counting
from include.retention.planning.plan import PlannedClass

ROOT = Path(__file__).parents[2]
PAGES = [
    "explanation/retention.md",
    "explanation/retention-execution.md",
    "how-to/answer-a-deletion.md",
    "reference/retention-findings.md",
    "reference/retention-schedule.md",
]
PAGE = "\n".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in PAGES)
CODE = "".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "include/retention").rglob("*.py"))
)
METRICS = {"retention.unexplained", "retention.erased"}


def test_documentation_contains_outcome_cause_and_remedy_of_every_retention_finding() -> None:
    codes = set(re.findall(r'"(retention\.[a-z_]+)"', CODE)) - METRICS
    codes |= {f"retention.{cause}" for cause in RefusalCause}
    lines = re.findall(r"^\| `(retention\.\w+)` \| (?:fail|attention) \| .+ \| .+ \|$", PAGE, re.M)
    assert sorted(lines) == sorted(codes)


def test_documentation_contains_the_numeric_limits_of_the_retention_code() -> None:
    text = " ".join(PAGE.split())  # without line breaks
    assert f"at most {cycles.MAX_RECORDS:,} at once" in text
    assert f"only if more than {breaker.ALWAYS_ALLOWED} records are planned" in text
    assert (breaker.RUNS_COMPARED, breaker.MIN_RUNS, batches.TRIES) == (10, 3, 5)
    assert "last runs (up to ten)" in text
    assert "at least three earlier runs" in text
    assert "with five tries" in text
    assert batches.MAX_REFUSED == 100
    assert f"last {breaker.RECENT.total_seconds() / 3600:g} hours" in text
    assert f"after {executor.ROUNDS_OF_A_CHAIN} rounds" in text
    assert ", ".join(sorted(batches.SESSION_ERRORS)) in text
    assert f"the first {counting.MOST_HOLDS} holds" in text


def test_documentation_contains_all_mask_kinds_request_states_and_json_keys_of_plan() -> None:
    assert all(f"| `{arg}` |" in PAGE for arg in get_args(MaskKind))
    assert all(f"| {request} |" in PAGE for request in REQUEST_STATES)
    planned_class = PlannedClass(
        name="a", collection="b", action="delete", rule_sha256="", records=0, expired=0
    )
    assert all(f"`{key}`" in PAGE for key in planned_class.as_json())


def test_example_in_documentation_loads_as_record_class() -> None:
    codes = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert codes
    (given,) = yaml.safe_load(codes[1])
    assert RetentionRule.model_validate(given).detach == (
        "complaint.waybill_id", "complaint.waybill_created_at",
    )  # fmt: skip
