"""Compare the registers of the state database with sealed figures, and accept a loss.

A restored older state database, or deleted rows, leave no trace in the state database itself. So
every bundle holds figures of the registers. Before a drill, restore, pruning or deletion relies on
a register, it is compared with the newest bundles of the evidence store.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from include.approvals.reasons import says_something, value_free_reason
from include.evidence import index, ledger
from include.evidence.adopt import begun_bundles, pending_signatures
from include.evidence.check import Refused, check_signature, read_result
from include.evidence.checkpoint import Gap, gap_findings, pruned_up_to, unpruned_gaps
from include.evidence.folder import RESULT, StoreFolder
from include.evidence.model import (
    AcceptedLoss,
    Finding,
    RegisterFigure,
    RegisterState,
    attention_finding,
    failure_finding,
)
from include.evidence.register_figures import (
    PATIENCE,
    REGISTERS,
    Loss,
    Register,
    extent,
    losses,
    take_figures,
)
from include.evidence.signing import Signer, TrustedKeys
from include.evidence.unread import (
    accepted_losses,
    accepted_message,
    changed_findings,
    is_after,
    loss_columns,
    read_again,
    signed_content,
    unread_error,
    unread_findings,
)
from include.evidence.unrecorded import (
    MOST_FORGED,
    recent_parts,
    search_unrecorded,
)
from include.evidence.versions import find_sealed
from include.messages import _, in_english
from include.services.clock import Clock
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import ObjectStore
from include.state.tables import register_loss

NEWEST = 3  # bundles of the ledger whose figures are compared: two may have been sealed at once
SEARCHED = 30  # newest rows of the ledger among which these bundles are searched
UNRECORDED = 50  # newest signed bundles without a ledger row whose result.json is read
COMPARED = 8  # different figures of a register that are compared from these bundles
ACTION = (
    "Restore the state database from a newer backup. Without one: `./parcelseal recover-ledger` "
    "names what is missing, and `--accept-losses` goes on without it."
)


@dataclass(frozen=True)
class SealedStates:
    """The newest sealed states of the registers.

    Attributes:
        recorded: of the newest bundles of the ledger, and of the newest accepted loss.
        unrecorded: of bundles that the ledger lacks, the newest first.
        unreadable: bundles whose figures are unknown: they do not verify, or no trusted key signed
            their ledger rows. Those that a person accepted are left out.
        hidden: bundles that do not verify, but whose sealed versions the store still has.
        accepted: the newest loss that a person accepted.
        to_enter: number of bundles that continue the chain and that the ledger lacks.
        unchecked: number of folders that were not read, because too many others hold a signature
            that no trusted key made.
        untrusted: those of `unreadable` whose ledger row no trusted key signed.
        gaps: numbers that the ledger lacks between its rows.
        changed: bundles of a trusted key whose ledger rows no trusted key signed.
    """

    recorded: tuple[RegisterState, ...]
    unrecorded: tuple[RegisterState, ...] = ()
    unreadable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    accepted: AcceptedLoss | None = None
    to_enter: int = 0
    unchecked: int = 0
    untrusted: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def states(self) -> tuple[RegisterState, ...]:
        """All states, those of the ledger first."""
        return (*self.recorded, *self.unrecorded)

    @property
    def figures(self) -> dict[str, list[RegisterFigure]]:
        """The figures that each register must contain.

        A figure that a bundle reports as lost is always included. Of bundles that the ledger lacks,
        only the figures with the most rows are included: they cover the rows of the others.
        """
        by_register: dict[str, list[RegisterFigure]] = {}
        for register in REGISTERS:
            name = register.name
            required = [state.figures[name] for state in self.recorded if name in state.figures]
            unrecorded = {
                state.figures[name].model_dump_json(): state.figures[name]
                for state in self.unrecorded
                if name in state.figures
            }
            required += sorted(unrecorded.values(), key=extent, reverse=True)[:COMPARED]
            for state in self.states:
                required += [figure for figure in [state.lost.get(name)] if figure]
                required += state.also_lost.get(name, ())
            by_register[name] = required
        return by_register

    @property
    def newest(self) -> Mapping[str, RegisterFigure]:
        """The most recent figure of each register. A state lacks one that was being written."""
        figures: dict[str, RegisterFigure] = {}
        for state in sorted(self.states, key=lambda state: state.read_at):
            figures |= state.figures
        return figures


@dataclass(frozen=True)
class EvidenceReader:
    """The evidence that registers are compared with.

    Attributes:
        store: the evidence store.
        state: the state database.
        trusted: public keys (PEM) whose seals count.
        workflows: names under which bundles are sealed; those of the ledger are added.
    """

    store: ObjectStore
    state: Engine
    trusted: Collection[bytes]
    workflows: Collection[str]

    def sealed_states(self, now: datetime) -> SealedStates:
        """Read the newest sealed states from the evidence store.

        Reads at most `NEWEST` bundles of the ledger, and at most `UNRECORDED` bundles that the
        ledger lacks, as it does after an older state database was restored.

        Raises:
            StoreError: the store cannot be read.
        """
        keys = TrustedKeys(self.trusted)
        with self.state.connect() as conn:
            gaps = unpruned_gaps(conn, keys)
            pruned = pruned_up_to(conn, keys)
            head = ledger.head(conn)
            newest_rows = [row for row in ledger.newest(conn, SEARCHED) if row.seq > pruned]
            rows = [row for row in newest_rows if row.is_authentic(keys)]
            begun = begun_bundles(conn)
            # Read after the rows: a row and its signature are committed together, and the signature
            # leaves the state database only when the store has it.
            pending = pending_signatures(conn)
            accepted = accepted_losses(conn, keys)
            workflows = {*self.workflows, *index.workflows(conn)}
            since = rows[0].sealed_at if rows else None
            parts = recent_parts(self.store, workflows, since, now)
            beside = search_unrecorded(
                self.store,
                conn,
                keys,
                parts.prefixes,
                most_forged=MOST_FORGED,
                unlisted=parts.unlisted,
            )
        recorded: list[RegisterState] = []
        unreadable, hidden = [], []
        untrusted: list[str] = []
        changed: list[str] = []
        for row in newest_rows:
            if len(recorded) == NEWEST:
                break
            if row not in rows:
                # Where a trusted key signed its bundle, that is compared like one without a row.
                (changed if beside.has_bundle_of(row) else untrusted).append(row.bundle)
                continue
            try:
                state = self._state_of(row, keys, pending.get(row.bundle))
            except Refused:
                sealed = find_sealed(self.store, row.bundle, keys, sums_sha256=row.sums_sha256)
                try:
                    state = _parse_state(sealed.read_result() if sealed else None)
                except Refused:
                    unreadable.append(row.bundle)
                    continue
                hidden.append(row.bundle)
            if state is not None:
                recorded.append(state)
        unrecorded = []
        last = head.link if head else None
        for copies in beside.newest_first(last)[:UNRECORDED]:
            try:
                results = (copy.folder.read_result() for copy in copies)
                result_json = next((result for result in results if result is not None), None)
                state = _parse_state(result_json)
            except Refused:
                unreadable.append(copies[0].name)
                continue
            if state is not None:
                unrecorded.append(state)
        # Bundles that could not be read when other bundles were sealed.
        names = {name for state in (*recorded, *unrecorded) for name in state.unread}
        names -= {*unreadable, *untrusted}
        again = read_again(self.store, self.state, keys, sorted(names), _parse_state)
        unrecorded += again.states
        unreadable += again.unreadable
        untrusted += again.untrusted
        accepted_unread = {name for loss, _figures in accepted for name in loss.unread}
        untrusted = [name for name in untrusted if name not in accepted_unread]
        unreadable = [name for name in unreadable if name not in accepted_unread]
        if accepted:
            losses_accepted = [loss for loss, _figures in accepted]
            recorded = [state for state in recorded if is_after(state, losses_accepted)]
            unrecorded = [state for state in unrecorded if is_after(state, losses_accepted)]
            newest, figures = accepted[0]
            recorded.append(RegisterState(read_at=newest.accepted_at, figures=figures))
        return SealedStates(
            recorded=tuple(recorded),
            unrecorded=tuple(unrecorded),
            unreadable=(*untrusted, *unreadable),
            hidden=tuple(hidden),
            accepted=accepted[0][0] if accepted else None,
            # A seal of an older version that was killed left a bundle whose row was never written.
            to_enter=sum(bundle.name not in begun for bundle in beside.chain_after(last)),
            unchecked=beside.unchecked,
            untrusted=tuple(untrusted),
            gaps=gaps,
            changed=tuple(changed),
        )

    def losses(self, sealed: SealedStates) -> list[Loss]:
        """Return the sealed figures that their registers do not contain."""
        with self.state.connect() as conn:
            return losses(conn, sealed.figures)

    def require_complete(self, now: datetime, registers: Collection[Register] = ()) -> None:
        """Raise ControlFailed if a register lacks rows that were sealed.

        Args:
            now: the moment.
            registers: registers on which the caller relies; empty for all.

        Raises:
            ControlFailed: sealed rows are missing or were changed, the figures of a bundle are
                unknown, or the store holds too many folders that no trusted key signed.
            StoreError: the evidence store cannot be read.
        """
        sealed = self.sealed_states(now)
        names = {register.name for register in registers or REGISTERS}
        lost = [loss for loss in self.losses(sealed) if loss.register.name in names]
        if lost:
            messages = "; ".join(in_english(loss.message) for loss in lost)
            raise ControlFailed(f"The state database is not complete: {messages}.", ACTION)
        if sealed.unreadable:
            raise unread_error(sealed.unreadable, sealed.untrusted)
        if sealed.unchecked:
            raise ControlFailed(
                f"{sealed.unchecked} folders of the evidence store could not be checked, so "
                "nothing shows that the state database is complete: too many others hold a "
                "signature that no trusted key made.",
                "Find out who writes to the evidence store, and remove these folders from it.",
            )

    def state_to_seal(self, clock: Clock) -> tuple[RegisterState, list[Finding]]:
        """Return the state of the registers for a bundle, and the findings about it.

        Every later bundle repeats a figure that a register lost, until the rows are back or a
        person accepts the loss.

        Raises:
            StoreError: the evidence store cannot be read.
        """
        sealed = self.sealed_states(clock.now())
        lost = self.losses(sealed)
        names = {loss.register.name for loss in lost}
        previous = {name: figure for name, figure in sealed.newest.items() if name not in names}
        state = RegisterState(
            read_at=clock.now(),
            figures=take_figures(self.state, previous, names),
            lost={loss.register.name: loss.sealed for loss in lost},
            also_lost={loss.register.name: loss.others for loss in lost if loss.others},
            unread=sealed.unreadable,
            accepted=sealed.accepted,
        )
        return state, list(_findings(sealed, lost))

    def _state_of(
        self, row: ledger.LedgerRow, keys: TrustedKeys, signature: bytes | None
    ) -> RegisterState | None:
        """Return the state of the registers in a bundle; None in bundles of older versions.

        Args:
            row: of the bundle.
            keys: public keys whose seals count.
            signature: its signature, while the store does not have it yet.

        Raises:
            Refused: the bundle does not verify as far as its result.json goes.
        """
        folder = StoreFolder(self.store, row.bundle, pending=lambda: signature)
        signed = check_signature(folder, keys)
        if signed.sha256 != row.sums_sha256:
            raise Refused(_("SHA256SUMS is not the one that the ledger has"))
        return _parse_state(read_result(folder, signed))


def _parse_state(result_json: bytes | None) -> RegisterState | None:
    """Return the state of the registers in a result.json that verified; see `_state_of`."""
    if result_json is None:
        raise Refused(_("the file {name} is missing", name=RESULT))
    try:
        registers = json.loads(result_json).get("registers")
        return RegisterState.model_validate(registers) if registers else None
    except (ValueError, AttributeError) as error:
        raise Refused(_("result.json is not one of ParcelSeal")) from error


def _findings(sealed: SealedStates, lost: Sequence[Loss]) -> Iterator[Finding]:
    if sealed.to_enter:
        yield attention_finding(
            code="evidence.ledger_lost",
            subject="evidence_ledger",
            message=_(
                "The evidence ledger lacked {count} sealed bundles. This seal enters them again.",
                count=sealed.to_enter,
            ),
            action=_(
                "Find out whether an older state database was restored or rows were deleted, and "
                "what else is missing."
            ),
        )
    yield from gap_findings(sealed.gaps)
    yield from changed_findings(sealed.changed)
    if sealed.unchecked:
        yield failure_finding(
            code="evidence.too_many_unknown_folders",
            subject="evidence_store",
            message=_(
                "{count} folders of the evidence store could not be checked: too many others hold "
                "a signature that no trusted key made.",
                count=sealed.unchecked,
            ),
            action=_("Find out who writes to the evidence store, and remove these folders."),
        )
    for loss in lost:
        yield attention_finding(
            code="evidence.register_lost",
            subject=loss.register.name,
            message=_("The state database is not complete: {loss}.", loss=loss.message),
            action=_(
                "Restore the state database from a newer backup. If there is none, have the data "
                "engineers name what is missing, and accept the loss."
            ),
        )
    yield from unread_findings(sealed.unreadable, sealed.untrusted)
    for bundle in sealed.hidden:
        yield attention_finding(
            code="evidence.bundle_hidden",
            subject=bundle,
            message=_(
                "Files of an evidence bundle were deleted or overwritten in the store. Their "
                "sealed versions are still there."
            ),
            action=_("Verify all evidence and find out who changed it."),
        )
    accepted = sealed.accepted
    if accepted is not None and accepted not in [state.accepted for state in sealed.states]:
        yield attention_finding(
            code="evidence.register_loss_accepted",
            subject=", ".join([*sorted(accepted.lost), *accepted.unread[:1]]),
            message=accepted_message(accepted),
            action=_("Enter the missing legal holds and erasure requests again."),
        )


def accept_losses(
    reader: EvidenceReader,
    signer: Signer,
    clock: Clock,
    *,
    by: str,
    because: str,
    patience: float = PATIENCE,
) -> AcceptedLoss | None:
    """Record that a person accepts the loss of sealed rows, or of figures that cannot be read.

    Returns None if no row is missing and all figures can be read.

    Args:
        reader: the evidence.
        signer: signs the decision.
        clock: the moment of the decision.
        by: who accepts it.
        because: why the rows cannot be brought back.
        patience: seconds for which a register that other sessions write to is tried again.

    Raises:
        ControlFailed: a register that lacks rows is being written all the time.
        UsageError: nobody is named, or the reason says nothing.
        StoreError: the evidence store cannot be read.
    """
    if not by.strip():
        raise UsageError(
            "The name of the person who accepts the loss is missing.", "Name the person with --by."
        )
    if not says_something(because):
        raise UsageError("The reason says nothing.", "Write it in plain words with --because.")
    sealed = reader.sealed_states(clock.now())
    lost = reader.losses(sealed)
    if not lost and not sealed.unreadable:
        return None
    accepted = AcceptedLoss(
        accepted_at=clock.now(),
        accepted_by=by.strip(),
        because=value_free_reason(because),
        lost={loss.register.name: loss.sealed for loss in lost},
        unread=sealed.unreadable,
    )
    # A register that is being written keeps its sealed figure; later comparisons begin with it.
    previous = {name: sealed.newest[name] for name in sealed.newest if name not in accepted.lost}
    figures = take_figures(reader.state, previous, accepted.lost, patience)
    if unread := accepted.lost.keys() - figures.keys():
        raise ControlFailed(
            f"The register {min(unread)} of the state database is being written all the time, so "
            "nothing shows which of its rows are left.",
            "Stop the runs that write to it, and accept the loss again.",
        )
    columns = loss_columns(accepted, figures, signer.fingerprint)
    with reader.state.begin() as conn:
        conn.execute(
            register_loss.insert().values(
                columns | {"signature": signer.sign(signed_content(columns))}
            )
        )
    return accepted
