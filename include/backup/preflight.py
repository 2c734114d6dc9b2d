"""Check stores and connections before anything is dumped; each fault says what to fix."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

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


def check_store(seen: StepFindings, store: ObjectStore) -> Sequence[StoreProblem]:
    """Note every fault of the off-site store, and return them.

    Raises:
        StoreError: the store cannot be reached, which may pass; nobody has to correct anything.
    """
    problems = store.preflight()
    for problem in problems:
        if problem.code == "unreachable":
            raise StoreError(f"The off-site store cannot be reached: {problem.detail}", STORE_AWAY)
    for problem in problems:
        message, action = _explain(problem, store)
        # A directory cannot version or lock: that is its nature, said in every report. For S3 it
        # is a setting that somebody has to make.
        by_nature = problem.code == "same_device" or (
            store.kind == "directory" and problem.code in {"no_versioning", "no_object_lock"}
        )
        severity = Outcome.ATTENTION if by_nature else Outcome.FAIL
        seen.find(
            f"backup.store.{problem.code}", severity, message, action, subject=store.description
        )
    return problems


def _explain(problem: StoreProblem, store: ObjectStore) -> tuple[Message, Message]:
    if problem.code == "no_versioning":
        return (
            _("The off-site store keeps no versions, so an overwritten backup would be lost."),
            _("Switch on versioning of the bucket."),
        )
    if problem.code == "no_object_lock" and store.kind == "directory":
        return (
            _("The off-site store is a directory: whoever can write there can delete backups."),
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


def check_routes(seen: StepFindings, routes: Iterable[Route]) -> None:
    """Note connections to other machines that are not verified over TLS.

    To a store or KMS that is a fault: whoever stands between could keep backups from being stored,
    or read the keys that they are encrypted with. A database's connection may choose a weaker
    ``sslmode``, as in a network that encrypts by itself.

    Args:
        seen: where findings go.
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
        seen.find(code, severity, message, _ROUTE_ACTIONS[route.destination], subject=route.conn_id)


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
    seen: StepFindings,
    databases: Iterable[MappedDatabase],
    store: ObjectStore,
    problems: Collection[StoreProblem],
) -> dict[str, bool | None]:
    """Note databases whose backups would stand on their own site.

    Args:
        seen: where findings go.
        databases: that would be backed up.
        store: the off-site store.
        problems: what `check_store` found.

    Returns:
        By database whether it does; None where nobody said where one of the two stands, or where
        store and server are seen to share a disk whatever the names say.
    """
    same_disk = any(problem.code == "same_device" for problem in problems)
    found: dict[str, bool | None] = {}
    for database in databases:
        if not store.site or not database.site:
            found[database.name] = None
            _unknown_site(seen, database, store)
        elif _site(store.site) == _site(database.site):
            found[database.name] = True
            seen.find(
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
            found[database.name] = None if same_disk else False
    return found


def _unknown_site(seen: StepFindings, database: MappedDatabase, store: ObjectStore) -> None:
    if not store.site and not database.site:
        message = _("Nobody said where the off-site store and the database stand.")
        action = _("Name the sites in the connection offsite_store and in the data map.")
    elif not store.site:
        message = _("Nobody said where the off-site store stands.")
        action = _("Name its site in the connection offsite_store (extra site).")
    else:
        message = _("Nobody said where the database stands.")
        action = _("Name its site in the data map (site, under meta.parcelseal).")
    seen.find("backup.site.unknown", Outcome.ATTENTION, message, action, subject=database.name)


def _site(name: str) -> str:
    """Reduce a site's name to what people mean: "Kunming-1 " is no other place than kunming-1."""
    return " ".join(name.split()).casefold()


def check_recipients(
    seen: StepFindings,
    recipients: Sequence[Recipient],
    unreadable: Sequence[UnreadableRecipient],
    rules: Recipients,
    now: datetime,
) -> None:
    """Note keys that cannot be used, that expire, and too few of them."""
    renew = _("Make a new pair (./parcelseal keys new) and exchange the certificate.")
    for bad in unreadable:
        seen.find(
            "backup.recipients.unreadable",
            Outcome.FAIL,
            _("The key of recipient {name} cannot be used: {reason}", **bad.__dict__),
            _("Put the recipient's certificate where offsite_store says it is."),
            subject=bad.name,
        )
    valid = [one for one in recipients if not one.expired(now)]
    for one in recipients:
        if one.expired(now):
            seen.find(
                "backup.recipients.expired",
                Outcome.FAIL,
                _("The key of recipient {name} expired.", name=one.name),
                renew,
                subject=one.name,
            )
        elif one.expired(now + timedelta(days=rules.warn_days_before_expiry)):
            seen.find(
                "backup.recipients.expiring",
                Outcome.ATTENTION,
                _(
                    "The key of recipient {name} expires on {day}.",
                    name=one.name,
                    day=one.expires_at,
                ),
                renew,
                subject=one.name,
            )
    if distinct(valid) < rules.minimum:
        seen.find(
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
