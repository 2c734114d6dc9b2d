"""Access-log extracts of an incident: one per database that has a log, made once per count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from include.evidence.examination import Examination
from include.evidence.model import Outcome
from include.evidence.steps import artifacts_of, keep_artifact
from include.incident.desk import Desk, File
from include.incident.scope import Scope
from include.messages import _
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import ObjectStore

if TYPE_CHECKING:
    from include.encryption.recipients import Recipient
    from include.incident.evidence.extract import Extract
    from include.incident.evidence.log_query import LogQuery

BEFORE = timedelta(days=183)  # Cybersecurity Law (2026-01-01) 23(3): logs of six months at least
LOCKED = timedelta(days=5 * 366)  # the company's default of incident files: closure and five years


def take(
    desk: Desk,
    file: File,
    scope: Scope,
    store: Callable[[], ObjectStore],
    recipients: Callable[[], Sequence[Recipient]],
    seen: Examination,
    *,
    last: bool = False,
) -> dict[str, dict[str, Any]]:
    """Extract the log of every database that could be counted in; what is known of each, by name.

    Args:
        desk: of the incident.
        file: the incident.
        scope: what is affected.
        store: opens the store in which extracts are kept.
        recipients: whose keys open them.
        seen: gets what could not be extracted.
        last: whether no other try comes.

    Raises:
        ServiceError: a service failed, and another try comes; what was made stays.
    """
    found = {}
    for one in scope.counted:
        rule = desk.rules.scope_of(one.database)
        if rule.access is None:
            seen.find(
                "incident.no_access_log",
                Outcome.ATTENTION,
                _("{database} has no log of accesses: there is no extract.", database=one.database),
                _("Name the log under `access` in incident.yaml, or secure other logs by hand."),
                subject=one.database,
            )
            continue
        try:
            made = _take(desk, file, scope, one.database, store(), recipients())
        except (UsageError, ServiceError) as error:
            if isinstance(error, ServiceError) and not last:
                raise
            seen.find(
                "incident.not_extracted",
                Outcome.FAIL,
                _("The access log of {database} was not extracted: {reason}",
                  database=one.database, reason=error.message),
                _("Remove the cause, then clear the task `preserve`: what is there is not done "
                  "twice."),
                subject=one.database,
            )  # fmt: skip
            continue
        found[one.database] = {
            "key": made.key,
            "rows": made.rows,
            "sha256_clear": made.sha256_clear,
            "sha256_stored": made.sha256_stored,
        }
    return found


def _take(
    desk: Desk,
    file: File,
    scope: Scope,
    database: str,
    store: ObjectStore,
    recipients: Sequence[Recipient],
) -> Extract:
    from include.incident.evidence.extract import Extract, context_of, extract, key_of

    number = file.incident.number
    place = f"{database}.{scope.version}"
    if desk.run != file.incident.run:  # an addition makes its own, and writes over nobody's
        place += f".{sha256(desk.run.run_id.encode()).hexdigest()[:8]}"
    name = f"extract.{place}.json"

    def keep(made: Extract) -> None:
        with desk.state.begin() as conn:
            keep_artifact(conn, desk.run.dag_id, desk.run.run_id, name, made.as_bytes())

    with desk.state.connect() as conn:
        before = artifacts_of(conn, desk.run.dag_id, desk.run.run_id).get(name)
    return extract(
        desk.readers[database],
        _query(desk, file, scope, database),
        store,
        key_of(number, place),
        recipients,
        context_of(number, database),
        desk.clock,
        keep=keep,
        lock_until=desk.clock.now() + LOCKED if store.kind == "s3" else None,
        known=Extract.model_validate_json(before) if before else None,
    )


def _query(desk: Desk, file: File, scope: Scope, database: str) -> LogQuery:
    """What the form names; where it names no time, half a year before the leak and all since."""
    from include.incident.evidence.log_query import LogQuery

    access, chosen = desk.rules.scope_of(database).access, scope.selection
    assert access is not None
    begun: datetime = file.incident.began_at or file.incident.aware_at
    return LogQuery(
        database=desk.databases[database],
        log=access,
        since=chosen.since or begun - BEFORE,
        until=chosen.until,
        accounts=chosen.accounts,
        timezone=desk.zone.key,
    )
