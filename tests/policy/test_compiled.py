"""Compiled policy packs have the same content as packs that are read from their files."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from include.policy import SHIPPED, PolicyPack
from include.policy.compiled import MOST_PACKS, load_compiled_pack
from include.registry import load_pack, sections
from tests.policy.packs import SHOP, write_pack
from tests.policy.test_loader import RULE
from tests.policy.test_pack_cache import CHANGES, pack_or_problems

DEPLOYED = Path("include/deployment/pack").absolute()


@pytest.fixture
def cache_folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "packs"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    shutil.copytree(SHIPPED, folder)
    return folder


@pytest.fixture
def load_compiled(cache_folder: Path) -> Callable[[Path], PolicyPack]:
    return lambda folder: load_compiled_pack(folder, sections, cache_folder)


def compiled_file_in(cache_folder: Path) -> Path:
    [path] = cache_folder.glob("*.pack")
    return path


@pytest.mark.parametrize("folder", [SHIPPED, DEPLOYED], ids=["shipped", "deployment"])
def test_compiled_policy_pack_equals_the_pack_loaded_from_yaml_files(
    load_compiled: Callable[[Path], PolicyPack], folder: Path
) -> None:
    pack = load_pack(folder)
    for _ in range(2):
        compiled_pack = load_compiled(folder)
        assert compiled_pack == pack
        assert compiled_pack.sha256 == pack.sha256
        assert tuple(compiled_pack.suites) == tuple(pack.suites)
        for name in pack.databases:
            assert compiled_pack.retention_of(name) == pack.retention_of(name)
            assert compiled_pack.suites_of(name) == pack.suites_of(name)
            assert compiled_pack.suites_of(name, incoming=True) == pack.suites_of(
                name, incoming=True
            )


def test_compiled_pack_has_a_value_for_every_field_of_the_class_policy_pack(
    load_compiled: Callable[[Path], PolicyPack],
) -> None:
    assert load_compiled(SHIPPED).model_fields_set == {*PolicyPack.model_fields}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_policy_pack_is_compiled_again_after_any_of_its_files_changed(
    pack: Path, load_compiled: Callable[[Path], PolicyPack], change: Callable[[Path], object]
) -> None:
    before = load_compiled(pack)
    change(pack)
    assert pack_or_problems(load_compiled, pack) == pack_or_problems(load_pack, pack) != before


def test_compiled_pack_reads_collections_of_a_database_only_when_they_are_used(
    tmp_path: Path, load_compiled: Callable[[Path], PolicyPack], monkeypatch: pytest.MonkeyPatch
) -> None:
    members: list[str] = []
    read = ZipFile.read

    def read_member(archive: ZipFile, name: str) -> bytes:
        members.append(name)
        return read(archive, name)

    monkeypatch.setattr(ZipFile, "read", read_member)
    other = SHOP.replace("fides_key: shop", "fides_key: crm")
    pack = load_compiled(write_pack(tmp_path / "p", datamap__shop=SHOP, datamap__crm=other))
    assert [*pack.databases] == ["crm", "shop"]
    assert "buyer" in pack.databases["shop"].collections
    assert members == ["index"]
    for _time in range(2):
        assert pack.databases["shop"].collections["buyer"].name == "buyer"
        assert members == ["index", "1/collections"]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-9], lambda raw: b"", lambda raw: raw.replace(b"PK", b"KP", 1)]
)
def test_damaged_file_of_a_compiled_pack_is_replaced(
    pack: Path,
    cache_folder: Path,
    load_compiled: Callable[[Path], PolicyPack],
    damage: Callable[[bytes], bytes],
) -> None:
    before = load_compiled(pack)
    path = compiled_file_in(cache_folder)
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    assert load_compiled(pack) == before
    assert path.read_bytes() != damage(sound)


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_no_compiled_pack_is_written_to_cache_folder_that_other_users_can_read(
    pack: Path, cache_folder: Path, load_compiled: Callable[[Path], PolicyPack], mode: int
) -> None:
    cache_folder.mkdir(parents=True)
    cache_folder.chmod(mode)
    assert load_compiled(pack) == load_pack(pack)
    assert [*cache_folder.iterdir()] == []


def test_no_compiled_pack_is_written_to_cache_folder_that_is_a_symbolic_link(
    tmp_path: Path, pack: Path, cache_folder: Path, load_compiled: Callable[[Path], PolicyPack]
) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    cache_folder.parent.mkdir()
    cache_folder.symlink_to(target)
    assert load_compiled(pack) == load_pack(pack)
    assert [*target.iterdir()] == []


def test_pack_loads_if_the_cache_folder_cannot_be_created(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    assert load_compiled_pack(pack, sections, tmp_path / "home" / "packs") == load_pack(pack)


def test_oldest_compiled_packs_and_partial_files_are_deleted_from_the_cache_folder(
    pack: Path, cache_folder: Path, load_compiled: Callable[[Path], PolicyPack]
) -> None:
    cache_folder.mkdir(mode=0o700, parents=True)
    (cache_folder / "killed.part").write_bytes(b"half")
    for number in range(MOST_PACKS + 2):
        (pack / "calendar.yaml").write_text(f"{{}}\n# {number}\n")
        load_compiled(pack)
    names = [path.suffix for path in cache_folder.iterdir()]
    assert sorted(names) == ["", *[".pack"] * MOST_PACKS]


def _compile(folder: Path, cache_folder: Path) -> str:
    return load_compiled_pack(folder, sections, cache_folder).sha256


def test_concurrent_processes_write_a_single_compiled_pack(pack: Path, cache_folder: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        digests = pool.starmap(_compile, [(pack, cache_folder)] * 3)
    assert {*digests} == {load_pack(pack).sha256}
    assert compiled_file_in(cache_folder).stat().st_uid == os.getuid()


def test_retention_rules_of_a_compiled_pack_support_length_index_slice_and_comparison(
    tmp_path: Path, load_compiled: Callable[[Path], PolicyPack]
) -> None:
    folder = write_pack(tmp_path / "p", retention=RULE.replace("nowhere", "buyer"))
    rules, plain = load_compiled(folder).retention, load_pack(folder).retention
    assert len(rules) == len(plain) == 1
    assert rules[0] == plain[0]
    assert rules[:1] == tuple(plain)
    assert rules == plain
    assert load_compiled(write_pack(tmp_path / "q")).retention == ()
