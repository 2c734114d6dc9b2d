"""Numbers that the evidence ledger lacks between its rows.

A seal gives the next number under a lock, in the transaction of its row. So a number is only
missing when its row was deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text

from include.evidence.checkpoint import checkpoints
from include.evidence.model import Finding, Outcome
from include.evidence.signing import TrustedKeys
from include.messages import _

_GAPS = text("""
SELECT before + 1, seq - 1 FROM (
    SELECT seq, lag(seq, 1, CAST(0 AS bigint)) OVER (ORDER BY seq) AS before FROM evidence_ledger
) AS numbers WHERE seq > before + 1 ORDER BY seq
""")


@dataclass(frozen=True)
class Gap:
    """Successive numbers of the ledger without a row, up to a row that is there.

    Attributes:
        first: the first missing number.
        last: the last missing number.
    """

    first: int
    last: int

    @property
    def count(self) -> int:
        """Number of missing rows."""
        return self.last - self.first + 1


def ledger_gaps(conn: Connection) -> tuple[Gap, ...]:
    """Return the gaps of the ledger, lowest first; numbers after its last row are in no gap.

    After the state database was lost, rows of pruned bundles are missing: `gaps_after` leaves them
    out.
    """
    return tuple(Gap(first, last) for first, last in conn.execute(_GAPS))


def gaps_after(gaps: tuple[Gap, ...], pruned: int) -> tuple[Gap, ...]:
    """Return the gaps above the last number that a signed checkpoint covers; 0 without one."""
    return tuple(Gap(max(gap.first, pruned + 1), gap.last) for gap in gaps if gap.last > pruned)


def unpruned_gaps(conn: Connection, keys: TrustedKeys) -> tuple[Gap, ...]:
    """Return the gaps that no signed checkpoint covers, lowest first.

    Args:
        conn: the state database.
        keys: public keys whose checkpoints count.
    """
    gaps = ledger_gaps(conn)
    pruned = [mark.up_to_seq for mark in checkpoints(conn) if mark.is_authentic(keys)]
    return gaps_after(gaps, max(pruned, default=0))


def gap_findings(gaps: tuple[Gap, ...]) -> Iterator[Finding]:
    """Yield a failed finding if the ledger has gaps."""
    if gaps:
        yield Finding(
            code="evidence.ledger_lost",
            severity=Outcome.FAIL,
            subject="evidence_ledger",
            message=_(
                "{count} rows of the evidence ledger were deleted; the first has the number "
                "{number}. This seal enters those again whose bundles the store has.",
                count=sum(gap.count for gap in gaps),
                number=gaps[0].first,
            ),
            action=_("Find out who deleted rows of the state database, and what else is missing."),
        )
