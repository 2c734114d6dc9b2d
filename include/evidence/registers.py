"""Comparison of the state database's registers with the figures that bundles sealed.

A restored older state database, or deleted rows, leave no trace in the state database itself. Every
bundle therefore holds the figures of its registers, and the newest bundles of the evidence store
are read before a drill, a restore, a pruning or a deletion relies on them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, select

from include.approvals.reasons import says_something, value_free_reason
from include.evidence import index, ledger
from include.evidence.check import Refused, check_signature
from include.evidence.checkpoint import checkpoints
from include.evidence.folder import StoreFolder
from include.evidence.model import AcceptedLoss, Finding, Outcome, RegisterFigure, RegisterState
from include.evidence.names import DEPTH, LARGEST_RESULT, RESULT, SIGNATURE, folder_name
from include.evidence.pending import pending_signatures
from include.evidence.register_figures import REGISTERS, Loss, Register, losses, take_figures
from include.evidence.signing import Signer, TrustedKeys
from include.messages import Message, _
from include.services.clock import Clock
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore
from include.state.tables import register_loss

NEWEST = 3  # bundles of the ledger whose figures are compared: two may have been sealed at once
SEARCHED = 30  # newest rows of the ledger that are searched for these bundles
UNRECORDED = 50  # newest signed bundles that the ledger lacks and that are read
COMPARED = 8  # different figures of a register that are compared
MONTHS = 24  # of the store that are listed at most
ACTION = (
    "Restore the state database from a newer backup. Without one: `./parcelseal recover-ledger` "
    "names what is missing, and `--accept-losses` goes on without it."
)


@dataclass(frozen=True)
class SealedStates:
    """The newest sealed states of the registers.

    Attributes:
        states: newest bundles of the ledger first, then bundles that the ledger lacks.
        unreadable: bundles of the ledger that do not verify, so that their figures are unknown.
        accepted: the newest loss that a person accepted.
    """

    states: tuple[RegisterState, ...]
    unreadable: tuple[str, ...] = ()
    accepted: AcceptedLoss | None = None

    @property
    def figures(self) -> dict[str, list[RegisterFigure]]:
        """Figures that the registers have to contain, by register."""
        by_register: dict[str, list[RegisterFigure]] = {}
        for state in self.states:
            for figures in (state.figures, state.lost):
                for name, figure in figures.items():
                    by_register.setdefault(name, []).append(figure)
        return by_register

    @property
    def newest(self) -> Mapping[str, RegisterFigure]:
        """The figures of the state that was read last."""
        if not self.states:
            return {}
        return max(self.states, key=lambda state: state.read_at).figures


@dataclass(frozen=True)
class EvidenceReader:
    """The evidence that registers are compared with.

    Args:
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

        Reads at most `NEWEST` bundles of the ledger, and up to `UNRECORDED` of those that the store
        has beside it: after an older state database was restored.

        Raises:
            StoreError: the store cannot be read.
        """
        keys = TrustedKeys(self.trusted)
        with self.state.connect() as conn:
            signed = [mark for mark in checkpoints(conn) if mark.is_authentic(keys)]
            pruned = max((mark.up_to_seq for mark in signed), default=0)
            rows = [row for row in ledger.newest(conn, SEARCHED) if row.seq > pruned]
            rows = [row for row in rows if row.is_authentic(keys)]
            # Read after the rows: a row and its signature are committed together, and the signature
            # leaves the state database only when the store has it.
            pending = pending_signatures(conn)
            accepted = _accepted(conn, keys)
            workflows = {*self.workflows, *index.workflows(conn)}
            unrecorded = self._unrecorded(conn, keys, workflows, rows[0] if rows else None, now)
        states: list[RegisterState] = []
        unreadable = []
        for row in rows:
            if len(states) == NEWEST:
                break
            try:
                state = self._state_of(row.bundle, keys, row.sums_sha256, pending.get(row.bundle))
            except Refused:
                unreadable.append(row.bundle)
                continue
            if state is not None:
                states.append(state)
        for bundle in unrecorded:
            try:
                state = self._state_of(bundle, keys)
            except Refused:
                continue  # no trusted key signed it
            if state is not None:
                states.append(state)
        if accepted is not None:
            at, figures = accepted[0].accepted_at, accepted[1]
            states = [state for state in states if state.read_at > at]
            states.append(RegisterState(read_at=at, figures=figures))
        return SealedStates(
            tuple(states), tuple(unreadable), accepted[0] if accepted is not None else None
        )

    def losses(self, sealed: SealedStates) -> list[Loss]:
        """Return the sealed figures that their registers do not contain."""
        with self.state.connect() as conn:
            return losses(conn, sealed.figures, COMPARED)

    def require_complete(self, now: datetime, registers: Collection[Register] = ()) -> None:
        """Refuse to go on where registers lack rows that were sealed.

        Args:
            now: the moment.
            registers: those on which the caller relies; all where none is named.

        Raises:
            ControlFailed: a register lacks rows or has others, or a newest bundle does not verify.
            StoreError: the evidence store cannot be read.
        """
        sealed = self.sealed_states(now)
        names = {register.name for register in registers or REGISTERS}
        lost = [loss for loss in self.losses(sealed) if loss.register.name in names]
        if lost:
            raise ControlFailed(
                f"The state database is not complete: {as_text(loss.message for loss in lost)}.",
                ACTION,
            )
        if sealed.unreadable:
            raise ControlFailed(
                f"The evidence bundle {sealed.unreadable[0]} does not verify, so nothing shows "
                "that the state database is complete.",
                "Run `./parcelseal verify --all` and find out who changed it.",
            )

    def state_to_seal(self, clock: Clock) -> tuple[RegisterState, list[Finding]]:
        """Return the state of the registers for a bundle, and the findings about it.

        A figure that a register lost stays in every later bundle, so that the loss is found until
        the rows are back or a person accepts it.

        Raises:
            StoreError: the evidence store cannot be read.
        """
        sealed = self.sealed_states(clock.now())
        lost = self.losses(sealed)
        names = {loss.register.name for loss in lost}
        previous = {name: figure for name, figure in sealed.newest.items() if name not in names}
        state = RegisterState(
            read_at=clock.now(),
            figures=take_figures(self.state, previous),
            lost={loss.register.name: loss.sealed for loss in lost},
            accepted=sealed.accepted,
        )
        return state, list(_findings(sealed, lost))

    def _state_of(
        self,
        bundle: str,
        keys: TrustedKeys,
        sums_sha256: str | None = None,
        signature: bytes | None = None,
    ) -> RegisterState | None:
        """Return the state of the registers in a bundle; None in bundles of older versions.

        Args:
            bundle: its folder.
            keys: public keys whose seals count.
            sums_sha256: the digest of its SHA256SUMS by the ledger; None for no comparison.
            signature: its signature, while the store does not have it yet.

        Raises:
            Refused: the bundle does not verify as far as its result.json goes.
        """
        folder = StoreFolder(self.store, bundle, signature=signature)
        signed = check_signature(folder, keys)
        if sums_sha256 is not None and signed.sha256 != sums_sha256:
            raise Refused(_("SHA256SUMS is not the one that the ledger has"))
        try:
            with folder.open(RESULT) as file:
                content = file.read(LARGEST_RESULT + 1)
        except (ObjectMissing, ObjectDamaged) as error:
            raise Refused(_("the file {name} is missing", name=RESULT)) from error
        if hashlib.sha256(content).hexdigest() != signed.sums.files.get(RESULT):
            raise Refused(_("the file {name} was changed after the seal", name=RESULT))
        try:
            registers = json.loads(content).get("registers")
            return RegisterState.model_validate(registers) if registers else None
        except (ValueError, AttributeError) as error:
            raise Refused(_("result.json is not one of ParcelSeal")) from error

    def _unrecorded(
        self,
        conn: Connection,
        keys: TrustedKeys,
        workflows: Collection[str],
        head: ledger.LedgerRow | None,
        now: datetime,
    ) -> list[str]:
        """Return the newest bundles of the store that the ledger does not have."""
        signed_at: dict[str, datetime] = {}
        for prefix in _prefixes(workflows, head.sealed_at if head else None, now):
            for stored in self.store.list(prefix):
                *folder, name = stored.key.split("/")
                if len(folder) == DEPTH and name == SIGNATURE:
                    signed_at["/".join(folder)] = stored.modified_at
        rows = ledger.of_bundles(conn, list(signed_at))
        recorded = {row.bundle for row in rows if row.is_authentic(keys)}
        unrecorded = sorted(signed_at.keys() - recorded, key=lambda name: (signed_at[name], name))
        return unrecorded[-UNRECORDED:][::-1]


def accept_losses(
    reader: EvidenceReader, signer: Signer, clock: Clock, *, by: str, because: str
) -> AcceptedLoss | None:
    """Record that a person accepts the loss of sealed rows; return None if no row is missing.

    Args:
        reader: the evidence.
        signer: signs the decision.
        clock: the moment of the decision.
        by: who accepts it.
        because: why the rows cannot be brought back.

    Raises:
        UsageError: nobody is named, or the reason says nothing.
        StoreError: the evidence store cannot be read.
    """
    if not by.strip():
        raise UsageError("Nobody is named who accepts the loss.", "Name the person with --by.")
    if not says_something(because):
        raise UsageError("The reason says nothing.", "Write it in plain words with --because.")
    lost = reader.losses(reader.sealed_states(clock.now()))
    if not lost:
        return None
    accepted = AcceptedLoss(
        accepted_at=clock.now(),
        accepted_by=by.strip(),
        because=value_free_reason(because),
        lost={loss.register.name: loss.sealed for loss in lost},
    )
    figures = take_figures(reader.state, {})
    columns = _columns(accepted, figures, signer.fingerprint)
    with reader.state.begin() as conn:
        conn.execute(
            register_loss.insert().values(columns | {"signature": signer.sign(_signed(columns))})
        )
    return accepted


def as_text(messages: Iterable[Message]) -> str:
    """Return messages in English, in one line."""
    return "; ".join(map(_english, messages))


def _english(message: Message) -> str:
    values = {
        name: _english(value) if isinstance(value, Message) else value
        for name, value in message.values.items()
    }
    return message.text.format(**values)


def _findings(sealed: SealedStates, lost: Sequence[Loss]) -> Iterator[Finding]:
    for loss in lost:
        yield Finding(
            code="evidence.register_lost",
            severity=Outcome.ATTENTION,
            subject=loss.register.name,
            message=_("The state database is not complete: {loss}.", loss=loss.message),
            action=_(
                "Restore the state database from a newer backup. If there is none, have the data "
                "engineers name what is missing, and accept the loss."
            ),
        )
    for bundle in sealed.unreadable:
        yield Finding(
            code="evidence.register_unread",
            severity=Outcome.ATTENTION,
            subject=bundle,
            message=_(
                "An evidence bundle does not verify, so its figures of the state database are "
                "unknown."
            ),
            action=_("Verify all evidence and find out who changed it."),
        )
    accepted = sealed.accepted
    if accepted is not None and accepted not in [state.accepted for state in sealed.states]:
        yield Finding(
            code="evidence.register_loss_accepted",
            severity=Outcome.ATTENTION,
            subject=", ".join(sorted(accepted.lost)),
            message=_(
                "{who} accepted that rows of the state database are lost: {reason}",
                who=accepted.accepted_by,
                reason=accepted.because,
            ),
            action=_("See that holds and requests which are missing are entered again."),
        )


def _prefixes(workflows: Collection[str], since: datetime | None, now: datetime) -> list[str]:
    """Return the folders of the store in which bundles since a moment lie; all for None."""
    if since is None:
        return [""]
    last, first = now.astimezone(UTC), since.astimezone(UTC)
    newest = last.year * 12 + last.month - 1
    oldest = max(min(newest, first.year * 12 + first.month - 1), newest - MONTHS + 1)
    months = [f"{at // 12:04}/{at % 12 + 1:02}" for at in range(oldest, newest + 1)]
    return [f"{folder_name(name)}/{month}/" for name in sorted(workflows) for month in months]


def _columns(
    accepted: AcceptedLoss, figures: Mapping[str, RegisterFigure], fingerprint: str
) -> dict[str, Any]:
    return {
        "accepted_at": accepted.accepted_at,
        "accepted_by": accepted.accepted_by,
        "because": accepted.because,
        "lost": {name: lost.model_dump(mode="json") for name, lost in accepted.lost.items()},
        "figures": {name: now.model_dump(mode="json") for name, now in figures.items()},
        "key_fingerprint": fingerprint,
    }


def _signed(columns: Mapping[str, Any]) -> bytes:
    return ledger.canonical("register_loss", columns)


def _accepted(
    conn: Connection, keys: TrustedKeys
) -> tuple[AcceptedLoss, dict[str, RegisterFigure]] | None:
    """Return the newest accepted loss that a trusted key signed, and the figures since then."""
    query = select(register_loss).order_by(register_loss.c.id.desc())
    for row in conn.execute(query).mappings():
        columns = {name: row[name] for name in row if name not in ("id", "signature")}
        if not keys.signed_by(row["key_fingerprint"], bytes(row["signature"]), _signed(columns)):
            continue
        figures = {
            name: RegisterFigure.model_validate(figure) for name, figure in row["figures"].items()
        }
        return AcceptedLoss.model_validate(columns), figures
    return None
