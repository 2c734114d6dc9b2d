"""Folder names: readable, safe on every disk, and never shared by two runs."""

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
def test_usual_run_ids_stay_readable(run_id: str, name: str) -> None:
    """No hash where none is needed."""
    assert folder_name(run_id) == name


@pytest.mark.parametrize(
    "run_id",
    ["manual__2026-11-24T141019Z", "a/b", "..", ".", "", "编号 7", "x" * 300, "-x", "a\nb", "x."],
)
def test_other_run_ids_get_a_hash(run_id: str) -> None:
    """Also one that looks like the short form of another."""
    assert re.fullmatch(r"[A-Za-z0-9_.-]*~[0-9a-f]{16}", folder_name(run_id))


@given(st.lists(run_ids, min_size=2, max_size=6, unique=True))
@example(["T00:00:00+00:00", "T000000Z"])
@example(["a b", "a-b", "a/b", "a:b"])
@example(["x" * 120, "x" * 121])
@example(["٣T٠٠:٠٠:٠٠+00:00", "T٠٠٠٠٠٠Z"])
def test_no_two_run_ids_share_a_folder(ids: list[str]) -> None:
    """The name is a function that can be undone, or carries a hash."""
    assert len({folder_name(one) for one in ids}) == len(ids)


@given(run_ids)
def test_every_name_is_one_safe_path_part(run_id: str) -> None:
    """Safe for a shell's eye, a directory, an S3 key and a Windows disk."""
    name = folder_name(run_id)
    assert re.fullmatch(r"[A-Za-z0-9_.~-]{1,130}", name)
    assert name not in {".", ".."}
    assert not name.startswith(("-", "."))
    assert not name.endswith(".")


@given(run_ids, run_ids, st.datetimes(min_value=datetime(1970, 1, 2)), st.integers(-12, 14))  # noqa: DTZ001 - hypothesis adds the timezone below
def test_the_link_leads_back_to_the_bundle(
    dag_id: str, run_id: str, moment: datetime, offset: int
) -> None:
    """A path has four parts, the month is UTC whatever the timezone, and links can be read back."""
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
def test_other_texts_are_no_path_of_a_bundle(name: str) -> None:
    """Neither a part of one, nor one that leads out of the store."""
    assert not is_bundle_path(name)
