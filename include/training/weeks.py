"""Weeks, by which summaries are named."""

from __future__ import annotations

from datetime import date


def week_of(day: date) -> str:
    """The ISO week of a day, ``2026-W48``; the first days of January may lie in the year before."""
    year, week, _weekday = day.isocalendar()
    return f"{year}-W{week:02d}"
