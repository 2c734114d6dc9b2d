"""### Use of customer information

**Policy clauses 4.3 and 5.3:** customer information is used for registered purposes only. An employee applies to the
supervisor with the purpose, uses the information only after the approval, and deletes it promptly afterwards.

**Function.** An employee requests an extract: purpose, fields, selection of records, days. `check` refuses fields that
the purpose does not need, and counts records and people. `approve` asks the supervisor. `approve_second` asks another
person if the request names unmasked fields or includes people under 18. `deliver` checks everything again, writes the
encrypted extract to the extract store, and queues a mail with the password. `verify` reads the extract back. With the
action *Confirm that local copies are deleted*, only `confirm` runs: it records the confirmation and ends the access.

**Schedule:** none; triggered with the form in Airflow. A request that was prepared with `./parcelseal access request`
is named by its number. **Inputs:** `use.yaml` and `purposes.yaml` of the policy pack; connections `use_db` (reads the
roster and the records), `extract_store`, `state_db`, `mail`, `evidence_store`.

**Writes:** requests, grants and notifications to `state_db`; the extract to `extract_store`; mail; a sealed bundle with
the report (English, Chinese) to `evidence_store`. The evidence contains no record of the extract.

**Red means** that an extract was delivered that does not match its approval, that a person decided on their own
request, or that an approved request could not be delivered. A refused request says nothing about the control.
**Action:** read the report in the bundle that the task `gate` names. If `deliver` failed because the data changed, the
requester makes a new request. If the extract store is unavailable, the task is retried; a later run of `expire_grants`
deletes what a killed task left. End an access at once: `./parcelseal access end NUMBER`. **Owner:** information
management.
"""

from __future__ import annotations

from airflow.sdk import dag

from include.disclosure.workflow import USE_INFORMATION
from include.orchestration.tasks import dag_settings, tasks_of


@dag(**dag_settings(USE_INFORMATION, schedule=None, page=__doc__))
def use_information() -> None:
    """Check a request, ask for its approvals, deliver the extract, and seal the evidence bundle."""
    tasks = tasks_of(USE_INFORMATION)
    checked = tasks.check()
    approved = tasks.approve(about=checked)
    approved_twice = tasks.approve_second(about=approved.output)
    delivered = tasks.deliver()
    verified = tasks.verify()
    approved_twice >> delivered >> verified
    tasks.seal_after([verified, tasks.confirm()] >> tasks.send())


use_information()
