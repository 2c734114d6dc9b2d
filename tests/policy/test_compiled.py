"""Compiled packs: the same pack as its files say, in parts."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from include.policy import SHIPPED, PolicyPack
from include.policy.compiled import MOST_PACKS, compiled_pack
from include.registry import load_pack, sections
from tests.policy.packs import SHOP, write_pack
from tests.policy.test_kept import CHANGES, said
from tests.policy.test_loader import RULE

DEPLOYED = Path("include/deployment/pack").absolute()


@pytest.fixture
def forms(tmp_path: Path) -> Path:
    return tmp_path / "home" / "packs"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    shutil.copytree(SHIPPED, folder)
    return folder


@pytest.fixture
def compiled(forms: Path) -> Callable[[Path], PolicyPack]:
    return lambda folder: compiled_pack(folder, sections, forms)


def only_form(forms: Path) -> Path:
    [form] = forms.glob("*.pack")
    return form


@pytest.mark.parametrize("folder", [SHIPPED, DEPLOYED], ids=["shipped", "deployment"])
def test_a_compiled_pack_equals_the_pack_of_its_files(
    compiled: Callable[[Path], PolicyPack], folder: Path
) -> None:
    pack = load_pack(folder)
    for _ in range(2):
        form = compiled(folder)
        assert form == pack
        assert form.sha256 == pack.sha256
        assert tuple(form.suites) == tuple(pack.suites)
        for name in pack.databases:
            assert form.retention_of(name) == pack.retention_of(name)
            assert form.suites_of(name) == pack.suites_of(name)
            assert form.suites_of(name, incoming=True) == pack.suites_of(name, incoming=True)


def test_a_compiled_pack_leaves_no_part_to_its_default(
    compiled: Callable[[Path], PolicyPack],
) -> None:
    assert compiled(SHIPPED).model_fields_set == {*PolicyPack.model_fields}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_is_seen(
    pack: Path, compiled: Callable[[Path], PolicyPack], change: Callable[[Path], object]
) -> None:
    before = compiled(pack)
    change(pack)
    assert said(compiled, pack) == said(load_pack, pack) != before


def test_a_task_reads_the_collections_of_its_database_only(
    tmp_path: Path, compiled: Callable[[Path], PolicyPack], monkeypatch: pytest.MonkeyPatch
) -> None:
    members: list[str] = []
    read = ZipFile.read

    def read_member(archive: ZipFile, name: str) -> bytes:
        members.append(name)
        return read(archive, name)

    monkeypatch.setattr(ZipFile, "read", read_member)
    other = SHOP.replace("fides_key: shop", "fides_key: crm")
    pack = compiled(write_pack(tmp_path / "p", datamap__shop=SHOP, datamap__crm=other))
    assert [*pack.databases] == ["crm", "shop"]
    assert "buyer" in pack.databases["shop"].collections
    assert members == ["index"]
    for _time in range(2):
        assert pack.databases["shop"].collections["buyer"].name == "buyer"
        assert members == ["index", "1/collections"]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-9], lambda raw: b"", lambda raw: raw.replace(b"PK", b"KP", 1)]
)
def test_a_damaged_form_is_made_anew(
    pack: Path,
    forms: Path,
    compiled: Callable[[Path], PolicyPack],
    damage: Callable[[bytes], bytes],
) -> None:
    before = compiled(pack)
    form = only_form(forms)
    sound = form.read_bytes()
    form.write_bytes(damage(sound))
    assert compiled(pack) == before
    assert form.read_bytes() != damage(sound)


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_folder_open_to_others_is_not_used(
    pack: Path, forms: Path, compiled: Callable[[Path], PolicyPack], mode: int
) -> None:
    forms.mkdir(parents=True)
    forms.chmod(mode)
    assert compiled(pack) == load_pack(pack)
    assert [*forms.iterdir()] == []


def test_a_folder_that_is_a_link_is_not_used(
    tmp_path: Path, pack: Path, forms: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    forms.parent.mkdir()
    forms.symlink_to(target)
    assert compiled(pack) == load_pack(pack)
    assert [*target.iterdir()] == []


def test_a_home_that_cannot_be_written_does_not_matter(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    assert compiled_pack(pack, sections, tmp_path / "home" / "packs") == load_pack(pack)


def test_old_forms_and_parts_of_killed_writers_are_removed(
    pack: Path, forms: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    forms.mkdir(mode=0o700, parents=True)
    (forms / "killed.part").write_bytes(b"half")
    for number in range(MOST_PACKS + 2):
        (pack / "calendar.yaml").write_text(f"{{}}\n# {number}\n")
        compiled(pack)
    names = [path.suffix for path in forms.iterdir()]
    assert sorted(names) == ["", *[".pack"] * MOST_PACKS]


def _compile(folder: Path, forms: Path) -> str:
    return compiled_pack(folder, sections, forms).sha256


def test_processes_that_compile_at_once_make_one_form(pack: Path, forms: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        digests = pool.starmap(_compile, [(pack, forms)] * 3)
    assert {*digests} == {load_pack(pack).sha256}
    assert only_form(forms).stat().st_uid == os.getuid()


def test_rules_of_a_compiled_pack_are_a_sequence(
    tmp_path: Path, compiled: Callable[[Path], PolicyPack]
) -> None:
    folder = write_pack(tmp_path / "p", retention=RULE.replace("nowhere", "buyer"))
    rules, plain = compiled(folder).retention, load_pack(folder).retention
    assert len(rules) == len(plain) == 1
    assert rules[0] == plain[0]
    assert rules[:1] == tuple(plain)
    assert rules == plain
    assert compiled(write_pack(tmp_path / "q")).retention == ()
