"""company.yaml: optional, read the same way from YAML and compiled, faults with their lines."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from include.policy import SHIPPED
from include.policy.compiled import load_compiled_pack
from include.registry import load_pack, sections
from tests.policy.packs import problem_lines, write_pack

COMPANY = """\
name: {en: Example Ltd., zh-CN: 示例有限公司}
address: {en: 2 Sample Street, zh-CN: 示例街2号}
credit_code: 91000000MA0000000N
policy:
  name: {en: Privacy policy, zh-CN: 《隐私制度》}
  version: {en: third edition, zh-CN: 第三版}
  effective_from: 2026-03-01
"""


def test_pack_without_company_yaml_has_no_company_even_if_the_file_is_shipped(
    tmp_path: Path,
) -> None:
    """The reports of a company must never show the name of the sample company."""
    assert load_pack(write_pack(tmp_path / "own")).company is None
    compiled = load_compiled_pack(tmp_path / "own", sections, tmp_path / "cache")
    assert compiled.company is None


def test_shipped_pack_names_the_sample_company_and_its_policy_in_both_languages() -> None:
    company = load_pack(SHIPPED).company
    assert company is not None
    assert company.policy is not None
    for texts in (company.name, company.address, company.policy.name, company.policy.version):
        assert set(texts) == {"en", "zh-CN"}


def test_compiled_pack_has_the_same_company_as_the_yaml_files(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "own", company=COMPANY)
    company = load_pack(folder).company
    assert company is not None
    assert company.credit_code == "91000000MA0000000N"
    assert company.policy is not None
    assert company.policy.effective_from == date(2026, 3, 1)
    for _use in range(2):  # the first call compiles the pack, the second reads the compiled pack
        assert load_compiled_pack(folder, sections, tmp_path / "cache").company == company


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("zh-CN: 示例有限公司", "zh-TW: x", "1: name: the text is missing in zh-CN"),
        ("2 Sample Street", '"2\\nSample"', "2: address: should be one line of at most 200"),
        ("2 Sample Street", "x" * 201, "2: address: should be one line of at most 200"),
        ("0000000N", "0000000M", "3: credit_code: is not a unified social credit code"),
        ("0000000N", "0000000", "3: credit_code: is not a unified social credit code"),
        ("version: {en: third edition, zh-CN: 第三版}", "x: 1", "4: policy.version: "),
        ("2026-03-01", "'1 March'", "7: policy.effective_from: should be a day of the calendar"),
    ],
)
def test_fault_in_company_yaml_is_reported_with_its_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    folder = write_pack(tmp_path, company=COMPANY.replace(old, new))
    assert any(line.startswith(f"company.yaml:{expected}") for line in problem_lines(folder))


def test_company_other_than_that_of_incident_yaml_is_a_problem(tmp_path: Path) -> None:
    """Letters about an incident would otherwise show the names of two companies."""
    incident = (SHIPPED / "incident.yaml").read_text(encoding="utf-8")
    folder = write_pack(tmp_path, company=COMPANY, incident=incident)
    assert any(
        "incident.yaml:6: company: differs from the name in company.yaml" in line
        for line in problem_lines(folder)
    )
