"""### Comment or decision on a finding

**Policy clause 6.1:** findings have owners, and people decide about them on the record.

**Function.** The workflow records a comment or decision on a finding in the name of the person who triggered it: a
comment, the cause and the corrective action, another owner, or the acceptance of the risk until a day. It closes no
finding and changes no outcome. Findings of incidents are refused, because their texts are confidential.

**Schedule:** none; trigger it by hand, or with the link on the page of a finding. `roles.yaml` lists the people of each
department, and `findings.yaml` the departments that may decide. **Inputs:** connections `state_db`, `evidence_store`.

A decision about another owner or an accepted risk counts only for the version of the finding that the form names.

**Writes:** the register of findings in `state_db`; a sealed bundle (English, Chinese).

**Red means** that nothing was recorded: a field of the form was wrong, or the person may not decide. **Action:** read
the report in the bundle that the task `gate` names, correct the form, and trigger the workflow again.

**Owner:** compliance. More: docs/explanation/work-list.md.
"""

from __future__ import annotations

from airflow.sdk import dag

from include.finding_updates.workflow import UPDATE_FINDING
from include.orchestration.tasks import dag_settings, tasks_of


@dag(**dag_settings(UPDATE_FINDING, schedule=None, page=__doc__))
def update_finding() -> None:
    """Record a comment or decision on a finding and seal the evidence bundle."""
    tasks = tasks_of(UPDATE_FINDING)
    tasks.seal_after(tasks.enter())


update_finding()
