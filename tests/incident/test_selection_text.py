"""Tests of the text that describes scope criteria, in both languages and without customer data."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from include.incident.selection import Selection, selection_text
from include.policy import SHIPPED
from include.registry import load_pack
from include.reports.i18n import Translator

SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "systems: courier"),
        ({"collections": ("courier.waybill",)}, "systems: courier, tables: courier.waybill"),
        ({"since": SINCE, "until": UNTIL},
         "systems: courier, records from 2026-11-01 08:00 UTC+08:00 on, "
         "records before 2026-12-01 08:00 UTC+08:00"),
        ({"departments": ("South", "North"), "partner": "3"},
         "systems: courier, departments: South, North, "
         "records that were shared with the partner: 3"),
        ({"accounts": ("E00007",), "keys": ("courier/1", "courier/2")},
         "systems: courier, records that these accounts opened: E00007, "
         "2 records or people, listed by their keys"),
        ({"accounts": tuple(f"E{number}" for number in range(1, 23))},
         "systems: courier, records that these accounts opened: "
         + ", ".join(f"E{number}" for number in range(1, 21)) + " and 2 more"),
        ({"departments": ("Mrs Wang 13800138000",)}, "systems: courier, departments: …"),
    ],
)  # fmt: skip
def test_text_of_entered_scope_contains_all_filters_and_is_available_in_both_languages(
    fields: dict[str, object], expected: str
) -> None:
    line = selection_text(Selection.model_validate({"databases": ("courier",)} | fields), {})
    assert Translator("en", "Asia/Shanghai").text(line) == f"Entered scope: {expected}"
    chinese = Translator("zh_CN", "Asia/Shanghai").text(line)
    assert chinese.startswith("填报的影响范围：系统：courier")


def test_text_of_entered_scope_contains_titles_of_mapped_databases_and_tables() -> None:
    courier = load_pack(SHIPPED).databases["courier"]
    fields = {
        "databases": ("courier", "gone 13800138000"),
        "collections": ("courier.customer", "courier.gone 13800138000"),
    }
    line = selection_text(Selection.model_validate(fields), {"courier": courier})
    assert Translator("zh_CN").text(line) == (
        "填报的影响范围：系统：快递业务系统、…、数据表：客户信息、…"
    )
