"""Tests of the texts of required actions in two languages."""

from __future__ import annotations

import pytest

from include.approvals.required_action import in_both_languages, split_languages
from include.messages import Message
from include.reports.i18n import Translator


@pytest.mark.parametrize("name", ["IN-14", "a / b", "{0}"])
def test_split_languages_returns_the_message_that_in_both_languages_joined(name: str) -> None:
    message = Message(
        text="Batch {name} waits",
        values={"name": name},
        translations={"zh-CN": "批次 {name} 待审核"},
    )
    parts = split_languages(in_both_languages(message))
    for locale in ("en", "zh_CN"):
        assert Translator(locale).text(parts) == Translator(locale).text(message)


@pytest.mark.parametrize(
    "line", ["Grade?", "this / that", "三 / 四 / 五", "a / b 审核", "中 / 文 / 三 / a", ""]
)
def test_split_languages_returns_a_line_in_one_language_unchanged(line: str) -> None:
    for locale in ("en", "zh_CN"):
        assert Translator(locale).text(split_languages(line)) == line
