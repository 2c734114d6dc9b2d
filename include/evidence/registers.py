"""Compare the registers of the state database with sealed figures, and record accepted losses.

If an older backup of the state database is restored, or if rows are deleted, the state database
itself does not show this. Every bundle therefore contains figures of the registers. A run that
relies on a register, such as a restore drill or a disposition, first compares the register with the
newest bundles of the evidence store.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from include.approvals.reasons import has_words, redact_reason
from include.evidence import index, ledger
from include.evidence.check import EvidenceRefused, check_signature, read_result
from include.evidence.checkpoint import Gap, gap_findings, pruned_up_to, unpruned_gaps
from include.evidence.folder import RESULT, StoreFolder
from include.evidence.ledger_recovery import begun_bundles, pending_signatures
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
    coverage_key,
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

BUNDLES_READ = 3  # bundles whose figures are compared: runs may seal at the same time
SEARCHED = 30  # newest rows of the ledger among which these bundles are searched
UNRECORDED_READ = 50  # newest signed bundles without a ledger row whose result.json is read
COMPARED = 8  # different figures of a register that are compared from these bundles
ACTION = (
    "Restore the state database from a newer backup. If there is no newer backup, "
    "`./parcelseal recover-ledger` counts the missing rows, and `--accept-losses` lets runs "
    "continue without them."
)


@dataclass(frozen=True)
class SealedStates:
    """The register states in the newest sealed bundles, and the bundles that could not be read.

    If a person accepted a loss, states that were read before the newest acceptance are left out.

    Attributes:
        recorded: states in the newest bundles that have a ledger row. If a person accepted a loss,
            the last item is a state with the figures of the newest acceptance.
        unrecorded: states in bundles with a trusted signature but without a ledger row, newest
            first. They are followed by states in bundles that earlier runs could not read.
        unreadable: names of bundles whose register figures are unknown, because the bundle is not
            valid or is in `untrusted`. A bundle is left out if a person accepted the loss of its
            figures.
        hidden: names of bundles whose current files are not valid, but whose sealed files are still
            stored as older versions.
        accepted: the newest accepted loss; None if no person accepted a loss.
        missing_row_count: number of bundles that follow the ledger's last bundle and have no ledger
            row.
        unchecked: number of folders that were not read, because too many other folders have a
            signature of an untrusted key.
        untrusted: names of bundles whose ledger row has no trusted signature, and for which the
            store has no bundle with a trusted signature either.
        gaps: ranges of sequence numbers whose rows are missing in the ledger.
        changed: names of bundles whose ledger row has no trusted signature, but for which the store
            has a bundle with a trusted signature.
    """

    recorded: tuple[RegisterState, ...]
    unrecorded: tuple[RegisterState, ...] = ()
    unreadable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    accepted: AcceptedLoss | None = None
    missing_row_count: int = 0
    unchecked: int = 0
    untrusted: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def states(self) -> tuple[RegisterState, ...]:
        """Return all states: first those in `recorded`, then those in `unrecorded`."""
        return (*self.recorded, *self.unrecorded)

    @property
    def required_figures(self) -> dict[str, list[RegisterFigure]]:
        """Return the sealed figures that each register must match, by register name.

        If a register no longer matches a figure, later bundles repeat this figure as lost. The
        repeated figures are always included. Of the figures in bundles without a ledger row, only
        some are included: for each register, the 8 figures with the highest ids. These also cover
        the rows of figures with lower ids.
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
            required += sorted(unrecorded.values(), key=coverage_key, reverse=True)[:COMPARED]
            for state in self.states:
                required += [figure for figure in [state.lost.get(name)] if figure]
                required += state.also_lost.get(name, ())
            by_register[name] = required
        return by_register

    @property
    def newest(self) -> Mapping[str, RegisterFigure]:
        """Return the most recent figure of each register, by register name.

        A state lacks the figure of a register to which other sessions were writing when the state
        was read. For such a register, the figure of an older state is returned.
        """
        figures: dict[str, RegisterFigure] = {}
        for state in sorted(self.states, key=lambda state: state.read_at):
            figures |= state.figures
        return figures


