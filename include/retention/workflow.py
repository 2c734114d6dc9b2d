"""The declaration of the workflow `enforce_retention`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psycopg

from include.messages import _
from include.retention.certificate import report
from include.retention.planning.approval import read_people
from include.retention.steps import APPROVE, EXECUTE, PLAN, PRUNE_EVIDENCE, VERIFY
from include.workflow.assets import Asset, AssetEvent, SealedRecords
from include.workflow.declaration import AccessGroup, Cadence, DatabaseLogin, Queue, Workflow
from include.workflow.run_context import RunContext


def respondents(run: RunContext[None]) -> list[Sequence[str]]:
    """Return one list, with the user ids of the people who may approve plans that exceed a limit.

    The outer list is empty if the policy pack has no retention rules. The inner list is empty if
    the staff table cannot be read.
    """
    rule = run.pack.disposition.approval
    if not run.pack.retention:
        return []
    if rule.staff is None:
        return [rule.approvers.accounts]
    holder = run.pack.database_of(rule.staff.collection, rule.staff.database)
    with suppress(psycopg.Error), run.services.staff(holder) as connection:
        return [read_people(connection, holder, rule, ()).approvers]
    return [()]


def certificates(sealed: SealedRecords) -> Iterator[AssetEvent]:
    """Yield an Airflow asset event for the certificate of deletion of each verified database.

    Args:
        sealed: step records of the run, as sealed in its evidence bundle.
    """
    for database, count in sealed.records.results(VERIFY).items():
        plan = sealed.records.result(PLAN, database)
        steps = [(step.name, database) for step in (PLAN, APPROVE, EXECUTE, VERIFY)]
        yield AssetEvent(
            database,
            sealed.outcome_of(*steps),
            {
                "database": database,
                "plan_sha256": plan.sha256 if plan else None,
                "erased": sum(count.done.values()),
                "unexplained": count.unexplained,
                "first_batch": count.ledger.first,
                "last_batch": count.ledger.last,
            },
        )


ENFORCE_RETENTION = Workflow[None](
    id="enforce_retention",
    title=_("Deletion on time"),
    summary="Plan what expired, ask a second person if it is much, delete it, prove it, seal.",
    topic="retention",
    clauses=("5.3",),
    cadence=Cadence.DAILY,
    owner="information_management",
    access=AccessGroup.RECORDS,
    chooses_databases=True,
    asks_people=True,
    queue=Queue.RETENTION,
    steps=(PLAN, APPROVE, EXECUTE, VERIFY, PRUNE_EVIDENCE),
    conclude=report.conclude,
    login=DatabaseLogin(
        "retention_db",
        Path(__file__).with_name("sample_grants.sql"),
        "Disposes of expired records. The login needs the rights for the tables in "
        "`retention.yaml`, which are listed below.",
        named=lambda pack: {pack.disposition.connection},
    ),
    respondents=respondents,
    produces=(Asset("deletion-certificate", certificates),),
)
