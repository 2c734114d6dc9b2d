"""Tests of loading a pack: required files, shipped defaults, the digest, and all faults at once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.policy import SHIPPED, PackError, PackProblem
from include.policy.rules import Source
from include.registry import load_pack
from include.services.errors import UsageError
from tests.policy.packs import SHOP, problem_lines, problems_of, write_pack

RULE = """\
- class: contact
  collection: nowhere
  clock: seen_at
  period: P90D
  action: keep
  basis: business
"""


def test_load_pack_uses_shipped_files_if_the_folder_contains_only_a_data_map(
    tmp_path: Path,
) -> None:
    """Shipped files replace missing files, and the pack lists all files that were read."""
    pack = load_pack(write_pack(tmp_path / "my pack"))
    assert pack.name == "my pack"
    assert list(pack.databases) == ["shop"]
    assert [(file.path, file.shipped) for file in pack.files] == [
        ("backup.yaml", True),
        ("calendar.yaml", True),
        ("controls.yaml", True),
        ("datamap/shop.yaml", False),
        ("evidence.yaml", True),
        ("notices.yaml", True),
        ("roles.yaml", True),
    ]


def test_file_in_the_pack_folder_replaces_the_whole_shipped_file_of_the_same_name(
    tmp_path: Path,
) -> None:
    """A shipped file is replaced as a whole. Files are never merged."""
    pack = load_pack(write_pack(tmp_path, controls="[]\n", roles="[]\n"))
    assert pack.controls == ()
    assert pack.roles == {}
    assert not next(file for file in pack.files if file.path == "controls.yaml").shipped


def test_load_pack_reports_all_faults_in_one_error(tmp_path: Path) -> None:
    """The error has a line for each problem, sorted by file and line number, and exit code 2."""
    folder = write_pack(
        tmp_path,
        datamap__b=SHOP.replace("phone_number", "phon"),
        datamap__a="fides_key: a\ncollections: [\n",
        backup="lock_days: 99\nkeep: {daily: x}\n",
        controls="- {id: 3}\n",
        retention=RULE,
        calendar="",
        roles="- a\n- a\n",
        spelling="x: 1\n",
    )
    with pytest.raises(PackError) as caught:
        load_pack(folder)
    error = caught.value
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    first, *lines = str(error).splitlines()
    assert first == f"The policy pack in {folder} has {len(lines)} problems:"
    assert lines == [str(problem) for problem in error.problems]
    assert [problem.file for problem in error.problems if problem.file != "controls.yaml"] == [
        "backup.yaml",
        "backup.yaml",
        "calendar.yaml",
        "datamap/a.yaml",
        "datamap/b.yaml",
        "retention.yaml",
        "roles.yaml",
        "roles.yaml",
        "spelling.yaml",
    ]
    assert all(
        problem.line
        for problem in error.problems
        if problem.file not in ("calendar.yaml", "spelling.yaml")
    )


def test_load_pack_raises_pack_error_if_folder_is_missing_or_has_no_data_map(
    tmp_path: Path,
) -> None:
    """An empty folder, and a file instead of a folder, are refused too."""
    assert problem_lines(tmp_path / "absent") == ["the folder does not exist"]
    (tmp_path / "empty").mkdir()
    assert problem_lines(tmp_path / "empty")[0].startswith(
        "datamap/: is missing: a pack needs a data map"
    )
    (tmp_path / "bare" / "datamap").mkdir(parents=True)
    assert problem_lines(tmp_path / "bare")[0].startswith("datamap/: holds no .yaml file")
    text = "data_category: []\n"
    assert problem_lines(write_pack(tmp_path / "none", datamap__x=text))[0] == (
        "datamap/: no file maps a database (dataset: [...])"
    )
    (tmp_path / "file").write_text("")
    assert problem_lines(tmp_path / "file") == ["the folder does not exist"]


def test_load_pack_reports_yaml_file_with_unknown_name(tmp_path: Path) -> None:
    """The name of the file may be mistyped. Files of other types and hidden files are ignored."""
    folder = write_pack(
        tmp_path, control="[]\n", datamap__shop=SHOP, datamap__old__shop=SHOP, quality__shop="{}"
    )
    (folder / "backup.yml").write_text("{}")
    (folder / "README.md").write_text("words")
    (folder / ".github").mkdir()
    (folder / ".github" / "ci.yaml").write_text("x: [")
    (folder / "datamap" / ".shop.yaml").write_text("x: [")
    assert [problem.file for problem in problems_of(folder)] == [
        "backup.yml",
        "control.yaml",
        "datamap/old/shop.yaml",
        "quality/shop.yaml",
    ]


def test_load_pack_reports_symbolic_link_to_a_missing_file(tmp_path: Path) -> None:
    """The shipped file must not silently replace a file that the author of the pack linked."""
    folder = write_pack(tmp_path)
    (folder / "backup.yaml").symlink_to(tmp_path / "gone")
    assert problem_lines(folder) == ["backup.yaml: is not a file"]


def test_load_pack_reads_files_in_a_folder_that_is_a_symbolic_link(tmp_path: Path) -> None:
    """Kubernetes mounts configuration as links into a hidden folder."""
    real = write_pack(tmp_path / "..data")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "datamap").symlink_to(real / "datamap")
    assert load_pack(tmp_path / "pack").sha256 == load_pack(real).sha256


def test_load_pack_reads_data_map_with_suffix_yml(tmp_path: Path) -> None:
    """Many Fides manifests have the suffix .yml."""
    folder = write_pack(tmp_path)
    (folder / "datamap" / "shop.yaml").rename(folder / "datamap" / "shop.yml")
    assert load_pack(folder).files[3].path == "datamap/shop.yml"


def test_digest_of_policy_pack_equals_sha256_of_the_sorted_sha256sum_output(tmp_path: Path) -> None:
    """Auditors can compute the digest without ParcelSeal."""
    folder = write_pack(tmp_path, datamap__shop=SHOP, datamap__Zoo=SHOP.replace("shop", "zoo"))
    pack = load_pack(folder)
    for name in ("backup", "calendar", "controls", "evidence", "notices", "roles"):
        shutil.copy(SHIPPED / f"{name}.yaml", folder)
    # as in docs/explanation/policy-pack.md
    shell = "sha256sum -- *.yaml datamap/*.yaml | LC_ALL=C sort -k 2"
    listing = subprocess.run(["sh", "-c", shell], cwd=folder, check=True, capture_output=True)
    assert hashlib.sha256(listing.stdout).hexdigest() == pack.sha256
    assert load_pack(folder).sha256 == pack.sha256  # the same policy, independent of its folder


@pytest.mark.parametrize("change", ["datamap/shop.yaml", "backup.yaml", "new", "renamed"])
def test_digest_of_policy_pack_changes_if_a_file_is_changed_added_or_renamed(
    tmp_path: Path, change: str
) -> None:
    """A new comment, another file or another file name counts as another policy."""
    folder = write_pack(tmp_path, backup="{}\n", datamap__shop=SHOP)
    before = load_pack(folder).sha256
    if change == "new":
        write_pack(folder, datamap__zoo=SHOP.replace("shop", "zoo"))
    elif change == "renamed":
        (folder / "datamap" / "shop.yaml").rename(folder / "datamap" / "market.yaml")
    else:
        with (folder / change).open("a") as stream:
            stream.write("# note\n")
    assert load_pack(folder).sha256 != before


def test_digest_of_policy_pack_is_the_same_in_another_folder_and_with_other_file_times(
    tmp_path: Path, monkeypatch
) -> None:
    """The digest includes neither the folder's path, nor file times, nor the order of files."""
    first = load_pack(write_pack(tmp_path / "a"))
    folder = write_pack(tmp_path / "b")
    os.utime(folder / "datamap" / "shop.yaml", (1, 1))
    monkeypatch.chdir(tmp_path)
    second = load_pack(Path("b"))
    assert second.folder.is_absolute()
    assert first.sha256 == second.sha256
    shuffled = first.model_copy(update={"files": first.files[::-1]})
    assert shuffled.sha256 == first.sha256


