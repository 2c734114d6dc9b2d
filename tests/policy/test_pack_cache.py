"""The cache of the policy pack returns the same object until a file changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from include.policy import SHIPPED, PackError, PolicyPack
from include.registry import cached_pack, load_pack


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    shutil.copytree(SHIPPED, folder)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Change the text of a file without changing the file's size or times."""
    before = path.stat()
    text = path.read_text(encoding="utf-8")
    assert old in text
    assert len(old) == len(new)
    path.write_text(text.replace(old, new), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_cached_pack_returns_the_same_object_if_no_file_changed(pack: Path) -> None:
    first = cached_pack(pack)
    assert first == load_pack(pack)
    (pack / "README.md").write_text("text")
    (pack / ".hidden.yaml").write_text("x")
    assert cached_pack(pack) is first


def pack_or_problems(read: Callable[[Path], PolicyPack], pack: Path) -> object:
    """Return the policy pack, or its problems if it is faulty."""
    try:
        return read(pack)
    except PackError as error:
        return error.problems


CHANGES: dict[str, Callable[[Path], object]] = {
    "a value": lambda pack: edit(pack / "calendar.yaml", "Asia/Shanghai", "Asia/Hong_Kon"),
    "a file in a folder": lambda pack: (pack / "quality" / "more.yaml").write_text("[]"),
    "a deleted file": lambda pack: (pack / "calendar.yaml").unlink(),
    "an unknown file": lambda pack: (pack / "calender.yaml").write_text("{}"),
    "a file with another suffix": lambda pack: (pack / "calendar.YAML").write_text("{}"),
    "a folder with a file name": lambda pack: (pack / "datamap" / "x.yaml").mkdir(),
    "everything": shutil.rmtree,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_cached_pack_reads_the_pack_again_after_every_change(
    pack: Path, change: Callable[[Path], object]
) -> None:
    before = cached_pack(pack)
    change(pack)
    assert pack_or_problems(cached_pack, pack) == pack_or_problems(load_pack, pack) != before


def test_cached_pack_reads_a_new_file_in_the_pack_folder_instead_of_the_shipped_file(
    pack: Path,
) -> None:
    own = pack / "calendar.yaml"
    text = own.read_text(encoding="utf-8")
    own.unlink()
    assert any(file.shipped for file in cached_pack(pack).files)
    own.write_text(text, encoding="utf-8")
    assert not any(file.path == own.name and file.shipped for file in cached_pack(pack).files)


def test_cached_pack_reads_the_pack_again_after_change_in_folder_behind_a_symbolic_link(
    pack: Path,
) -> None:
    """Kubernetes mounts the files of a ConfigMap as links."""
    (pack / "quality").rename(pack / "..data")
    (pack / "quality").symlink_to("..data")
    first = cached_pack(pack)
    assert cached_pack(pack) is first
    (pack / "..data" / "more.yaml").write_text("[]")
    assert cached_pack(pack).files != first.files


def test_cached_pack_returns_the_new_folder_name_after_the_pack_folder_was_renamed(
    pack: Path, tmp_path: Path
) -> None:
    """Reports show the name of the folder, so it must be the present name."""
    first = cached_pack(pack)
    other = pack.rename(tmp_path / "other")
    assert cached_pack(other).name == "other"
    assert first.name == "pack"


def test_cached_pack_raises_pack_error_until_the_faulty_pack_is_corrected(pack: Path) -> None:
    first = cached_pack(pack)
    (pack / "calender.yaml").write_text("{}")
    for _ in range(2):
        with pytest.raises(PackError, match="no workflow reads this file"):
            cached_pack(pack)
    (pack / "calender.yaml").unlink()
    assert cached_pack(pack) == first
