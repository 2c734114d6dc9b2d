"""The list of all workflows.

Every other list of workflows in ParcelSeal is derived from this list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

from sqlalchemy import Table

from include.messages import Message, _, verbatim
from include.policy import PolicyPack, loader, pack_cache
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
    "use_information": "include.disclosure.workflow:USE_INFORMATION",
    "expire_grants": "include.disclosure.workflow:EXPIRE_GRANTS",
    "update_finding": "include.finding_updates.workflow:UPDATE_FINDING",
}
"""DAG id -> name of the declaration. A task imports only the workflow that it belongs to."""


@cache
def workflow(dag_id: str) -> AnyWorkflow:
    """Return the declaration of the workflow with a DAG id.

    Raises:
        UsageError: no workflow has this DAG id.
    """
    if dag_id not in WORKFLOWS:
        raise UsageError(f"There is no workflow {dag_id}.", f"There are: {', '.join(WORKFLOWS)}.")
    declaration: AnyWorkflow = resolve_name(WORKFLOWS[dag_id])
    return declaration


def workflows() -> list[AnyWorkflow]:
    """Return the declarations of all workflows, in the order of `WORKFLOWS`."""
    return [workflow(dag_id) for dag_id in WORKFLOWS]


_INCIDENT_DOCUMENT = _("Document of an incident")


def bundle_title(name: str) -> Message:
    """Return the title of a workflow or of an interim bundle.

    Args:
        name: name of the workflow or interim bundle in the evidence ledger. If the name is unknown,
            the name itself is the title.
    """
    from include.incident.incident_ids import WORKFLOW as INCIDENT  # only pages and commands use it

    if name.startswith(f"{INCIDENT}."):
        return _INCIDENT_DOCUMENT
    if name in WORKFLOWS:
        return workflow(name).title
    interim_titles = {
        name: title for workflow in workflows() for name, title in workflow.interim_bundles.items()
    }
    return interim_titles.get(name) or verbatim(name)


def bundle_dag(name: str) -> str:
    """Return the id of the DAG whose readers may read the bundles with the given name.

    Args:
        name: name of a workflow or an interim bundle in the evidence ledger.
    """
    owners = {name: workflow.id for workflow in workflows() for name in workflow.interim_bundles}
    return owners.get(name) or name.partition(".")[0]


def sections() -> list[RuleSection[Any]]:
    """Return the declarations of the policy pack files that only a single workflow reads."""
    return _distinct(workflow.rules for workflow in workflows())


def logins() -> list[DatabaseLogin]:
    """Return the declared logins with which workflows connect to mapped databases."""
    return _distinct(workflow.login for workflow in workflows())


def pages_tables() -> list[Table]:
    """Return the tables of workflows in the state database that the compliance pages read."""
    return [table for workflow in workflows() for table in workflow.pages_read]


def notification_kinds() -> dict[str, tuple[AnyWorkflow, NotificationKind[Any]]]:
    """Return each kind of notification that a workflow declares, with that workflow.

    Returns:
        Name of the kind -> (workflow, kind).
    """
    return {
        kind.name: (workflow, kind) for workflow in workflows() for kind in workflow.notifications
    }


def in_group(group: AccessGroup) -> frozenset[str]:
    """Return the DAG ids of the workflows that belong to an access group.

    The same people may see and run all workflows of an access group.
    """
    return frozenset(workflow.id for workflow in workflows() if workflow.access is group)


_Declared = TypeVar("_Declared")


def _distinct(declared: Iterable[_Declared | None]) -> list[_Declared]:
    return [value for value in dict.fromkeys(declared) if value is not None]


def load_pack(folder: Path) -> PolicyPack:
    """Read a policy pack with `loader.load_pack`, including the files of single workflows."""
    return _with_known_workflows(loader.load_pack(folder, sections()))


def cached_pack(folder: Path, cache_folder: Path | None = None) -> PolicyPack:
    """Return the policy pack from a cache. If a file of the pack has changed, read the pack again.

    Args:
        folder: folder of the policy pack.
        cache_folder: folder of compiled policy packs, see `pack_cache.cached_pack`.
    """
    return _with_known_workflows(pack_cache.cached_pack(folder, sections, cache_folder))


def _with_known_workflows(pack: PolicyPack) -> PolicyPack:
    """Check that operations.yaml names only existing workflows, and return the policy pack.

    Raises:
        PackError: operations.yaml names a workflow that does not exist.
    """
    problems = [
        PackProblem("operations.yaml", None, f"workflows.{name}", "there is no such workflow")
        for name in pack.operations.workflows
        if name not in WORKFLOWS
    ]
    if problems:
        raise PackError(pack.folder, problems)
    return pack
