"""What was entered as affected is told in a line, in both languages and without a value."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from include.incident.selection import Selection, selection_line
from include.reports.i18n import Translator

SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({}, "systems: courier"),
        ({"collections": ("courier.waybill",)}, "systems: courier, tables: courier.waybill"),
        ({"since": SINCE, "until": UNTIL},
         "systems: courier, from 2026-11-01 08:00 UTC+08:00, before 2026-12-01 08:00 UTC+08:00"),
        ({"departments": ("South", "North"), "partner": "3"},
         "systems: courier, departments: South, North, given to the partner: 3"),
        ({"accounts": ("E00007",), "keys": ("courier/1", "courier/2")},
         "systems: courier, opened by the accounts: E00007, 2 listed keys"),
        ({"accounts": tuple(f"E{one}" for one in range(1, 23))},
         "systems: courier, opened by the accounts: "
         + ", ".join(f"E{one}" for one in range(1, 21)) + " +2"),
        ({"departments": ("Mrs Wang 13800138000",)}, "systems: courier, departments: …"),
    ],
)  # fmt: skip
def test_what_was_entered_is_told(chosen: dict[str, object], said: str) -> None:
    """Long lists end with how many more there are."""
    line = selection_line(Selection.model_validate({"databases": ("courier",)} | chosen))
    assert Translator("en", "Asia/Shanghai").text(line) == f"Entered as affected: {said}"
    chinese = Translator("zh_CN", "Asia/Shanghai").text(line)
    assert chinese.startswith("填报的影响范围：系统：courier")
