"""If a data map is faulty, only the database that it describes cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from include.policy import PackError, PolicyPack
from include.policy.compiled import load_compiled_pack
from include.registry import load_pack, sections
from tests.policy.packs import SHOP, write_pack
from tests.policy.test_loader import RULE

CRM = """\
fides_key: crm
collections:
  - name: lead
    fields:
      - name: id
        fides_meta: {primary_key: true}
      - name: seen_at
"""
RULES = RULE.replace("nowhere", "buyer") + RULE.replace("nowhere", "lead").replace(
    "contact", "leads"
)
FAULTS = {
    "a category": ("seen_at\n", "seen_at\n        data_categories: [user.nothing]\n"),
    "no YAML": ("collections:\n", "collections: [\n"),
    "an unclear value": ("seen_at\n", "seen_at\n        description: yes\n"),
}


@pytest.fixture(params=FAULTS.values(), ids=FAULTS.keys())
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    maps = {"datamap__shop": SHOP, "datamap__crm": CRM.replace(*request.param)}
    return write_pack(tmp_path / "pack", retention=RULES, **maps)


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[[Path], PolicyPack]:
    return lambda folder: load_compiled_pack(folder, sections, tmp_path / "home" / "packs")


def test_compiled_pack_raises_error_only_for_the_database_with_a_faulty_data_map(
    folder: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    for _ in range(2):  # the first call compiles the pack, the second reads the compiled pack
        pack = compiled(folder)
        assert [*pack.databases] == ["shop", "crm"]
        assert pack.database("shop").collections["buyer"].primary_key == ("id",)
        assert [rule.collection for rule in pack.retention_of("shop")] == ["buyer"]
        assert [rule.collection for rule in pack.retention_of("crm")] == ["lead"]
        assert pack.databases["crm"].is_faulty
        with pytest.raises(PackError, match=r"datamap/crm\.yaml:\d"):
            pack.database("crm")
        with pytest.raises(PackError, match=r"datamap/crm\.yaml:\d"):
            pack.database_of("lead", "crm")


def test_load_pack_and_require_sound_raise_same_error_for_pack_with_a_faulty_data_map(
    folder: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    with pytest.raises(PackError) as strict:
        load_pack(folder)
    with pytest.raises(PackError) as lenient:
        compiled(folder).require_sound()
    assert strict.value.problems == lenient.value.problems
    assert strict.value.problems[0].file == "datamap/crm.yaml"


def test_digest_of_policy_pack_changes_if_a_faulty_data_map_is_corrected(
    folder: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    before = compiled(folder)
    assert "datamap/crm.yaml" in [file.path for file in before.files]
    (folder / "datamap" / "crm.yaml").write_text(CRM)
    corrected = compiled(folder)
    assert corrected.sha256 != before.sha256
    assert corrected == load_pack(folder)


def test_load_compiled_pack_raises_pack_error_if_a_file_other_than_a_data_map_is_faulty(
    folder: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    (folder / "calendar.yaml").write_text("timezone: nowhere\n")
    with pytest.raises(PackError) as caught:
        compiled(folder)
    assert {"calendar.yaml", "datamap/crm.yaml"} <= {p.file for p in caught.value.problems}


def test_load_compiled_pack_raises_pack_error_if_no_data_map_is_valid(
    tmp_path: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    folder = write_pack(tmp_path / "pack", datamap__shop=SHOP.replace("phone_number", "phon"))
    with pytest.raises(PackError, match=r"datamap/shop\.yaml"):
        compiled(folder)


def test_load_compiled_pack_raises_pack_error_if_database_name_contains_a_path(
    tmp_path: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    bad = CRM.replace("fides_key: crm", "fides_key: ../crm")
    folder = write_pack(tmp_path / "pack", datamap__shop=SHOP, datamap__crm=bad)
    with pytest.raises(PackError, match="names a database and its folders"):
        compiled(folder)
