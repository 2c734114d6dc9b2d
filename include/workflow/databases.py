"""The step that selects the databases of a run, and the findings about omitted databases."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from include.evidence.model import Finding, attention_finding
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.services.errors import CouldNotRun
from include.workflow.run_context import RunContext
from include.workflow.step import Step


def select_databases(
    mapped: Collection[MappedDatabase], requested: Collection[str], code: str, clause: str
) -> tuple[list[MappedDatabase], list[Finding]]:
    """Return the requested databases, and a finding for each database that is not requested.

    Args:
        mapped: all databases that have a data map.
        requested: names of the databases that the run's parameters request.
        code: code of the findings.
        clause: policy clause of the findings.
    """
    left_out = [
        attention_finding(
            code=code,
            subject=database.name,
            message=_("This run did not include {database}.", database=database.name),
            action=_(
                "Make sure that the daily run for this database passes, or start this workflow "
                "for all databases."
            ),
            clause=clause,
        )
        for database in mapped
        if database.name not in requested
    ]
    return [database for database in mapped if database.name in requested], left_out


DATABASES_STEP, DATABASES_TITLE = "databases", _("The choice of databases")


class RunDatabases(StepResult):
    """The result of the step that selects the databases of a run.

    Attributes:
        databases: names of the databases that the run works on.
    """

    databases: list[str]


def name_databases(run: RunContext[Any], findings: StepFindings) -> RunDatabases:
    """Return the names of the databases that the run's parameters request.

    If the parameters request no databases, return the names of all mapped databases.

    Raises:
        CouldNotRun: a requested database has no data map.
    """
    del findings
    mapped, requested = list(run.pack.databases), run.requested_databases
    if unknown := [name for name in requested if name not in mapped]:
        raise CouldNotRun(
            f"Not in the data map: {', '.join(unknown)}.", f"It maps: {', '.join(mapped)}."
        )
    return RunDatabases(databases=list(dict.fromkeys(requested)))


def databases_step(clause: str) -> Step[Any, RunDatabases]:
    """Return the step that selects the databases of a run.

    Args:
        clause: policy clause of the step's findings.
    """
    return Step(
        name=DATABASES_STEP,
        title=DATABASES_TITLE,
        clause=clause,
        work=name_databases,
        result=RunDatabases,
        parts=lambda result: result.databases,
    )
