"""### Audit conclusion

**Policy clause 6.1:** regular internal audits; a report; improvement measures.

**What it does.** It looks which workpapers auditors handed in (`./parcelseal sampling return FILE`), judges every population by
the plan that was made before the draw - deviations, estimated rate, exact one-sided upper limit against the tolerable
rate - and opens a finding with an owner and a day for every deviation. Where a plan has a second stage and needs it, it
issues its workpapers. Every day it looks at all open findings, those that incidents left too: owners are mailed once a week from a week before the
day on, until it is closed, at the addresses of their role (`roles.yaml`); only a second test by another person closes a
finding (`./parcelseal findings`).

**Schedule:** workdays at 09:30 in the policy pack's timezone; start it by hand when workpapers are back. **Inputs:**
`audit.yaml`, `roles.yaml` and `notices.yaml` of the policy pack; connections `state_db`, `evidence_store`, `mail`.

**Writes:** verdicts, findings and reminders to `state_db`; mail to owners; a sealed bundle with answers, verdicts and the report that an
auditor signs (English, Chinese) to `evidence_store`.

**Red means** that a population is not accepted by its last verdict and its findings are open, that workpapers
are overdue, that a conclusion was asked for before they were back, or that findings are past their day. **What to do:**
read the report in the bundle that the task `gate` names (no bundle: read the log of the task `seal`); hand in the
workpapers; have the causes removed, answered and tested again; start a new run (clearing tasks of a sealed one is refused). More: docs/audit.md. **Owner:** management.
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
