"""Seeds: younger than the commitment, to be read by everybody, and never used before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.sampling import samples
from include.sampling.commitment import Sealed
from include.sampling.samples import LEEWAY, LONGEST, SHORTEST, Cause, Seed

SEALED = datetime(2026, 10, 5, 0, 30, tzinfo=UTC)
NOW = SEALED + timedelta(days=1)
INSTANT = timedelta(microseconds=1)


def fault(seed: str = "3391.76", source: str = "sse.com.cn", **more: Any) -> Cause | None:
    given = {"published_at": SEALED + timedelta(hours=7)} | more
    published = given.pop("published_at")
    asked = {"sealed_at": SEALED, "now": NOW, "used": False} | given
    return samples.fault_of(seed, source, published, **asked)


@pytest.mark.parametrize("seed", ["3391.76", "1 2 3 4", "上证综指收盘", "a,b|c\\d'\"", "😀😀😀😀"])
def test_any_text_that_people_can_read_is_a_seed(seed: str) -> None:
    """Its UTF-8 bytes count."""
    assert fault(seed) is None


@pytest.mark.parametrize("seed", ["", "123", "1 2 3", " " * 20, "\u3000" * 20, "1\u00a0\u2009 2"])
def test_a_seed_that_could_be_guessed_at_once_is_none(seed: str) -> None:
    """Blanks of any kind count for nothing."""
    assert fault(seed) is Cause.NONE


def test_a_seed_has_its_bounds() -> None:
    """To the character."""
    assert fault("1" * SHORTEST) is None
    assert fault("1" * (SHORTEST - 1)) is Cause.NONE
    assert fault("1" * LONGEST) is None
    assert fault("1" * (LONGEST + 1)) is Cause.LONG


@pytest.mark.parametrize(
    "seed",
    [
        "3391\n76", "3391\t76", "3391\x0076", "3391\x1b[31m", "3391\u200b76", "3391\u202e76",
        "3391\ufeff76", "3391\u202876", "3391\u202976", "3391\ud80076", "3391\x7f76",
        "3391\u00a076", "3391\u300076",
    ],
)  # fmt: skip
def test_what_nobody_sees_is_no_part_of_a_seed(seed: str) -> None:
    """Whoever types it again from the page would draw otherwise."""
    assert fault(seed) is Cause.UNREADABLE


def test_a_seed_has_a_source_and_a_moment() -> None:
    """Without them nobody can look it up."""
    assert fault(source="") is Cause.NO_SOURCE
    assert fault(published_at=None) is Cause.NO_TIME


def test_a_seed_is_younger_than_the_commitment() -> None:
    """One of the very moment may have been known."""
    assert fault(published_at=SEALED - timedelta(days=1)) is Cause.OLDER
    assert fault(published_at=SEALED) is Cause.OLDER
    assert fault(published_at=SEALED + INSTANT) is None
    shanghai = SEALED.astimezone(ZoneInfo("Asia/Shanghai"))
    assert fault(published_at=shanghai) is Cause.OLDER


def test_a_seed_is_not_of_the_future() -> None:
    """Clocks may differ a little."""
    assert fault(published_at=NOW + LEEWAY) is None
    assert fault(published_at=NOW + LEEWAY + INSTANT) is Cause.FUTURE


def test_a_seed_is_used_once() -> None:
    """Who was drawn by it knew it before this commitment."""
    assert fault(used=True) is Cause.USED


@pytest.mark.parametrize("cause", Cause)
def test_every_refusal_is_said_in_a_sentence(cause: Cause) -> None:
    """Of its own, and complete."""
    said = samples.why(cause)
    assert said.text.format(**said.values)
    assert len({samples.why(one).text for one in Cause}) == len(Cause)


LOCAL = datetime(2026, 10, 6, 8, tzinfo=ZoneInfo("Asia/Shanghai"))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-10-05T15:00:00+08:00", datetime(2026, 10, 5, 7, tzinfo=UTC)),
        (" 2026-10-05T07:00:00Z ", datetime(2026, 10, 5, 7, tzinfo=UTC)),
        ("2026-10-05T15:00:00", datetime(2026, 10, 5, 7, tzinfo=UTC)),
        ("2026-10-05 15:00", datetime(2026, 10, 5, 7, tzinfo=UTC)),
        ("2026-10-05", datetime(2026, 10, 4, 16, tzinfo=UTC)),
    ],
)
def test_a_moment_without_an_offset_is_one_of_the_packs_timezone(
    text: str, moment: datetime
) -> None:
    """As the auditor's clock on the wall has it; a day is its first moment."""
    assert samples.moment_of(text, LOCAL) == moment


@pytest.mark.parametrize(
    "text", ["", "yesterday", "15:00", "2026-13-01", "2026-10-05T25:00:00+08:00", "1759647600"]
)
def test_what_is_no_moment_is_none(text: str) -> None:
    """It is asked for again."""
    assert samples.moment_of(text, LOCAL) is None


@given(st.text(max_size=40))
def test_no_text_breaks_the_reading_of_a_moment(text: str) -> None:
    """It is a moment with an offset, or none."""
    found = samples.moment_of(text, LOCAL)
    assert found is None or found.utcoffset() is not None


def test_a_seed_is_read_back_as_it_was_written() -> None:
    """Character by character: its file is evidence."""
    sealed = Sealed(bundle="b", sums_sha256="0" * 64, sealed_at=SEALED)
    made = Seed(
        seed='1 "2" \\3 中',
        source="页 1",
        published_at=NOW,
        entered_by="E1",
        entered_at=NOW,
        commitment=sealed,
    )
    assert Seed.model_validate_json(made.to_bytes()) == made
    assert made.to_bytes().endswith(b"}\n")


def test_dice_are_thrown_anew_each_time() -> None:
    """Twenty of them: more than fifty bits."""
    thrown = [samples.in_advance("", NOW, "who asked")["seed"] for _turn in range(20)]
    assert len(set(thrown)) == 20
    assert fault(thrown[0]) is None
