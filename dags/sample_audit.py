"""### Audit sample

**Policy clause 6.1:** regular internal audits of every department.

**Function.** For the past quarter the workflow records the sampling frames: the lists of all items of every population
of `audit.yaml` (openings of customer records, disclosures to partners, reviewed intake, deletions, training). It
computes the sample sizes with exact arithmetic, and seals the sampling frames and the sampling plan as a commitment.
Only then it asks an auditor for the random seed, a public value that could not be known before. The samples depend only
on the sampling frames and the random seed, so anyone with the bundle can repeat the draw. Finally, the workflow writes
the workpapers that the auditors fill in.

**Schedule:** on the 5th of January, April, July and October at 08:00 in the policy pack's timezone. **Inputs:**
`audit.yaml` and the data map of the policy pack; connections `audit_db` (reads), `state_db`, `evidence_store`.

**Writes:** commitment, seed and samples to `state_db`; two sealed bundles to `evidence_store`, one before the seed is
known (`sample_commitment`) and one with frames, samples and workpapers (English, Chinese). Auditors answer under
*Browse > Required Actions*. It is normal that a run waits for them, by default up to 14 days (`response` in
`audit.yaml`) for each request.

**Red means** that a population has no sample for the quarter: no seed was entered, its SQL query fails, its ids are not
unique, or a step failed. **Action:** read the report in the bundle that the task `gate` names. If the run has no
bundle, read the log of the task `seal`. Remove the cause and run this workflow again for the same quarter. Existing
samples are never drawn again. Tasks of a sealed run cannot be cleared. More: docs/how-to/conclude-an-audit.md.
**Owner:** management.
"""

from __future__ import annotations

from airflow.sdk import chain, dag

from include.orchestration.param_formats import past_quarter_param
from include.orchestration.tasks import dag_settings, tasks_of
from include.sampling.workflow import SAMPLE_AUDIT


@dag(
    **dag_settings(
        SAMPLE_AUDIT,
        schedule="0 8 5 1,4,7,10 *",
        page=__doc__,
        params={
            "quarter": past_quarter_param(
                "Quarter / 季度",
                "A past quarter, such as 2026Q3; empty means the last quarter. 已结束的季度；留空为上一季度。",
            ),
        },
    )
)
def sample_audit() -> None:
    """Draw the audit samples of a quarter and seal the evidence bundle."""
    tasks = tasks_of(SAMPLE_AUDIT)
    frozen = tasks.freeze.expand(about=tasks.populations())
    committed = tasks.commit()
    # `draw` reads the seed itself: a user may mark the task `seed` as success without an answer.
    chain(frozen, committed, tasks.seed(committed), drawn := tasks.draw())
    tasks.seal_after(drawn)


sample_audit()
