"""Formats of numbers, times and messages in both languages."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.messages import Message, _, verbatim
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
def test_duration_shows_its_two_largest_units(seconds: float, english: str, chinese: str):
    """The durations include negative durations and durations below a second."""
    assert EN.duration(seconds) == english
    assert ZH.duration(seconds) == chinese


@pytest.mark.parametrize(
    ("target", "english", "chinese"),
    [
        ("= 0", "exactly 0", "0"),
        (">=95%", "at least 95%", "不低于 95%"),
        ("<= 26", "at most 26", "不超过 26"),
        ("as agreed", "as agreed", "as agreed"),
    ],
)
def test_target_of_control_indicator_is_shown_in_words_in_both_languages(
    target: str, english: str, chinese: str
):
    assert Translator("en").requirement(target) == english
    assert Translator("zh_CN").requirement(target) == chinese


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
def test_bytes_are_formatted_in_binary_units(size: int, shown: str):
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
def test_percent_is_never_rounded_to_0_or_100(ratio: float, shown: str):
    """99.999% must not read as 100%, because the difference is the finding."""
    assert EN.percent(ratio) == shown


@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
def test_positive_number_is_never_formatted_as_zero(value: float):
    """Small numbers are formatted with significant digits."""
    assert EN.number(value).strip("0.,") != "" or value < 1e-15


def test_number_separates_thousands_with_commas():
    """Thousands are grouped in both languages."""
    assert EN.number(2_610_994) == ZH.number(2_610_994) == "2,610,994"
    assert EN.number(0.00042) == "0.00042"


def test_nan_and_infinity_are_shown_as_not_measured():
    """Divisions by zero result in NaN or infinity."""
    assert EN.number(float("nan")) == "not measured"
    assert ZH.value(None) == "未测得"


def test_datetime_shows_the_offset_of_the_timezone():
    """Readers in other timezones must not misread a time."""
    assert EN.datetime(AT) == "2026-11-24 02:04 UTC+08:00"
    assert EN.datetime(AT, seconds=True) == "2026-11-24 02:04:31 UTC+08:00"
    assert EN.datetime(AT, "America/St_Johns") == "2026-11-23 14:34 UTC-03:30"
    assert Translator("en", "UTC").datetime(AT) == "2026-11-23 18:04 UTC+00:00"


def test_datetime_raises_value_error_for_a_time_without_timezone():
    """A time without timezone is ambiguous."""
    with pytest.raises(ValueError, match="timezone"):
        EN.datetime(datetime(2026, 1, 1))  # noqa: DTZ001 - the test expects an error


def test_translated_message_shows_each_value_in_the_format_of_its_type():
    """The message has values of all types that a message can have."""
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


def test_message_has_the_same_text_after_conversion_to_json_and_back():
    """Step records are stored as JSON until the run is sealed."""
    message = _("{at} {n} {inner}", at=AT, n=3, inner=_("{good}", good=False))
    again = Message.model_validate(json.loads(message.model_dump_json()))
    assert ZH.text(again) == ZH.text(message)


@pytest.mark.parametrize("text", ["a {missing} b", "a } b", "a { b", "{0} {} {x.__class__} {x[0]}"])
def test_message_with_invalid_placeholders_is_shown_without_an_error(text: str):
    """The text stays readable, and its fields cannot access attributes of values."""
    shown = EN.text(_(text, x=1))
    assert shown
    assert "int" not in shown


def test_space_before_and_after_a_chinese_value_is_removed_in_chinese_text():
    message = Message(
        text="{name} and {other}", translations={"zh-CN": "数据库 {name} 的内容，另有 {other} 项"}
    )
    chinese = Translator("zh_CN")
    titled = message.model_copy(update={"values": {"name": verbatim("快递 系统"), "other": 3}})
    assert chinese.text(titled) == "数据库快递 系统的内容，另有 3 项"
    latin = message.model_copy(update={"values": {"name": "Chinook", "other": "丙"}})
    assert chinese.text(latin) == "数据库 Chinook 的内容，另有丙项"
    assert EN.text(titled) == "快递 系统 and 3"


def test_visible_returns_text_with_escaped_direction_and_control_characters():
    """A name with a direction character must not reverse the text around it."""
    assert visible("a\u202eb\x00c\ud800d\ne") == "a\\u202eb\\u0000c\\ud800d\ne"
    assert EN.text(_("{name}", name="\u202egpj.exe")) == "\\u202egpj.exe"


def test_translator_raises_value_error_for_unknown_locale():
    """The translator does not fall back to English."""
    with pytest.raises(ValueError, match="de_DE"):
        Translator("de_DE")


@pytest.mark.parametrize("text", ["2026-13-01", "0000-01-01", "2026-01-02T99:00:00Z"])
def test_text_in_the_form_of_an_impossible_date_is_shown_unchanged(text: str) -> None:
    assert Translator("en").text(_("{day}", day=text)) == text
