"""### Partner reviews

**Policy clauses 4.3 and 4.4:** partners are reviewed for security first; third parties that receive customer information
are bound to confidentiality.

**What it does.** It reads the register of partners (`partners.yaml`) and looks at what binds each one with access: the
confidentiality agreement, the data-processing agreement, the security review of its tier. The role that answers for
partners, and the partner's own contact, are told 90, 30 and 7 days before something ends, each rung once, and every week
while it has lapsed. What was mended meanwhile is not sent. Reviews themselves are done with `./parcelseal partners`:
a questionnaire goes out and comes back as an Excel workbook, its answers are scored, and another person decides.

**Schedule:** Mondays at 09:40 in the policy pack's timezone. Starting it again sends nothing twice. **Inputs:** `partners.yaml`
of the policy pack; connections `partners_db` (reads the register), `state_db`, `mail`, `evidence_store`.

**Writes:** the outbox to `state_db`; mail; a sealed bundle with the report (English, Chinese) to `evidence_store`.

**Red means** that a partner with access has no agreement in force or no review that holds, or that the register is empty
or does not say one thing of it. Sharing with it is refused until then, whether this workflow runs or not. **What to do:** read the
report in the bundle that the task `gate` names (no bundle: read the log of the task `seal`); renew the agreement, do the
review, or take the partner's access away; correct the register. Mail server down: `send` is repeated, and what could not
be sent goes with the next run (`./parcelseal notices list`). More: docs/partners.md. **Owner:** compliance.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import TriggerRule, dag, task

from include.orchestration import partners
from include.orchestration.run import require_held
from include.orchestration.workflow import DEFAULT_ARGS, SEAL_ARGS, SEND_ARGS, Tag, cron


@dag(
    dag_id="review_partners",
    dag_display_name="Partner reviews",
    description="Look at what binds each partner, tell people once before it ends, report, seal.",
    doc_md=__doc__,
    schedule=cron("40 9 * * 1"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS | {"owner": "compliance"},
    tags=[Tag.PARTNERS, Tag.CLAUSE_4_3, Tag.CLAUSE_4_4, Tag.WEEKLY],
)
def review_partners() -> None:
    """Look at every partner, remind people and leave a sealed bundle."""

    @task
    def look() -> dict[str, Any]:
        """Say what binds each partner today; queue what people are to be told, once."""
        return partners.look()

    @task(trigger_rule=TriggerRule.ALL_DONE, **SEND_ARGS)
    def send() -> dict[str, Any]:
        """Send what is queued and still so, one message a day and recipient."""
        return partners.send()

    @task(**SEAL_ARGS)
    def seal() -> dict[str, Any]:
        """Write the sealed bundle, whatever happened before."""
        return partners.seal_partners()

    @task(retries=0)
    def gate(sealed: dict[str, Any]) -> None:
        """Fail the run when the control did not hold."""
        require_held(sealed)

    sealed = seal()
    look() >> send() >> sealed
    gate(sealed)


review_partners()
