"""Declaration of the workflow `update_finding`."""

from __future__ import annotations

from include.finding_updates.enter import CLAUSE, ENTER
from include.finding_updates.form import ACTIONS, update_form
from include.messages import Message, _, verbatim
from include.reports.conclusion import Conclusion
from include.reports.model import Section, text_table
from include.workflow.declaration import AccessGroup, Cadence, Workflow
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

TITLE = _("Comment or decision on a finding")
_NOTHING = _(
    "Nothing was recorded. Read the finding of this run for the reason, then trigger the workflow "
    "again."
)


def conclude(run: RunContext[None], records: RunRecords) -> Conclusion:
    """Return the report of a run: the finding, the action, the person and the owner."""
    entered = records.result(ENTER)
    if entered is None:
        return records.conclude(TITLE, _NOTHING, lists_messages=False)
    rows: list[tuple[Message, Message]] = [
        (_("Finding"), verbatim(str(entered.finding))),
        (_("Action"), ACTIONS[entered.action]),
        (_("Person"), verbatim(entered.by)),
        (_("Owner"), run.pack.role_message(entered.owner)),
    ]
    table = text_table(_("Recorded entry"), (_("Item"), _("Content")), rows)
    summary = _(
        "{person} recorded an entry about finding {number}. The register of findings has its text.",
        person=entered.by,
        number=entered.finding,
    )
    sections = [Section(heading=_("Recorded entry"), blocks=[table])]
    return records.conclude(TITLE, summary, sections=sections, lists_messages=False)


UPDATE_FINDING = Workflow[None](
    id="update_finding",
    title=TITLE,
    summary="Record a comment, corrective action, new owner or accepted risk; seal.",
    topic="findings",
    clauses=(CLAUSE,),
    cadence=Cadence.ON_DEMAND,
    owner="compliance",
    access=AccessGroup.FINDINGS,
    concurrent_runs=16,
    trigger_form=update_form,
    starts_unpaused=True,
    steps=(ENTER,),
    conclude=conclude,
    findings_need_retest=True,
)
