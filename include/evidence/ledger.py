"""The evidence ledger: one signed row per bundle, in the order in which the bundles were sealed.

Pages select rows by their content, such as the outcome. If someone changed a row, a page might not
select it, or might show an older row as the newest one. To detect this, `RowChecker` verifies the
signatures of all rows, not only of the rows on a page.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import ARRAY, Connection, Text, any_, literal, select, text

from include.evidence.folder import Link
from include.evidence.signing import Signer, TrustedKeys
from include.services.errors import ControlFailed
from include.state.tables import evidence_ledger


@dataclass(frozen=True)
class LedgerRow:
    """A row of the evidence ledger, which describes one sealed bundle.

    Attributes:
        seq: sequence number in the ledger, from 1, without gaps.
        bundle: folder of the bundle, relative to the evidence store.
        dag_id: DAG id of the workflow.
        run_id: Airflow id of the run.
        outcome: outcome of the run; a value of `Outcome`.
        controls: ids of the controls that the run is evidence for.
        started_at: when the run started.
        sealed_at: when the bundle was sealed.
        sums_sha256: SHA-256 digest of the bundle's SHA256SUMS, in hex.
        previous_sums_sha256: SHA-256 digest of the previous bundle's SHA256SUMS, in hex; empty in
            the first row.
        key_fingerprint: fingerprint of the key that signed SHA256SUMS.
        row_signature: Ed25519 signature over all other columns.
    """

    seq: int
    bundle: str
    dag_id: str
    run_id: str
    outcome: str
    controls: list[str]
    started_at: datetime
    sealed_at: datetime
    sums_sha256: str
    previous_sums_sha256: str
    key_fingerprint: str
    row_signature: bytes = b""

    @classmethod
    def of(cls, columns: Mapping[Any, Any]) -> Self:
        """Return the ledger row that a row of a query result contains.

        Args:
            columns: column name -> value.
        """
        return cls(**{**columns, "row_signature": bytes(columns["row_signature"])})

    @property
    def link(self) -> Link:
        """Return the link that the next bundle must have to this bundle."""
        return Link(self.bundle, self.sums_sha256)

    def signed_content(self) -> bytes:
        """Return the bytes that ``row_signature`` is calculated from: all other columns."""
        columns = {name: getattr(self, name) for name in _SIGNED}  # asdict takes ten times as long
        return canonical("evidence_ledger", columns)

    def is_authentic(self, keys: TrustedKeys) -> bool:
        """Return whether a trusted key signed the present content of this row."""
        return keys.signer_of(self.row_signature, self.signed_content()) is not None


MOST_CHANGED = 10_000  # rows that a seal reads in search of an authentic one, those of about a year

_SIGNED = tuple(field.name for field in fields(LedgerRow) if field.name != "row_signature")


def canonical(record: str, columns: Mapping[str, Any]) -> bytes:
    """Return the bytes over which a database record is signed.

    The bytes are JSON with sorted keys and with times in UTC. They begin with the record type, so a
    signature of one record type is not valid for another type.

    Args:
        record: the record type, such as ``evidence_ledger``.
        columns: value of each signed column, by column name.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        return value

    content = {name: plain(value) for name, value in columns.items()}
    text = json.dumps([record, content], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")


def append(conn: Connection, signer: Signer, row: LedgerRow) -> LedgerRow:
    """Sign a ledger row and insert it into the state database; return the signed row.

    The caller must hold the lock `StateLock.EVIDENCE`.
    """
    columns = asdict(row) | {"row_signature": signer.sign(row.signed_content())}
    conn.execute(evidence_ledger.insert().values(columns))
    return LedgerRow(**columns)


def rows(conn: Connection) -> list[LedgerRow]:
    """Return all rows of the ledger, ordered by sequence number."""
    return _rows(conn, select(evidence_ledger).order_by(evidence_ledger.c.seq))


def head(conn: Connection) -> LedgerRow | None:
    """Return the last row of the ledger; None if the ledger is empty."""
    return _first(conn, select(evidence_ledger).order_by(evidence_ledger.c.seq.desc()).limit(1))


def trusted_head(conn: Connection, keys: TrustedKeys) -> LedgerRow | None:
    """Return the last row of the ledger, to which the next bundle will link.

    The returned row may name a key that is no longer trusted, for example a stolen key that was
    replaced. The next bundle then still links to the row, and its seal reports the finding
    `evidence.register_untrusted`.

    Returns:
        The row, or None if the ledger is empty.

    Raises:
        ControlFailed: the last row was changed: it names a trusted key, but its signature is not
            valid. In this case no bundle may be sealed, because a bundle that links to a changed
            row would make the chain of bundles invalid forever.
    """
    last = head(conn)
    if last is None or last.is_authentic(keys) or last.key_fingerprint not in keys.fingerprints:
        return last
    raise changed_row_error(last)


def changed_row_error(last: LedgerRow) -> ControlFailed:
    """Return the error with which a seal is refused if the ledger's last row was changed.

    Args:
        last: the changed row.
    """
    return ControlFailed(
        f"The last row of the evidence ledger, number {last.seq}, was changed: its signature "
        "is not valid. No further bundle can be sealed.",
        "Run `./parcelseal verify` and find out who changed the row. Then restore the "
        "original values of the row. Or delete the row as the owner of the table, and run "
        "`./parcelseal recover-ledger`, which enters the bundle of the row again. Afterwards "
        "the interrupted run can be sealed.",
    )


def newest(conn: Connection, limit: int) -> list[LedgerRow]:
    """Return the newest rows of the ledger, at most `limit`, newest first."""
    return _rows(conn, select(evidence_ledger).order_by(evidence_ledger.c.seq.desc()).limit(limit))


def newest_authentic(conn: Connection, keys: TrustedKeys) -> LedgerRow | None:
    """Return the newest row whose present content a trusted key signed.

    Return None if none of the newest 10,000 rows is authentic. Older rows are not read.
    """
    last = head(conn)
    if last is None or last.is_authentic(keys):
        return last
    return next((row for row in newest(conn, MOST_CHANGED) if row.is_authentic(keys)), None)


def rows_of_bundles(conn: Connection, bundles: Collection[str]) -> list[LedgerRow]:
    """Return the ledger rows of bundles, ordered by sequence number.

    Args:
        conn: connection to the state database.
        bundles: folders of the bundles, relative to the evidence store.
    """
    # One array: a statement has at most 65,535 parameters.
    names = literal(list(bundles), ARRAY(Text))
    query = select(evidence_ledger).where(evidence_ledger.c.bundle == any_(names))
    return _rows(conn, query.order_by(evidence_ledger.c.seq))


def seqs_by_digest(conn: Connection) -> dict[str, int]:
    """Return the sequence number of each ledger row, by the SHA256SUMS digest of its bundle.

    The signatures of the rows are not checked.
    """
    columns = evidence_ledger.c
    pairs = conn.execute(select(columns.sums_sha256, columns.seq))
    return {pair.sums_sha256: pair.seq for pair in pairs}


def find(conn: Connection, dag_id: str, run_id: str) -> LedgerRow | None:
    """Return the ledger row of a run; None if the run was not sealed."""
    ledger = evidence_ledger.c
    query = select(evidence_ledger).where(ledger.dag_id == dag_id, ledger.run_id == run_id)
    return _first(conn, query)


def interim_rows(conn: Connection, start: str, run_id: str) -> list[LedgerRow]:
    """Return the ledger rows of a run's interim bundles, ordered by sequence number.

    Args:
        conn: connection to the state database.
        start: common prefix of the workflow names that the ledger has for the interim bundles.
        run_id: Airflow id of the run.
    """
    ledger = evidence_ledger.c
    query = select(evidence_ledger).where(
        ledger.dag_id.startswith(start, autoescape=True), ledger.run_id == run_id
    )
    return _rows(conn, query.order_by(ledger.seq))


def find_bundle(conn: Connection, bundle: str) -> LedgerRow | None:
    """Return the ledger row of a bundle; None if the ledger has no such row.

    Args:
        conn: connection to the state database.
        bundle: folder of the bundle, relative to the evidence store.
    """
    return _first(conn, select(evidence_ledger).where(evidence_ledger.c.bundle == bundle))


def row_at(conn: Connection, seq: int) -> LedgerRow | None:
    """Return the ledger row with a sequence number; None if the ledger has no such row."""
    return _first(conn, select(evidence_ledger).where(evidence_ledger.c.seq == seq))


def _rows(conn: Connection, query: Any) -> list[LedgerRow]:
    return [LedgerRow.of(row) for row in conn.execute(query).mappings()]


def _first(conn: Connection, query: Any) -> LedgerRow | None:
    return next(iter(_rows(conn, query)), None)


FIRST_NAMED = 20  # maximum length of RowCheckState.first_changed

# PostgreSQL computes a digest of each row. Rows that were checked before are compared with their
# earlier digests in one statement, and their signatures are not verified again.
_DIGEST = "sha256(convert_to(l::text, 'UTF8'))"
_NEXT = text(f"""
SELECT l.*, {_DIGEST} AS digest FROM evidence_ledger AS l
WHERE l.seq > :seq ORDER BY l.seq LIMIT :most
""")  # noqa: S608 - only text of this module
_KNOWN = text(f"""
SELECT sha256(string_agg({_DIGEST}, ''::bytea ORDER BY l.seq)) FROM evidence_ledger AS l
WHERE l.seq <= :seq
""")  # noqa: S608
_COUNT = text("SELECT count(*) FROM evidence_ledger")


@dataclass(frozen=True)
class RowCheckState:
    """The progress and result of a check of the ledger's row signatures.

    Attributes:
        rows: number of rows in the ledger.
        checked: number of rows whose signatures were checked, counted from the first row.
        changed: number of checked rows that have no valid signature of a trusted key.
        first_changed: sequence numbers of the first 20 rows that `changed` counts.
    """

    rows: int = 0
    checked: int = 0
    changed: int = 0
    first_changed: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """Return whether every row was checked."""
        return self.checked >= self.rows


class RowChecker:
    """Checks the row signatures of the ledger in portions. The instance keeps the progress.

    Only one thread at a time may use an instance.

    Args:
        keys: public keys whose signatures are accepted.
    """

    def __init__(self, keys: TrustedKeys) -> None:
        self._keys = keys
        self.state = RowCheckState()
        self._forget()

    def _forget(self) -> None:
        self._seq, self._checked, self._changed = 0, 0, 0
        self._first: list[int] = []
        self._digest = hashlib.sha256()

    def start(self, conn: Connection) -> RowCheckState:
        """Begin or continue the check, and return its progress. This call checks no row signatures.

        The check begins again at the first row if an already checked row has changed since its
        check.

        Args:
            conn: connection to the state database.
        """
        digest = conn.execute(_KNOWN, {"seq": self._seq}).scalar_one()
        if self._seq and (digest is None or bytes(digest) != self._digest.digest()):
            self._forget()
        return self._counted(conn)

    def check_next(self, conn: Connection, most: int) -> RowCheckState:
        """Check the next rows that were not checked yet, and return the new progress.

        Args:
            conn: connection to the state database.
            most: maximum number of rows to check.
        """
        for row_columns in conn.execute(_NEXT, {"seq": self._seq, "most": most}).mappings():
            columns = dict(row_columns)
            self._digest.update(bytes(columns.pop("digest")))
            row = LedgerRow.of(columns)
            self._seq, self._checked = row.seq, self._checked + 1
            if not row.is_authentic(self._keys):
                self._changed += 1
                if len(self._first) < FIRST_NAMED:
                    self._first.append(row.seq)
        return self._counted(conn)

    def _counted(self, conn: Connection) -> RowCheckState:
        rows = int(conn.execute(_COUNT).scalar_one())
        self.state = RowCheckState(rows, self._checked, self._changed, tuple(self._first))
        return self.state
