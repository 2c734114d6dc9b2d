"""The pack that is kept: the same object for as long as a fresh reading would say the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from include.policy import SHIPPED, PackError, PolicyPack
from include.registry import kept_pack, load_pack


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    shutil.copytree(SHIPPED, folder)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Change a file without changing its size or times."""
    before = path.stat()
    text = path.read_text(encoding="utf-8")
    assert old in text
    assert len(old) == len(new)
    path.write_text(text.replace(old, new), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_pack_that_did_not_change_is_read_once(pack: Path) -> None:
    """Files that no pack is made of may come and go."""
    first = kept_pack(pack)
    assert first == load_pack(pack)
    (pack / "README.md").write_text("ours")
    (pack / ".hidden.yaml").write_text("x")
    assert kept_pack(pack) is first


def said(read: Callable[[Path], PolicyPack], pack: Path) -> object:
    """The pack, or what is wrong with it."""
    try:
        return read(pack)
    except PackError as error:
        return error.problems


CHANGES: dict[str, Callable[[Path], object]] = {
    "a value": lambda pack: edit(pack / "calendar.yaml", "Asia/Shanghai", "Asia/Hong_Kon"),
    "a file in a folder": lambda pack: (pack / "quality" / "more.yaml").write_text("[]"),
    "a file that is gone": lambda pack: (pack / "calendar.yaml").unlink(),
    "a file nobody reads": lambda pack: (pack / "calender.yaml").write_text("{}"),
    "one of another ending": lambda pack: (pack / "calendar.YAML").write_text("{}"),
    "a folder in a file's place": lambda pack: (pack / "datamap" / "x.yaml").mkdir(),
    "everything": shutil.rmtree,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_is_seen(pack: Path, change: Callable[[Path], object]) -> None:
    """What is kept says what a fresh reading says: the same pack, or the same faults."""
    before = kept_pack(pack)
    change(pack)
    assert said(kept_pack, pack) == said(load_pack, pack) != before


def test_a_shipped_file_that_the_pack_gets_itself_is_read(pack: Path) -> None:
    """The shipped one stood in for it."""
    own = pack / "calendar.yaml"
    text = own.read_text(encoding="utf-8")
    own.unlink()
    assert any(one.shipped for one in kept_pack(pack).files)
    own.write_text(text, encoding="utf-8")
    assert not any(one.path == own.name and one.shipped for one in kept_pack(pack).files)


def test_a_folder_that_is_a_link_is_looked_into(pack: Path) -> None:
    """As Kubernetes mounts a ConfigMap."""
    (pack / "quality").rename(pack / "..data")
    (pack / "quality").symlink_to("..data")
    first = kept_pack(pack)
    assert kept_pack(pack) is first
    (pack / "..data" / "more.yaml").write_text("[]")
    assert kept_pack(pack).files != first.files


def test_another_folder_is_another_pack(pack: Path, tmp_path: Path) -> None:
    """Even where it says the same: the folder's name stands in reports."""
    first = kept_pack(pack)
    other = pack.rename(tmp_path / "other")
    assert kept_pack(other).name == "other"
    assert first.name == "pack"


def test_a_bad_pack_is_refused_until_it_is_mended(pack: Path) -> None:
    """A refusal is not kept."""
    first = kept_pack(pack)
    (pack / "calender.yaml").write_text("{}")
    for _ in range(2):
        with pytest.raises(PackError, match="nothing reads this file"):
            kept_pack(pack)
    (pack / "calender.yaml").unlink()
    assert kept_pack(pack) == first
