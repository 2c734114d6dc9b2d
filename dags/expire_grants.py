"""### End of access to customer information

**Policy clauses 4.3 and 5.3:** information is used for its purpose only, after an approval, and deleted promptly.

**Function.** `expire` ends each access whose time is over, whose requester left or was transferred, or whose extract
contains a data subject who asked for erasure. It deletes the extracts of ended accesses, and the objects of killed
deliveries. It reminds requesters before the end, and asks them to confirm that local copies are deleted. `verify`
lists the store again. It proves that each extract has a valid access, and each grant its approvals. An extract cannot
be opened after the end of its access, even if this workflow does not run. `compare` compares the log of accesses with
the approvals (`accesses` in `use.yaml`): accesses without a valid approval, for another purpose, or of other fields.

**Schedule:** every hour. Several runs and repeated runs change nothing twice. **Inputs:** `use.yaml` of the policy
pack; connections `use_db` (reads the roster), `extract_store`, `state_db`, `mail`, `evidence_store`.

**Writes:** grants and notifications to `state_db`; deletions in `extract_store`; mail; a sealed bundle with the report
(English, Chinese) to `evidence_store`.

**Red means** that an extract is still in the store although its access has ended, that an extract has no valid
approval, or that the log has accesses that no valid approval covers. Accesses that an earlier run reported do not make
the run red again: they need attention, and their control stays failed until they are closed.
**Action:** read the report in the bundle that the task `gate` names. If the store was unavailable, the task
is retried, and the next run deletes the rest. If a version is locked, remove the lock and the default retention of the
bucket. An extract without an approval is an incident: start the workflow *Incident response*. A downloaded file cannot
be recalled. **Owner:** information management.
"""

from __future__ import annotations

from airflow.sdk import dag

from include.disclosure.workflow import EXPIRE_GRANTS
from include.orchestration.tasks import dag_settings, tasks_of


@dag(**dag_settings(EXPIRE_GRANTS, schedule="5 * * * *", page=__doc__))
def expire_grants() -> None:
    """End accesses, prove the deletions, compare accesses with approvals, and seal the evidence."""
    tasks = tasks_of(EXPIRE_GRANTS)
    ended = tasks.expire() >> tasks.verify()
    tasks.seal_after([ended, tasks.compare()] >> tasks.send())


expire_grants()
