"""Verify the signature of every ledger row, some at a time.

A page selects rows by their content. It would miss a row that was changed, or show an older row as
the newest. So every row is verified.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from include.evidence.ledger import LedgerRow
from include.evidence.signing import TrustedKeys

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
        looked_at: how many of them were held against the keys, from the first one on.
        changed: how many of these no trusted key signed as they stand.
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
    """Looks through the ledger line by line, and remembers what it saw. For one thread at a time.

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
        """Begin a round: where a line that was looked at is not the same any more, all are again.

        Args:
            conn: the state database.
        """
        known = conn.execute(_KNOWN, {"seq": self._seq}).scalar_one()
        if self._seq and (known is None or bytes(known) != self._digest.digest()):
            self._forget()
        return self._told(conn)

    def go_on(self, conn: Connection, most: int) -> Watched:
        """Look at the next lines.

        Args:
            conn: the state database.
            most: how many lines at most.
        """
        for found in conn.execute(_NEXT, {"seq": self._seq, "most": most}).mappings():
            self._look_at(dict(found))
        return self._told(conn)

    def _look_at(self, found: dict[str, Any]) -> None:
        self._digest.update(bytes(found.pop("line")))
        row = LedgerRow.of(found)
        self._seq, self._looked_at = row.seq, self._looked_at + 1
        if not row.is_authentic(self._keys):
            self._changed += 1
            if len(self._first) < FIRST_NAMED:
                self._first.append(row.seq)

    def _told(self, conn: Connection) -> Watched:
        lines = int(conn.execute(_LINES).scalar_one())
        self.seen = Watched(lines, self._looked_at, self._changed, tuple(self._first))
        return self.seen
