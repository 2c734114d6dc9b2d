"""The step that names the databases of a run."""

from __future__ import annotations

from typing import Any

from include.evidence.step_findings import StepFindings, StepResult
from include.messages import _
from include.services.errors import UsageError
from include.workflow.run_context import RunContext
from include.workflow.step import Step


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
