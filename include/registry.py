"""The list of workflows. Every table of "all workflows" derives from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

from sqlalchemy import Table

from include.policy import PolicyPack, kept, loader
from include.policy.problems import PackError, PackProblem
from include.policy.section import RuleSection
from include.services.errors import UsageError
from include.workflow.declaration import AccessGroup, AnyWorkflow, DatabaseLogin, NotificationKind

WORKFLOWS: Mapping[str, str] = {
    "backup_offsite": "include.backup.workflow:BACKUP_OFFSITE",
    "drill_restore": "include.backup.workflow:DRILL_RESTORE",
    "check_quality": "include.quality.workflow:CHECK_QUALITY",
    "review_intake": "include.intake.workflow:REVIEW_INTAKE",
    "enforce_retention": "include.retention.workflow:ENFORCE_RETENTION",
    "sample_audit": "include.sampling.workflow:SAMPLE_AUDIT",
    "conclude_audit": "include.sampling.workflow:CONCLUDE_AUDIT",
    "remind_training": "include.training.workflow:REMIND_TRAINING",
    "review_partners": "include.partners.workflow:REVIEW_PARTNERS",
    "respond_to_incident": "include.incident.workflow:RESPOND_TO_INCIDENT",
    "update_incident": "include.incident.workflow:UPDATE_INCIDENT",
}
"""DAG id -> declaration. Names, so that a task imports the workflow that it is part of."""


@cache
def workflow(dag_id: str) -> AnyWorkflow:
    """Return a workflow.

    Raises:
        UsageError: there is none of that id.
    """
    if dag_id not in WORKFLOWS:
        raise UsageError(f"There is no workflow {dag_id}.", f"There are: {', '.join(WORKFLOWS)}.")
    declaration: AnyWorkflow = resolve_name(WORKFLOWS[dag_id])
    return declaration


def workflows() -> list[AnyWorkflow]:
    """Return all workflows in the order of the list."""
    return [workflow(dag_id) for dag_id in WORKFLOWS]


def sections() -> list[RuleSection[Any]]:
    """Return the sections of the policy pack that belong to workflows."""
    return _distinct(each.rules for each in workflows())


def logins() -> list[DatabaseLogin]:
    """Return the logins of workflows to mapped databases."""
    return _distinct(each.login for each in workflows())


def pages_tables() -> list[Table]:
    """Return the tables of workflows that the compliance pages read."""
    return [table for each in workflows() for table in each.pages_read]


def notification_kinds() -> dict[str, tuple[AnyWorkflow, NotificationKind[Any]]]:
    """Return the kinds of notifications by name, each with its workflow."""
    return {kind.name: (each, kind) for each in workflows() for kind in each.notifications}


def in_group(group: AccessGroup) -> frozenset[str]:
    """Return the DAG ids of a group of workflows."""
    return frozenset(each.id for each in workflows() if each.access is group)


_Declared = TypeVar("_Declared")


def _distinct(declared: Iterable[_Declared | None]) -> list[_Declared]:
    return [each for each in dict.fromkeys(declared) if each is not None]


def load_pack(folder: Path) -> PolicyPack:
    """Read a policy pack with the sections of all workflows; see `loader.load_pack`."""
    return _with_known_workflows(loader.load_pack(folder, sections()))


def kept_pack(folder: Path, forms: Path | None = None) -> PolicyPack:
    """Read a policy pack, or return the last one if no file changed; see `kept.kept_pack`."""
    return _with_known_workflows(kept.kept_pack(folder, sections, forms))


def _with_known_workflows(pack: PolicyPack) -> PolicyPack:
    """Return a pack whose operations.yaml names no unknown workflow; raises PackError."""
    problems = [
        PackProblem("operations.yaml", None, f"workflows.{name}", "there is no such workflow")
        for name in pack.operations.workflows
        if name not in WORKFLOWS
    ]
    if problems:
        raise PackError(pack.folder, problems)
    return pack
