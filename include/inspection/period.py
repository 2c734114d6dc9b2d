"""Read the rows of the evidence ledger for the period of an inspection pack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection, Text, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from include.evidence.control_index import missing_count, sealed_clauses
from include.evidence.folder import Link
from include.evidence.ledger import LedgerRow
from include.evidence.signing import TrustedKeys
from include.evidence.verify import link_before
from include.inspection.request import PackRequest
from include.policy import PolicyPack
from include.state.tables import evidence_ledger

Connect = Callable[[], AbstractContextManager[Connection]]
BATCH = 500  # rows that are in memory at a time

# One more row on each side proves that the period has no other bundle at its edges. If the period
# has no bundle, these are the rows before and after the period.
_BOUNDS = text("""
SELECT
    (SELECT max(seq) FROM evidence_ledger WHERE sealed_at < :since) AS before,
    (SELECT min(seq) FROM evidence_ledger WHERE sealed_at >= :since AND sealed_at < :until) AS low,
    (SELECT max(seq) FROM evidence_ledger WHERE sealed_at >= :since AND sealed_at < :until) AS high,
    (SELECT min(seq) FROM evidence_ledger WHERE sealed_at >= :until) AS after
""")


@dataclass(frozen=True)
class Selection:
    """The controls and workflows whose bundles belong to an inspection pack.

    Attributes:
        controls: controls that the policy pack assigns to the clauses, or that any sealed bundle
            assigned to them.
        clauses_of: all clauses of each control, of the policy pack and of the sealed bundles.
        workflows: workflows that have, or had, such controls. Their runs that could not run name no
            control, and belong to the pack too.
        unindexed: number of bundles that the history index lacks. Controls that only these bundles
            name may be unknown.
        reporting: bundles that reported findings about the clauses. They belong to the pack even if
            their workflow has no control of the clauses.
    """

    controls: frozenset[str]
    clauses_of: Mapping[str, frozenset[str]]
    workflows: frozenset[str]
    unindexed: int
    reporting: frozenset[str] = frozenset()

    def is_without_control(self, row: LedgerRow) -> bool:
        """Return whether a bundle names no control, but its workflow has controls of the clauses.

        Args:
            row: ledger row of the bundle.
        """
        return not row.controls and row.dag_id in self.workflows

    def has(self, row: LedgerRow) -> bool:
        """Return whether a bundle belongs to the clauses.

        Args:
            row: ledger row of the bundle.
        """
        return (
            not self.controls.isdisjoint(row.controls)
            or self.is_without_control(row)
            or self.is_reporter(row)
        )

    def is_reporter(self, row: LedgerRow) -> bool:
        """Return whether a bundle belongs to the pack only because of a finding.

        Args:
            row: ledger row of the bundle.
        """
        return (
            row.bundle in self.reporting
            and self.controls.isdisjoint(row.controls)
            and not self.is_without_control(row)
        )


def read_selection(
    conn: Connection, policy: PolicyPack, request: PackRequest, pruned: int
) -> Selection:
    """Return the controls and workflows of the clauses, also those of earlier policy packs.

    Args:
        conn: connection to the state database.
        policy: the policy pack.
        request: clauses and period.
        pruned: sequence number of the last pruned bundle; 0 if none was pruned.
    """
    sealed = sealed_clauses(conn)
    clauses_of = dict(sealed)
    for control in policy.controls:
        clauses_of[control.id] = clauses_of.get(control.id, frozenset()) | {control.clause}
    controls = request.controls.union(
        control for control, clauses in sealed.items() if clauses.intersection(request.clauses)
    )
    ledger = evidence_ledger.c
    names = literal(sorted(controls), ARRAY(Text))
    query = select(ledger.dag_id).where(ledger.controls.overlap(names)).distinct()
    workflows = {control.workflow for control in policy.controls if control.id in controls}
    return Selection(
        controls,
        clauses_of,
        frozenset(workflows.union(conn.scalars(query))),
        missing_count(conn, pruned),
    )


@dataclass(frozen=True)
class PeriodRow:
    """A row of the evidence ledger, and its relation to an inspection pack.

    Attributes:
        row: the row.
        previous: link that the bundle must have to its predecessor; None for the first bundle.
        is_authentic: whether a trusted key signed the present content of the row.
        is_readable: whether the recipient of the pack may read bundles of the row's workflow.
        is_selected: whether the bundle belongs to the pack if it is readable.
        missing_before: number of rows that are missing in the ledger before this row.
    """

    row: LedgerRow
    previous: Link | None
    is_authentic: bool
    is_readable: bool
    is_selected: bool
    missing_before: int


def read_period(
    connect: Connect,
    request: PackRequest,
    selection: Selection,
    keys: TrustedKeys,
    may_read: Callable[[str], bool],
) -> Iterator[PeriodRow]:
    """Yield the ledger rows of a period, lowest sequence number first.

    The row before the first row and the row after the last row of the period are included. No
    connection is open while the caller uses a row.

    A row whose signature is not valid is always selected, because its columns no longer prove to
    which controls and to which time its bundle belongs.

    Args:
        connect: function that opens a connection to the state database for a ``with`` block.
        request: clauses and period.
        selection: controls and workflows of the clauses.
        keys: public keys whose signatures are accepted.
        may_read: function that takes a workflow name of the ledger, and returns whether the
            recipient of the pack may read its bundles.
    """
    with connect() as conn:
        bounds = conn.execute(_BOUNDS, {"since": request.since, "until": request.until}).one()
    if bounds.low is not None:
        first, last = bounds.low - 1, bounds.high + 1
    else:
        first = bounds.before if bounds.before is not None else bounds.after
        last = bounds.after if bounds.after is not None else bounds.before
    if first is None:
        return
    before: LedgerRow | None = None
    for row, start in _rows(connect, first, last):
        missing = row.seq - before.seq - 1 if before else 0
        previous = before.link if before and not missing else start()
        is_authentic = row.is_authentic(keys)
        is_in_period = request.since <= row.sealed_at < request.until
        yield PeriodRow(
            row,
            previous,
            is_authentic,
            may_read(row.dag_id) and may_read(row.bundle.partition("/")[0]),
            not is_authentic or (is_in_period and selection.has(row)),
            missing,
        )
        before = row


def _rows(
    connect: Connect, first: int, last: int
) -> Iterator[tuple[LedgerRow, Callable[[], Link | None]]]:
    """Yield rows of the ledger, each with a function that reads its link to the row before it."""
    seq = first - 1
    ledger = evidence_ledger.c
    while seq < last:
        query = (
            select(evidence_ledger)
            .where(ledger.seq > seq, ledger.seq <= last)
            .order_by(ledger.seq)
            .limit(BATCH)
        )
        with connect() as conn:
            rows = [LedgerRow.of(columns) for columns in conn.execute(query).mappings()]
        if not rows:
            return
        for row in rows:

            def previous(of: LedgerRow = row) -> Link | None:
                with connect() as conn:
                    return link_before(conn, of)

            yield row, previous
        seq = rows[-1].seq
