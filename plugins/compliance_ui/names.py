"""Titles of workflows on the pages, and the DAG of each name in the ledger."""

from __future__ import annotations

from include.incident.names import WORKFLOW as INCIDENT
from include.messages import Message, _, verbatim
from include.registry import WORKFLOWS, workflow, workflows

_INCIDENT_DOCUMENT = _("Document of an incident")


def dag_of_findings() -> dict[str, str]:
    """Return by kind of finding the DAG whose readers may read it."""
    return {each.finding_kind: each.id for each in workflows() if each.finding_kind}


def title_of(name: str) -> Message:
    """Return the title of a workflow, or of a bundle that a workflow seals while a run goes on."""
    if name.startswith(f"{INCIDENT}."):
        return _INCIDENT_DOCUMENT
    if name in WORKFLOWS:
        return workflow(name).title
    interim = {key: title for each in workflows() for key, title in each.interim_bundles.items()}
    return interim.get(name) or verbatim(name)


def dag_of(name: str) -> str:
    """Return the DAG whose readers may read the bundles of a name in the ledger."""
    owners = {key: each.id for each in workflows() for key in each.interim_bundles}
    return owners.get(name) or name.partition(".")[0]
