"""A list of evidence bundles with texts that a spreadsheet could take for formulas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

from include.evidence.model import Outcome
from include.exports.model import ExportColumn, ExportTable, rows_of
from include.messages import Message, _, verbatim
from include.policy import SHIPPED
from include.registry import load_pack
from include.reports.letterhead import letterhead_of

ZONE = "Asia/Shanghai"
CREATED = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1+1", "\r=1+1", "'=1", "=cmd|' /C calc'!A0")
MARKUP = "<script>alert(1)</script>\u202e\x00\x07 &amp; _x0041_ 第一行\n第二行"

COLUMNS: Sequence[ExportColumn[int]] = (
    ExportColumn(_("Number"), 9, lambda number: number),
    ExportColumn(_("Sealed"), 17, lambda number: CREATED - timedelta(hours=number)),
    ExportColumn(_("Due"), 12, lambda number: date(2026, 11, 24) - timedelta(days=number % 90)),
    ExportColumn(_("Outcome"), 14, lambda number: list(Outcome)[number % 3]),
    ExportColumn(_("Control"), 40, lambda number: FORMULAS[number % len(FORMULAS)]),
    ExportColumn(_("Folder of the bundle"), 50, lambda number: f"backup_offsite/2026/11/{number}"),
    ExportColumn(_("Remark"), 24, lambda number: MARKUP if number % 5 == 0 else None),
)


def listing(
    rows: Iterable[int], total: int, warnings: Sequence[Message] = (), *, company: bool = True
) -> ExportTable:
    """Return a list of numbered rows.

    Args:
        rows: numbers of the rows.
        total: number of rows of the complete list.
        warnings: warnings above the list.
        company: whether the list has a letterhead.
    """
    return ExportTable(
        title=_("Evidence bundles"),
        period=_("{start} to {end}", start=date(2026, 7, 1), end=date(2026, 9, 30)),
        letterhead=letterhead_of(load_pack(SHIPPED).company) if company else None,
        created_at=CREATED,
        created_by="=officer",
        labels=[column.label for column in COLUMNS],
        widths=[column.width for column in COLUMNS],
        rows=rows_of(COLUMNS, rows),
        total=total,
        facts=[(_("Clause"), verbatim("5.3")), (_("Owner"), None)],
        warnings=warnings,
    )
