"""docs/retention.md: every finding has its cause and remedy, and its figures are the code's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import yaml

from include.approvals.registry import Cause
from include.policy.retention import MaskKind, RetentionRule
from include.retention.certificate.case import REQUESTS
from include.retention.execution import batches, cycles, executor
from include.retention.planning import breaker, counting
from include.retention.planning.plan import PlannedClass

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "retention.md").read_text(encoding="utf-8")
CODE = "".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "include/retention").rglob("*.py"))
)
METRICS = {"retention.unexplained", "retention.erased"}


def test_every_finding_has_its_line() -> None:
    """With outcome, cause and remedy; and none stands there that the code does not have."""
    found = set(re.findall(r'"(retention\.[a-z_]+)"', CODE)) - METRICS
    found |= {f"retention.{cause}" for cause in Cause}
    lines = re.findall(r"^\| `(retention\.\w+)` \| (?:fail|attention) \| .+ \| .+ \|$", PAGE, re.M)
    assert sorted(lines) == sorted(found)


def test_limits_of_the_page_are_those_of_the_code() -> None:
    """Numbers that a reader may rely on."""
    assert f"at most {cycles.MOST:,} at once" in PAGE
    assert f"only from {breaker.NEVER + 1} records on" in PAGE
    assert (breaker.LOOKED_BACK, breaker.FEWEST, batches.TRIES) == (10, 3, 5)
    assert "last ten runs (at least three)" in PAGE
    assert "with five tries" in PAGE
    assert batches.MOST_REFUSED == 100
    assert f"last {breaker.RECENT.total_seconds() / 3600:g} hours" in PAGE
    assert f"after {executor.ROUNDS_OF_A_CHAIN} rounds" in PAGE
    assert ", ".join(sorted(batches.OF_NO_RECORD)) in PAGE
    assert f"the first {counting.MOST_HOLDS} holds" in PAGE


def test_masks_states_and_keys_for_machines_are_all_told() -> None:
    """Each as the code calls it."""
    assert all(f"| `{one}` |" in PAGE for one in get_args(MaskKind))
    assert all(f"| {one} |" in PAGE for one in REQUESTS)
    one = PlannedClass(
        name="a", collection="b", action="delete", rule_sha256="", records=0, expired=0
    )
    assert all(f"`{key}`" in PAGE for key in one.as_json())


def test_the_example_is_a_record_class() -> None:
    """Whoever copies it has a class that loads."""
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found
    (given,) = yaml.safe_load(found[1])
    assert RetentionRule.model_validate(given).detach == (
        "complaint.waybill_id", "complaint.waybill_created_at",
    )  # fmt: skip
