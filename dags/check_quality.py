"""### Quality check

**Policy clauses 4.1 and 5.1:** what is collected is lawful, necessary and true, and is checked again periodically.

**What it does.** The records of every mapped database are compared with the expectations of the policy pack
(`quality/*.yaml`), with Great Expectations, inside PostgreSQL: required fields, phone and ID numbers, administrative
divisions, duplicates, consent, staleness, fields that no purpose needs (`purposes.yaml`). The live schema is compared
with the data map. The quarantine register names records that break a rule by key, until a check finds them good.

**Schedule:** daily at 05:00 in the policy pack's timezone. Every seventh day, and with the parameter *Full*, a run
examines all records. In between it examines records that changed since the last sealed run, where the policy pack
names the column that tells changes; the report states what such a run does not see. **Inputs:** `customer_db` (and others the data map
names; reading is enough), `state_db`, `evidence_store`.

**Writes:** the quarantine register in `state_db`; a sealed bundle with the report (English, Chinese) and the Data Docs
of Great Expectations, without values, to `evidence_store`.

**Red means** that more records break a required expectation than it tolerates, that it could not be checked, or that
the database holds what the data map does not declare. **What to do:** open the report in the bundle that the task
`gate` names (no bundle: read the log of the task `seal`); `./parcelseal quarantine list --rule ID` names the records of a
finding. Put them right at their source and run this again: what is good is resolved by itself. More: docs/quality.md.
**Owner:** information management.
"""

from __future__ import annotations

from airflow.sdk import Param, dag

from include.orchestration.tasks import dag_settings, tasks_of
from include.quality.workflow import CHECK_QUALITY


@dag(
    **dag_settings(
        CHECK_QUALITY,
        schedule="0 5 * * *",
        page=__doc__,
        params={
            "full": Param(
                False,
                type="boolean",
                title="Full",
                description="Examine all records, not only those that changed since the last sealed run.",
            ),
        },
    )
)
def check_quality() -> None:
    """Check the records of every mapped database and leave a sealed bundle."""
    tasks = tasks_of(CHECK_QUALITY)

    tasks.seal_after(tasks.check.expand(about=tasks.databases()))


check_quality()
