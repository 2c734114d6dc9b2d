"""### Audit conclusion

**Policy clause 6.1:** regular internal audits; a report; improvement measures.

**Function.** The workflow reads the workpapers that auditors handed in (`./parcelseal sampling return FILE`). It
evaluates every population by the sampling plan that was made before the draw: the number of deviations, the estimated
deviation rate, and the exact one-sided upper limit, which it compares with the tolerable rate. For every deviation it
opens a finding with an owner and a due date. If a sampling plan requires its second stage, the workflow issues the
workpapers of that stage. Every day it checks all open findings, also the findings of incidents. From one week before
the due date, the owner gets a reminder once a week at the mail addresses of the role (`roles.yaml`). Only a second test
by another person closes a finding (`./parcelseal findings`).

**Schedule:** workdays at 09:30 in the policy pack's timezone; trigger it by hand when workpapers were handed in.
**Inputs:** `audit.yaml`, `roles.yaml` and `notices.yaml` of the policy pack; connections `state_db`, `evidence_store`,
`mail`.

**Writes:** conclusions, findings and reminders to `state_db`; mail to owners; a sealed bundle with answers, conclusions
and the report that an auditor signs (English, Chinese) to `evidence_store`.

**Red means** one of these: a population was not accepted and its findings are open; workpapers are overdue; a run was
triggered to conclude a quarter before all workpapers were handed in; findings are overdue. **Action:** read the report
in the bundle that the task `gate` names. If the run has no bundle, read the log of the task `seal`. Hand in the
workpapers. Ensure that the causes of findings are removed, and that the findings are answered and tested again. Then
start a new run; tasks of a sealed run cannot be cleared. More: docs/how-to/conclude-an-audit.md. **Owner:** management.
"""

from __future__ import annotations

from airflow.sdk import dag

from include.orchestration.param_formats import past_quarter_param
from include.orchestration.tasks import dag_settings, tasks_of
from include.sampling.workflow import CONCLUDE_AUDIT


@dag(
    **dag_settings(
        CONCLUDE_AUDIT,
        schedule="30 9 * * 1-5",
        page=__doc__,
        params={
            "quarter": past_quarter_param(
                "Quarter / 季度",
                "Quarter to conclude now, such as 2026Q3; the report lists workpapers that were not returned. "
                "Empty means every quarter whose workpapers were returned. "
                "本次形成结论的季度，报告列明未交回的底稿；留空为全部已交回底稿的季度。",
            ),
        },
    )
)
def conclude_audit() -> None:
    """Evaluate the returned workpapers, follow up findings and seal the evidence bundle."""
    tasks = tasks_of(CONCLUDE_AUDIT)
    evaluated = tasks.evaluate.expand(about=tasks.look())
    tasks.seal_after(evaluated >> tasks.follow_up() >> tasks.send())


conclude_audit()
