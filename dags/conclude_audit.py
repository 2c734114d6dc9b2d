"""### Audit conclusion

**Policy clause 6.1:** regular internal audits; a report; improvement measures.

**What it does.** It reads the workpapers that auditors handed in (`./parcelseal sampling return FILE`). It judges every
population by the plan that was made before the draw: deviations, estimated rate, and the exact one-sided upper limit,
which it compares with the tolerable rate. It opens a finding with an owner and a day for every deviation. If a plan
needs its second stage, it issues the workpapers of that stage. Every day it checks all open findings, also those of
incidents. From a week before the day on, it mails the owner once a week at the addresses of the role (`roles.yaml`).
Only a second test by another person closes a finding (`./parcelseal findings`).

**Schedule:** workdays at 09:30 in the policy pack's timezone; start it by hand when workpapers are back. **Inputs:**
`audit.yaml`, `roles.yaml` and `notices.yaml` of the policy pack; connections `state_db`, `evidence_store`, `mail`.

**Writes:** verdicts, findings and reminders to `state_db`; mail to owners; a sealed bundle with answers, verdicts and the
report that an auditor signs (English, Chinese) to `evidence_store`.

**Red means** one of these: a population was not accepted and its findings are open; workpapers are overdue; a
conclusion was requested before they were back; findings are past their day. **What to do:** read the report in the
bundle that the task `gate` names (no bundle: read the log of the task `seal`). Hand in the workpapers. Have the causes
removed, answered and tested again. Then start a new run; tasks of a sealed run cannot be cleared. More: docs/audit.md.
**Owner:** management.
"""

from __future__ import annotations

from airflow.sdk import Param, dag

from include.orchestration.tasks import dag_settings, tasks_of
from include.sampling.workflow import CONCLUDE_AUDIT


@dag(
    **dag_settings(
        CONCLUDE_AUDIT,
        schedule="30 9 * * 1-5",
        page=__doc__,
        params={
            "quarter": Param(
                None,
                type=["null", "string"],
                pattern=r"^20[0-9]{2}Q[1-4]$(?!\n)",
                title="Quarter",
                description="2026Q3: conclude it now, and say so when that cannot be; empty means what is back.",
            ),
        },
    )
)
def conclude_audit() -> None:
    """Judge what came back, follow the findings and leave a sealed bundle."""
    tasks = tasks_of(CONCLUDE_AUDIT)
    evaluated = tasks.evaluate.expand(about=tasks.look())
    tasks.seal_after(evaluated >> tasks.follow_up() >> tasks.send())


conclude_audit()
