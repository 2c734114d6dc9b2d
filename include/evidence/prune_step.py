"""The step that prunes evidence past its term: its record, and its line in the report."""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.forget import Forgotten
from include.evidence.model import Finding, Outcome, StepRecord
from include.evidence.prune import LONGEST_PAUSE, Pruned, Waits
from include.messages import Message, _
from include.reports.model import Fact

STEP = "prune_evidence"

_NOTES: dict[str, Message] = {
    Waits.HELD: _("others wait: a legal hold is active"),
    Waits.LOCKED: _("others wait: the store still locks them"),
    Waits.CHANGED: _("others wait: a bundle does not verify"),
    Waits.CLOCK: _("others wait: the clock may be wrong"),
    Waits.MORE: _("others follow in the next run"),
}


def record(pruned: Pruned, forgotten: Forgotten, keep: str, clause: str) -> StepRecord:
    """Return the record of a step that pruned evidence.

    A hold and a lock are no findings: the next run tries again.

    Args:
        pruned: which bundles were removed, and why others were not.
        forgotten: of how many sealed runs the step records were removed.
        keep: the term of the policy pack, ``P6Y``.
        clause: of the policy.
    """
    finding = _finding(pruned, clause)
    data = {
        "bundles": len(pruned.bundles),
        "last": pruned.bundles[-1] if pruned.bundles else "",
        "waits": str(pruned.waits or ""),
        "keep": keep,
        "runs_forgotten": forgotten.runs,
    }
    return StepRecord(
        step=STEP,
        outcome=finding.severity if finding else Outcome.PASS,
        findings=[finding] if finding else [],
        data=data,
    )


def _finding(pruned: Pruned, clause: str) -> Finding | None:
    if pruned.problem is not None:
        return Finding(
            code="evidence.prune_refused",
            severity=Outcome.FAIL,
            subject=pruned.next_bundle,
            message=_(
                "The evidence bundle {bundle} is past its term and does not verify: {problem}. It "
                "stays, and so do newer bundles.",
                bundle=pruned.next_bundle,
                problem=pruned.problem,
            ),
            action=_("Verify all evidence, and find out who changed this bundle."),
            clause=clause,
        )
    if pruned.waits is Waits.CLOCK:
        return Finding(
            code="evidence.prune_postponed",
            severity=Outcome.ATTENTION,
            subject=STEP,
            message=_(
                "The newest evidence is more than {days} days old, so the clock may be wrong. No "
                "evidence past its term was removed.",
                days=LONGEST_PAUSE.days,
            ),
            action=_("Compare the clock of the worker. If it is right, the next run goes on."),
            clause=clause,
        )
    return None


def facts(records: Sequence[StepRecord]) -> list[Fact]:
    """Return the line of a report about evidence past its term; none if there was none."""
    for one in records:
        if one.step == STEP and (one.data.get("bundles") or one.data.get("waits")):
            return [
                Fact(
                    label=_("Evidence bundles past their term, removed"),
                    value=one.data["bundles"],
                    note=_NOTES.get(one.data["waits"]),
                )
            ]
    return []
