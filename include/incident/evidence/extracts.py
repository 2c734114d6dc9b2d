"""Extracts of the logs of an incident: of each database that has one, made once per count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.evidence.steps import artifacts_of, keep_artifact
from include.incident import scopes
from include.incident.evidence import covering
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.scope import Counted, Scope
from include.incident.selection import Selection
from include.messages import _
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import ObjectStore

if TYPE_CHECKING:
    from include.encryption.recipients import Recipient
    from include.incident.evidence.extract import Extract
    from include.incident.evidence.log_query import LogQuery

LOCKED = timedelta(days=5 * 366)  # the company's default of incident files: closure and five years


def take(
    run: IncidentRun,
    record: IncidentRecord,
    scope: Scope,
    store: Callable[[], ObjectStore],
    recipients: Callable[[], Sequence[Recipient]],
    seen: StepFindings,
    *,
    last: bool = False,
) -> dict[str, dict[str, Any]]:
    """Extract the logs of every database that could be counted in; what is known of each, by name.

    The log of accesses goes by the name of its database, that of sharing by ``<database>.shares``.

    Args:
        run: the run or command.
        record: the incident.
        scope: what is affected.
        store: opens the store in which extracts are kept.
        recipients: whose keys open them.
        seen: gets what could not be extracted.
        last: whether no other try comes.

    Raises:
        ServiceError: a service failed, and another try comes; what was made stays.
    """
    with run.state.connect() as conn:
        every = [one.selection for one in scopes.every(conn, record.incident.id)]
    found: dict[str, dict[str, Any]] = {}
    for one in scope.counted:
        if run.rules.scope_of(one.database).access is None:
            seen.find(
                "incident.no_access_log",
                Outcome.ATTENTION,
                _("{database} has no log of accesses: there is no extract.", database=one.database),
                _("Name the log under `access` in incident.yaml, or secure other logs by hand."),
                subject=one.database,
            )
        said = [each for each in every if one.database in each.databases]
        made: list[tuple[LogQuery, Extract]] = []
        queries = _queries(run, record, one.database, said)
        for query in queries:
            try:
                made.append((query, _take(run, record, scope, query, store(), recipients())))
            except (UsageError, ServiceError) as error:
                if isinstance(error, ServiceError) and not last:
                    raise
                _not_extracted(seen, query, error.message)
        found |= {_name(query): _known(query, extract) for query, extract in made}
        if len(made) == len(queries):
            named = any(each.accounts for each in said)
            _compare(seen, one, [it for query, it in made if named or query.name == "shares"])
    return found


def _queries(
    run: IncidentRun, record: IncidentRecord, database: str, said: Sequence[Selection]
) -> list[LogQuery]:
    """What is extracted of a database: rows that any count counted, if not more."""
    from include.incident.evidence.log_query import LogQuery

    rule, mapped = run.rules.scope_of(database), run.database(database)
    found = []
    if rule.access is not None:
        rows = covering.accesses(said, record.incident.began_at or record.incident.aware_at)
        found.append(
            LogQuery(mapped, rule.access, rows.since, rows.until, accounts=rows.whose,
                     timezone=run.zone.key)
        )  # fmt: skip
    if rule.shares is not None and (given := covering.shares(said)) is not None:
        found.append(
            LogQuery(mapped, rule.shares, given.since, given.until, partners=given.whose,
                     timezone=run.zone.key)
        )  # fmt: skip
    return found


def _take(
    run: IncidentRun,
    record: IncidentRecord,
    scope: Scope,
    query: LogQuery,
    store: ObjectStore,
    recipients: Sequence[Recipient],
) -> Extract:
    from include.incident.evidence.extract import Extract, context_of, extract, key_of

    number, database = record.incident.number, query.database.name
    version = str(scope.version)
    if run.run != record.incident.run:  # an addition makes its own, and writes over nobody's
        version += f".{sha256(run.run.run_id.encode()).hexdigest()[:8]}"
    name = f"extract.{_name(query)}.{version}.json"

    def keep(made: Extract) -> None:
        with run.state.begin() as conn:
            keep_artifact(conn, run.run.dag_id, run.run.run_id, name, made.as_bytes())

    with run.state.connect() as conn:
        before = artifacts_of(conn, run.run.dag_id, run.run.run_id).get(name)
    return extract(
        run.reader(database),
        query,
        store,
        key_of(number, f"{database}.{version}", query.name),
        recipients,
        context_of(number, database, query.name),
        run.clock,
        keep=keep,
        lock_until=run.clock.now() + LOCKED if store.kind == "s3" else None,
        known=Extract.model_validate_json(before) if before else None,
    )


def _name(query: LogQuery) -> str:
    database = query.database.name
    return database if query.name == "access" else f"{database}.{query.name}"


def _known(query: LogQuery, made: Extract) -> dict[str, Any]:
    return {
        "database": query.database.name,
        "log": query.name,
        "key": made.key,
        "rows": made.rows,
        "sha256_clear": made.sha256_clear,
        "sha256_stored": made.sha256_stored,
    }


def _not_extracted(seen: StepFindings, query: LogQuery, reason: str) -> None:
    values = {"database": query.database.name, "reason": reason}
    seen.find(
        "incident.not_extracted",
        Outcome.FAIL,
        _("The access log of {database} was not extracted: {reason}", **values)
        if query.name == "access"
        else _("The log of sharing of {database} was not extracted: {reason}", **values),
        _("Remove the cause, then clear the task `preserve`: what is there is not done twice."),
        subject=query.database.name,
    )


def _compare(seen: StepFindings, counted: Counted, made: Sequence[Extract]) -> None:
    """Say where rows of a log were counted and are not in an extract.

    Args:
        seen: gets it.
        counted: of the database.
        made: its extracts of the rows of those who were named.
    """
    rows = sum(one.rows for one in made)
    if rows >= counted.log_rows:
        return
    seen.find(
        "incident.extract_incomplete",
        Outcome.FAIL,
        _(
            "{database}: {counted} log rows say who is affected, {extracted} of them were "
            "extracted.",
            database=counted.database,
            counted=counted.log_rows,
            extracted=rows,
        ),
        _("Find out who deletes from the log; secure what is left of it by hand, from a backup."),
        subject=counted.database,
    )
