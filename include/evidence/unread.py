"""Losses of registers: bundles whose figures are unknown, and the losses that a person accepted.

Unknown figures stop work until a person accepts that. Each later bundle repeats the names of these
bundles, so that newer bundles do not make anybody forget them. Each decision is signed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, select

from include.evidence import ledger
from include.evidence.check import Refused, is_of_folder
from include.evidence.model import (
    AcceptedLoss,
    Finding,
    RegisterFigure,
    RegisterState,
    attention_finding,
    failure_finding,
)
from include.evidence.signing import TrustedKeys
from include.evidence.standing import AHEAD
from include.evidence.versions import find_sealed
from include.messages import Message, _
from include.services.errors import ControlFailed
from include.services.objectstore.base import ObjectStore
from include.state.tables import register_loss

_BUNDLES = "evidence_bundle"  # in the column `lost`, beside the names of registers


def is_after(state: RegisterState, accepted: Sequence[AcceptedLoss]) -> bool:
    """Return whether a state was read after the newest accepted loss.

    A seal that knows the acceptance, or an acceptance that this state database lacks, came after
    it, also if the clocks of the two machines differ.

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


ACCEPT = (
    "If the bundle is lost for good: `./parcelseal recover-ledger --accept-losses` goes on "
    "without its figures."
)


@dataclass
class ReadAgain:
    """The result of reading bundles again that could not be read.

    Attributes:
        states: of those that verify now.
        unreadable: bundles that still do not verify.
        untrusted: bundles whose ledger row no trusted key signed.
    """

    states: list[RegisterState] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    untrusted: list[str] = field(default_factory=list)


def read_again(
    store: ObjectStore,
    state: Engine,
    keys: TrustedKeys,
    bundles: Iterable[str],
    parse: Callable[[bytes | None], RegisterState | None],
) -> ReadAgain:
    """Read bundles again that could not be read, and those that they name themselves.

    Args:
        store: the evidence store.
        state: the state database.
        keys: public keys whose seals count.
        bundles: their folders.
        parse: returns the state in a result.json; raises Refused.

    Raises:
        StoreError: the store cannot be read.
    """
    again = ReadAgain()
    waiting = list(bundles)
    queued = set(waiting)
    while waiting:
        bundle = waiting.pop()
        with state.connect() as conn:
            row = ledger.find_bundle(conn, bundle)
        sums_sha256 = row.sums_sha256 if row and row.is_authentic(keys) else ""
        sealed = find_sealed(store, bundle, keys, sums_sha256=sums_sha256)
        result_json = sealed.read_result() if sealed else None
        if result_json is not None and not is_of_folder(result_json, bundle):
            result_json = None  # a copy of another bundle
        try:
            registers = parse(result_json)
        except Refused:
            (again.untrusted if row and not sums_sha256 else again.unreadable).append(bundle)
            continue
        if registers is not None:
            again.states.append(registers)
            waiting += [name for name in registers.unread if name not in queued]
            queued.update(registers.unread)
    return again


def unread_error(unreadable: Sequence[str], untrusted: Collection[str]) -> ControlFailed:
    """Return the error of work that relies on registers while figures are unknown.

    Args:
        unreadable: bundles whose figures are unknown; at least one.
        untrusted: those of them whose ledger row no trusted key signed.
    """
    verifiable = [bundle for bundle in unreadable if bundle not in untrusted]
    if verifiable:
        return ControlFailed(
            f"The evidence bundle {verifiable[0]} does not verify, so nothing shows that the state "
            "database is complete.",
            f"Run `./parcelseal verify --all` and find out who changed it. {ACCEPT}",
        )
    return ControlFailed(
        f"No trusted key signed the ledger row of the evidence bundle {unreadable[0]}, so nothing "
        "shows that the state database is complete.",
        "If the signing key was exchanged, add the earlier public key to `trusted_keys` of the "
        f"evidence store. Otherwise find out who changed the row. {ACCEPT}",
    )


def unread_findings(unreadable: Sequence[str], untrusted: Sequence[str]) -> Iterator[Finding]:
    """Yield findings for bundles whose figures are unknown.

    Args:
        unreadable: these bundles.
        untrusted: those of them whose ledger row no trusted key signed; they share one finding.
    """
    for bundle in unreadable:
        if bundle in untrusted:
            continue
        yield attention_finding(
            code="evidence.register_unread",
            subject=bundle,
            message=_(
                "An evidence bundle does not verify, so its figures of the state database are "
                "unknown."
            ),
            action=_("Verify all evidence and find out who changed it."),
        )
    if untrusted:
        yield attention_finding(
            code="evidence.register_untrusted",
            subject=untrusted[0],
            message=_(
                "No trusted key signed {count} rows of the evidence ledger, so their bundles' "
                "figures of the state database are unknown.",
                count=len(untrusted),
            ),
            action=_(
                "If the signing key was exchanged, have the data engineers trust the earlier "
                "public key again. Otherwise find out who changed the rows."
            ),
        )


def changed_findings(bundles: Sequence[str]) -> Iterator[Finding]:
    """Yield a failed finding if rows of the ledger were changed.

    Args:
        bundles: bundles of a trusted key whose ledger rows no trusted key signed.
    """
    if bundles:
        yield failure_finding(
            code="evidence.ledger_changed",
            subject=bundles[0],
            message=_(
                "{count} rows of the evidence ledger were changed: their signatures do not fit, "
                "and a trusted key signed their bundles.",
                count=len(bundles),
            ),
            action=_("Verify all evidence and find out who changed the state database."),
        )


def accepted_message(accepted: AcceptedLoss) -> Message:
    """Return the message of the finding that a person accepted a loss."""
    if accepted.lost:
        return _(
            "{who} accepted that rows of the state database are lost: {reason}",
            who=accepted.accepted_by,
            reason=accepted.because,
        )
    return _(
        "{who} accepted that figures of {count} evidence bundles cannot be read: {reason}",
        who=accepted.accepted_by,
        count=len(accepted.unread),
        reason=accepted.because,
    )
