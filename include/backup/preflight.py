"""What must be right before anything is dumped; each fault says what to fix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.backup.recipients import Recipient, distinct
from include.evidence.model import Finding, Outcome
from include.policy.datamap import MappedDatabase
from include.policy.rules import Recipients
from include.reports.text import Message, _
from include.services.objectstore.base import ObjectStore, StoreProblem

CLAUSE = "4.2"


@dataclass(frozen=True)
class UnreadableRecipient:
    """A recipient that is configured and cannot be used."""

    name: str
    reason: str


def preflight(
    databases: Iterable[MappedDatabase],
    store: ObjectStore,
    recipients: Sequence[Recipient],
    unreadable: Sequence[UnreadableRecipient],
    rules: Recipients,
    now: datetime,
) -> list[Finding]:
    """Return every fault at once: of the store, of its site, of the recipients' keys."""
    return [
        *_store(store),
        *_sites(databases, store),
        *_recipients(recipients, unreadable, rules, now),
    ]


def _store(store: ObjectStore) -> Iterable[Finding]:
    for problem in store.preflight():
        message, action = _explain(problem, store)
        # A directory cannot version or lock: that is its nature, said in every report. For S3 it
        # is a setting that somebody has to make.
        by_nature = problem.code == "same_device" or (
            store.kind == "directory" and problem.code in {"no_versioning", "no_object_lock"}
        )
        severity = Outcome.ATTENTION if by_nature else Outcome.FAIL
        yield _finding(f"backup.store.{problem.code}", severity, store.description, message, action)


def _explain(problem: StoreProblem, store: ObjectStore) -> tuple[Message, Message]:
    if problem.code == "no_versioning":
        return (
            _("The off-site store keeps no versions, so an overwritten backup would be lost."),
            _("Switch on versioning of the bucket."),
        )
    if problem.code == "no_object_lock" and store.kind == "directory":
        return (
            _("The off-site store is a directory: nothing there stops a deletion."),
            _("Use an S3 bucket with Object Lock for real backups."),
        )
    if problem.code == "no_object_lock":
        return (
            _("The off-site store has no Object Lock: an intruder could delete the backups."),
            _("Create a bucket with Object Lock and use it as offsite_store."),
        )
    if problem.code == "same_device":
        return (
            _("The backup lies on the same disk as the database: that is not off-site."),
            _("Point the connection offsite_store at a store on another site."),
        )
    return (
        _("The off-site store cannot be used: {reason}", reason=problem.detail),
        _("Correct the connection offsite_store or the store itself, then run the backup again."),
    )


def _sites(databases: Iterable[MappedDatabase], store: ObjectStore) -> Iterable[Finding]:
    for database in databases:
        if store.site and database.site and _site(store.site) == _site(database.site):
            yield _finding(
                "backup.site.same",
                Outcome.FAIL,
                database.name,
                _(
                    "The off-site store stands on the primary's own site, {site}.",
                    site=store.site,
                ),
                _("Use a store on another site (extra site of the connection offsite_store)."),
            )
        elif not store.site or not database.site:
            yield _finding(
                "backup.site.unknown",
                Outcome.ATTENTION,
                database.name,
                _("Nobody said where the off-site store or the database stands."),
                _("Name the site in the connection offsite_store and in the data map."),
            )


def _site(name: str) -> str:
    """Reduce a site's name to what people mean: "Kunming-1 " is no other place than kunming-1."""
    return " ".join(name.split()).casefold()


def _recipients(
    recipients: Sequence[Recipient],
    unreadable: Sequence[UnreadableRecipient],
    rules: Recipients,
    now: datetime,
) -> Iterable[Finding]:
    renew = _("Make a new pair (./parcelseal keys new) and exchange the certificate.")
    for bad in unreadable:
        yield _finding(
            "backup.recipients.unreadable",
            Outcome.FAIL,
            bad.name,
            _("The key of recipient {name} cannot be used: {reason}", **bad.__dict__),
            _("Put the recipient's certificate where offsite_store says it is."),
        )
    valid = [one for one in recipients if not one.expired(now)]
    for one in recipients:
        if one.expired(now):
            yield _finding(
                "backup.recipients.expired",
                Outcome.FAIL,
                one.name,
                _("The key of recipient {name} expired.", name=one.name),
                renew,
            )
        elif one.expired(now + timedelta(days=rules.warn_days_before_expiry)):
            yield _finding(
                "backup.recipients.expiring",
                Outcome.ATTENTION,
                one.name,
                _(
                    "The key of recipient {name} expires on {day}.",
                    name=one.name,
                    day=one.expires_at,
                ),
                renew,
            )
    if distinct(valid) < rules.minimum:
        yield _finding(
            "backup.recipients.too_few",
            Outcome.FAIL,
            "recipients",
            _(
                "Backups would be encrypted to {count} keys; the policy asks for {minimum}.",
                count=distinct(valid),
                minimum=rules.minimum,
            ),
            _("Add recipients to the connection offsite_store, one of them kept offline."),
        )


def _finding(
    code: str, severity: Outcome, subject: str, message: Message, action: Message
) -> Finding:
    return Finding(
        code=code,
        severity=severity,
        subject=subject,
        message=message,
        action=action,
        clause=CLAUSE,
    )
