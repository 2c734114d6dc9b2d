"""Bundles whose register figures cannot be read, and losses that a person accepted.

If the figures of a bundle are unknown, runs that rely on registers are refused until a person
accepts the loss of these figures. Each later bundle repeats the names of the unreadable bundles;
otherwise newer bundles would hide the problem. A decision to accept a loss of figures or of
register rows is signed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, select

from include.evidence import ledger
from include.evidence.check import EvidenceRefused, is_result_of_folder
from include.evidence.control_evidence import AHEAD
from include.evidence.model import (
    AcceptedLoss,
    Finding,
    RegisterFigure,
    RegisterState,
    attention_finding,
    failure_finding,
)
from include.evidence.signing import TrustedKeys
from include.evidence.versions import find_sealed
from include.messages import Message, _
from include.services.errors import ControlFailed
from include.services.objectstore.base import ObjectStore
from include.state.tables import register_loss

_BUNDLES = "evidence_bundle"  # in the column `lost`, beside the names of registers


def is_after(state: RegisterState, accepted: Sequence[AcceptedLoss]) -> bool:
    """Return whether a register state was read after the newest accepted loss was accepted.

    A state that contains the newest accepted loss was read afterwards. So was a state that contains
    an accepted loss which this state database does not have. For all other states, the times
    decide: the state must be more than 5 minutes later, because the clocks of two machines may
    differ.

    Args:
        state: register state in a bundle.
        accepted: all accepted losses in the state database, newest first; at least one.
    """
    if state.accepted is not None and state.accepted not in accepted[1:]:
        return True
    return state.read_at > accepted[0].accepted_at + AHEAD


def loss_columns(
    accepted: AcceptedLoss, figures: Mapping[str, RegisterFigure], fingerprint: str
) -> dict[str, Any]:
    """Return the columns of the database row for an accepted loss: column -> value.

    Args:
        accepted: the accepted loss.
        figures: register name -> figure of the register when the loss was accepted.
        fingerprint: fingerprint of the key that signs the decision. The signature itself is not
            part of the result.
    """
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
    """Return the bytes that the signature of an accepted loss is calculated from.

    Args:
        columns: values of the database row, by column, without the id and the signature.
    """
    return ledger.canonical("register_loss", columns)


def accepted_losses(
    conn: Connection, keys: TrustedKeys
) -> list[tuple[AcceptedLoss, dict[str, RegisterFigure]]]:
    """Return the losses of register rows or figures that a person accepted, newest first.

    A loss is returned only if a trusted key signed the decision to accept it.

    Returns:
        Pairs of an accepted loss and the figures of the registers at the time of the decision, by
        register name.
    """
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
    "If the bundle cannot be restored, `./parcelseal recover-ledger --accept-losses` records "
    "that a person accepts this. Runs then continue without the bundle."
)


@dataclass
class ReadAgain:
    """The result of another attempt to read bundles that could not be read before.

    Each bundle that still cannot be read is in exactly one of `unreadable` and `untrusted`.

    Attributes:
        states: the register states that the other bundles contain.
        unreadable: folders of bundles that still cannot be read, except for those in `untrusted`.
        untrusted: folders of bundles that still cannot be read and whose ledger row is not signed
            by a trusted key.
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
    """Try again to read the register states that certain bundles contain.

    If a bundle can be read now, it may itself list bundles that could not be read when it was
    sealed. The function tries to read these as well.

    Args:
        store: the evidence store.
        state: the state database.
        keys: public keys whose seals are accepted.
        bundles: folders of the bundles that could not be read before.
        parse: returns the register state in a result.json, or None if it has none; raises
            EvidenceRefused if the content is None or not valid.

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
        if result_json is not None and not is_result_of_folder(result_json, bundle):
            result_json = None  # a copy of another bundle
        try:
            registers = parse(result_json)
        except EvidenceRefused:
            (again.untrusted if row and not sums_sha256 else again.unreadable).append(bundle)
            continue
        if registers is not None:
            again.states.append(registers)
            waiting += [name for name in registers.unread if name not in queued]
            queued.update(registers.unread)
    return again


def unread_error(unreadable: Sequence[str], untrusted: Collection[str]) -> ControlFailed:
    """Return the error that refuses a run because figures of the registers are unknown.

    Args:
        unreadable: folders of the bundles whose figures are unknown; at least one.
        untrusted: those bundles of `unreadable` whose ledger row was not signed by a trusted key.
    """
    verifiable = [bundle for bundle in unreadable if bundle not in untrusted]
    if verifiable:
        return ControlFailed(
            f"The evidence bundle {verifiable[0]} failed verification. Therefore the "
            "number of state database entries that it records cannot be trusted, and it is "
            "unknown whether the state database is complete.",
            f"Run `./parcelseal verify --all` and find out who changed the bundle. {ACCEPT}",
        )
    return ControlFailed(
        f"The row of the evidence bundle {unreadable[0]} in the evidence ledger is not signed "
        "with a trusted key, so it is unknown whether the state database is complete.",
        "If the signing key was replaced, add the earlier public key to `trusted_keys` of the "
        f"evidence store. Otherwise find out who changed the row. {ACCEPT}",
    )


def unread_findings(unreadable: Sequence[str], untrusted: Sequence[str]) -> Iterator[Finding]:
    """Yield findings for bundles whose register figures are unknown.

    Args:
        unreadable: folders of the bundles whose figures are unknown.
        untrusted: those bundles of `unreadable` whose ledger row was not signed by a trusted key. A
            single finding reports all of them; each other bundle has its own finding.
    """
    for bundle in unreadable:
        if bundle in untrusted:
            continue
        yield attention_finding(
            code="evidence.register_unread",
            subject=bundle,
            message=_(
                "An evidence bundle failed verification. Therefore the number of state "
                "database entries that it records cannot be trusted."
            ),
            action=_(
                "Have all evidence verified, and find out who changed the files of the bundle."
            ),
        )
    if untrusted:
        yield attention_finding(
            code="evidence.register_untrusted",
            subject=untrusted[0],
            message=_(
                "{count} rows of the evidence ledger are not signed with a trusted key. "
                "Therefore the numbers of state database entries that their bundles record "
                "cannot be trusted.",
                count=len(untrusted),
            ),
            action=_(
                "If the signing key was replaced, ask the data engineers to add the earlier "
                "public key to the trusted keys. Otherwise find out who changed the rows of "
                "the evidence ledger."
            ),
        )


def changed_findings(bundles: Sequence[str]) -> Iterator[Finding]:
    """Yield a single finding with severity ``fail`` if rows of the ledger were changed.

    Args:
        bundles: folders of the bundles whose rows were changed. The bundles have a trusted
            signature, but their rows have none.
    """
    if bundles:
        yield failure_finding(
            code="evidence.ledger_changed",
            subject=bundles[0],
            message=_(
                "{count} rows of the evidence ledger were changed: the signatures of the rows "
                "are not valid, but the bundles of these rows are signed with a trusted key.",
                count=len(bundles),
            ),
            action=_("Have all evidence verified, and find out who changed the state database."),
        )


def accepted_message(accepted: AcceptedLoss) -> Message:
    """Return the message of the finding about a loss that a person accepted."""
    if accepted.lost:
        return _(
            "{person} accepted that entries of the state database are lost. Reason: {reason}",
            person=accepted.accepted_by,
            reason=accepted.because,
        )
    return _(
        "{person} accepted that {count} evidence bundles cannot be used to check whether the "
        "state database is complete. Reason: {reason}",
        person=accepted.accepted_by,
        count=len(accepted.unread),
        reason=accepted.because,
    )
