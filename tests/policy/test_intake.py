"""intake.yaml: every mistake at once, each with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from include.policy import SHIPPED
from include.registry import load_pack
from tests.policy.packs import said, write_pack

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
    """A whole intake of the shop."""
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


def written(folder: Path, *rules: dict[str, Any]) -> Path:
    return write_pack(folder, datamap__shop=MAP, intake=yaml.safe_dump(list(rules)))


def test_another_companys_table_loads(tmp_path: Path) -> None:
    """Nothing of the sample's names is needed; defaults are those of the page."""
    (found,) = load_pack(written(tmp_path, rule())).intake
    assert (found.deadline.text, found.response.text) == ("PT72H", "PT20H")
    assert (found.most_batches, found.connection) == (50, "intake_db")
    assert found.state.set_aside == "out"


def test_without_the_file_nothing_is_taken_in(tmp_path: Path) -> None:
    """The shipped one is for the sample and stands in for nobody."""
    assert load_pack(write_pack(tmp_path)).intake == ()
    assert len(load_pack(SHIPPED).intake) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"collection": "forms"}, "no data map has a collection 'forms'"),
        ({"database": "stop"}, "the pack maps no database 'stop'"),
        ({"batch": "lot"}, "[0].batch: collection 'form' has no field 'lot'"),
        ({"deadline": "P0D"}, "[0].deadline: should be longer than nothing"),
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
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    """File, line, path and what is wrong."""
    lines = said(written(tmp_path, rule(**more)))
    assert any(message in line for line in lines), lines
    assert all(line.startswith("intake.yaml:") for line in lines)


def test_a_category_of_the_packs_own_may_be_masked(tmp_path: Path) -> None:
    """The taxonomy is Fides' with what the data maps add to it."""
    own = "data_category:\n  - {fides_key: user.loyalty, parent_key: user}\n"
    masked = rule(sample={"fields": ["batch"], "masks": [{"category": "user.loyalty", "last": 1}]})
    folder = write_pack(
        tmp_path, datamap__own=own, datamap__shop=MAP, intake=yaml.safe_dump([masked])
    )
    (found,) = load_pack(folder).intake
    assert found.sample.masks[0].category == "user.loyalty"


def test_mistakes_in_targets_come_all_at_once(tmp_path: Path) -> None:
    """A column, a key that stands twice, a class column without expression, a second id."""
    target = {"collection": "buyer", "keys": {"new_buyer": "id"}, "columns": {"nr": "1"}}
    wrong = rule(targets=[target, target | {"record_class": "kind"}])
    lines = said(written(tmp_path, wrong, rule()))
    assert len(lines) == 5
    for part in ("no field 'nr'", "'new_buyer' stands twice", "no 'kind'", "'forms' stands twice"):
        assert any(part in line for line in lines), part


def test_an_id_stands_once_among_checks_and_suite(tmp_path: Path) -> None:
    """Broken rows are named by the rule's id: under one id some would not be named."""
    titles = {"en": "t", "zh-CN": "t"}
    checks = [
        {"id": name, "title": titles, "condition": "true"} for name in ("known", "known", "seen")
    ]
    suite = """\
- collection: form
  incoming: true
  expectations:
    - {id: seen, type: expect_column_values_to_not_be_null, kwargs: {column: who}, severity: fail, clause: "5.1", title: {en: t, zh-CN: t}}
"""  # noqa: E501 - an expectation is easier to read in one line
    folder = write_pack(
        tmp_path,
        datamap__shop=MAP,
        intake=yaml.safe_dump([rule(checks=checks)]),
        quality__form=suite,
    )
    lines = said(folder)
    assert len(lines) == 2
    assert any("[0].checks[1].id: 'known' stands twice" in line for line in lines), lines
    assert any("form has a rule 'seen' already" in line for line in lines), lines
