"""Tests of citations of laws and standards in both languages."""

from __future__ import annotations

import pytest

from include.policy.citation import chinese_number, cite

LAW = "《中华人民共和国个人信息保护法》"


@pytest.mark.parametrize(
    ("article", "chinese"),
    [
        ("51(3)", "第五十一条第（三）项"),
        ("51(1), 51(2)", "第五十一条第（一）项、第（二）项"),
        ("38-40", "第三十八条至第四十条"),
        ("57", "第五十七条"),
        ("annex", "附件"),
        ("appendix B", "appendix B"),
    ],
)
def test_cite_law_in_chinese_writes_article_in_chinese_numerals(article: str, chinese: str) -> None:
    assert cite(LAW, "2021-11-01", article, "zh-CN") == f"{LAW}（2021年11月1日起施行）{chinese}"


@pytest.mark.parametrize(
    ("name", "article", "chinese"),
    [
        (
            "GB/T 35273《信息安全技术 个人信息安全规范》",
            "8.7 a)",
            "GB/T 35273—2023《信息安全技术 个人信息安全规范》8.7 a)",
        ),
        ("GB/T 27917《快递服务》", "part 3", "GB/T 27917.3—2023《快递服务 第3部分》"),
        ("GB/T 27917.3《服务环节》", "part 3", "GB/T 27917.3—2023《服务环节》"),
        ("GB/T 27917.13", "part 3", "GB/T 27917.13—2023第3部分"),
        ("ISO/IEC 15408", "part 3", "ISO/IEC 15408—2023第3部分"),
        ("GB/T 1《导则 第1部分》", "part 3", "GB/T 1—2023《导则 第1部分》第3部分"),
        ("GB/T 35273《规范》", "8.1, 8.2", "GB/T 35273—2023《规范》8.1、8.2"),
        ("GB/T 27917.3", "4.2", "GB/T 27917.3—2023第4.2条"),
    ],
)
def test_cite_standard_in_chinese_joins_number_and_year_with_dash(
    name: str, article: str, chinese: str
) -> None:
    assert cite(name, "2023", article, "zh-CN") == chinese


def test_cite_amended_law_in_chinese_joins_amendment_and_day_in_force() -> None:
    assert cite("《网络安全法》（2025年修正）", "2026-01-01", "23(3)", "zh-CN") == (
        "《网络安全法》（2025年修正，2026年1月1日起施行）第二十三条第（三）项"
    )


@pytest.mark.parametrize(
    ("article", "english"),
    [("51(3)", "article 51(3)"), ("38-40", "article 38-40"), ("annex", "annex")],
)
def test_english_citation_contains_edition_and_article(article: str, english: str) -> None:
    assert cite("PIPL", "2021-11-01", article, "en") == f"PIPL (2021-11-01), {english}"


@pytest.mark.parametrize(
    ("number", "chinese"),
    [(6, "六"), (10, "十"), (19, "十九"), (40, "四十"), (57, "五十七"), (100, "一百"),
     (103, "一百零三"), (110, "一百一十"), (117, "一百一十七"), (188, "一百八十八")],
)  # fmt: skip
def test_chinese_number_returns_chinese_numerals_as_written_in_statutes(
    number: int, chinese: str
) -> None:
    assert chinese_number(number) == chinese


@pytest.mark.parametrize("number", [0, 1000])
def test_chinese_number_raises_value_error_if_number_is_outside_of_1_to_999(number: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 999"):
        chinese_number(number)
