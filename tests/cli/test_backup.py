"""Output of `backup list`, and restores that are refused because of the erasure ledger."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from include.cli import backup
from include.cli.erasures_of_restore import count_erasures
from include.erasure.ledger import ErasureKeys, Origin, open_batch, settle_batches
from include.holds import registry
from include.holds.registry import HoldKind
from include.services.clock import FixedClock
from include.services.errors import ControlFailed, UsageError
from include.state.connect import engine
from tests.cli.command_services import use_services
from tests.evidence.support import START
from tests.support.registers import unguarded


@pytest.mark.parametrize("columns", ["40", "80", "300"])
def test_backup_list_prints_ids_and_times_in_full_at_any_terminal_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """Even a narrow terminal or a pipe gets the full id, because `restore --point` needs it."""
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
    output = capsys.readouterr().out
    for name in ("id", "taken_at", "expires_at"):
        assert str(row[name]) in output


@pytest.fixture
def services_with_open_batch(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[Any, Engine, int]]:
    """Yield services, the state database, and the id of an open erasure batch with one entry."""
    state = engine(migrated_database)
    use_services(monkeypatch, backup, state, tmp_path)
    services = backup.command_services()
    services.erasure_keys = keys = ErasureKeys({"1": b"k" * 32}, "1")
    services.is_local = lambda _name: True
    origin = Origin("shop", "buyer", "delete", "buyer", "r", "enforce_retention", "r1")
    with state.begin() as conn:
        batch = open_batch(conn, keys, origin, [["12"]], transaction="1", server="s", at=START)
    yield services, state, batch
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
def test_restore_raises_usage_error_if_an_erasure_batch_is_open_and_records_are_on_hold(
    services_with_open_batch: tuple[Any, Engine, int], kind: HoldKind, value: str, refused: bool
) -> None:
    """The transaction of an open batch may have been rolled back.

    The replay of the batch would then erase a record that is on hold.
    """
    services, state, batch = services_with_open_batch
    assert count_erasures(services, "shop") == 1
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
        with pytest.raises(UsageError, match="records are under legal hold") as error:
            count_erasures(services, "shop")
        assert "Run enforce_retention once" in error.value.action
        with state.begin() as conn:
            settle_batches(conn, [batch], START)
    assert count_erasures(services, "shop") == 1


def test_restore_raises_control_failed_error_if_erasure_ledger_has_lost_its_entries(
    services_with_open_batch: tuple[Any, Engine, int],
) -> None:
    """An empty erasure ledger may have lost its entries, so it proves nothing."""
    services, state, batch = services_with_open_batch
    with state.begin() as conn:
        settle_batches(conn, [batch], START)
        with unguarded(conn, "erasure"):
            conn.exec_driver_sql("TRUNCATE erasure")
    with pytest.raises(ControlFailed, match="lost 1 entries"):
        count_erasures(services, "shop")
