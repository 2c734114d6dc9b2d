"""Tests of seeds, which must be published after the commitment, readable and unused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.sampling import samples
from include.sampling.commitment import CommitmentLocation
from include.sampling.samples import LEEWAY, LONGEST, SHORTEST, Seed, SeedRefusalCause

SEALED = datetime(2026, 10, 5, 0, 30, tzinfo=UTC)
NOW = SEALED + timedelta(days=1)
INSTANT = timedelta(microseconds=1)


def fault(
    seed: str = "3391.76", source: str = "sse.com.cn", **more: Any
) -> SeedRefusalCause | None:
    arguments = {"published_at": SEALED + timedelta(hours=7)} | more
    published = arguments.pop("published_at")
    checks: dict[str, Any] = {"sealed_at": SEALED, "now": NOW, "used": False} | arguments
    return samples.seed_refusal_cause(seed, source, published, **checks)


@pytest.mark.parametrize("seed", ["3391.76", "1 2 3 4", "上证综指收盘", "a,b|c\\d'\"", "😀😀😀😀"])
def test_seed_without_invisible_characters_is_accepted(seed: str) -> None:
    assert fault(seed) is None


@pytest.mark.parametrize("seed", ["", "123", "1 2 3", " " * 20, "\u3000" * 20, "1\u00a0\u2009 2"])
def test_too_short_seed_is_refused(seed: str) -> None:
    """White space of any kind is not counted."""
    assert fault(seed) is SeedRefusalCause.TOO_SHORT


def test_seed_is_refused_if_shorter_than_minimum_or_longer_than_maximum_length() -> None:
    assert fault("1" * SHORTEST) is None
    assert fault("1" * (SHORTEST - 1)) is SeedRefusalCause.TOO_SHORT
    assert fault("1" * LONGEST) is None
    assert fault("1" * (LONGEST + 1)) is SeedRefusalCause.TOO_LONG


@pytest.mark.parametrize(
    "seed",
    [
        "3391\n76", "3391\t76", "3391\x0076", "3391\x1b[31m", "3391\u200b76", "3391\u202e76",
        "3391\ufeff76", "3391\u202876", "3391\u202976", "3391\ud80076", "3391\x7f76",
        "3391\u00a076", "3391\u300076",
    ],
)  # fmt: skip
def test_seed_with_invisible_character_is_refused(seed: str) -> None:
    """A person who types the seed from the page would omit the character and draw other items."""
    assert fault(seed) is SeedRefusalCause.UNREADABLE


def test_seed_without_source_or_publication_time_is_refused() -> None:
    assert fault(source="") is SeedRefusalCause.NO_SOURCE
    assert fault(published_at=None) is SeedRefusalCause.NO_TIME


def test_seed_published_before_commitment_is_refused() -> None:
    """A seed that was published in the moment of the commitment may have been known too."""
    assert fault(published_at=SEALED - timedelta(days=1)) is SeedRefusalCause.BEFORE_SEAL
    assert fault(published_at=SEALED) is SeedRefusalCause.BEFORE_SEAL
    assert fault(published_at=SEALED + INSTANT) is None
    shanghai = SEALED.astimezone(ZoneInfo("Asia/Shanghai"))
    assert fault(published_at=shanghai) is SeedRefusalCause.BEFORE_SEAL


def test_seed_published_in_future_is_refused() -> None:
    """Small differences between system clocks are tolerated."""
    assert fault(published_at=NOW + LEEWAY) is None
    assert fault(published_at=NOW + LEEWAY + INSTANT) is SeedRefusalCause.FUTURE


def test_seed_of_an_earlier_draw_is_refused() -> None:
    assert fault(used=True) is SeedRefusalCause.USED


@pytest.mark.parametrize("cause", SeedRefusalCause)
def test_each_cause_of_refusal_has_different_message(cause: SeedRefusalCause) -> None:
    message = samples.refusal_message(cause)
    assert message.text.format(**message.values)
    assert len(
        {samples.refusal_message(each_cause).text for each_cause in SeedRefusalCause}
    ) == len(SeedRefusalCause)


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
def test_publication_time_without_offset_is_in_pack_timezone(text: str, moment: datetime) -> None:
    """A date without a time means midnight."""
    assert samples.moment_of(text, LOCAL) == moment


@pytest.mark.parametrize(
    "text", ["", "yesterday", "15:00", "2026-13-01", "2026-10-05T25:00:00+08:00", "1759647600"]
)
def test_publication_time_is_none_for_invalid_text(text: str) -> None:
    assert samples.moment_of(text, LOCAL) is None


@given(st.text(max_size=40))
def test_moment_of_never_returns_a_time_without_utc_offset(text: str) -> None:
    moment = samples.moment_of(text, LOCAL)
    assert moment is None or moment.utcoffset() is not None


def test_seed_is_unchanged_after_it_is_written_and_read() -> None:
    """The file is evidence, so it must contain exactly the entered texts."""
    sealed = CommitmentLocation(bundle="b", sums_sha256="0" * 64, sealed_at=SEALED)
    seed = Seed(
        seed='1 "2" \\3 中',
        source="页 1",
        published_at=NOW,
        entered_by="E1",
        entered_at=NOW,
        commitment=sealed,
    )
    assert Seed.model_validate_json(seed.to_bytes()) == seed
    assert seed.to_bytes().endswith(b"}\n")


def test_demonstration_seed_is_new_random_value_each_time() -> None:
    """Twenty dice have more than fifty bits of randomness, so two equal results are implausible."""
    thrown = [samples.demonstration_answer("", NOW, "who asked")["seed"] for _turn in range(20)]
    assert len(set(thrown)) == 20
    assert fault(thrown[0]) is None
