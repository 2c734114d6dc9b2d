"""Findings of `backup_offsite` about stores, connections, recipients and restore points."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from include.backup.manifest import Rejected, RestorePoint
from include.backup.point_folder import folder
from include.backup.prune import Cleared
from include.encryption.recipients import Recipient, UnreadableRecipient, distinct
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import Message, _
from include.policy.datamap import MappedDatabase
from include.policy.rules import Recipients
from include.services.objectstore.base import ObjectStore, StoreError, StoreProblem
from include.services.transport import Destination, Route, Transport

CLAUSE = "4.2"
STORE_AWAY = "Start it, or correct the connection offsite_store; the backup is tried again."


def check_store(findings: StepFindings, store: ObjectStore) -> Sequence[StoreProblem]:
    """Report every fault of the off-site store, and return them.

    Raises:
        StoreError: the store cannot be reached, perhaps only for a while.
    """
    problems = store.preflight()
    for problem in problems:
        if problem.code == "unreachable":
            raise StoreError(f"The off-site store cannot be reached: {problem.detail}", STORE_AWAY)
    for problem in problems:
        message, action = _explain(problem, store)
        # A directory cannot version or lock, which every report says. For S3 it is a setting that
        # a person has to make.
        by_nature = problem.code == "same_device" or (
            store.kind == "directory" and problem.code in {"no_versioning", "no_object_lock"}
        )
        severity = Outcome.ATTENTION if by_nature else Outcome.FAIL
        findings.find(
            f"backup.store.{problem.code}", severity, message, action, subject=store.description
        )
    return problems


_PROBLEMS = {  # of a store: code -> message and action
    "no_versioning": (
        _("The off-site store keeps no versions, so an overwritten backup would be lost."),
        _("Switch on versioning of the bucket."),
    ),
    "no_object_lock": (
        _("The off-site store has no Object Lock: an intruder could delete the backups."),
        _("Create a bucket with Object Lock and use it as offsite_store."),
    ),
    "same_device": (
        _("The backup lies on the same disk as the database: that is not off-site."),
        _("Point the connection offsite_store at a store on another site."),
    ),
}
_UNLOCKED_DIRECTORY = (
    _("The off-site store is a directory: whoever can write there can delete backups."),
    _("Use an S3 bucket with Object Lock for real backups."),
)
_REPAIR = _("Correct the connection offsite_store or the store itself, then run the backup again.")


def _explain(problem: StoreProblem, store: ObjectStore) -> tuple[Message, Message]:
    if problem.code == "no_object_lock" and store.kind == "directory":
        return _UNLOCKED_DIRECTORY
    unusable = _("The off-site store cannot be used: {reason}", reason=problem.detail), _REPAIR
    return _PROBLEMS.get(problem.code, unusable)


def check_routes(findings: StepFindings, routes: Iterable[Route]) -> None:
    """Report connections to other machines that are not verified over TLS.

    To a store or KMS that is a fault: an attacker on the way could keep backups from being stored,
    or read the keys that they are encrypted with. A database's connection may choose a weaker
    ``sslmode``, as in a network that encrypts by itself.

    Args:
        findings: of the step.
        routes: of such connections.
    """
    for route in routes:
        is_database = route.destination is Destination.DATABASE
        message = (
            _("Data sent over the connection {name} is not encrypted.", name=route.conn_id)
            if route.transport is Transport.PLAIN
            else _("The connection {name} does not check which server answers.", name=route.conn_id)
        )
        severity = Outcome.ATTENTION if is_database else Outcome.FAIL
        code = f"backup.transport.{route.transport}"
        findings.find(
            code, severity, message, _ROUTE_ACTIONS[route.destination], subject=route.conn_id
        )


_ROUTE_ACTIONS = {
    Destination.DATABASE: _("Set sslmode to verify-full in the extra of the connection."),
    Destination.STORE: _(
        "Use an address with https for this store, and have the server's certificate checked. "
        "Backups go on meanwhile, and every run fails: the store may not keep what it confirmed."
    ),
    Destination.KMS: _(
        "Use an address with https, and have the server's certificate checked. No dump "
        "starts until then, because the keys of backups would be readable in transit."
    ),
}


def check_sites(
    findings: StepFindings,
    databases: Iterable[MappedDatabase],
    store: ObjectStore,
    problems: Collection[StoreProblem],
) -> dict[str, bool | None]:
    """Report databases whose backups would be stored on their own site.

    Args:
        findings: of the step.
        databases: that would be backed up.
        store: the off-site store.
        problems: of the store, from `check_store`.

    Returns:
        By database whether it does; None where nobody said where one of the two stands, or where
        store and server are findings to share a disk whatever the names say.
    """
    same_disk = any(problem.code == "same_device" for problem in problems)
    at_primary_site: dict[str, bool | None] = {}
    for database in databases:
        if not store.site or not database.site:
            at_primary_site[database.name] = None
            _unknown_site(findings, database, store)
        elif _site(store.site) == _site(database.site):
            at_primary_site[database.name] = True
            findings.find(
                "backup.site.same",
                Outcome.FAIL,
                _(
                    "The off-site store and the database are on the same site, {site}.",
                    site=store.site,
                ),
                _("Use a store on another site (extra site of the connection offsite_store)."),
                subject=database.name,
            )
        else:
            at_primary_site[database.name] = None if same_disk else False
    return at_primary_site


def _unknown_site(findings: StepFindings, database: MappedDatabase, store: ObjectStore) -> None:
    if not store.site and not database.site:
        message = _("Nobody said where the off-site store and the database stand.")
        action = _("Name the sites in the connection offsite_store and in the data map.")
    elif not store.site:
        message = _("Nobody said where the off-site store stands.")
        action = _("Name its site in the connection offsite_store (extra site).")
    else:
        message = _("Nobody said where the database stands.")
        action = _("Name its site in the data map (site, under meta.parcelseal).")
    findings.find("backup.site.unknown", Outcome.ATTENTION, message, action, subject=database.name)


def _site(name: str) -> str:
    """Return one spelling of a site's name: "Kunming-1 " and "kunming-1" are the same site."""
    return " ".join(name.split()).casefold()