@dataclass(frozen=True)
class EvidenceReader:
    """Reads sealed figures from the evidence store and compares the registers with them.

    Attributes:
        store: the evidence store.
        state: the state database.
        trusted: public keys (PEM) whose seals are accepted.
        workflows: names of workflows whose folders are searched for bundles without a ledger row.
            Workflows that have a ledger row are searched as well.
    """

    store: ObjectStore
    state: Engine
    trusted: Collection[bytes]
    workflows: Collection[str]

    def sealed_states(self, now: datetime) -> SealedStates:
        """Read the register states of the newest bundles from the evidence store.

        The function reads the states of the 3 newest valid bundles in the ledger. After an older
        backup of the state database was restored, the newest bundles have no ledger row. The
        function also reads the 50 newest bundles without a ledger row.

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
                object_limit=MOST_FORGED,
                unlisted=parts.unlisted,
            )
        recorded: list[RegisterState] = []
        unreadable, hidden = [], []
        untrusted: list[str] = []
        changed: list[str] = []
        for row in newest_rows:
            if len(recorded) == BUNDLES_READ:
                break
            if row not in rows:
                # If a trusted key signed the bundle, it is compared like a bundle without a row.
                (changed if beside.has_bundle_of(row) else untrusted).append(row.bundle)
                continue
            try:
                state = self._state_of(row, keys, pending.get(row.bundle))
            except EvidenceRefused:
                sealed = find_sealed(self.store, row.bundle, keys, sums_sha256=row.sums_sha256)
                try:
                    state = _parse_state(sealed.read_result() if sealed else None)
                except EvidenceRefused:
                    unreadable.append(row.bundle)
                    continue
                hidden.append(row.bundle)
            if state is not None:
                recorded.append(state)
        unrecorded = []
        last = head.link if head else None
        for copies in beside.newest_first(last)[:UNRECORDED_READ]:
            try:
                results = (copy.folder.read_result() for copy in copies)
                result_json = next((result for result in results if result is not None), None)
                state = _parse_state(result_json)
            except EvidenceRefused:
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
            # Bundles in `begun` never had a row: a killed seal of an older version left them.
            missing_row_count=sum(bundle.name not in begun for bundle in beside.chain_after(last)),
            unchecked=beside.unchecked,
            untrusted=tuple(untrusted),
            gaps=gaps,
            changed=tuple(changed),
        )

    def losses(self, sealed: SealedStates) -> list[Loss]:
        """Return the registers that differ from at least one of their sealed figures.

        Args:
            sealed: the register states in sealed bundles, which contain the figures.
        """
        with self.state.connect() as conn:
            return losses(conn, sealed.required_figures)

    def require_complete(self, now: datetime, registers: Collection[Register] = ()) -> None:
        """Raise ControlFailed unless the registers still have all rows that sealed figures cover.

        Args:
            now: the current time.
            registers: registers that the caller relies on; empty for all registers.

        Raises:
            ControlFailed: rows of `registers` are missing or were changed, the figures of a bundle
                are unknown, or the store has too many folders with an untrusted signature.
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
                f"{sealed.unchecked} folders of the evidence store were not checked, because "
                "too many other folders of the store are signed with an untrusted key. So it "
                "is unknown whether the state database is complete.",
                "Find out who wrote the folders that are signed with an untrusted key, and "
                "remove them from the evidence store.",
            )

    def state_to_seal(self, clock: Clock) -> tuple[RegisterState, list[Finding]]:
        """Return the register state for a new bundle, and findings about losses.

        Bundles that are not valid are reported as findings as well. If a register lost rows, every
        later bundle repeats the sealed figure that shows the loss. This ends when the rows are
        restored or a person accepts the loss.

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
        """Return the register state in a bundle; None if the bundle has no register state.

        Bundles of older versions of ParcelSeal have no register state.

        Args:
            row: ledger row of the bundle.
            keys: public keys whose seals are accepted.
            signature: the bundle's signature if the store does not have it yet; otherwise None.

        Raises:
            EvidenceRefused: the signature or the result.json of the bundle is not valid.
        """
        folder = StoreFolder(self.store, row.bundle, pending=lambda: signature)
        signed = check_signature(folder, keys)
        if signed.sha256 != row.sums_sha256:
            raise EvidenceRefused(
                _("the bundle's list of checksums differs from the list in the evidence ledger")
            )
        return _parse_state(read_result(folder, signed))


def _parse_state(result_json: bytes | None) -> RegisterState | None:
    """Return the register state in a result.json whose digest was checked.

    Return None if result.json has no register state, because an older version of ParcelSeal wrote
    it.

    Args:
        result_json: content of the file; None if it is missing.

    Raises:
        EvidenceRefused: result.json is missing, or it does not have the format of a result.json.
    """
    if result_json is None:
        raise EvidenceRefused(_("the file {name} is missing", name=RESULT))
    try:
        registers = json.loads(result_json).get("registers")
        return RegisterState.model_validate(registers) if registers else None
    except (ValueError, AttributeError) as error:
        raise EvidenceRefused(
            _("the result file of the bundle was not written by ParcelSeal")
        ) from error


def _findings(sealed: SealedStates, lost: Sequence[Loss]) -> Iterator[Finding]:
    if sealed.missing_row_count:
        yield attention_finding(
            code="evidence.ledger_lost",
            subject="evidence_ledger",
            message=_(
                "{count} sealed bundles were missing from the evidence ledger. This run "
                "entered them again.",
                count=sealed.missing_row_count,
            ),
            action=_(
                "Find out whether an older backup of the state database was restored or rows "
                "of the evidence ledger were deleted, and whether other entries of the state "
                "database are missing."
            ),
        )
    yield from gap_findings(sealed.gaps)
    yield from changed_findings(sealed.changed)
    if sealed.unchecked:
        yield failure_finding(
            code="evidence.too_many_unknown_folders",
            subject="evidence_store",
            message=_(
                "{count} folders of the evidence store were not checked, because too many "
                "other folders of the store are signed with an untrusted key.",
                count=sealed.unchecked,
            ),
            action=_(
                "Find out who wrote the folders that are signed with an untrusted key, "
                "and have them removed from the evidence store."
            ),
        )
    for loss in lost:
        yield attention_finding(
            code="evidence.register_lost",
            subject=loss.register.name,
            message=_("The state database is incomplete: {loss}.", loss=loss.message),
            action=_(
                "Ask the data engineers to restore the state database from a newer backup. If "
                "there is no newer backup, ask them to list the missing entries and to record "
                "that you accept the loss."
            ),
        )
    yield from unread_findings(sealed.unreadable, sealed.untrusted)
    for bundle in sealed.hidden:
        yield attention_finding(
            code="evidence.bundle_hidden",
            subject=bundle,
            message=_(
                "Files of an evidence bundle were deleted or overwritten in the evidence "
                "store. The store still has the sealed versions of these files."
            ),
            action=_(
                "Have all evidence verified, and find out who changed the files of the bundle."
            ),
        )
    accepted = sealed.accepted
    if accepted is not None and accepted not in [state.accepted for state in sealed.states]:
        yield attention_finding(
            code="evidence.register_loss_accepted",
            subject=", ".join([*sorted(accepted.lost), *accepted.unread[:1]]),
            message=accepted_message(accepted),
            action=_(
                "Arrange that the legal holds and erasure requests that are missing from the "
                "state database are entered again."
            ),
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
    """Record that a person accepts lost register rows, or figures that cannot be read.

    Return None and record nothing if no row is missing and all figures can be read.

    Args:
        reader: reads the sealed figures.
        signer: signs the decision.
        clock: gives the time of the decision.
        by: name of the person who accepts the loss.
        because: reason why the rows cannot be restored.
        patience: time in seconds for which the function retries to lock a register while other
            sessions write to it.

    Raises:
        ControlFailed: other sessions write all the time to a register that has lost rows.
        UsageError: the name of the person is missing, or the reason is too short.
        StoreError: the evidence store cannot be read.
    """
    if not by.strip():
        raise UsageError(
            "The name of the person who accepts the loss is missing.", "Name the person with --by."
        )
    if not has_words(because):
        raise UsageError(
            "The reason for the acceptance of the loss is missing.", "State it with --because."
        )
    sealed = reader.sealed_states(clock.now())
    lost = reader.losses(sealed)
    if not lost and not sealed.unreadable:
        return None
    accepted = AcceptedLoss(
        accepted_at=clock.now(),
        accepted_by=by.strip(),
        because=redact_reason(because),
        lost={loss.register.name: loss.sealed for loss in lost},
        unread=sealed.unreadable,
    )
    # A register that is being written keeps its sealed figure; later comparisons begin with it.
    previous = {name: sealed.newest[name] for name in sealed.newest if name not in accepted.lost}
    figures = take_figures(reader.state, previous, accepted.lost, patience)
    if unread := accepted.lost.keys() - figures.keys():
        raise ControlFailed(
            f"The register {min(unread)} of the state database is written to without a pause, "
            "so its remaining rows could not be counted.",
            "Stop the runs that write to the register, then repeat the command.",
        )
    columns = loss_columns(accepted, figures, signer.fingerprint)
    with reader.state.begin() as conn:
        conn.execute(
            register_loss.insert().values(
                columns | {"signature": signer.sign(signed_content(columns))}
            )
        )
    return accepted
