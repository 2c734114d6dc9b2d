"""Losses of registers that a person accepted, each decision signed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from include.evidence import ledger
from include.evidence.model import AcceptedLoss, RegisterFigure, RegisterState
from include.evidence.signing import TrustedKeys
from include.evidence.standing import AHEAD
from include.state.tables import register_loss

_BUNDLES = "evidence_bundle"  # in the column `lost`, beside the names of registers


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


def loss_columns(
    accepted: AcceptedLoss, figures: Mapping[str, RegisterFigure], fingerprint: str
) -> dict[str, Any]:
    """Return the columns of a decision, without its signature."""
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


def signed_content(columns: Mapping[str, Any]) -> bytes:
    """Return the bytes of a decision that its signature covers."""
    return ledger.canonical("register_loss", columns)


def accepted_losses(
    conn: Connection, keys: TrustedKeys
) -> list[tuple[AcceptedLoss, dict[str, RegisterFigure]]]:
    """Return accepted losses that a trusted key signed, newest first, with the figures since."""
    accepted = []
    query = select(register_loss).order_by(register_loss.c.id.desc())
    for row in conn.execute(query).mappings():
        columns = {name: row[name] for name in row if name not in ("id", "signature")}
        if not keys.signed_by(
            row["key_fingerprint"], bytes(row["signature"]), signed_content(columns)
        ):
            continue
        figures = {
            name: RegisterFigure.model_validate(figure) for name, figure in row["figures"].items()
        }
        lost = dict(columns["lost"])
        unread = lost.pop(_BUNDLES, {}).get("unread", ())
        loss = AcceptedLoss.model_validate(columns | {"lost": lost, "unread": unread})
        accepted.append((loss, figures))
    return accepted
