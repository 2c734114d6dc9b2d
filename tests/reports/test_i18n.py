"""Numbers, times and sentences in both languages."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.messages import Message, _
from include.reports.i18n import Translator, visible

EN, ZH = Translator("en"), Translator("zh_CN")
AT = datetime(2026, 11, 23, 18, 4, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (0, "0 s", "0 秒"),
        (0.0004, "1 ms", "1 毫秒"),
        (0.25, "250 ms", "250 毫秒"),
        (59.94, "59.9 s", "59.9 秒"),
        (310, "5 min 10 s", "5 分钟 10 秒"),
        (900, "15 min", "15 分钟"),
        (3601, "1 h", "1 小时"),
        (7500, "2 h 5 min", "2 小时 5 分钟"),
        (90_000, "1 d 1 h", "1 天 1 小时"),
        (-60, "-1 min", "-1 分钟"),
    ],
)
def test_durations_show_their_two_largest_units(seconds: float, english: str, chinese: str):
    """Also below a second and below zero."""
    assert EN.duration(seconds) == english
    assert ZH.duration(seconds) == chinese


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1 KiB"),
        (1_147_183_104, "1.07 GiB"),
        (2**80, "1,073,741,824 PiB"),
    ],
)
def test_sizes_are_in_binary_units(size: int, shown: str):
    """1 KiB is 1024 bytes."""
    assert EN.bytes(size) == shown


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [
        (0, "0%"),
        (1, "100%"),
        (0.5, "50%"),
        (0.98766, "98.77%"),
        (0.99999, "99.999%"),
        (0.000001, "0.0001%"),
    ],
)
def test_nothing_is_rounded_up_to_all_or_down_to_none(ratio: float, shown: str):
    """99.999 % must not read as 100 %: the difference is the finding."""
    assert EN.percent(ratio) == shown


@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
def test_a_positive_number_never_reads_as_zero(value: float):
    """Small rates keep significant digits."""
    assert EN.number(value).strip("0.,") != "" or value < 1e-15


def test_numbers_are_grouped():
    """Both languages group thousands."""
    assert EN.number(2_610_994) == ZH.number(2_610_994) == "2,610,994"
    assert EN.number(0.00042) == "0.00042"


def test_not_a_number_reads_as_not_measured():
    """NaN and infinity come from divisions by nothing."""
    assert EN.number(float("nan")) == "not measured"
    assert ZH.value(None) == "未测得"


def test_times_carry_the_offset_of_the_runs_timezone():
    """A reader elsewhere must not misread them."""
    assert EN.datetime(AT) == "2026-11-24 02:04 UTC+08:00"
    assert EN.datetime(AT, seconds=True) == "2026-11-24 02:04:31 UTC+08:00"
    assert EN.datetime(AT, "America/St_Johns") == "2026-11-23 14:34 UTC-03:30"
    assert Translator("en", "UTC").datetime(AT) == "2026-11-23 18:04 UTC+00:00"


def test_a_time_without_timezone_is_refused():
    """It could be any moment."""
    with pytest.raises(ValueError, match="timezone"):
        EN.datetime(datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


def test_values_take_the_readers_form():
    """Whatever type a message holds."""
    message = _(
        "{rows} {size:bytes} {age:duration} {rate:percent} {at} {day} {good} {inner} {name}",
        rows=12_000,
        size=2048,
        age=90,
        rate=0.071,
        at=AT,
        day=date(2026, 1, 2),
        good=True,
        inner=_("not measured"),
        name="x",
    )
    assert ZH.text(message) == (
        "12,000 2 KiB 1 分钟 30 秒 7.1% 2026-11-24 02:04 UTC+08:00 2026-01-02 是 未测得 x"
    )


def test_a_message_reads_the_same_after_json():
    """Step records are stored as JSON between the step and the seal."""
    message = _("{at} {n} {inner}", at=AT, n=3, inner=_("{good}", good=False))
    again = Message.model_validate(json.loads(message.model_dump_json()))
    assert ZH.text(again) == ZH.text(message)


@pytest.mark.parametrize("text", ["a {missing} b", "a } b", "a { b", "{0} {} {x.__class__} {x[0]}"])
def test_a_defective_sentence_does_not_cost_the_report(text: str):
    """It stays readable, and no attribute of a value is reached."""
    shown = EN.text(_(text, x=1))
    assert shown
    assert "int" not in shown


def test_direction_and_control_characters_are_made_visible():
    """A name cannot turn the text around it."""
    assert visible("a\u202eb\x00c\ud800d\ne") == "a\\u202eb\\u0000c\\ud800d\ne"
    assert EN.text(_("{name}", name="\u202egpj.exe")) == "\\u202egpj.exe"


def test_an_unknown_locale_is_refused():
    """No silent English."""
    with pytest.raises(ValueError, match="de_DE"):
        Translator("de_DE")
