"""Look up titles and DAG ids of workflows by the names that the evidence ledger uses."""

from __future__ import annotations

from include.incident.incident_ids import WORKFLOW as INCIDENT
from include.messages import Message, _, verbatim
from include.registry import WORKFLOWS, workflow, workflows

_INCIDENT_DOCUMENT = _("Document of an incident")


def dag_of_findings() -> dict[str, str]:
    """Return, for each kind of finding, the id of the DAG whose readers may read its findings."""
    return {workflow.finding_kind: workflow.id for workflow in workflows() if workflow.finding_kind}


def title_of(name: str) -> Message:
    """Return the title of a workflow or of an interim bundle.

    Args:
        name: name of the workflow or interim bundle in the evidence ledger. If the name is unknown,
            the name itself is the title.
    """
    if name.startswith(f"{INCIDENT}."):
        return _INCIDENT_DOCUMENT
    if name in WORKFLOWS:
        return workflow(name).title
    interim_titles = {
        name: title for workflow in workflows() for name, title in workflow.interim_bundles.items()
    }
    return interim_titles.get(name) or verbatim(name)


def dag_of(name: str) -> str:
    """Return the id of the DAG whose readers may read the bundles with the given name.

    Args:
        name: name of a workflow or an interim bundle in the evidence ledger.
    """
    owners = {name: workflow.id for workflow in workflows() for name in workflow.interim_bundles}
    return owners.get(name) or name.partition(".")[0]
