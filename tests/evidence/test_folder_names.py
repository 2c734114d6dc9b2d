"""Folder names are readable, allowed on every file system, and unique for each run."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from include.evidence.folder import (
    bundle_path,
    folder_name,
    is_bundle_path,
    link_to,
    linked_bundle,
)

digits = st.text("0123456789T:.+Z-_~", max_size=30)
run_ids = st.one_of(
    st.text(max_size=300),
    st.builds("{}T{:02}:{:02}:{:02}+00:00{}".format, digits, *[st.integers(0, 61)] * 3, digits),
    st.builds("{}T{:02}{:02}{:02}Z{}".format, digits, *[st.integers(0, 61)] * 3, digits),
)


@pytest.mark.parametrize(
    ("run_id", "name"),
    [
        ("manual__2026-11-24T14:10:19+00:00", "manual__2026-11-24T141019Z"),
        ("scheduled__2026-11-24T14:10:19.5+00:00", "scheduled__2026-11-24T141019.5Z"),
        ("manual__2026-11-24T14:10:19+00:00_aB3x", "manual__2026-11-24T141019Z_aB3x"),
        ("backfill_7", "backfill_7"),
    ],
)
def test_folder_name_of_a_usual_airflow_run_id_contains_no_hash(run_id: str, name: str) -> None:
    assert folder_name(run_id) == name


@pytest.mark.parametrize(
    "run_id",
    ["manual__2026-11-24T141019Z", "a/b", "..", ".", "", "编号 7", "x" * 300, "-x", "a\nb", "x."],
)
def test_folder_name_contains_a_hash_if_the_run_id_is_unsafe_too_long_or_ambiguous(
    run_id: str,
) -> None:
    """A run id that looks like the short form of another run id has a hash too."""
    assert re.fullmatch(r"[A-Za-z0-9_.-]*~[0-9a-f]{16}", folder_name(run_id))


@given(st.lists(run_ids, min_size=2, max_size=6, unique=True))
@example(["T00:00:00+00:00", "T000000Z"])
@example(["a b", "a-b", "a/b", "a:b"])
@example(["x" * 120, "x" * 121])
@example(["٣T٠٠:٠٠:٠٠+00:00", "T٠٠٠٠٠٠Z"])
def test_folder_names_are_unique_per_run_id(ids: list[str]) -> None:
    """The run id can be derived from the folder name, or the name contains a hash."""
    assert len({folder_name(run_id) for run_id in ids}) == len(ids)


@given(run_ids)
def test_folder_name_is_at_most_130_characters_long_and_has_only_safe_characters(
    run_id: str,
) -> None:
    """The name is readable and allowed in a directory, in an S3 key and on a Windows disk."""
    name = folder_name(run_id)
    assert re.fullmatch(r"[A-Za-z0-9_.~-]{1,130}", name)
    assert name not in {".", ".."}
    assert not name.startswith(("-", "."))
    assert not name.endswith(".")


@given(run_ids, run_ids, st.datetimes(min_value=datetime(1970, 1, 2)), st.integers(-12, 14))  # noqa: DTZ001 - hypothesis adds the timezone below
def test_parsing_the_link_to_a_bundle_returns_the_bundle_path(
    dag_id: str, run_id: str, moment: datetime, offset: int
) -> None:
    """A path has four parts, and its month is in UTC, whatever the timezone of the start is."""
    if moment.year > 9998:
        return
    local = moment.replace(tzinfo=timezone(timedelta(hours=offset)))
    path = bundle_path(dag_id, run_id, local)
    assert len(path.split("/")) == 4
    assert path == bundle_path(dag_id, run_id, local.astimezone(timezone.utc))  # noqa: UP017 - same
    assert linked_bundle(link_to(path)) == path
    assert is_bundle_path(path)


@pytest.mark.parametrize(
    "name",
    [
        *("", "x", "w/2026/11", "w/2026/11/r/x", "/w/2026/11/r", "w/2026/1/r", "w/year/11/r"),
        *("../2026/11/r", "w/2026/11/.."),
    ],
)
def test_is_bundle_path_is_false_for_incomplete_or_unsafe_paths(name: str) -> None:
    """Neither a part of a path nor a path that leaves the store is a bundle path."""
    assert not is_bundle_path(name)