def test_changing_a_value_of_a_loaded_policy_pack_raises_error(tmp_path: Path) -> None:
    """Every task of a run must use the same rules."""
    pack = load_pack(write_pack(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        pack.backup.keep.daily = 1  # type: ignore[misc] # the test expects an error
    assert isinstance(pack.controls[0].sources[0], Source)


def test_importing_include_policy_does_not_import_airflow_pandas_or_fideslang() -> None:
    """DAG files import the package on every parse.

    fideslang, airflow and pandas are imported later.
    """
    code = "import sys, include.policy; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=SHIPPED.parents[2],
    ).stdout.split()
    assert "include.policy.loader" in loaded
    assert not {"fideslang", "airflow", "pandas", "dateutil", "pendulum"} & set(loaded)


_KEYS = [
    "fides_key", "dataset", "data_category", "collections", "fields", "name", "meta",
    "parcelseal", "newest", "field", "schema", "collection", "references", "fides_meta",
    "fidesops_meta", "data_categories", "data_type", "primary_key", "self", "partitioning",
    "return_all_elements", "keep", "floor", "drill", "defaults", "lock_days", "sources", "id",
    "clock", "basis",
]  # fmt: skip
_LEAVES = st.sampled_from([None, True, 0, 3.5, "", "shop", "buyer", "buyer.id", "string[]", "P1D"])
_ANYTHING = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=5)
    ),
    max_leaves=25,
)
_FIELD = st.fixed_dictionaries(
    {"name": st.sampled_from(["id", "at"])},
    optional=dict.fromkeys(("fides_meta", "fields", "data_categories", "self"), _ANYTHING),
)
_COLLECTION = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b", "s.a"]), "fields": st.lists(_FIELD, max_size=3)},
    optional=dict.fromkeys(("fides_meta", "fidesops_meta", "data_uses"), _ANYTHING),
)
_DATASET = st.fixed_dictionaries(
    {"fides_key": _LEAVES, "collections": st.lists(_COLLECTION, max_size=3)},
    optional={"meta": st.fixed_dictionaries({"parcelseal": _ANYTHING}), "name": _ANYTHING},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    datamap=_DATASET | _ANYTHING,
    other=_ANYTHING,
    name=st.sampled_from(["backup", "controls", "retention", "calendar", "roles"]),
)
def test_load_pack_raises_no_error_other_than_pack_error_for_random_yaml_content(
    tmp_path: Path, datamap: object, other: object, name: str
) -> None:
    """Every problem of the PackError is a single line that names the file."""
    folder = tmp_path / "pack"
    shutil.rmtree(folder, ignore_errors=True)
    write_pack(folder, datamap__x=yaml.safe_dump(datamap), **{name: yaml.safe_dump(other)})
    problems: list[PackProblem] = []
    try:
        load_pack(folder)
    except PackError as error:
        problems = error.problems or [PackProblem("", None, "", "an error without a problem")]
    assert all(problem.file and "\n" not in str(problem) for problem in problems)
