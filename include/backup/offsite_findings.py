"""Add findings of `backup_offsite` about stores, connections, recipients and restore points."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from include.backup.manifest import Rejected, RestorePoint
from include.backup.point_folder import folder
from include.backup.prune import Cleared
from include.encryption.recipients import Recipient, UnreadableRecipient, count_distinct_keys
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import Message, _
from include.policy.datamap import MappedDatabase
from include.policy.rules import Recipients
from include.services.objectstore.base import ObjectStore, StoreError, StoreProblem
from include.services.transport import Destination, Route, Transport

CLAUSE = "4.2"
_STORE = _("Off-site store")
STORE_AWAY = "Start the store, or correct the connection offsite_store. The task is retried."


def check_store(findings: StepFindings, store: ObjectStore) -> Sequence[StoreProblem]:
    """Add a finding for each problem of the off-site store, and return the problems.

    Raises:
        StoreError: the store cannot be reached. A retry may help.
    """
    findings.subject_titles[store.description] = _STORE
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
            f"backup.store.{problem.code}",
            severity,
            message,
            action,
            subject=store.description,
            for_engineers=_CONNECTION,
        )
    return problems


_PROBLEMS = {  # of a store: code -> message and action
    "no_versioning": (
        _("The off-site store does not keep old versions, so an overwritten backup would be lost."),
        _("Ask the data engineers to enable versioning of the bucket that is the off-site store."),
    ),
    "no_object_lock": (
        _("The off-site store has no Object Lock, so an intruder could delete the backups."),
        _(
            "Ask the data engineers to create a bucket with Object Lock, and to use it as the "
            "off-site store."
        ),
    ),
    "same_device": (
        _("The backup is on the same disk as the database, so it is not off-site."),
        _("Ask the data engineers to use a store at another site."),
    ),
}
_UNLOCKED_DIRECTORY = (
    _(
        "The off-site store is a directory: every person with write access to it can delete "
        "backups."
    ),
    _("Ask the data engineers to use an S3 bucket with Object Lock for production backups."),
)
_REPAIR = _(
    "Ask the data engineers to correct the off-site store or its connection, then run the backup "
    "again."
)
_CONNECTION = _("The connection `offsite_store` contains the settings of the off-site store.")


def _explain(problem: StoreProblem, store: ObjectStore) -> tuple[Message, Message]:
    if problem.code == "no_object_lock" and store.kind == "directory":
        return _UNLOCKED_DIRECTORY
    unusable = _("The off-site store cannot be used: {reason}", reason=problem.detail), _REPAIR
    return _PROBLEMS.get(problem.code, unusable)


def check_routes(findings: StepFindings, routes: Iterable[Route]) -> None:
    """Add findings about network routes that verified TLS does not protect.

    A finding about a store or KMS fails the step: an attacker on the network could prevent backups
    from being stored, or read the keys that encrypt them. A finding about a database only needs
    attention: its connection may set a weaker ``sslmode`` on purpose, for example because the
    network itself encrypts all traffic.

    Args:
        findings: findings of the step.
        routes: network routes to other machines that verified TLS does not protect.
    """
    for route in routes:
        is_database = route.destination is Destination.DATABASE
        message = (
            _(
                "The connection {connection} sends data without encryption.",
                connection=route.conn_id,
            )
            if route.transport is Transport.PLAIN
            else _(
                "The connection {connection} does not verify the identity of the server.",
                connection=route.conn_id,
            )
        )
        severity = Outcome.ATTENTION if is_database else Outcome.FAIL
        code = f"backup.transport.{route.transport}"
        findings.find(
            code,
            severity,
            message,
            _ROUTE_ACTIONS[route.destination],
            subject=route.conn_id,
            for_engineers=_SSLMODE if is_database else None,
        )


_ROUTE_ACTIONS = {
    Destination.DATABASE: _(
        "Ask the data engineers to encrypt the connection and to verify the server's certificate."
    ),
    Destination.STORE: _(
        "Ask the data engineers to use an encrypted address (HTTPS) for this store, and to "
        "verify the server's certificate. Until then, backups are made, but every run fails: "
        "an attacker on the network could prevent backups from being stored."
    ),
    Destination.KMS: _(
        "Ask the data engineers to use an encrypted address (HTTPS) for the key management "
        "service (KMS), and to verify the server's certificate. Until then, no database is "
        "backed up, because the keys of backups could be read in transit."
    ),
}
_SSLMODE = _("Set `sslmode` to `verify-full` in the extra of the connection.")


def check_sites(
    findings: StepFindings,
    databases: Iterable[MappedDatabase],
    store: ObjectStore,
    problems: Collection[StoreProblem],
) -> dict[str, bool | None]:
    """Add findings about databases whose backups would be stored at the site of the database.

    Args:
        findings: findings of the step.
        databases: databases to back up.
        store: off-site store.
        problems: problems of the store, as returned by `check_store`.

    Returns:
        Whether the backups would be at the site of the database, by database name. The value is
        None if a site is not declared. It is also None if the declared sites differ, but the store
        and a database use the same disk.
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
                    "The off-site store and the database are at the same site, {site}.",
                    site=store.site,
                ),
                _("Ask the data engineers to use a store at another site."),
                subject=database.name,
                for_engineers=_STORE_SITE,
            )
        else:
            at_primary_site[database.name] = None if same_disk else False
    return at_primary_site


