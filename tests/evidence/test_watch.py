"""Lines of the ledger that somebody changed are found, whatever they say of themselves now."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from include.evidence.ledger import LedgerWatch, Watched
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.state.tables import evidence_ledger
from tests.evidence.support import Evidence


def watch(evidence: Evidence) -> LedgerWatch:
    return LedgerWatch(TrustedKeys([evidence.signer.public_pem]))


def look(seen: LedgerWatch, evidence: Evidence) -> Watched:
    seen.begin(evidence.conn)
    return seen.go_on(evidence.conn, 1000)


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
def test_a_line_that_was_changed_is_found(chain: Evidence, change: str) -> None:
    """Also by a watch that had seen it as it was; and it is forgiven once it is as it was."""
    seen = watch(chain)
    assert look(seen, chain) == Watched(3, 3)
    query = evidence_ledger.select().where(evidence_ledger.c.seq == 2)
    before = dict(chain.conn.execute(query).mappings().one())
    chain.tamper(text(f"UPDATE evidence_ledger SET {change} WHERE seq = 2"))
    assert look(seen, chain) == look(watch(chain), chain) == Watched(3, 3, 1, (2,))
    chain.tamper(text("DELETE FROM evidence_ledger WHERE seq = 2"))
    chain.execute(evidence_ledger.insert().values(before))
    assert look(seen, chain) == Watched(3, 3)


def test_lines_of_a_key_that_nobody_trusts_are_none_of_ours(chain: Evidence) -> None:
    """However well they are signed."""
    stranger = LedgerWatch(TrustedKeys([Signer.from_pem(generate_key()).public_pem]))
    assert look(stranger, chain) == Watched(3, 3, 3, (1, 2, 3))


def test_it_goes_on_where_it_stopped(chain: Evidence) -> None:
    """A few lines at a time; what was seen already is compared, and not verified again."""
    seen = watch(chain)
    seen.begin(chain.conn)
    assert seen.go_on(chain.conn, 2) == Watched(3, 2)
    assert not seen.seen.complete
    seen.begin(chain.conn)
    assert seen.go_on(chain.conn, 2) == Watched(3, 3)
    chain.seal(9)
    assert seen.begin(chain.conn) == Watched(4, 3)
    assert seen.go_on(chain.conn, 2) == Watched(4, 4)


def test_an_empty_ledger_is_whole(evidence: Evidence) -> None:
    """Nothing was sealed yet."""
    assert look(watch(evidence), evidence) == Watched()
    assert watch(evidence).seen.complete


def test_lines_that_went_by_rule_are_no_change(chain: Evidence) -> None:
    """Pruning removes the oldest; what is left is looked at anew, and holds."""
    seen = watch(chain)
    look(seen, chain)
    chain.tamper(text("DELETE FROM evidence_ledger WHERE seq = 1"))
    assert look(seen, chain) == Watched(2, 2)
