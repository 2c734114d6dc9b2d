"""The background check for changed ledger rows."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine

from include.evidence.ledger import RowChecker, RowCheckState
from include.evidence.signing import TrustedKeys
from include.state.connect import engine
from plugins.compliance_ui import ledger_watcher
from plugins.compliance_ui.ledger_watcher import RECHECK_INTERVAL, LedgerWatcher
from tests.plugins.company import Company
from tests.plugins.pages_server import PagesServer
from tests.support.registers import unguarded


@pytest.fixture
def state(pages_company: Company) -> Iterator[Engine]:
    state_engine = engine(pages_company.conninfo)
    yield state_engine
    state_engine.dispose()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def watcher(
    pages_company: Company, state: Engine, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> LedgerWatcher:
    """Return a watcher with small limits, so that it checks this ledger in the background."""
    monkeypatch.setattr(ledger_watcher, "CHECKED_AT_ONCE", 4)
    monkeypatch.setattr(ledger_watcher, "BATCH", 3)
    keys = TrustedKeys([pages_company.signer.public_pem])
    return LedgerWatcher(RowChecker(keys), state.connect, lambda: now[0])


def test_evidence_ledger_with_many_rows_is_checked_in_the_background(
    watcher: LedgerWatcher, state: Engine, pages_company: Company
) -> None:
    """The page shows the progress of the check to the first visitor."""
    lines = len(pages_company.rows())
    with state.connect() as conn:
        assert watcher.status(conn) == RowCheckState(lines, 4)
        watcher.wait(300)
        assert watcher.status(conn) == RowCheckState(lines, lines)


def test_evidence_ledger_with_many_rows_is_checked_again_after_a_minute(
    watcher: LedgerWatcher, state: Engine, pages_company: Company, now: list[float]
) -> None:
    """A request within that minute starts no check, since a check reads all rows."""
    row = pages_company.newest("check_quality")
    change = "UPDATE evidence_ledger SET dag_id = %s WHERE seq = %s"
    with (
        state.connect() as conn,
        psycopg.connect(pages_company.conninfo, autocommit=True) as intruder,
    ):
        watcher.status(conn)
        watcher.wait(300)
        with unguarded(intruder, "evidence_ledger"):
            intruder.execute(change, ["check_qualitx", row.seq])
        try:
            assert watcher.status(conn).changed == 0
            now[0] += RECHECK_INTERVAL
            watcher.status(conn)
            watcher.wait(300)
            assert watcher.status(conn).first_changed == (row.seq,)
        finally:
            with unguarded(intruder, "evidence_ledger"):
                intruder.execute(change, [row.dag_id, row.seq])
        now[0] += RECHECK_INTERVAL
        watcher.status(conn)
        watcher.wait(300)
        assert watcher.status(conn).changed == 0


def test_background_check_ends_incomplete_if_the_state_database_is_unreachable(
    state: Engine, pages_company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The background thread ends, so that the next request can start another check."""
    monkeypatch.setattr(ledger_watcher, "CHECKED_AT_ONCE", 4)
    unreachable = engine(f"{pages_company.conninfo} connect_timeout=2 port=1")
    keys = TrustedKeys([pages_company.signer.public_pem])
    watcher = LedgerWatcher(RowChecker(keys), unreachable.connect)
    with state.connect() as conn:
        assert watcher.status(conn).checked == 4
        watcher.wait(300)
        assert not watcher.status(conn).complete


@pytest.mark.airflow
@pytest.mark.parametrize("role", ["Auditor", "Compliance Officer"])
def test_evidence_ledger_row_is_reported_as_changed_if_its_workflow_id_was_changed(
    pages_server: PagesServer, role: str
) -> None:
    """Otherwise the page would show an older bundle as the newest evidence of the workflow."""
    row = pages_server.company.newest("check_quality")
    change = "UPDATE evidence_ledger SET dag_id = %s WHERE seq = %s"
    message = (
        "1 rows of the evidence ledger were changed after they were signed; "
        f"the first is number {row.seq}."
    )
    with psycopg.connect(pages_server.company.conninfo, autocommit=True) as state:
        for path in ("/", "/evidence"):
            assert "were changed after they were signed" not in pages_server.get(role, path).text
        with unguarded(state, "evidence_ledger"):
            state.execute(change, ["check_qualitx", row.seq])
        try:
            for path in ("/", "/evidence"):
                assert message in pages_server.get(role, path).text
            assert (
                "证据台账中有 1 条记录在签名之后被改动" in pages_server.get(role, "/", "zh-CN").text
            )
        finally:
            with unguarded(state, "evidence_ledger"):
                state.execute(change, [row.dag_id, row.seq])
        assert message not in pages_server.get(role, "/").text