def check_recipients(
    findings: StepFindings,
    recipients: Sequence[Recipient],
    unreadable: Sequence[UnreadableRecipient],
    rules: Recipients,
    now: datetime,
) -> None:
    """Report keys that cannot be used or that expire, and too few of them."""
    renew = _("Make a new pair (./parcelseal keys new) and exchange the certificate.")
    for faulty in unreadable:
        findings.find(
            "backup.recipients.unreadable",
            Outcome.FAIL,
            _(
                "The key of recipient {name} cannot be used: {reason}",
                name=faulty.name,
                reason=faulty.reason,
            ),
            _("Put the recipient's certificate where offsite_store says it is."),
            subject=faulty.name,
        )
    valid = [recipient for recipient in recipients if not recipient.expired(now)]
    for recipient in recipients:
        if recipient.expired(now):
            findings.find(
                "backup.recipients.expired",
                Outcome.FAIL,
                _("The key of recipient {name} expired.", name=recipient.name),
                renew,
                subject=recipient.name,
            )
        elif recipient.expired(now + timedelta(days=rules.warn_days_before_expiry)):
            findings.find(
                "backup.recipients.expiring",
                Outcome.ATTENTION,
                _(
                    "The key of recipient {name} expires on {day}.",
                    name=recipient.name,
                    day=recipient.expires_at,
                ),
                renew,
                subject=recipient.name,
            )
    if distinct(valid) < rules.minimum:
        findings.find(
            "backup.recipients.too_few",
            Outcome.FAIL,
            _(
                "Backups would be encrypted to {count} keys; the policy asks for {minimum}.",
                count=distinct(valid),
                minimum=rules.minimum,
            ),
            _("Add recipients to the connection offsite_store, one of them kept offline."),
            subject="recipients",
        )


_LEFT_OVERS = {  # attribute of `Cleared` -> message and action
    "locked": (
        _("Left-overs of a killed run are locked and could not be removed."),
        _("Nothing to do: a later run removes them when the lock ends."),
    ),
    "held": (
        _("A legal hold keeps what an interrupted run left of a restore point."),
        _("Nothing to do: a later run removes it when the hold is released."),
    ),
    "uncompared": (
        _(
            "Left-overs of a killed run were kept: the state database lacks legal holds that "
            "bundles sealed, or its holds could not be compared with the evidence."
        ),
        _(
            "Read the error of the task that prunes, and correct its cause. A later run "
            "removes the left-overs."
        ),
    ),
    "unknown": (
        _(
            "A folder without a manifest is in the off-site store, and no run is known to have "
            "begun it. It was kept."
        ),
        _(
            "Find out which installation or person wrote it. Remove it in the store once it is "
            "certain that nobody needs it."
        ),
    ),
}


def report_unfinished(findings: StepFindings, cleared: Cleared) -> None:
    """Report the folders that are no restore points and were not cleared."""
    for kept, (message, action) in _LEFT_OVERS.items():
        for prefix in getattr(cleared, kept):
            code = f"backup.unfinished.{kept}"
            findings.find(code, Outcome.ATTENTION, message, action, subject=prefix)


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
