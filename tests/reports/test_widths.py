"""Columns of ids and short words are not broken across lines on paper."""

from __future__ import annotations

import pytest

from include.reports.html import unbroken_columns
from include.reports.model import ColumnKind

RULES: list[ColumnKind] = ["text", "code", "text", "number", "number", "percent", "outcome"]
HEADING = ["Expectation", "Rule", "Clause", "Records", "Broken", "Share", "Outcome"]


def rule(name: str) -> list[str]:
    title = "The reviewer is not the person who entered the record"
    return [title, name, "4.1", "20,096", "40", "16.67%", "Fail"]


def test_columns_with_ids_or_short_words_are_not_wrapped_beside_a_column_with_sentences() -> None:
    """The sentence is wrapped instead."""
    assert unbroken_columns(RULES, [HEADING, rule("minor_without_guardian_consent")]) == {1, 2}


def test_column_of_ids_may_be_wrapped_if_it_is_wider_than_the_page() -> None:
    """Otherwise the table would be wider than the page.

    Short columns beside the id are unbroken.
    """
    assert unbroken_columns(RULES, [HEADING, rule("x" * 90)]) == {2}


def test_column_of_short_chinese_words_is_not_wrapped() -> None:
    """A column of Chinese words of two characters must not be broken."""
    kinds: list[ColumnKind] = ["text", "text"]
    assert unbroken_columns(
        kinds, [["批次", "决定"], ["北京分公司二〇二六年第三批收寄信息", "批准"]]
    ) == {1}


@pytest.mark.parametrize("columns", [4, 12])
def test_narrowest_columns_are_not_wrapped_as_long_as_they_fit_on_the_page(columns: int) -> None:
    """As many columns as fit on the page are unbroken, beginning with the shortest."""
    kinds: list[ColumnKind] = ["code"] * columns
    names = ["n" * (10 + 3 * at) for at in range(columns)]
    kept = unbroken_columns(kinds, [names])
    assert kept == set(range(len(kept)))
    assert (len(kept) == columns) == (columns == 4)


def test_unbroken_columns_raises_no_error_for_table_without_columns_or_rows() -> None:
    """A table without rows still has its heading."""
    assert unbroken_columns([], [[]]) == set()
    assert unbroken_columns(["code"], [["Rule"]]) == {0}


def test_column_of_short_row_names_is_not_wrapped_if_it_is_the_first_column():
    """In other columns, the same text may be broken.

    A longer text may be broken in every column.
    """
    name, sentence = "已签收运单的联系信息", "按国家标准脱敏，" * 6
    rows = [["记录类别", "规则"], [name, sentence]]
    assert unbroken_columns(["text", "text"], rows) == {0}
    assert unbroken_columns(["text", "text"], [row[::-1] for row in rows]) == set()
    assert unbroken_columns(["text", "text"], [rows[0], [name * 2, sentence]]) == set()
