"""What `backup list` shows people, and when no restore begins."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from include.cli import backup
from include.cli.erasures_of_restore import count_erasures
from include.erasure.ledger import ErasureKeys, Origin, intend, settle
from include.holds import registry
from include.holds.registry import HoldKind
from include.services.clock import FixedClock
from include.services.errors import ControlFailed, UsageError
from include.state.connect import engine
from tests.cli.places import place_at
from tests.evidence.support import START
from tests.support.registers import unguarded


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


@pytest.fixture
def entered(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[Any, Engine, int]]:
    """A workplace, and its ledger with one batch of one entry that is open still."""
    state = engine(migrated_database)
    place_at(monkeypatch, backup, state, tmp_path)
    place = backup.workplace()
    place.erasure_keys = keys = ErasureKeys({"1": b"k" * 32}, "1")
    place.is_local = lambda _name: True
    origin = Origin("shop", "buyer", "delete", "buyer", "r", "enforce_retention", "r1")
    with state.begin() as conn:
        batch = intend(conn, keys, origin, [["12"]], transaction="1", server="s", at=START)
    yield place, state, batch
    state.dispose()


@pytest.mark.parametrize(
    ("kind", "value", "refused"),
    [
        (HoldKind.SUBJECT, "shop/12", True),
        (HoldKind.CLASS, "buyer", True),
        (HoldKind.DATABASE, "shop", True),
        (HoldKind.DATABASE, "partners", False),
        (HoldKind.RESTORE_POINT, "p1", False),
    ],
)
def test_no_restore_begins_while_erasures_are_in_doubt_and_records_held(
    entered: tuple[Any, Engine, int], kind: HoldKind, value: str, refused: bool
) -> None:
    """A batch that was rolled back may name a held record, which a replay would take."""
    place, state, batch = entered
    assert count_erasures(place, "shop") == 1
    with state.begin() as conn:
        registry.add(
            conn,
            FixedClock(START),
            kind=kind,
            value=value,
            reason="claim",
            owner="legal",
            case_ref="C-1",
            review_on=START.date() + timedelta(days=30),
        )
    if refused:
        with pytest.raises(UsageError, match="there are legal holds on its records") as error:
            count_erasures(place, "shop")
        assert "Run enforce_retention once" in error.value.action
        with state.begin() as conn:
            settle(conn, [batch], START)
    assert count_erasures(place, "shop") == 1


def test_no_restore_begins_with_a_ledger_that_was_emptied(
    entered: tuple[Any, Engine, int],
) -> None:
    """No entry at all is the worst loss, not a courier who never erased anybody."""
    place, state, batch = entered
    with state.begin() as conn:
        settle(conn, [batch], START)
        with unguarded(conn, "erasure"):
            conn.exec_driver_sql("TRUNCATE erasure")
    with pytest.raises(ControlFailed, match="lacks 1 entries"):
        count_erasures(place, "shop")
