"""The evidence ledger: a signed row per bundle, in the order of the chain.

The signature of every row is verified, since a page selects rows by their content: it would miss a
changed row, or show an older row as the newest.
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
    """A bundle of the chain.

    Attributes:
        seq: place in the chain, from 1, without gaps.
        bundle: folder, relative to the store.
        controls: ids of the controls that the run is evidence for.
        sums_sha256: digest of the bundle's SHA256SUMS.
        previous_sums_sha256: that of the bundle before; empty in the first row.
        key_fingerprint: the key that signed SHA256SUMS.
        row_signature: Ed25519 over all other columns.
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
        """Return the row that the database has."""
        return cls(**{**columns, "row_signature": bytes(columns["row_signature"])})

    @property
    def link(self) -> Link:
        """Return the link of the next bundle to this bundle."""
        return Link(self.bundle, self.sums_sha256)

    def signed_content(self) -> bytes:
        """Return what ``row_signature`` covers: every other column."""
        columns = {name: getattr(self, name) for name in _SIGNED}  # asdict takes ten times as long
        return canonical("evidence_ledger", columns)

    def is_authentic(self, keys: TrustedKeys) -> bool:
        """Return whether a trusted key signed this row as it is."""
        return keys.who_signed(self.row_signature, self.signed_content()) is not None


MOST_CHANGED = 10_000  # rows that a seal reads in search of an authentic one, those of about a year

_SIGNED = tuple(each.name for each in fields(LedgerRow) if each.name != "row_signature")


def canonical(record: str, columns: Mapping[str, Any]) -> bytes:
    """Return the canonical bytes of a record that is signed: sorted JSON, moments in UTC.

    The record's name keeps a signature from being passed off as that of another kind of record.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        return value

    content = {name: plain(value) for name, value in columns.items()}
    text = json.dumps([record, content], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")


def append(conn: Connection, signer: Signer, row: LedgerRow) -> LedgerRow:
    """Sign and insert a row; the caller holds the evidence lock."""
    columns = asdict(row) | {"row_signature": signer.sign(row.signed_content())}
    conn.execute(evidence_ledger.insert().values(columns))
    return LedgerRow(**columns)


def rows(conn: Connection) -> list[LedgerRow]:
    """Return the whole ledger in order."""
    return _rows(conn, select(evidence_ledger).order_by(evidence_ledger.c.seq))


def head(conn: Connection) -> LedgerRow | None:
    """Return the last row, None when nothing was sealed yet."""
    return _first(conn, select(evidence_ledger).order_by(evidence_ledger.c.seq.desc()).limit(1))


def trusted_head(conn: Connection, keys: TrustedKeys) -> LedgerRow | None:
    """Return the last row, which the next bundle follows; None when nothing was sealed yet.

    After an exchange of a stolen key, the rows that it signed are of a key that is not trusted.
    Seals go on after them, with a finding (`evidence.register_untrusted`).

    Raises:
        ControlFailed: the row names a trusted key and its signature does not fit: it was changed. A
            bundle that followed it could not be repaired.
    """
    last = head(conn)
    if last is None or last.is_authentic(keys) or last.key_fingerprint not in keys.fingerprints:
        return last
    raise changed(last)


def changed(last: LedgerRow) -> ControlFailed:
    """Return the error of a seal that would follow a changed row."""
    return ControlFailed(
        f"The last row of the evidence ledger, number {last.seq}, was changed: its signature does "
        "not fit. No bundle can follow it.",
        "Run `./parcelseal verify` and find out who changed the row. Put it back as it was. Or "
        "delete it as the owner of its table, and run `./parcelseal recover-ledger`, which enters "
        "its bundle again. Nothing is lost: the run can be sealed afterwards.",
    )


def newest(conn: Connection, limit: int) -> list[LedgerRow]:
    """Return the last rows, newest first."""
    return _rows(conn, select(evidence_ledger).order_by(evidence_ledger.c.seq.desc()).limit(limit))


def newest_authentic(conn: Connection, keys: TrustedKeys) -> LedgerRow | None:
    """Return the newest row that a trusted key signed as it is.

    Reads the last MOST_CHANGED rows; returns None when none of them is authentic.
    """
    last = head(conn)
    if last is None or last.is_authentic(keys):
        return last
    return next((row for row in newest(conn, MOST_CHANGED) if row.is_authentic(keys)), None)


def of_bundles(conn: Connection, bundles: Collection[str]) -> list[LedgerRow]:
    """Return the rows of some bundles, in the chain's order."""
    # One array: a statement has at most 65,535 parameters.
    names = literal(list(bundles), ARRAY(Text))
    query = select(evidence_ledger).where(evidence_ledger.c.bundle == any_(names))
    return _rows(conn, query.order_by(evidence_ledger.c.seq))


