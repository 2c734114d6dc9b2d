"""The history index: the result of each control in each bundle, in the state database.

The pages draw the history of controls from this index, because reading thousands of bundles for
each page would take too long. The index is not evidence. A seal adds the rows of its bundle in the
transaction that adds the ledger row, and so does a recovery of lost ledger rows. `verify` compares
the index with the bundles.

A bundle may lack rows if it was sealed before the index existed. `fill_index` adds them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import insert

from include.evidence.check import EvidenceRefused, check_signature, finished_at_of, read_result
from include.evidence.checkpoint import pruned_up_to
from include.evidence.folder import StoreFolder
from include.evidence.ledger import LedgerRow
from include.evidence.signing import TrustedKeys
from include.services.objectstore.base import ObjectStore
from include.state.connect import StateLock, lock_for_transaction
from include.state.tables import evidence_control, policy_control

FILLED_PER_SEAL = 50  # bundles that a seal adds to the index
_CANDIDATES = 200  # bundles without rows that a call reads at most
_COLUMNS = ("control", "clause", "state", "value", "finished_at")


@dataclass(frozen=True)
class IndexedControl:
    """A row of the history index: the result of a control in a bundle.

    Attributes:
        control: id of the control.
        clause: number of the policy clause of the control, as sealed.
        state: a value of `include.evidence.model.ControlState`, as sealed.
        value: the measured value, as sealed; None if it was not measured.
        finished_at: when the checks of the run ended, as sealed.
    """

    control: str
    clause: str
    state: str
    value: float | None
    finished_at: datetime


def controls_in(result_json: bytes) -> list[IndexedControl]:
    """Return the rows of the history index for a bundle.

    Args:
        result_json: content of the bundle's result.json.

    Raises:
        ValueError: the content does not have the format of a result.json.
    """
    finished_at = finished_at_of(result_json)
    try:
        return [
            IndexedControl(
                control["id"],
                control["clause"],
                control["state"],
                None if control["value"] is None else float(control["value"]),
                finished_at,
            )
            for control in json.loads(result_json)["controls"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError("result.json lacks what every result has") from error


def enter_controls(conn: Connection, seq: int, controls: Iterable[IndexedControl]) -> None:
    """Add the rows of a bundle to the history index. Rows that exist already are kept.

    The caller must hold the lock `StateLock.EVIDENCE`, so that rows become visible in the order of
    their ids.

    Args:
        conn: connection to the state database, with an open transaction.
        seq: sequence number of the bundle in the ledger.
        controls: the results of the controls in the bundle.
    """
    rows = [{"seq": seq, **vars(control)} for control in controls]
    if rows:
        conn.execute(insert(evidence_control).values(rows).on_conflict_do_nothing())


def enter_known_controls(conn: Connection, controls: Collection[str], now: datetime) -> None:
    """Record the time of the first seal of each control that has none yet.

    Args:
        conn: connection to the state database, with an open transaction.
        controls: ids of all controls of the policy pack.
        now: the current time.
    """
    if not controls:
        return
    recorded = set(conn.scalars(select(policy_control.c.control)))
    rows = [{"control": name, "known_since": now} for name in sorted({*controls} - recorded)]
    if rows:
        conn.execute(insert(policy_control).values(rows).on_conflict_do_nothing())


def known_since(conn: Connection) -> dict[str, datetime]:
    """Return, for each control, the time of the first seal whose policy pack had it."""
    rows = conn.execute(select(policy_control.c.control, policy_control.c.known_since))
    return {row.control: row.known_since for row in rows}


def sealed_clauses(conn: Connection) -> dict[str, frozenset[str]]:
    """Return the clauses of each control, as they were sealed.

    The result also names controls that the policy pack no longer has, and clauses to which a
    control no longer belongs.
    """
    clauses: dict[str, set[str]] = {}
    pairs = select(evidence_control.c.control, evidence_control.c.clause).distinct()
    for control, clause in conn.execute(pairs):
        clauses.setdefault(control, set()).add(clause)
    return {control: frozenset(names) for control, names in clauses.items()}


def index_rows(conn: Connection) -> dict[int, frozenset[IndexedControl]]:
    """Return all rows of the history index, by the sequence number of the bundle."""
    columns = [evidence_control.c.seq, *(evidence_control.c[name] for name in _COLUMNS)]
    bundles: dict[int, set[IndexedControl]] = {}
    for seq, *values in conn.execute(select(*columns)):
        bundles.setdefault(seq, set()).add(IndexedControl(*values))
    return {seq: frozenset(controls) for seq, controls in bundles.items()}


_MISSING = """
SELECT l.* FROM evidence_ledger AS l
WHERE l.seq > :pruned AND cardinality(l.controls) > 0
AND NOT EXISTS (SELECT FROM evidence_control AS c WHERE c.seq = l.seq)
"""


def missing_count(conn: Connection, pruned: int) -> int:
    """Return how many bundles are evidence for controls, but have no row in the history index.

    Args:
        conn: connection to the state database.
        pruned: sequence number of the last pruned bundle. Bundles up to it do not count, because
            their files cannot be read.
    """
    query = text(f"SELECT count(*) FROM ({_MISSING}) AS missing")  # noqa: S608 - text of this module
    return int(conn.execute(query, {"pruned": pruned}).scalar_one())


def fill_index(
    store: ObjectStore, conn: Connection, keys: TrustedKeys, most: int = FILLED_PER_SEAL
) -> int:
    """Add rows to the history index for bundles that have none, the newest bundles first.

    The rows are read from the bundles. A bundle is skipped if its ledger row, its signature or its
    result.json is not valid. The call is bounded: it examines at most 200 bundles without rows. It
    can be repeated after a kill.

    Args:
        store: the evidence store.
        conn: connection to the state database. Its open transaction is committed.
        keys: public keys whose seals are accepted.
        most: maximum number of bundles that are added.

    Returns:
        The number of bundles that were added.

    Raises:
        StoreError: the store cannot be read.
    """
    query = text(f"{_MISSING} ORDER BY l.seq DESC LIMIT :most")
    parameters: Mapping[str, Any] = {"pruned": pruned_up_to(conn, keys), "most": _CANDIDATES}
    rows = [LedgerRow.of(columns) for columns in conn.execute(query, parameters).mappings()]
    conn.commit()
    added: list[tuple[int, Sequence[IndexedControl]]] = []
    for row in rows:
        if len(added) == most:
            break
        if (controls := _read_controls(store, row, keys)) is not None:
            added.append((row.seq, controls))
    if added:
        with conn.begin():
            lock_for_transaction(conn, StateLock.EVIDENCE)
            for seq, indexed in added:
                enter_controls(conn, seq, indexed)
    return len(added)


def _read_controls(
    store: ObjectStore, row: LedgerRow, keys: TrustedKeys
) -> list[IndexedControl] | None:
    """Return the rows of a bundle for the index; None if the bundle is not valid."""
    if not row.is_authentic(keys):
        return None
    folder = StoreFolder(store, row.bundle)
    try:
        signed = check_signature(folder, keys)
        if signed.sha256 != row.sums_sha256:
            return None
        return controls_in(read_result(folder, signed))
    except (EvidenceRefused, ValueError):
        return None


def find(conn: Connection, control: str, seq: int) -> IndexedControl | None:
    """Return the row of a control and a bundle; None if the index has none.

    Args:
        conn: connection to the state database.
        control: id of the control.
        seq: sequence number of the bundle in the ledger.
    """
    row = evidence_control.c
    query = select(*(row[name] for name in _COLUMNS)).where(row.control == control, row.seq == seq)
    values = conn.execute(query).one_or_none()
    return IndexedControl(*values) if values else None
