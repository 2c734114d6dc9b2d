"""### Audit sample

**Policy clause 6.1:** regular internal audits of every department.

**What it does.** For the quarter that is over it writes down every item of every population of `audit.yaml` (openings of
customer records, shares, reviewed intake, deletions, training): the frames. It plans how many items to draw, by exact
arithmetic, and seals all of this: the commitment. Only then it asks an auditor for the seed, a public value that nobody
could know before. The samples follow from frame and seed alone; whoever has the bundle draws them again. At last it
writes the workpapers that the auditors fill in.

**Schedule:** on the 5th of January, April, July and October at 08:00 in the policy pack's timezone. **Inputs:**
`audit.yaml` and the data map of the policy pack; connections `audit_db` (reads), `state_db`, `evidence_store`.

**Writes:** commitment, seed and samples to `state_db`; two sealed bundles to `evidence_store`, one before the seed is
known (`sample_commitment`) and one with frames, samples and workpapers (English, Chinese). Auditors answer under
*Browse > Required Actions*; a run that waits for them, up to 14 days by default (`response`) for each question, is no fault.

**Red means** that a population has no sample for the quarter: no seed was entered, its SQL fails, its ids are not unique,
or a step failed. **What to do:** read the report in the bundle that the task `gate` names (no bundle: read the log of
the task `seal`), remove the cause, run this workflow again for the same quarter: what was drawn is never drawn again. Clearing tasks of a sealed run is refused.
More: docs/audit.md. **Owner:** management.
"""

from __future__ import annotations

from airflow.sdk import chain, dag

from include.orchestration.inputs import past_quarter_param
from include.orchestration.tasks import dag_settings, tasks_of
from include.sampling.workflow import SAMPLE_AUDIT


@dag(
    **dag_settings(
        SAMPLE_AUDIT,
        schedule="0 8 5 1,4,7,10 *",
        page=__doc__,
        params={
            "quarter": past_quarter_param(
                "Quarter", "2026Q3, a quarter that is over; empty means the last one."
            ),
        },
    )
)
def sample_audit() -> None:
    """Draw the samples of a quarter and leave a sealed bundle."""
    tasks = tasks_of(SAMPLE_AUDIT)
    frozen = tasks.freeze.expand(about=tasks.populations())
    committed = tasks.commit()
    # `draw` gets nothing from `seed`: somebody may mark that task as done without an answer.
    chain(frozen, committed, tasks.seed(committed), drawn := tasks.draw())
    tasks.seal_after(drawn)


sample_audit()
