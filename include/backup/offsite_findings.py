"""Findings about restore points: changed, lost or kept although a rule would remove them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from include.backup.manifest import Rejected, RestorePoint
from include.backup.point_folder import folder
from include.backup.unfinished import Cleared
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import _


def report_unfinished(findings: StepFindings, cleared: Cleared) -> None:
    """Report the folders that are no restore points and were not cleared."""
    for prefix in cleared.locked:
        findings.find(
            "backup.unfinished.locked",
            Outcome.ATTENTION,
            _("Left-overs of a killed run are locked and could not be removed."),
            _("Nothing to do: a later run removes them when the lock ends."),
            subject=prefix,
        )
    for prefix in cleared.held:
        findings.find(
            "backup.unfinished.held",
            Outcome.ATTENTION,
            _("A legal hold keeps what an interrupted run left of a restore point."),
            _("Nothing to do: a later run removes it when the hold is released."),
            subject=prefix,
        )
    for prefix in cleared.uncompared:
        findings.find(
            "backup.unfinished.uncompared",
            Outcome.ATTENTION,
            _(
                "Left-overs of a killed run were kept: the state database lacks legal holds that "
                "bundles sealed, or its holds could not be compared with the evidence."
            ),
            _(
                "Read the error of the task that prunes, and correct its cause. A later run "
                "removes the left-overs."
            ),
            subject=prefix,
        )
    for prefix in cleared.unknown:
        findings.find(
            "backup.unfinished.unknown",
            Outcome.ATTENTION,
            _(
                "A folder without a manifest is in the off-site store, and no run is known to have "
                "begun it. It was kept."
            ),
            _(
                "Find out which installation or person wrote it. Remove it in the store once it is "
                "certain that nobody needs it."
            ),
            subject=prefix,
        )


def report_points(
    findings: StepFindings,
    points: Sequence[RestorePoint],
    rejected: Sequence[Rejected],
    refused: Sequence[str],
) -> None:
    """Report restore points that were changed in the store, and those that it refused to remove.

    Args:
        findings: of the step.
        points: with a valid manifest.
        rejected: that must not be used.
        refused: ids of those that are locked in the store.
    """
    for hidden in [each for point in points for each in point.hidden]:
        findings.find(
            "backup.object.hidden",
            Outcome.FAIL,
            hidden.message,
            _(
                "Find out who changed the off-site store. Remove what hides the object once that "
                "is secured; restores use the version that was signed."
            ),
            subject=hidden.key,
        )
    for each in rejected:
        findings.find(
            "backup.manifest.refused",
            Outcome.FAIL,
            _("A restore point cannot be trusted: {reason}", reason=each.reason),
            _("Do not restore from it. Find out who changed the off-site store."),
            subject=each.key,
        )
    for point in refused:
        findings.find(
            "backup.prune.locked",
            Outcome.ATTENTION,
            _("An old restore point is locked or held in the store; it was kept whole."),
            _("Nothing to do: it is removed when its lock or hold ends."),
            subject=point,
        )


def report_copies(findings: StepFindings, database: str, copies: Sequence[str]) -> None:
    """Report restore points whose recorded version the store never had.

    Args:
        findings: of the step.
        database: name of the database in the data map.
        copies: ids of the restore points.
    """
    if copies:
        findings.find(
            "backup.copy.unchecked",
            Outcome.ATTENTION,
            _(
                "The store holds copies of {count} restore points. Their dumps have other "
                "version ids than the signed ones, and were not checked.",
                count=len(copies),
            ),
            _(
                "If the store was copied from another one, nothing to do: a restore or drill of "
                "such a point checks it by digest. If it was not, find out who changed the store."
            ),
            subject=folder(database),
        )


def report_lost(
    findings: StepFindings, database: str, lost: Sequence[str], held: Collection[str]
) -> None:
    """Report published restore points that are gone although no run removed them.

    A state database that was restored from an older backup does not know of later removals, so one
    without a legal hold needs attention and does not fail the run.

    Args:
        findings: of the step.
        database: name of the database in the data map.
        lost: ids of the restore points.
        held: ids under a legal hold.
    """
    for point in lost:
        findings.find(
            "backup.point.lost",
            Outcome.FAIL if point in held else Outcome.ATTENTION,
            _("A restore point under a legal hold is gone, and no run removed it.")
            if point in held
            else _("A published restore point is gone, and no run is known to have removed it."),
            _(
                "Find out who removed it from the off-site store. If the state database was "
                "restored from an older backup, an earlier run may have pruned it."
            ),
            subject=folder(database, point),
        )
