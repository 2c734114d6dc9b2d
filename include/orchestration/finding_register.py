"""Keep the register of findings up to date with the evidence ledger, for all workflows."""

from __future__ import annotations

import logging

from include.evidence.bundle_reader import BundleReader
from include.evidence.ledger_recovery import pending_signature
from include.evidence.model import CONTROLS_STEP, Finding
from include.findings.run_findings import EntryRules, follow_ledger
from include.policy import PolicyPack
from include.registry import workflow, workflows
from include.service_container import Services
from include.services.objectstore.base import StoreError

log = logging.getLogger(__name__)


def update_register(live: Services) -> None:
    """Enter the findings of sealed runs in the register, and close those that no longer exist.

    If the evidence store does not answer, the task still succeeds, because its run is already
    sealed. The next seal continues.

    Args:
        live: the live services.

    Raises:
        ServiceError: the state database failed. A later call continues.
    """

    def pending(bundle: str) -> bytes | None:
        with live.state.connect() as conn:
            return pending_signature(conn, bundle)

    # A concurrent seal commits the ledger row before it puts the signature into the store.
    bundle_reader = BundleReader(live.store("evidence_store"), live.trusted, pending=pending)
    try:
        followed = follow_ledger(live.state, bundle_reader, entry_rules(live.pack))
    except StoreError as error:
        log.warning("The register of findings was not completed; the next run continues: %s", error)
        return
    if not followed.is_complete:
        log.warning(
            "The register of findings lacks the findings of evidence bundles from number %d on. "
            "The next run continues. "
            "If the number stays the same, run `./parcelseal verify --all`.",
            followed.last_seq + 1,
        )
    for bundle in followed.unread:
        problem = "cannot be read or does not verify; its findings are not in the register"
        log.warning("The bundle %s %s.", bundle, problem)


def entry_rules(pack: PolicyPack) -> EntryRules:
    """Return the owners and due dates of findings, from the policy pack and the workflows."""
    return EntryRules(
        rules=pack.findings,
        owner_of=lambda dag_id, finding: owner_of(pack, dag_id, finding),
        closes_by_retest={declared.id: declared.findings_need_retest for declared in workflows()},
        zone=pack.calendar.zone,
    )


def owner_of(pack: PolicyPack, dag_id: str, finding: Finding) -> str:
    """Return the role that is responsible for a finding of a run.

    A finding about a control belongs to the owner of the control. Any other finding belongs to the
    owner of the workflow's first control for the same clause. Without such an owner, the finding
    belongs to the owner of the workflow.

    Args:
        pack: the policy pack.
        dag_id: DAG id of the workflow.
        finding: the finding.
    """
    controls = [control for control in pack.controls_of(dag_id) if control.owner]
    if finding.step == CONTROLS_STEP:
        controls = [control for control in controls if control.id == finding.subject] or controls
    same_clause = [control for control in controls if control.clause == finding.clause]
    for control in same_clause:
        if control.owner:
            return control.owner
    return workflow(dag_id).owner