def places(conn: Connection) -> dict[str, int]:
    """Return the place in the chain of each SHA256SUMS digest; no signature is checked."""
    columns = evidence_ledger.c
    pairs = conn.execute(select(columns.sums_sha256, columns.seq))
    return {pair.sums_sha256: pair.seq for pair in pairs}


def find(conn: Connection, dag_id: str, run_id: str) -> LedgerRow | None:
    """Return the row of a run, None when it was not sealed."""
    ledger = evidence_ledger.c
    query = select(evidence_ledger).where(ledger.dag_id == dag_id, ledger.run_id == run_id)
    return _first(conn, query)


def begun_with(conn: Connection, start: str, run_id: str) -> list[LedgerRow]:
    """Return the rows of a run under workflow names with a prefix: its interim bundles."""
    ledger = evidence_ledger.c
    query = select(evidence_ledger).where(
        ledger.dag_id.startswith(start, autoescape=True), ledger.run_id == run_id
    )
    return _rows(conn, query.order_by(ledger.seq))


def find_bundle(conn: Connection, bundle: str) -> LedgerRow | None:
    """Return the row of a bundle's folder, None when the ledger does not have it."""
    return _first(conn, select(evidence_ledger).where(evidence_ledger.c.bundle == bundle))


def at(conn: Connection, seq: int) -> LedgerRow | None:
    """Return the row at one place of the chain."""
    return _first(conn, select(evidence_ledger).where(evidence_ledger.c.seq == seq))


def _rows(conn: Connection, query: Any) -> list[LedgerRow]:
    return [LedgerRow.of(row) for row in conn.execute(query).mappings()]


def _first(conn: Connection, query: Any) -> LedgerRow | None:
    return next(iter(_rows(conn, query)), None)


FIRST_NAMED = 20  # numbers of changed lines that are kept

# PostgreSQL digests each line as it stands, so that lines which were verified once need only be
# compared, all of them in one statement.
_LINE = "sha256(convert_to(l::text, 'UTF8'))"
_NEXT = text(f"""
SELECT l.*, {_LINE} AS line FROM evidence_ledger AS l WHERE l.seq > :seq ORDER BY l.seq LIMIT :most
""")  # noqa: S608 - only text of this module
_KNOWN = text(f"""
SELECT sha256(string_agg({_LINE}, ''::bytea ORDER BY l.seq)) FROM evidence_ledger AS l
WHERE l.seq <= :seq
""")  # noqa: S608
_LINES = text("SELECT count(*) FROM evidence_ledger")


@dataclass(frozen=True)
class Watched:
    """The results of checks of the ledger's rows.

    Attributes:
        lines: how many there are.
        looked_at: how many of them were checked with the keys, from the first line on.
        changed: how many of these no trusted key signed as they are.
        first: numbers of the first of them.
    """

    lines: int = 0
    looked_at: int = 0
    changed: int = 0
    first: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """Return whether every row was checked."""
        return self.looked_at >= self.lines


class LedgerWatch:
    """Checks the ledger line by line, and remembers the result. Not for several threads at once.

    Args:
        keys: whose signatures count.
    """

    def __init__(self, keys: TrustedKeys) -> None:
        self._keys = keys
        self.seen = Watched()
        self._forget()

    def _forget(self) -> None:
        self._seq, self._looked_at, self._changed = 0, 0, 0
        self._first: list[int] = []
        self._digest = hashlib.sha256()

    def begin(self, conn: Connection) -> Watched:
        """Begin a round: if a checked line has changed, all lines are checked again.

        Args:
            conn: the state database.
        """
        digest = conn.execute(_KNOWN, {"seq": self._seq}).scalar_one()
        if self._seq and (digest is None or bytes(digest) != self._digest.digest()):
            self._forget()
        return self._counted(conn)

    def go_on(self, conn: Connection, most: int) -> Watched:
        """Check the next lines.

        Args:
            conn: the state database.
            most: how many lines at most.
        """
        for line in conn.execute(_NEXT, {"seq": self._seq, "most": most}).mappings():
            columns = dict(line)
            self._digest.update(bytes(columns.pop("line")))
            row = LedgerRow.of(columns)
            self._seq, self._looked_at = row.seq, self._looked_at + 1
            if not row.is_authentic(self._keys):
                self._changed += 1
                if len(self._first) < FIRST_NAMED:
                    self._first.append(row.seq)
        return self._counted(conn)

    def _counted(self, conn: Connection) -> Watched:
        lines = int(conn.execute(_LINES).scalar_one())
        self.seen = Watched(lines, self._looked_at, self._changed, tuple(self._first))
        return self.seen
