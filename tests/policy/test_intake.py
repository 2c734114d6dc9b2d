"""The rules of intake.yaml, and their faults with the path of each fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from include.policy import SHIPPED
from include.registry import load_pack
from tests.policy.packs import problem_lines, write_pack

MAP = """\
fides_key: shop
collections:
  - name: form
    fields:
      - {name: id, fides_meta: {primary_key: true}}
      - {name: batch}
      - {name: state}
      - {name: who}
      - {name: at}
      - {name: reviewer}
      - {name: seen_at}
      - {name: buyer}
  - name: buyer
    fields:
      - {name: id, fides_meta: {primary_key: true}}
  - name: staff
    fields:
      - {name: id, fides_meta: {primary_key: true}}
      - {name: login}
"""


def rule(**more: Any) -> dict[str, Any]:
    """Return a complete intake rule for the test shop, with changed keys."""
    return {
        "id": "forms",
        "collection": "form",
        "batch": "batch",
        "state": {"column": "state", "pending": "new", "promoted": "in", "rejected": "out"},
        "entered": {"by": "who", "at": "at"},
        "reviewed": {"by": "reviewer", "at": "seen_at"},
        "back_reference": {"column": "buyer", "key": "new_buyer"},
        "people": {"collection": "staff", "key": "id", "account": "login", "reviewers": "true"},
        "sample": {"fields": ["batch"]},
        "targets": [
            {
                "collection": "buyer",
                "keys": {"new_buyer": "id"},
                "columns": {"id": "i.new_buyer"},
            }
        ],
    } | more


def write_intake_pack(folder: Path, *rules: dict[str, Any]) -> Path:
    return write_pack(folder, datamap__shop=MAP, intake=yaml.safe_dump(list(rules)))


def test_intake_rule_with_only_required_keys_gets_default_values(tmp_path: Path) -> None:
    (intake_rule,) = load_pack(write_intake_pack(tmp_path, rule())).intake
    assert (intake_rule.deadline.text, intake_rule.response.text) == ("PT72H", "PT20H")
    assert (intake_rule.most_batches, intake_rule.connection) == (50, "intake_db")
    assert intake_rule.state.quarantined_value == "out"


def test_pack_without_intake_yaml_has_no_intake_rules(tmp_path: Path) -> None:
    """The shipped intake.yaml belongs to the sample company and is not a default."""
    assert load_pack(write_pack(tmp_path)).intake == ()
    assert len(load_pack(SHIPPED).intake) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"collection": "forms"}, "no data map has a collection 'forms'"),
        ({"database": "stop"}, "the pack maps no database 'stop'"),
        ({"batch": "lot"}, "[0].batch: collection 'form' has no field 'lot'"),
        ({"deadline": "P0D"}, "[0].deadline: should be longer than zero"),
        ({"entered": {"by": "whom", "at": "at"}}, "collection 'form' has no field 'whom'"),
        ({"back_reference": {"column": "buyer", "key": "other"}}, "allocates a key 'other'"),
        ({"sample": {"fields": []}}, "should not be empty"),
        ({"sample": {"fields": ["batch"], "level": "S-9"}}, "[0].sample.level"),
        (
            {"sample": {"fields": ["batch"], "masks": [{"category": "user.nam"}]}},
            "[0].sample.masks[0].category: the taxonomy has no data_category 'user.nam'",
        ),
        (
            {"people": {"collection": "crew", "key": "id", "account": "x", "reviewers": "true"}},
            "the database shop has no collection 'crew'",
        ),
    ],
)
def test_load_pack_reports_each_fault_of_intake_yaml(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    lines = problem_lines(write_intake_pack(tmp_path, rule(**more)))
    assert any(message in line for line in lines), lines
    assert all(line.startswith("intake.yaml:") for line in lines)


def test_mask_of_intake_sample_may_have_data_category_that_the_policy_pack_adds(
    tmp_path: Path,
) -> None:
    """The taxonomy consists of Fides' taxonomy and of the categories that data maps add."""
    own = "data_category:\n  - {fides_key: user.loyalty, parent_key: user}\n"
    masked = rule(sample={"fields": ["batch"], "masks": [{"category": "user.loyalty", "last": 1}]})
    folder = write_pack(
        tmp_path, datamap__own=own, datamap__shop=MAP, intake=yaml.safe_dump([masked])
    )
    (intake_rule,) = load_pack(folder).intake
    assert intake_rule.sample.masks[0].category == "user.loyalty"


def test_load_pack_reports_all_faults_of_intake_targets(tmp_path: Path) -> None:
    """The faults: an unknown column, a repeated key, a class column without SQL, a repeated id."""
    target = {"collection": "buyer", "keys": {"new_buyer": "id"}, "columns": {"nr": "1"}}
    wrong = rule(targets=[target, target | {"record_class": "kind"}])
    lines = problem_lines(write_intake_pack(tmp_path, wrong, rule()))
    assert len(lines) == 5
    for part in ("no field 'nr'", "'new_buyer' occurs twice", "no 'kind'", "'forms' occurs twice"):
        assert any(part in line for line in lines), part


def test_load_pack_reports_repeated_id_of_intake_checks_or_expectations(tmp_path: Path) -> None:
    """Reports identify a check or expectation by its id, so ids must be unique."""
    titles = {"en": "t", "zh-CN": "t"}
    checks = [
        {"id": name, "title": titles, "condition": "true"} for name in ("known", "known", "shared")
    ]
    suite = """\
- collection: form
  incoming: true
  expectations:
    - {id: shared, type: expect_column_values_to_not_be_null, kwargs: {column: who}, severity: fail, clause: "5.1", title: {en: t, zh-CN: t}}
"""  # noqa: E501 - an expectation is easier to read in one line
    folder = write_pack(
        tmp_path,
        datamap__shop=MAP,
        intake=yaml.safe_dump([rule(checks=checks)]),
        quality__form=suite,
    )
    lines = problem_lines(folder)
    assert len(lines) == 2
    assert any("[0].checks[1].id: 'known' occurs twice" in line for line in lines), lines
    assert any("form has a rule 'shared' already" in line for line in lines), lines
