"""What `backup list` shows people."""

from __future__ import annotations

import pytest

from include.cli import backup


@pytest.mark.parametrize("columns", ["40", "80", "300"])
def test_the_list_never_cuts_an_id_or_a_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """In a narrow window and in a pipe too: `restore --point` needs the id whole."""
    monkeypatch.setenv("COLUMNS", columns)
    row = {
        "id": "20261124T020003Z-217c1a",
        "database": "courier",
        "taken_at": "2026-11-24T02:00:03.123456+00:00",
        "bytes": 123_456_789_012,
        "tables": 54,
        "rows": 1_000_000_000,
        "recipients": ["operations", "escrow"],
        "held": False,
        "expires_at": "2027-02-22T02:00:03.123456+00:00",
    }
    backup._show([row])
    shown = capsys.readouterr().out
    for name in ("id", "taken_at", "expires_at"):
        assert str(row[name]) in shown
