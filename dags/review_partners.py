"""### Partner reviews

**Policy clauses 4.3 and 4.4:** partners are reviewed for security before they use customer information; third parties
that receive customer information are bound to confidentiality.

**Function.** The workflow reads the register of partners (`partners.yaml`) and checks the obligations of each partner
with access: the confidentiality agreement, the data-processing agreement, and the security review of the partner's
tier. The responsible role and the contact of the partner each get reminders before an obligation lapses, on the days of
`ladder` in `partners.yaml` (shipped: 90, 30 and 7 days before), and every `lapsed_every` days after it has lapsed. If
an obligation is fulfilled before its reminder is sent, the reminder is not sent. Reviews are done with `./parcelseal
partners`: a partner gets a questionnaire as an Excel workbook and returns it, its answers are scored, and a second
person decides.

**Schedule:** Mondays at 09:40 in the policy pack's timezone. A repeated run sends no reminder twice. **Inputs:**
`partners.yaml` of the policy pack; connections `partners_db` (reads the register), `state_db`, `mail`,
`evidence_store`.

**Writes:** notifications to `state_db`; mail; a sealed bundle with the report (English, Chinese) to `evidence_store`.

**Red means** that a partner with access has no valid agreement or no valid review, or that the register is empty or
contradictory. Sharing with that partner is blocked until this is corrected, also between runs of this workflow.
**Action:** read the report in the bundle that the task `gate` names. If the run has no bundle, read the log of the task
`seal`. Conclude or renew the agreement, complete the review, or withdraw the partner's access; correct the register. If
the mail server is down, `send` is retried, and the next run sends the remaining mails (`./parcelseal notices list`).
More: docs/how-to/review-a-partner.md. **Owner:** compliance.
"""

from __future__ import annotations

from airflow.sdk import dag

from include.orchestration.tasks import dag_settings, tasks_of
from include.partners.workflow import REVIEW_PARTNERS


@dag(**dag_settings(REVIEW_PARTNERS, schedule="40 9 * * 1", page=__doc__))
def review_partners() -> None:
    """Check every partner, send reminders and seal the evidence bundle."""
    tasks = tasks_of(REVIEW_PARTNERS)
    tasks.seal_after(tasks.check() >> tasks.send())


review_partners()
