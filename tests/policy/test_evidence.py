"""The rules of evidence.yaml, and the shortest legal retention period."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.policy import SHIPPED
from include.policy.rules import EvidenceRules
from include.registry import load_pack
from tests.policy.packs import problem_lines, write_pack


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("keep: P2Y\n", "1: keep: is shorter than three years (Network Data Security"),
        ("keep: P1094D\n", "1: keep: is shorter than three years"),
        ("keep: 6\n", "1: keep: should be an ISO 8601 duration"),
        ("lock_days: 1095\n", "1: lock_days: Input should be greater than or equal to 1096"),
        ("lock_days: 40000\n", "1: lock_days: Input should be less than or equal to 36500"),
        ("keep: P4Y\nlock_days: 1462\n", "2: lock_days: the lock outlasts keep (P4Y)"),
        ("lock_days: P3Y\n", "1: lock_days: Input should be a valid integer"),
        ("locked: 1\n", "1: locked: this key is unknown"),
    ],
)
def test_load_pack_reports_each_fault_of_evidence_yaml_with_its_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    [line] = problem_lines(write_pack(tmp_path, evidence=text))
    assert line.startswith(f"evidence.yaml:{expected}")


def test_omitted_keys_of_evidence_yaml_have_default_values(tmp_path: Path) -> None:
    assert load_pack(write_pack(tmp_path / "none")).evidence == EvidenceRules()
    pack = load_pack(write_pack(tmp_path / "ten", evidence="keep: P10Y\n"))
    assert (pack.evidence.keep.months, pack.evidence.lock_days) == (120, 1098)
    shortest = "keep: P3Y\nlock_days: 1096\n"
    assert load_pack(write_pack(tmp_path / "short", evidence=shortest)).evidence.keep.months == 36


def test_shipped_evidence_yaml_equals_the_defaults(tmp_path: Path) -> None:
    shipped = (SHIPPED / "evidence.yaml").read_text(encoding="utf-8")
    assert load_pack(write_pack(tmp_path, evidence=shipped)).evidence == EvidenceRules()
