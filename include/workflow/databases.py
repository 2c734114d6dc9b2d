"""The databases of a run: the step that names them, and those that it leaves out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from include.evidence.model import Finding, attention_finding
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.services.errors import UsageError
from include.workflow.run_context import RunContext
from include.workflow.step import Step


def requested_databases(
    mapped: Collection[MappedDatabase], requested: Collection[str], code: str, clause: str
) -> tuple[list[MappedDatabase], list[Finding]]:
    """Return the databases that a run was asked for, and a finding for each that it left out.

    Args:
        mapped: all databases of the data map.
        requested: names of those that the run was asked for.
        code: of the findings.
        clause: of the policy.
    """
    left_out = [
        attention_finding(
            code=code,
            subject=database.name,
            message=_("{database} was not asked for in this run.", database=database.name),
            action=_("See that its daily run holds, or start this workflow without a choice."),
            clause=clause,
        )
        for database in mapped
        if database.name not in requested
    ]
    return [database for database in mapped if database.name in requested], left_out


class RunDatabases(StepResult):
    """The names of the databases that a run works on."""

    databases: list[str]


def name_databases(run: RunContext[Any], findings: StepFindings) -> RunDatabases:
    """Return the databases that the run's parameters name; by default all mapped databases.

    Raises:
        UsageError: one of them is not mapped.
    """
    del findings
    mapped, wanted = list(run.pack.databases), run.wanted_databases
    if unknown := [name for name in wanted if name not in mapped]:
        raise UsageError(
            f"Not in the data map: {', '.join(unknown)}.", f"It maps: {', '.join(mapped)}."
        )
    return RunDatabases(databases=list(dict.fromkeys(wanted)))


def databases_step(clause: str) -> Step[Any, RunDatabases]:
    """Return the step, with the clause of its finding when it fails."""
    return Step(
        name="databases",
        title=_("The choice of databases"),
        clause=clause,
        work=name_databases,
        result=RunDatabases,
        parts=lambda result: result.databases,
    )
