"""The history index agrees with the bundles after seals, recoveries and its own completion."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import IntegrityError

from include.evidence import control_index
from include.evidence.control_index import controls_in, fill_index
from include.evidence.folder import RESULT
from include.evidence.ledger_recovery import recover_ledger
from include.evidence.signing import TrustedKeys
from include.state.tables import evidence_control, evidence_ledger
from tests.evidence.support import CLOCK, Evidence
from tests.support.damage import flip
from tests.support.registers import unguarded


def keys_of(evidence: Evidence) -> TrustedKeys:
    return TrustedKeys([evidence.signer.public_pem])


def forget_index(evidence: Evidence, *seqs: int) -> None:
    """Delete rows of the history index, as the owner of the table can."""
    with unguarded(evidence.conn, "evidence_control"):
        evidence.conn.execute(delete(evidence_control).where(evidence_control.c.seq.in_(seqs)))
    evidence.conn.commit()


def indexed(evidence: Evidence) -> dict[int, frozenset[control_index.IndexedControl]]:
    rows = control_index.index_rows(evidence.conn)
    evidence.conn.rollback()
    return rows


def sealed(evidence: Evidence) -> dict[int, frozenset[control_index.IndexedControl]]:
    rows = evidence.conn.execute(select(evidence_ledger.c.seq, evidence_ledger.c.bundle)).all()
    evidence.conn.rollback()
    return {
        row.seq: frozenset(controls_in((evidence.root / row.bundle / RESULT).read_bytes()))
        for row in rows
    }


def test_seal_indexes_the_controls_of_its_bundle(chain: Evidence) -> None:
    chain.seal(11)
    assert indexed(chain) == sealed(chain)
    assert {control.control for control in indexed(chain)[4]} == {"BK-1", "BK-2"}


def test_first_seal_that_names_a_control_records_since_when_it_is_known(chain: Evidence) -> None:
    chain.seal(11, pack_controls=["BK-1", "NEW"])
    first = control_index.known_since(chain.conn)
    chain.seal(12, pack_controls=["NEW", "LATER"])
    later = control_index.known_since(chain.conn)
    assert first == {"BK-1": CLOCK.now(), "NEW": CLOCK.now()}
    assert later == first | {"LATER": CLOCK.now()}


def test_recovered_ledger_rows_are_indexed_again(chain: Evidence) -> None:
    forget_index(chain, 2, 3)
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq > 1))
    recover_ledger(chain.store, chain.conn, chain.signer, keys_of(chain), CLOCK)
    assert indexed(chain) == sealed(chain)
    assert len(indexed(chain)) == 3


def test_next_seal_indexes_lost_rows_that_it_recovers(chain: Evidence) -> None:
    forget_index(chain, 3)
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq == 3))
    chain.seal(11)
    assert indexed(chain) == sealed(chain)
    assert len(indexed(chain)) == 4


def test_fill_index_adds_newest_bundles_first_and_continues_at_the_next_call(
    chain: Evidence,
) -> None:
    forget_index(chain, 1, 2, 3)
    counts = []
    for _call in range(4):
        counts.append(fill_index(chain.store, chain.conn, keys_of(chain), most=1))
        if len(counts) == 1:
            assert set(indexed(chain)) == {3}
    assert counts == [1, 1, 1, 0]
    assert indexed(chain) == sealed(chain)


@pytest.mark.parametrize("name", [RESULT, "SHA256SUMS", "SHA256SUMS.sig"])
def test_fill_index_skips_a_changed_bundle_and_adds_the_others(chain: Evidence, name: str) -> None:
    forget_index(chain, 1, 2, 3)
    bundle = chain.conn.scalar(select(evidence_ledger.c.bundle).where(evidence_ledger.c.seq == 3))
    flip(chain.root / str(bundle) / name)
    assert fill_index(chain.store, chain.conn, keys_of(chain)) == 2
    assert set(indexed(chain)) == {1, 2}
    assert control_index.missing_count(chain.conn, 0) == 1


def test_fill_index_skips_a_bundle_with_a_changed_ledger_row(chain: Evidence) -> None:
    forget_index(chain, 3)
    chain.tamper(text("UPDATE evidence_ledger SET outcome = 'pass' WHERE seq = 3"))
    assert fill_index(chain.store, chain.conn, keys_of(chain)) == 0


@pytest.mark.parametrize(
    "statement",
    [
        update(evidence_control).values(state="not_held"),
        delete(evidence_control),
        text("TRUNCATE evidence_control"),
        text("DELETE FROM policy_control"),
        text("UPDATE policy_control SET known_since = now()"),
    ],
    ids=str,
)
def test_rows_of_the_index_cannot_be_changed(chain: Evidence, statement: object) -> None:
    chain.seal(11, pack_controls=["BK-1"])
    with pytest.raises(IntegrityError, match="register that stays"):
        chain.execute(statement)
    chain.conn.rollback()


@pytest.mark.parametrize(
    "column", [{"state": "not_held"}, {"value": 7}, {"clause": "1.1"}, {"value": None}]
)
def test_verify_reports_an_index_row_that_differs_from_the_bundle(
    chain: Evidence, column: dict[str, object]
) -> None:
    with unguarded(chain.conn, "evidence_control"):
        changed = (evidence_control.c.seq == 2) & (evidence_control.c.control == "BK-1")
        chain.conn.execute(update(evidence_control).where(changed).values(column))
    chain.conn.commit()
    verification = chain.verify()
    row = chain.conn.execute(select(evidence_ledger.c.bundle).where(evidence_ledger.c.seq == 2))
    assert verification.first_bad == row.scalar_one()
    assert "history of controls" in (verification.reason or "")


def test_verify_reports_a_missing_index_row_of_one_control(chain: Evidence) -> None:
    with unguarded(chain.conn, "evidence_control"):
        lost = (evidence_control.c.seq == 2) & (evidence_control.c.control == "BK-1")
        chain.conn.execute(delete(evidence_control).where(lost))
    chain.conn.commit()
    assert not chain.verify().verified


def test_verify_passes_with_a_remark_if_the_index_lacks_bundles(chain: Evidence) -> None:
    assert chain.verify().remarks == []
    forget_index(chain, 1, 2)
    verification = chain.verify()
    assert verification.verified
    (remark,) = verification.remarks
    assert remark.values == {"count": 2}


def test_verify_reports_changed_evidence_before_a_differing_index(chain: Evidence) -> None:
    """The index depends on the evidence, so the reader must learn of the evidence first."""
    with unguarded(chain.conn, "evidence_control"):
        chain.conn.execute(update(evidence_control).values(value=9))
    chain.conn.commit()
    newest = chain.conn.scalar(select(evidence_ledger.c.bundle).where(evidence_ledger.c.seq == 3))
    flip(chain.root / str(newest) / RESULT)
    verification = chain.verify()
    assert verification.first_bad == newest
    assert "history of controls" not in (verification.reason or "")
