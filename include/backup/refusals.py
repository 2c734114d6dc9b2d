"""Prove that a restore can fail: damaged copies of a restore point must be refused."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from random import SystemRandom

from include.backup.drill import chosen_source
from include.backup.drill_findings import STOP
from include.backup.offsite_findings import CLAUSE
from include.backup.proved import PointResult
from include.backup.source import Source
from include.encryption.crypto import Readable, Refused, decrypting
from include.encryption.recipients import OpeningKey, new_pair, opening_key_from_pem
from include.encryption.stream import PIECE
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import _
from include.workflow.run_context import RunContext
from include.workflow.step import Step

WRONG_KEY_BITS = 3072


class Variant(StrEnum):
    """A damaged copy of a restore point, or one that is opened with a wrong key."""

    FLIPPED_BYTE = "flipped_byte"
    TRUNCATED = "truncated"
    WRONG_KEY = "wrong_key"


_NAMES = {
    Variant.FLIPPED_BYTE: _("a copy with one flipped byte"),
    Variant.TRUNCATED: _("a truncated copy"),
    Variant.WRONG_KEY: _("a copy opened with a wrong key"),
}


class Refusals(PointResult):
    """The variants of a restore point that were refused, as all must be."""

    refused: list[Variant]


def check_refusals(run: RunContext[None], findings: StepFindings) -> Refusals:
    """Prove that a flipped byte, a truncated copy and a wrong key are refused."""
    with chosen_source(run, findings.part) as source:
        return judge_refusals(source, run.clock.now(), findings)


def judge_refusals(source: Source, now: datetime, findings: StepFindings) -> Refusals:
    """Open each variant of a restore point, and report those that were accepted."""
    proofs = prove_refusals(source, now)
    for variant, is_refused in proofs.items():
        if not is_refused:
            message = _("The restore accepted {what}.", what=_NAMES[variant])
            findings.find("drill.accepted", Outcome.FAIL, message, STOP)
    findings.measure("drill.refusals", sum(proofs.values()), "1", len(proofs))
    refused = [variant for variant, is_refused in proofs.items() if is_refused]
    return Refusals(restore_point=source.manifest.id, refused=refused)


def prove_refusals(source: Source, now: datetime) -> dict[Variant, bool]:
    """Open a copy with one flipped byte, a truncated one, and one with a stranger's key.

    The damage is at random places and done on the way from the store to the decryptor; nothing is
    written. Reading stops at the first refused frame.

    Returns:
        Whether each variant was refused.
    """
    size = source.manifest.dump.size
    chance = SystemRandom()
    stranger, _certificate = new_pair("stranger", now, bits=WRONG_KEY_BITS)
    wrong = opening_key_from_pem(stranger, "the drill's wrong key")
    return {
        Variant.FLIPPED_BYTE: _refused(source, source.key, flip=chance.randrange(size)),
        Variant.TRUNCATED: _refused(source, source.key, cut=chance.randrange(size)),
        Variant.WRONG_KEY: _refused(source, wrong),
    }


def _refused(
    source: Source, key: OpeningKey, *, flip: int | None = None, cut: int | None = None
) -> bool:
    name = source.manifest.dump.key
    try:
        with source.open_object() as reader:
            damaged = _Damaged(reader, flip, cut)
            message = decrypting(damaged, key, source.manifest.encryption.context, name)
            while message.read(PIECE):
                pass
    except Refused:
        return True
    return False


class _Damaged:
    def __init__(self, reader: Readable, flip: int | None, cut: int | None) -> None:
        self._reader, self._flip, self._cut, self._position = reader, flip, cut, 0

    def read(self, size: int = -1) -> bytes:
        if self._cut is not None:
            left = self._cut - self._position
            size = left if size < 0 else min(size, left)
        data = self._reader.read(size) if size else b""
        start, self._position = self._position, self._position + len(data)
        if self._flip is not None and start <= self._flip < self._position:
            index = self._flip - start
            data = data[:index] + bytes([data[index] ^ 0x01]) + data[index + 1 :]
        return data


REFUSALS = Step(
    name="refusals",
    title=_("The proof that damage to {part} is refused", part=""),
    clause=CLAUSE,
    work=check_refusals,
    result=Refusals,
)
