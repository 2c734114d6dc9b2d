"""A faulty data map stops its own database, and names itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from include.policy import PackError, PolicyPack
from include.policy.compiled import compiled_pack
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
    return lambda folder: compiled_pack(folder, sections, tmp_path / "home" / "packs")


def test_a_faulty_map_stops_its_own_database(
    folder: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    for _ in range(2):  # when it is compiled, and when it is read
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


def test_a_faulty_map_is_refused_where_the_whole_pack_is_checked(
    folder: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    with pytest.raises(PackError) as strict:
        load_pack(folder)
    with pytest.raises(PackError) as lenient:
        compiled(folder).require_sound()
    assert strict.value.problems == lenient.value.problems
    assert strict.value.problems[0].file == "datamap/crm.yaml"


def test_the_digest_names_the_faulty_map_too(
    folder: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    before = compiled(folder)
    assert "datamap/crm.yaml" in [file.path for file in before.files]
    (folder / "datamap" / "crm.yaml").write_text(CRM)
    mended = compiled(folder)
    assert mended.sha256 != before.sha256
    assert mended == load_pack(folder)


def test_a_faulty_shared_file_stops_all(
    folder: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    (folder / "calendar.yaml").write_text("timezone: nowhere\n")
    with pytest.raises(PackError) as caught:
        compiled(folder)
    assert {"calendar.yaml", "datamap/crm.yaml"} <= {p.file for p in caught.value.problems}


def test_a_pack_without_a_sound_map_is_refused(
    tmp_path: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    folder = write_pack(tmp_path / "pack", datamap__shop=SHOP.replace("phone_number", "phon"))
    with pytest.raises(PackError, match=r"datamap/shop\.yaml"):
        compiled(folder)


def test_a_name_that_is_no_folder_stops_all(
    tmp_path: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    bad = CRM.replace("fides_key: crm", "fides_key: ../crm")
    folder = write_pack(tmp_path / "pack", datamap__shop=SHOP, datamap__crm=bad)
    with pytest.raises(PackError, match="names a database and its folders"):
        compiled(folder)
