"""Test that a restore refuses a damaged restore point or a wrong key."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from random import SystemRandom

from include.backup.drill import chosen_source
from include.backup.drill_findings import STOP
from include.backup.drill_proofs import PointResult
from include.backup.offsite_findings import CLAUSE
from include.backup.source import Source
from include.encryption.crypto import ContentRefused, Readable, decrypting
from include.encryption.recipients import OpeningKey, new_pair, opening_key_from_pem
from include.encryption.stream import PIECE
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import _
from include.workflow.run_context import RunContext
from include.workflow.step import Step

WRONG_KEY_BITS = 3072


class Variant(StrEnum):
    """A way to change a restore point or its key, to test that the restore refuses it.

    One byte of the dump is changed, the end of the dump is cut off, or a wrong key is used.
    """

    FLIPPED_BYTE = "flipped_byte"
    TRUNCATED = "truncated"
    WRONG_KEY = "wrong_key"


_NAMES = {
    Variant.FLIPPED_BYTE: _("a backup with one changed byte"),
    Variant.TRUNCATED: _("a truncated backup"),
    Variant.WRONG_KEY: _("a wrong key"),
}


class Refusals(PointResult):
    """The result of the step that tests whether a restore refuses damaged copies and a wrong key.

    Attributes:
        refused: variants that the restore refused. The test has passed if the restore refused all
            variants.
    """

    refused: list[Variant]


def check_refusals(run: RunContext[None], findings: StepFindings) -> Refusals:
    """Check that the restore refuses a changed byte, a truncated copy and a wrong key."""
    with chosen_source(run, findings.part) as source:
        return judge_refusals(source, run.clock.now(), findings)


def judge_refusals(source: Source, now: datetime, findings: StepFindings) -> Refusals:
    """Try to restore a restore point in every variant; add a finding for each that is not refused.

    Args:
        source: restore point.
        now: current time.
        findings: findings of the step.
    """
    proofs = prove_refusals(source, now)
    for variant, is_refused in proofs.items():
        if not is_refused:
            message = _(
                "The restore accepted {backup}, which it should have refused.",
                backup=_NAMES[variant],
            )
            findings.find("drill.accepted", Outcome.FAIL, message, STOP)
    findings.measure("drill.refusals", sum(proofs.values()), "1", len(proofs))
    refused = [variant for variant, is_refused in proofs.items() if is_refused]
    return Refusals(restore_point=source.manifest.id, refused=refused)


def prove_refusals(source: Source, now: datetime) -> dict[Variant, bool]:
    """Try to open a changed copy, a truncated copy, and an unchanged copy with a wrong key.

    The position of the change is random. The bytes are changed in memory while they are read from
    the store, so nothing is written. Reading stops at the first bytes that are refused.

    Args:
        source: restore point.
        now: current time, at which the wrong key is created.

    Returns:
        For each variant, whether it was refused.
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
    except ContentRefused:
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
    title=_("The test of {part} with damaged backups", part=""),
    clause=CLAUSE,
    work=check_refusals,
    result=Refusals,
)
