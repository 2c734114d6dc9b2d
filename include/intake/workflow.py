"""The declaration of the workflow `review_intake`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psycopg

from include.intake.batches import load_reviewers, unit_of_work
from include.intake.incoming import Incoming
from include.intake.report import TITLE, conclude
from include.intake.review import CHECK, FIND, REVIEW
from include.intake.settle import SETTLE, VERIFY
from include.workflow.declaration import AccessGroup, Cadence, DatabaseLogin, Workflow
from include.workflow.run_context import RunContext


def respondents(run: RunContext[None]) -> list[Sequence[str]]:
    """Return one list, with the user ids of all people who may review batches.

    The outer list is empty if the policy pack has no intake rules. An incoming table whose database
    cannot be read is skipped here, because the run of the workflow reports it.
    """
    if not run.pack.intake:
        return []
    accounts: dict[str, None] = {}
    for rule in run.pack.intake:
        mapped = run.pack.database_of(rule.collection, rule.database)
        incoming = Incoming(rule, mapped)
        address = run.services.database(mapped.connection)
        # The run of the workflow reports a database that cannot be read
        with suppress(psycopg.Error), address.connect() as connection:
            connection.autocommit = True
            with unit_of_work(connection, incoming, write=False):
                accounts |= dict.fromkeys(load_reviewers(connection, incoming))
    return [list(accounts)]


REVIEW_INTAKE = Workflow[None](
    id="review_intake",
    title=TITLE,
    summary="Incoming batches: check, ask a reviewer, accept or reject, verify, seal.",
    topic="intake",
    clauses=("5.2",),
    cadence=Cadence.DAILY,
    owner="information_management",
    access=AccessGroup.RECORDS,
    asks_people=True,
    steps=(FIND, CHECK, REVIEW, SETTLE, VERIFY),
    conclude=conclude,
    login=DatabaseLogin(
        "intake_db",
        Path(__file__).with_name("sample_grants.sql"),
        "Writes approved records. The login needs the rights for the tables in `intake.yaml`, "
        "which are listed below.",
        named=lambda pack: {rule.connection for rule in pack.intake},
    ),
    respondents=respondents,
)
