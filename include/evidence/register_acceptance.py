"""Record that a person accepts the loss of sealed rows."""

from __future__ import annotations

from include.approvals.reasons import says_something, value_free_reason
from include.evidence.accepted_losses import loss_columns, signed_content
from include.evidence.model import AcceptedLoss
from include.evidence.register_figures import PATIENCE, take_figures
from include.evidence.registers import EvidenceReader
from include.evidence.signing import Signer
from include.services.clock import Clock
from include.services.errors import ControlFailed, UsageError
from include.state.tables import register_loss


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
    columns = loss_columns(accepted, figures, signer.fingerprint)
    with reader.state.begin() as conn:
        conn.execute(
            register_loss.insert().values(
                columns | {"signature": signer.sign(signed_content(columns))}
            )
        )
    return accepted
