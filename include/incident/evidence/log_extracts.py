"""Create an extract of each log after each count of affected records.

An extract contains at least all log rows that any count of the incident has read. A later count may
have narrower criteria, but the figures of the incident never become smaller. Therefore the rows of
earlier counts are extracted in addition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.incident import incident_run
from include.incident.entries import KeptExtract
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.scope import DatabaseCount, Scope
from include.incident.selection import Selection
from include.messages import _
from include.services.errors import ServiceError, UsageError

if TYPE_CHECKING:
    from include.incident.evidence.extract import Extract
    from include.incident.evidence.log_copy import LogQuery


REPEAT_FOR_ENGINEERS = _(
    "In Airflow, open the run that handles this incident, and clear its task `preserve`."
)
LOOKBACK = timedelta(days=183)  # Cybersecurity Law (2026-01-01) 23(3): logs of six months at least


@dataclass(frozen=True)
class ExtractScope:
    """The limits of the log rows that an extract contains.

    Attributes:
        since: start of the time window; None if unlimited.
        until: end of the time window, exclusive; None if unlimited.
        whose: accounts or partners of the rows, sorted; empty means all.
    """

    since: datetime | None
    until: datetime | None
    whose: tuple[str, ...]


def access_scope(selections: Sequence[Selection], began_at: datetime) -> ExtractScope:
    """Return the limits of an access log extract that covers all counts of an incident.

    The extract starts at the earliest start and ends at the latest end of the counts. It contains
    only the accounts of the counts, or all accounts if at least one count was not limited to
    accounts.

    A count may have no start time. If it was limited to accounts, it has read the log from the
    beginning, so the extract has no start time either. If it was not limited to accounts, half a
    year before the leak is used as its start.

    Args:
        selections: criteria of all counts.
        began_at: start of the leak; the time of awareness if the start is unknown.
    """
    windows = [
        (selection.since or (None if selection.accounts else began_at - LOOKBACK), selection.until)
        for selection in selections
    ]
    has_all_accounts = any(not selection.accounts for selection in selections)
    names = {name for selection in selections for name in selection.accounts}
    return _covering_scope(windows, set() if has_all_accounts else names)


def share_scope(selections: Sequence[Selection]) -> ExtractScope | None:
    """Return the limits of a sharing log extract that covers all counts of an incident.

    Only counts that were limited to a partner read the sharing log. Return None if there is no such
    count.

    Args:
        selections: criteria of all counts.
    """
    with_partner = [selection for selection in selections if selection.partner is not None]
    if not with_partner:
        return None
    names = {selection.partner for selection in with_partner if selection.partner is not None}
    return _covering_scope(
        [(selection.since, selection.until) for selection in with_partner], names
    )


def _covering_scope(
    windows: Sequence[tuple[datetime | None, datetime | None]], whose: set[str]
) -> ExtractScope:
    sinces = [since for since, _until in windows if since is not None]
    untils = [until for _since, until in windows if until is not None]
    return ExtractScope(
        since=min(sinces) if len(sinces) == len(windows) else None,
        until=max(untils) if len(untils) == len(windows) else None,
        whose=tuple(sorted(whose)),
    )


LOCK_PERIOD = timedelta(
    days=5 * 366
)  # the company's default for incident files: five years after closure


def extract_logs(
    run: IncidentRun, record: IncidentRecord, scope: Scope, findings: StepFindings
) -> dict[str, KeptExtract]:
    """Extract the logs of every counted database, and return the extracts by name.

    The name of an access log extract is the name of its database. The name of a sharing log extract
    is ``<database>.shares``.

    Args:
        run: current run.
        record: incident with its timeline.
        scope: newest scope.
        findings: receives a finding for each log that could not be extracted.

    Raises:
        ServiceError: a service failed, so the task has to be retried. Extracts that were completed
            before are kept.
    """
    with run.state.connect() as conn:
        selections = [scope.selection for scope in incident_run.scopes(conn, record.incident.id)]
    extracted: dict[str, KeptExtract] = {}
    for count in scope.counted:
        if run.rules.scope_of(count.database).access is None:
            findings.find(
                "incident.no_access_log",
                Outcome.ATTENTION,
                _(
                    "The incident rules name no access log of {database}, so no extract of it "
                    "was made.",
                    database=count.database,
                ),
                _(
                    "Ask the data engineers to name the access log of this database in the "
                    "incident rules, or to copy other logs of the database by hand."
                ),
                subject=count.database,
                for_engineers=_("Add `access` to the database under `scope` in incident.yaml."),
            )
        database_selections = [
            selection for selection in selections if count.database in selection.databases
        ]
        extracts: list[tuple[LogQuery, Extract]] = []
        queries = _log_queries(run, record, count.database, database_selections)
        for query in queries:
            try:
                extracts.append((query, _extract_log(run, record, scope, query)))
            except (UsageError, ServiceError) as error:
                if isinstance(error, ServiceError) and not run.task.is_last_try:
                    raise
                _report_not_extracted(findings, query, error.message)
        extracted |= {
            _extract_name(query): _as_kept_extract(query, extract) for query, extract in extracts
        }
        if len(extracts) == len(queries):
            has_accounts = any(selection.accounts for selection in database_selections)
            _report_missing_rows(
                findings,
                count,
                [extract for query, extract in extracts if has_accounts or query.name == "shares"],
            )
    return extracted


def _log_queries(
    run: IncidentRun, record: IncidentRecord, database: str, selections: Sequence[Selection]
) -> list[LogQuery]:
    """Return the queries for the rows to extract from the logs of a database.

    The result has at most one query per log. It selects all rows that any of the counts may have
    read.

    Args:
        run: current run.
        record: incident with its timeline.
        database: name of the database.
        selections: criteria of all counts.
    """
    from include.incident.evidence.log_copy import LogQuery

    rule, mapped = run.rules.scope_of(database), run.database(database)
    queries = []
    if rule.access is not None:
        rows = access_scope(selections, record.incident.began_at or record.incident.aware_at)
        queries.append(
            LogQuery(mapped, rule.access, rows.since, rows.until, accounts=rows.whose,
                     timezone=run.zone.key)
        )  # fmt: skip
    if rule.shares is not None and (shared := share_scope(selections)) is not None:
        queries.append(
            LogQuery(mapped, rule.shares, shared.since, shared.until, partners=shared.whose,
                     timezone=run.zone.key)
        )  # fmt: skip
    return queries


def _extract_log(
    run: IncidentRun,
    record: IncidentRecord,
    scope: Scope,
    query: LogQuery,
) -> Extract:
    from include.incident.evidence.extract import (
        Extract,
        create_extract,
        encryption_context,
        object_key,
    )

    store = run.services.store("evidence_store")
    recipients, _unreadable = run.services.recipients()
    number, database = record.incident.number, query.database.name
    version = str(scope.version)
    if run.run != record.incident.run:  # an update creates its own extract, and overwrites none
        version += f".{sha256(run.run.run_id.encode()).hexdigest()[:8]}"
    name = f"extract.{_extract_name(query)}.{version}.json"

    def keep(extract: Extract) -> None:
        run.keep_file(name, extract.as_bytes())

    existing = run.records().artifacts.get(name)
    return create_extract(
        run.reader(database),
        query,
        store,
        object_key(number, f"{database}.{version}", query.name),
        recipients,
        encryption_context(number, database, query.name),
        run.clock,
        keep=keep,
        lock_until=run.clock.now() + LOCK_PERIOD if store.kind == "s3" else None,
        existing=Extract.model_validate_json(existing) if existing else None,
    )


def _extract_name(query: LogQuery) -> str:
    database = query.database.name
    return database if query.name == "access" else f"{database}.{query.name}"


def _as_kept_extract(query: LogQuery, extract: Extract) -> KeptExtract:
    return KeptExtract(
        database=query.database.name,
        log=query.name,
        key=extract.key,
        rows=extract.rows,
        sha256_clear=extract.sha256_clear,
        sha256_stored=extract.sha256_stored,
    )


def _report_not_extracted(findings: StepFindings, query: LogQuery, reason: str) -> None:
    values = {"database": query.database.name, "reason": reason}
    findings.find(
        "incident.not_extracted",
        Outcome.FAIL,
        _("The access log of {database} was not extracted: {reason}", **values)
        if query.name == "access"
        else _("The sharing log of {database} was not extracted: {reason}", **values),
        _(
            "Ask the data engineers to correct the cause and to repeat the preservation of "
            "evidence. Lists and extracts that were already made are kept."
        ),
        subject=query.database.name,
        for_engineers=REPEAT_FOR_ENGINEERS,
    )


def _report_missing_rows(
    findings: StepFindings, counted: DatabaseCount, extracts: Sequence[Extract]
) -> None:
    """Report log extracts that have fewer rows than were read when affected people were counted.

    The finding has the severity *failed*.

    Args:
        findings: receives the finding.
        counted: counts of the database, with the number of log rows that were read.
        extracts: extracts from those logs of the database that were read for the counts.
    """
    rows = sum(extract.rows for extract in extracts)
    if rows >= counted.log_rows:
        return
    findings.find(
        "incident.extract_incomplete",
        Outcome.FAIL,
        _(
            "{database}: {counted} rows of a log show access to affected people or their data, "
            "but only {extracted} of these rows were extracted.",
            database=counted.database,
            counted=counted.log_rows,
            extracted=rows,
        ),
        _(
            "Find out who deleted rows of the log. Ask the data engineers to copy the missing "
            "rows from a backup."
        ),
        subject=counted.database,
    )
