"""What workflows are called on pages, and which DAG stands behind each name of the ledger."""

from __future__ import annotations

from include.incident.names import WORKFLOW as INCIDENT
from include.messages import Message, _, verbatim
from include.sampling.names import COMMITMENT_WORKFLOW

_WORKFLOWS = {
    "backup_offsite": _("Off-site backup"),
    "drill_restore": _("Restore drill"),
    "check_quality": _("Quality check"),
    "review_intake": _("Review before storing"),
    "enforce_retention": _("Deletion on time"),
    "sample_audit": _("Audit sample"),
    COMMITMENT_WORKFLOW: _("Audit sample: what was committed to"),
    "conclude_audit": _("Audit conclusion"),
    "remind_training": _("Training reminders"),
    "review_partners": _("Partner reviews"),
    INCIDENT: _("Incident response"),
    "update_incident": _("Addition to an incident"),
}
_INCIDENT_DOCUMENT = _("Document of an incident")

REGISTERS = {"audit": "conclude_audit", "incident": INCIDENT}
"""Kind of a finding in the register -> DAG whose readers may read it."""


def title_of(workflow: str) -> Message:
    """Return the name of a workflow, as the ledger has it, for people."""
    if workflow.startswith(f"{INCIDENT}."):
        return _INCIDENT_DOCUMENT
    return _WORKFLOWS.get(workflow) or verbatim(workflow)


def dag_of(workflow: str) -> str:
    """Return the DAG whose readers may read what was sealed under a name.

    Some bundles are sealed while a run goes on, under a name of their own.
    """
    if workflow == COMMITMENT_WORKFLOW:
        return "sample_audit"
    return workflow.partition(".")[0]
