"""docs/policy-pack.md: complete, and its examples work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import get_args

import pytest
from pydantic import BaseModel

from include.policy import SHIPPED, kwargs
from include.policy.datamap import CollectionMeta, DatabaseMeta, NewestClock
from include.policy.expectations import AnyExpectation, Breakdown, Expectation, Suite
from include.policy.purposes import Purpose
from include.policy.retention import (
    Approval,
    Batch,
    Disposition,
    Group,
    Keys,
    Limit,
    Minimum,
    RetentionRule,
    Staff,
    Window,
)
from include.policy.rules import (
    BackupRules,
    Calendar,
    Control,
    EvidenceRules,
    Indicator,
    Operations,
    Role,
    Rule,
    Source,
    TaskOperations,
    WorkflowOperations,
)
from include.registry import load_pack
from tests.policy.packs import said, write_pack

KWARGS = [
    one
    for one in vars(kwargs).values()
    if isinstance(one, type) and issubclass(one, Rule) and one is not Rule
]

PAGE = (Path(__file__).parents[2] / "docs" / "policy-pack.md").read_text(encoding="utf-8")
EXAMPLES = [dedent(text) for text in re.findall(r"^ *```yaml\n(.*?)^ *```", PAGE, re.S | re.M)]


def section(heading: str) -> str:
    """The page from a heading to the next of its level or above."""
    [(marks, text)] = re.findall(rf"^(#+) {re.escape(heading)}\n(.*)", PAGE, re.S | re.M)
    return re.split(rf"^#{{1,{len(marks)}}} ", text, maxsplit=1, flags=re.M)[0]


def keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name


@pytest.mark.parametrize(
    ("heading", "models"),
    [
        ("Our keys: `meta.parcelseal`", [DatabaseMeta, CollectionMeta, NewestClock]),
        ("`evidence.yaml`", [EvidenceRules]),
        ("`controls.yaml`", [Control, Indicator, Source]),
        ("`quality/*.yaml`", [Suite, Breakdown, Expectation, *KWARGS]),
        ("`purposes.yaml`", [Purpose]),
        ("`retention.yaml`", [RetentionRule, Keys, Minimum]),
        ("`disposition.yaml`", [Disposition, Limit, Batch, Approval, Window, Group, Staff]),
        ("`calendar.yaml` and `roles.yaml`", [Calendar, Role]),
        ("`operations.yaml`", [Operations, WorkflowOperations, TaskOperations]),
    ],
    ids=str,
)
def test_every_key_is_explained(heading: str, models: list[type[BaseModel]]) -> None:
    """Each key of the models stands as code in the section of its file."""
    text = section(heading)
    absent = [key for one in models for key in keys(one) if f"`{key}`" not in text]
    assert not absent


def test_every_figure_of_backup_yaml_is_the_default() -> None:
    """The table has each key with the value that the code has."""
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `?(\w+)`? \|", section("`backup.yaml`"), re.M))
    expected = {}
    for name, value in BackupRules().model_dump().items():
        parts = value.items() if isinstance(value, dict) else [(None, value)]
        expected |= {f"{name}.{key}" if key else name: str(one) for key, one in parts}
    assert rows == expected


def test_the_defaults_of_our_keys_are_those_of_the_code() -> None:
    """The two that have one: connection and schema."""
    rows = dict(
        re.findall(r"^\| `(\w+)` \| `(\w+)` \|", section("Our keys: `meta.parcelseal`"), re.M)
    )
    defaults = DatabaseMeta()
    assert rows == {"connection": defaults.connection, "schema": defaults.schema_name}


def test_the_shipped_controls_are_listed(tmp_path: Path) -> None:
    """Each with its workflow and cadence."""
    rows = re.findall(r"^\| `([\w.]+)` \| `(\w+)` \| `(\w+)` \|", section("`controls.yaml`"), re.M)
    controls = load_pack(write_pack(tmp_path)).controls
    assert rows == [(one.id, one.workflow, one.cadence.text) for one in controls]
    for role in load_pack(tmp_path).roles:
        assert f"`{role}`" in PAGE


def test_the_examples_are_a_pack(tmp_path: Path) -> None:
    """The page's YAML, put together, loads; and its mistake is reported as printed."""
    shop, backup, evidence, controls, quality, purposes, retention, *rest = EXAMPLES
    disposition, operations = rest
    files = {"backup": backup, "evidence": evidence, "controls": controls, "retention": retention}
    files |= {"disposition": disposition, "operations": operations}
    files |= {"quality__customer": quality, "purposes": purposes}
    pack = load_pack(write_pack(tmp_path, datamap__shop=shop, **files))
    assert pack.backup.keep.daily == 14
    assert pack.evidence.keep.months == 120
    assert [one.record_class for one in pack.retention] == ["order", "contact"]
    assert pack.disposition.limit.percent == 2
    assert str(pack.operations.of("backup_offsite").time_limit) == "PT4H"
    assert [one.id for one in pack.suites[0].expectations] == ["invalid_mobile"]
    assert pack.remarks == ()
    wrong = shop.replace("user.contact.phone_number", "user.phone")
    [line] = said(write_pack(tmp_path, datamap__shop=wrong))
    assert line in PAGE


def test_the_page_names_the_shipped_pack() -> None:
    """And the folder is there."""
    assert "`include/policy/pack/`" in PAGE
    assert SHIPPED.as_posix().endswith("include/policy/pack")


def test_categories_of_the_page_exist() -> None:
    """Whoever copies one from the table has no error."""
    from fideslang.default_taxonomy import DEFAULT_TAXONOMY

    known = {one.fides_key for one in DEFAULT_TAXONOMY.data_category}
    text = section("Data categories")
    named = set(re.findall(r"`((?:user|system)\.[\w.]+)`", text))
    below = {f"user.contact.address{one}" for one in re.findall(r"`(\.\w+)`", text)}
    assert len(named) > 10
    assert len(below) == 5
    assert named | below <= known


def test_every_key_of_intake_yaml_is_explained_on_its_own_page() -> None:
    """docs/intake.md has each key of every model as code."""
    from include.policy import intake

    page = (Path(__file__).parents[2] / "docs" / "intake.md").read_text(encoding="utf-8")
    models = (intake.IntakeRule, intake.BatchState, intake.BackReference, intake.People,
              intake.Sample, intake.Mask, intake.Check, intake.Target)  # fmt: skip
    assert [key for one in models for key in keys(one) if f"`{key}`" not in page] == []


def test_every_type_of_expectation_stands_in_the_page() -> None:
    """Whoever writes a pack finds what there is."""
    types = {
        name
        for kind in get_args(get_args(AnyExpectation)[0])
        for name in get_args(kind.model_fields["type"].annotation)
    }
    assert {one for one in types if f"`{one}`" not in PAGE} == set()
