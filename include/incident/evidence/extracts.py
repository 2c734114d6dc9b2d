"""Make one extract of each log per count, with at least all rows that any count has read.

A later count may use a narrower selection, but its figures never fall. So an extract covers the
selections of all counts.
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
from include.incident.scope import Counted, Scope
from include.incident.selection import Selection
from include.messages import _
from include.services.errors import ServiceError, UsageError

if TYPE_CHECKING:
    from include.incident.evidence.extract import Extract
    from include.incident.evidence.log_copy import LogQuery


BEFORE = timedelta(days=183)  # Cybersecurity Law (2026-01-01) 23(3): logs of six months at least


@dataclass(frozen=True)
class Wanted:
    """Rows of a log.

    Attributes:
        since: from then on; None where nothing limits it.
        until: before then.
        whose: accounts or partners, sorted; everybody's where it is empty.
    """

    since: datetime | None
    until: datetime | None
    whose: tuple[str, ...]


def accesses(said: Sequence[Selection], begun: datetime) -> Wanted:
    """Rows of the log of accesses.

    Whoever names accounts and no time means all time, and is counted by that; who names no account
    gets everybody's rows, of half a year before the leak and all since.

    Args:
        said: what is affected, by every count.
        begun: when the leak began, or when the company became aware of it.
    """
    windows = [
        (selection.since or (None if selection.accounts else begun - BEFORE), selection.until)
        for selection in said
    ]
    everybody = any(not selection.accounts for selection in said)
    names = {name for selection in said for name in selection.accounts}
    return _wanted(windows, set() if everybody else names)


def shares(said: Sequence[Selection]) -> Wanted | None:
    """Rows of the log of sharing: all that were given to the partners; None where none is named.

    Args:
        said: what is affected, by every count.
    """
    naming = [selection for selection in said if selection.partner is not None]
    if not naming:
        return None
    names = {one.partner for one in naming if one.partner is not None}
    return _wanted([(one.since, one.until) for one in naming], names)


def _wanted(windows: Sequence[tuple[datetime | None, datetime | None]], whose: set[str]) -> Wanted:
    sinces = [since for since, _until in windows if since is not None]
    untils = [until for _since, until in windows if until is not None]
    return Wanted(
        since=min(sinces) if len(sinces) == len(windows) else None,
        until=max(untils) if len(untils) == len(windows) else None,
        whose=tuple(sorted(whose)),
    )


LOCKED = timedelta(days=5 * 366)  # the company's default of incident files: closure and five years


def take(
    run: IncidentRun, record: IncidentRecord, scope: Scope, findings: StepFindings
) -> dict[str, KeptExtract]:
    """Extract the logs of every database that could be counted in; return them by name.

    The log of accesses goes by the name of its database, that of sharing by ``<database>.shares``.

    Args:
        run: the run.
        record: the incident.
        scope: what is affected.
        findings: gets what could not be extracted.

    Raises:
        ServiceError: a service failed, and another try comes; what was made stays.
    """
    with run.state.connect() as conn:
        every = [one.selection for one in incident_run.scopes(conn, record.incident.id)]
    extracted: dict[str, KeptExtract] = {}
    for one in scope.counted:
        if run.rules.scope_of(one.database).access is None:
            findings.find(
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
                made.append((query, _take(run, record, scope, query)))
            except (UsageError, ServiceError) as error:
                if isinstance(error, ServiceError) and not run.task.is_last_try:
                    raise
                _not_extracted(findings, query, error.message)
        extracted |= {_name(query): _known(query, extract) for query, extract in made}
        if len(made) == len(queries):
            named = any(each.accounts for each in said)
            _compare(findings, one, [it for query, it in made if named or query.name == "shares"])
    return extracted


def _queries(
    run: IncidentRun, record: IncidentRecord, database: str, said: Sequence[Selection]
) -> list[LogQuery]:
    """What is extracted of a database: rows that any count counted, if not more."""
    from include.incident.evidence.log_copy import LogQuery

    rule, mapped = run.rules.scope_of(database), run.database(database)
    found = []
    if rule.access is not None:
        rows = accesses(said, record.incident.began_at or record.incident.aware_at)
        found.append(
            LogQuery(mapped, rule.access, rows.since, rows.until, accounts=rows.whose,
                     timezone=run.zone.key)
        )  # fmt: skip
    if rule.shares is not None and (given := shares(said)) is not None:
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
) -> Extract:
    from include.incident.evidence.extract import Extract, context_of, extract, key_of

    store = run.services.store("evidence_store")
    recipients, _unreadable = run.services.recipients()
    number, database = record.incident.number, query.database.name
    version = str(scope.version)
    if run.run != record.incident.run:  # an addition makes its own, and writes over nobody's
        version += f".{sha256(run.run.run_id.encode()).hexdigest()[:8]}"
    name = f"extract.{_name(query)}.{version}.json"

    def keep(made: Extract) -> None:
        run.keep_file(name, made.as_bytes())

    before = run.records().artifacts.get(name)
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


def _known(query: LogQuery, made: Extract) -> KeptExtract:
    return KeptExtract(
        database=query.database.name,
        log=query.name,
        key=made.key,
        rows=made.rows,
        sha256_clear=made.sha256_clear,
        sha256_stored=made.sha256_stored,
    )


def _not_extracted(findings: StepFindings, query: LogQuery, reason: str) -> None:
    values = {"database": query.database.name, "reason": reason}
    findings.find(
        "incident.not_extracted",
        Outcome.FAIL,
        _("The access log of {database} was not extracted: {reason}", **values)
        if query.name == "access"
        else _("The log of sharing of {database} was not extracted: {reason}", **values),
        _("Remove the cause, then clear the task `preserve`: what is there is not done twice."),
        subject=query.database.name,
    )


def _compare(findings: StepFindings, counted: Counted, made: Sequence[Extract]) -> None:
    """Say where rows of a log were counted and are not in an extract.

    Args:
        findings: gets it.
        counted: of the database.
        made: its extracts of the rows of those who were named.
    """
    rows = sum(one.rows for one in made)
    if rows >= counted.log_rows:
        return
    findings.find(
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
