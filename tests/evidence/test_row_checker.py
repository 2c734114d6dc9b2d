"""The row checker detects rows that changed, even if their signatures are valid."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from include.evidence.ledger import RowChecker, RowCheckState
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.state.tables import evidence_ledger
from tests.evidence.support import Evidence


def row_checker(evidence: Evidence) -> RowChecker:
    return RowChecker(TrustedKeys([evidence.signer.public_pem]))


def check_all(checker: RowChecker, evidence: Evidence) -> RowCheckState:
    checker.start(evidence.conn)
    return checker.check_next(evidence.conn, 1000)


@pytest.mark.parametrize(
    "change",
    [
        "dag_id = 'drill_restorx'",
        "controls = '{}'",
        "outcome = 'pass', run_id = 'another'",
        "sealed_at = sealed_at - interval '1 year'",
        "row_signature = '\\x00'",
    ],
)
def test_row_checker_reports_changed_ledger_row(chain: Evidence, change: str) -> None:
    """The row is reported even if the checker read the original row before.

    A restored row is not reported.
    """
    checker = row_checker(chain)
    assert check_all(checker, chain) == RowCheckState(3, 3)
    query = evidence_ledger.select().where(evidence_ledger.c.seq == 2)
    before = dict(chain.conn.execute(query).mappings().one())
    chain.tamper(text(f"UPDATE evidence_ledger SET {change} WHERE seq = 2"))
    assert (
        check_all(checker, chain)
        == check_all(row_checker(chain), chain)
        == RowCheckState(3, 3, 1, (2,))
    )
    chain.tamper(text("DELETE FROM evidence_ledger WHERE seq = 2"))
    chain.execute(evidence_ledger.insert().values(before))
    assert check_all(checker, chain) == RowCheckState(3, 3)


def test_row_checker_reports_rows_that_no_trusted_key_signed(chain: Evidence) -> None:
    stranger = RowChecker(TrustedKeys([Signer.from_pem(generate_key()).public_pem]))
    assert check_all(stranger, chain) == RowCheckState(3, 3, 3, (1, 2, 3))


def test_second_call_of_row_checker_continues_after_last_row_that_first_call_checked(
    chain: Evidence,
) -> None:
    """Each call checks a few rows.

    Rows of earlier calls are compared by digest, not verified again.
    """
    checker = row_checker(chain)
    checker.start(chain.conn)
    assert checker.check_next(chain.conn, 2) == RowCheckState(3, 2)
    assert not checker.state.complete
    checker.start(chain.conn)
    assert checker.check_next(chain.conn, 2) == RowCheckState(3, 3)
    chain.seal(9)
    assert checker.start(chain.conn) == RowCheckState(4, 3)
    assert checker.check_next(chain.conn, 2) == RowCheckState(4, 4)


def test_row_checker_state_is_complete_if_ledger_is_empty(evidence: Evidence) -> None:
    assert check_all(row_checker(evidence), evidence) == RowCheckState()
    assert row_checker(evidence).state.complete


def test_row_checker_checks_remaining_rows_after_oldest_ledger_row_was_deleted(
    chain: Evidence,
) -> None:
    """Pruning deletes the oldest rows. The checker then reads the remaining rows again."""
    checker = row_checker(chain)
    check_all(checker, chain)
    chain.tamper(text("DELETE FROM evidence_ledger WHERE seq = 1"))
    assert check_all(checker, chain) == RowCheckState(2, 2)
