"""### Partner reviews

**Policy clauses 4.3 and 4.4:** partners are reviewed for security first; third parties that receive customer information
are bound to confidentiality.

**What it does.** It reads the register of partners (`partners.yaml`) and checks the obligations of each partner with
access: the confidentiality agreement, the data-processing agreement, the security review of its tier. The responsible
role and the partner's own contact get a reminder 90, 30 and 7 days before a term ends, each once, and every week after
it has lapsed. A reminder is not sent if its cause was corrected meanwhile. Reviews are done with `./parcelseal partners`:
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

from airflow.sdk import dag

from include.orchestration.tasks import dag_settings, tasks_of
from include.partners.workflow import REVIEW_PARTNERS


@dag(**dag_settings(REVIEW_PARTNERS, schedule="40 9 * * 1", page=__doc__))
def review_partners() -> None:
    """Check every partner, send reminders and leave a sealed bundle."""
    tasks = tasks_of(REVIEW_PARTNERS)
    tasks.seal_after(tasks.check() >> tasks.send())


review_partners()