def _unknown_site(findings: StepFindings, database: MappedDatabase, store: ObjectStore) -> None:
    if not store.site and not database.site:
        message = _("The sites of the off-site store and of the database are not declared.")
        action = _(
            "Ask the data engineers to declare the sites of the off-site store and of the database."
        )
        for_engineers = _(
            "Declare the store's site as `site` in the extra of the connection `offsite_store`, "
            "and the database's site as `site` under `meta.parcelseal` in the data map."
        )
    elif not store.site:
        message = _("The site of the off-site store is not declared.")
        action = _("Ask the data engineers to declare the site of the off-site store.")
        for_engineers = _STORE_SITE
    else:
        message = _("The site of the database is not declared.")
        action = _("Ask the data engineers to declare the site of the database.")
        for_engineers = _(
            "Declare the database's site as `site` under `meta.parcelseal` in the data map."
        )
    findings.find(
        "backup.site.unknown",
        Outcome.ATTENTION,
        message,
        action,
        subject=database.name,
        for_engineers=for_engineers,
    )


_STORE_SITE = _(
    "Declare the store's site as `site` in the extra of the connection `offsite_store`."
)


def _site(name: str) -> str:
    """Return the name of a site in lower case and without extra spaces, for a comparison."""
    return " ".join(name.split()).casefold()


def check_recipients(
    findings: StepFindings,
    recipients: Sequence[Recipient],
    unreadable: Sequence[UnreadableRecipient],
    rules: Recipients,
    now: datetime,
) -> None:
    """Add findings about recipients with unusable or expiring keys, and about too few recipients.

    Args:
        findings: findings of the step.
        recipients: recipients whose keys can be read.
        unreadable: recipients whose certificates cannot be used.
        rules: required number of recipients, and the number of days before the expiry of a key from
            which a finding is added.
        now: current time.
    """
    renew = _(
        "Ask the data engineers to create a new key pair for this recipient, and to "
        "replace the recipient's certificate."
    )
    new_keys = _(
        "Create keys with `./parcelseal keys new`, then enter their certificates under "
        "`recipients` in the extra of the connection `offsite_store`."
    )
    for faulty in unreadable:
        findings.find(
            "backup.recipients.unreadable",
            Outcome.FAIL,
            _(
                "The key of recipient {name} cannot be used: {reason}",
                name=faulty.name,
                reason=faulty.reason,
            ),
            _("Ask the data engineers to provide a valid certificate of the recipient."),
            subject=faulty.name,
            for_engineers=_CERTIFICATES,
        )
    valid = [recipient for recipient in recipients if not recipient.expired(now)]
    for recipient in recipients:
        if recipient.expired(now):
            findings.find(
                "backup.recipients.expired",
                Outcome.FAIL,
                _("The key of recipient {name} has expired.", name=recipient.name),
                renew,
                subject=recipient.name,
                for_engineers=new_keys,
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
                for_engineers=new_keys,
            )
    if count_distinct_keys(valid) < rules.minimum:
        findings.subject_titles["recipients"] = _("Recipients of backups")
        findings.find(
            "backup.recipients.too_few",
            Outcome.FAIL,
            _(
                "Only {count} keys can decrypt new backups; the policy requires at least "
                "{minimum} keys.",
                count=count_distinct_keys(valid),
                minimum=rules.minimum,
            ),
            _(
                "Add recipients who can decrypt backups, and keep the private key of one "
                "recipient offline."
            ),
            subject="recipients",
            for_engineers=_CERTIFICATES,
        )


_CERTIFICATES = _(
    "Enter the recipients' certificates under `recipients` in the extra of the "
    "connection `offsite_store`."
)


_LEFT_OVERS = {  # attribute of `Cleared` -> message and action
    "locked": (
        _(
            "Files of an interrupted backup are locked in the off-site store and could not be "
            "deleted."
        ),
        _(
            "No action is required: a later run deletes the files of the interrupted backup "
            "after the lock expires."
        ),
    ),
    "held": (
        _(
            "Files of an interrupted backup were kept in the off-site store, because they are "
            "under a legal hold."
        ),
        _(
            "No action is required: a later run deletes the files of the interrupted backup "
            "after the legal hold is released."
        ),
    ),
    "uncompared": (
        _(
            "Files of an interrupted backup were kept, because it is not certain which legal "
            "holds are in force: the state database lacks legal holds that evidence bundles "
            "record, or it could not be compared with the evidence bundles."
        ),
        _(
            "Ask the data engineers to enter the missing legal holds in the state database "
            "again, or to correct the error that prevented the comparison with the evidence "
            "bundles. A later run then deletes the files of the interrupted backup."
        ),
    ),
    "unknown": (
        _(
            "The off-site store has a folder without a backup manifest, and no recorded run "
            "created this folder. The folder was kept."
        ),
        _(
            "Find out which installation or person created the folder. Delete the folder from "
            "the off-site store only if it is certainly not needed."
        ),
    ),
}


