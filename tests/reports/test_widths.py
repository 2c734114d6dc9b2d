"""Columns of ids and short words stay whole on paper, as long as there is room."""

from __future__ import annotations

import pytest

from include.reports.html import kept_columns
from include.reports.model import ColumnKind

RULES: list[ColumnKind] = ["text", "code", "text", "number", "number", "percent", "outcome"]
HEADING = ["Expectation", "Rule", "Clause", "Records", "Broken", "Share", "Outcome"]


def rule(name: str) -> list[str]:
    title = "The reviewer is not the one who entered the record"
    return [title, name, "4.1", "20,096", "40", "16.67%", "Fail"]


def test_ids_and_short_words_are_kept_beside_sentences() -> None:
    """The sentence wraps instead; numbers and outcomes never break anyway."""
    assert kept_columns(RULES, [HEADING, rule("minor_without_guardian_consent")]) == {1, 2}


def test_an_id_that_leaves_no_room_is_not_kept() -> None:
    """The table would run off the page; what is short beside it still is kept."""
    assert kept_columns(RULES, [HEADING, rule("x" * 90)]) == {2}


def test_a_chinese_heading_counts_as_wide_as_it_is() -> None:
    """Two signs are a word that has to stay one."""
    kinds: list[ColumnKind] = ["text", "text"]
    assert kept_columns(
        kinds, [["批次", "决定"], ["北京分公司二〇二六年第三批收寄信息", "批准"]]
    ) == {1}


@pytest.mark.parametrize("columns", [4, 12])
def test_the_shortest_come_first(columns: int) -> None:
    """As many as fit, never more than the page holds."""
    kinds: list[ColumnKind] = ["code"] * columns
    names = ["n" * (10 + 3 * at) for at in range(columns)]
    kept = kept_columns(kinds, [names])
    assert kept == set(range(len(kept)))
    assert (len(kept) == columns) == (columns == 4)


def test_no_column_is_no_error() -> None:
    """And a table without rows has its heading."""
    assert kept_columns([], [[]]) == set()
    assert kept_columns(["code"], [["Rule"]]) == {0}


def test_the_name_of_a_row_stays_whole_though_it_is_longer_than_a_word():
    """Beside sentences; in another column the same text may break, and a longer one everywhere."""
    name, sentence = "已签收运单的联系信息", "按国家标准脱敏，" * 6
    rows = [["记录类别", "规则"], [name, sentence]]
    assert kept_columns(["text", "text"], rows) == {0}
    assert kept_columns(["text", "text"], [one[::-1] for one in rows]) == set()
    assert kept_columns(["text", "text"], [rows[0], [name * 2, sentence]]) == set()
