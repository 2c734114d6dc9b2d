"""Changed lines of the ledger are found while people read, without letting them wait for it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine

from include.evidence.ledger import LedgerWatch, Watched
from include.evidence.signing import TrustedKeys
from include.state.connect import engine
from plugins.compliance_ui import watching
from plugins.compliance_ui.watching import AGAIN, Watcher
from tests.plugins.company import Company
from tests.plugins.shown import Shown
from tests.support.registers import unguarded


@pytest.fixture
def state(made: Company) -> Iterator[Engine]:
    found = engine(made.conninfo)
    yield found
    found.dispose()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def watcher(
    made: Company, state: Engine, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> Watcher:
    """For which the company's ledger is a long one."""
    monkeypatch.setattr(watching, "AT_ONCE", 4)
    monkeypatch.setattr(watching, "PIECE", 3)
    keys = TrustedKeys([made.signer.public_pem])
    return Watcher(LedgerWatch(keys), state.connect, lambda: now[0])


def test_a_long_ledger_is_looked_at_beside_the_visitor(
    watcher: Watcher, state: Engine, made: Company
) -> None:
    """The first one is told how far it is; whoever comes a moment later, the whole."""
    lines = len(made.rows())
    with state.connect() as conn:
        assert watcher.look(conn) == Watched(lines, 4)
        watcher.wait(300)
        assert watcher.look(conn) == Watched(lines, lines)


def test_it_is_looked_at_again_after_a_minute(
    watcher: Watcher, state: Engine, made: Company, now: list[float]
) -> None:
    """Not for each visitor: all lines are read for it."""
    row = made.newest("check_quality")
    change = "UPDATE evidence_ledger SET dag_id = %s WHERE seq = %s"
    with state.connect() as conn, psycopg.connect(made.conninfo, autocommit=True) as intruder:
        watcher.look(conn)
        watcher.wait(300)
        with unguarded(intruder, "evidence_ledger"):
            intruder.execute(change, ["check_qualitx", row.seq])
        try:
            assert watcher.look(conn).changed == 0
            now[0] += AGAIN
            watcher.look(conn)
            watcher.wait(300)
            assert watcher.look(conn).first == (row.seq,)
        finally:
            with unguarded(intruder, "evidence_ledger"):
                intruder.execute(change, [row.dag_id, row.seq])
        now[0] += AGAIN
        watcher.look(conn)
        watcher.wait(300)
        assert watcher.look(conn).changed == 0


def test_a_database_that_goes_away_meanwhile_ends_no_server(
    state: Engine, made: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round ends, and the next visitor begins another."""
    monkeypatch.setattr(watching, "AT_ONCE", 4)
    gone = engine(f"{made.conninfo} connect_timeout=2 port=1")
    keys = TrustedKeys([made.signer.public_pem])
    watcher = Watcher(LedgerWatch(keys), gone.connect)
    with state.connect() as conn:
        assert watcher.look(conn).looked_at == 4
        watcher.wait(300)
        assert not watcher.look(conn).complete


@pytest.mark.airflow
@pytest.mark.parametrize("role", ["Auditor", "Compliance Officer"])
def test_a_line_that_was_moved_to_another_workflow_is_missed_by_nobody(
    shown: Shown, role: str
) -> None:
    """Its workflow would else stand by an older bundle, green as that was."""
    row = shown.company.newest("check_quality")
    change = "UPDATE evidence_ledger SET dag_id = %s WHERE seq = %s"
    said = (
        f"1 lines of the ledger were changed after they were signed; the first is number {row.seq}."
    )
    with psycopg.connect(shown.company.conninfo, autocommit=True) as state:
        for path in ("/", "/evidence"):
            assert "were changed after they were signed" not in shown.get(role, path).text
        with unguarded(state, "evidence_ledger"):
            state.execute(change, ["check_qualitx", row.seq])
        try:
            for path in ("/", "/evidence"):
                assert said in shown.get(role, path).text
            assert "台账中有 1 行在签名之后被改动" in shown.get(role, "/", "zh-CN").text
        finally:
            with unguarded(state, "evidence_ledger"):
                state.execute(change, [row.dag_id, row.seq])
        assert said not in shown.get(role, "/").text