def report_unfinished(findings: StepFindings, cleared: Cleared) -> None:
    """Add findings about the folders that `clear_unfinished` kept.

    Args:
        findings: findings of the step.
        cleared: result of deleting the leftovers of killed runs.
    """
    for kept, (message, action) in _LEFT_OVERS.items():
        for prefix in getattr(cleared, kept):
            findings.subject_titles[prefix] = _STORE
            code = f"backup.unfinished.{kept}"
            findings.find(
                code,
                Outcome.ATTENTION,
                message,
                action,
                subject=prefix,
                for_engineers=_(
                    "Folder `{folder}`. Find the cause in the log of the failed task that prunes "
                    "restore points.",
                    folder=prefix,
                )
                if kept == "uncompared"
                else _("Folder `{folder}`", folder=prefix),
            )


def report_points(
    findings: StepFindings,
    points: Sequence[RestorePoint],
    rejected: Sequence[Rejected],
    refused: Sequence[str],
) -> None:
    """Add findings about restore points that were changed or could not be deleted.

    Args:
        findings: findings of the step.
        points: usable restore points. If one of their objects was overwritten or deleted after the
            backup, an older version of it is used.
        rejected: folders that must not be used as restore points.
        refused: ids of restore points that the store refused to delete because of a lock.
    """
    for hidden in [hidden_object for point in points for hidden_object in point.hidden]:
        findings.subject_titles[hidden.key] = _STORE
        findings.find(
            "backup.object.hidden",
            Outcome.FAIL,
            hidden.message,
            _(
                "Find out who changed the backup file in the off-site store, and secure the "
                "evidence. Then remove the newer version or the deletion marker of the file. "
                "Restores use the signed version of the file."
            ),
            subject=hidden.key,
            for_engineers=_("Object `{key}`", key=hidden.key),
        )
    for rejected_folder in rejected:
        findings.subject_titles[rejected_folder.key] = _STORE
        findings.find(
            "backup.manifest.refused",
            Outcome.FAIL,
            _(
                "A restore point in the off-site store cannot be trusted: {reason}",
                reason=rejected_folder.reason,
            ),
            _("Do not use this restore point. Find out who changed the off-site store."),
            subject=rejected_folder.key,
            for_engineers=_("Object `{key}`", key=rejected_folder.key),
        )
    for point in refused:
        findings.find(
            "backup.prune.locked",
            Outcome.ATTENTION,
            _(
                "An old restore point was due for deletion. It was not deleted, because the "
                "off-site store protects it by a lock or a legal hold."
            ),
            _(
                "No action is required: a later run deletes the restore point after the lock "
                "or the legal hold ends."
            ),
            subject=point,
        )


def report_copies(findings: StepFindings, database: str, copies: Sequence[str]) -> None:
    """Add a finding if the dump of any restore point is not the version that the manifest records.

    Args:
        findings: findings of the step.
        database: name of the database in the data map.
        copies: ids of the restore points with such a dump.
    """
    if copies:
        findings.find(
            "backup.copy.unchecked",
            Outcome.ATTENTION,
            _(
                "The backup files of {count} restore points in the off-site store are copies: "
                "they are not the object versions that were signed. This run did not check the "
                "content of these files.",
                count=len(copies),
            ),
            _(
                "Check whether the off-site store was copied from another store. If it was "
                "not, find out who changed it. A restore or restore drill checks the content "
                "of these backup files."
            ),
            subject=folder(database),
        )


def report_lost(
    findings: StepFindings, database: str, lost: Sequence[str], held: Collection[str]
) -> None:
    """Add a finding about each published restore point that is missing in the store.

    If the restore point is under a legal hold, the finding fails the run. Otherwise, the finding
    needs attention: a run may have removed the restore point, and the record of this removal may be
    lost if the state database was restored from an older backup.

    Args:
        findings: findings of the step.
        database: name of the database in the data map.
        lost: ids of missing restore points that no run has removed, according to the state
            database.
        held: ids of restore points under a legal hold.
    """
    for point in lost:
        findings.find(
            "backup.point.lost",
            Outcome.FAIL if point in held else Outcome.ATTENTION,
            _(
                "A restore point under a legal hold is missing from the off-site store, and no "
                "run deleted it."
            )
            if point in held
            else _(
                "A restore point is missing from the off-site store, and no run recorded "
                "its deletion."
            ),
            _(
                "Find out who deleted the restore point from the off-site store. If the state "
                "database was restored from an older backup, a run may have deleted the "
                "restore point, and the record of this deletion may be lost."
            ),
            subject=folder(database, point),
        )
