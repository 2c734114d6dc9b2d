"""The ledger rows of pruned bundles."""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.check import Refused
from include.evidence.checkpoint import Checkpoint
from include.evidence.ledger import LedgerRow
from include.evidence.signing import TrustedKeys
from include.messages import _


def check_tombstones(rows: Sequence[LedgerRow], checkpoint: Checkpoint, keys: TrustedKeys) -> None:
    """Check that the rows are authentic, and that neighbours are linked, also with the checkpoint.

    Rows may be missing: nothing brings them back after the state database was lost.

    Raises:
        Refused: they are not.
    """
    before: LedgerRow | None = None
    for row in rows:
        if not row.is_authentic(keys):
            changed = _(
                "the ledger row of the pruned bundle {bundle} was changed", bundle=row.bundle
            )
            raise Refused(changed)
        if before and row.seq == before.seq + 1 and row.previous_sums_sha256 != before.sums_sha256:
            raise Refused(_("the ledger row does not link to the row before it"))
        before = row
    if before and before.seq == checkpoint.up_to_seq and before.link != checkpoint.link:
        raise Refused(_("SHA256SUMS is not the one that the checkpoint has"))
