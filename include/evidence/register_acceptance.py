"""Losses of registers that a person accepted, each decision signed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from include.approvals.reasons import says_something, value_free_reason
from include.evidence import ledger
from include.evidence.model import AcceptedLoss, RegisterFigure, RegisterState
from include.evidence.register_figures import PATIENCE, take_figures
from include.evidence.signing import Signer, TrustedKeys
from include.evidence.standing import AHEAD
from include.services.clock import Clock
from include.services.errors import ControlFailed, UsageError
from include.state.tables import register_loss

if TYPE_CHECKING:
    from include.evidence.registers import EvidenceReader

_BUNDLES = "evidence_bundle"  # in the column `lost`, beside the names of registers


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
    # A register that is being written keeps its sealed figure; comparisons begin anew from here.
    previous = {name: sealed.newest[name] for name in sealed.newest if name not in accepted.lost}
    figures = take_figures(reader.state, previous, accepted.lost, patience)
    if unread := accepted.lost.keys() - figures.keys():
        raise ControlFailed(
            f"The register {min(unread)} of the state database is being written all the time, so "
            "nothing shows which of its rows are left.",
            "Stop the runs that write to it, and accept the loss again.",
        )
    columns = _columns(accepted, figures, signer.fingerprint)
    with reader.state.begin() as conn:
        conn.execute(
            register_loss.insert().values(columns | {"signature": signer.sign(_signed(columns))})
        )
    return accepted


def is_after(state: RegisterState, accepted: Sequence[AcceptedLoss]) -> bool:
    """Return whether a state was read after the newest accepted loss.

    A seal that knows the acceptance, or one that this state database does not have, came after it,
    whatever the clocks of the two machines say.

    Args:
        state: of a bundle.
        accepted: all accepted losses, the newest first.
    """
    if state.accepted is not None and state.accepted not in accepted[1:]:
        return True
    return state.read_at > accepted[0].accepted_at + AHEAD


def _columns(
    accepted: AcceptedLoss, figures: Mapping[str, RegisterFigure], fingerprint: str
) -> dict[str, Any]:
    lost: dict[str, object] = {
        name: figure.model_dump(mode="json") for name, figure in accepted.lost.items()
    }
    if accepted.unread:
        lost[_BUNDLES] = {"unread": list(accepted.unread)}
    return {
        "accepted_at": accepted.accepted_at,
        "accepted_by": accepted.accepted_by,
        "because": accepted.because,
        "lost": lost,
        "figures": {name: now.model_dump(mode="json") for name, now in figures.items()},
        "key_fingerprint": fingerprint,
    }


def _signed(columns: Mapping[str, Any]) -> bytes:
    return ledger.canonical("register_loss", columns)


def accepted_losses(
    conn: Connection, keys: TrustedKeys
) -> list[tuple[AcceptedLoss, dict[str, RegisterFigure]]]:
    """Return accepted losses that a trusted key signed, newest first, with the figures since."""
    accepted = []
    query = select(register_loss).order_by(register_loss.c.id.desc())
    for row in conn.execute(query).mappings():
        columns = {name: row[name] for name in row if name not in ("id", "signature")}
        if not keys.signed_by(row["key_fingerprint"], bytes(row["signature"]), _signed(columns)):
            continue
        figures = {
            name: RegisterFigure.model_validate(figure) for name, figure in row["figures"].items()
        }
        lost = dict(columns["lost"])
        unread = lost.pop(_BUNDLES, {}).get("unread", ())
        loss = AcceptedLoss.model_validate(columns | {"lost": lost, "unread": unread})
        accepted.append((loss, figures))
    return accepted
