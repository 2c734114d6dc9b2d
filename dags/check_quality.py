"""### Quality check

**Policy clauses 4.1 and 5.1:** collected data is lawful, necessary and true, and is checked periodically.

**Function.** The workflow compares the records of every mapped database with the expectations of the policy pack
(`quality/*.yaml`). Great Expectations performs the comparison inside PostgreSQL: required fields, phone and ID numbers,
administrative divisions, duplicates, consent, outdated records, and fields that no purpose needs (`purposes.yaml`). The
workflow also compares the live schema with the data map. The quarantine register lists the keys of records that break
an expectation, until a later check finds these records correct.

**Schedule:** daily at 05:00 in the policy pack's timezone. Every seventh day, and with the parameter *Full*, a run
examines all records. If the policy pack names a column that shows changes, other runs examine only the records that
changed since the last sealed run. The report states what such a run cannot detect. **Inputs:** `customer_db` (and
others that the data map names; read access is enough), `state_db`, `evidence_store`.

**Writes:** the quarantine register in `state_db`; a sealed bundle with the report (English, Chinese) and the Data Docs
of Great Expectations, without values of records, to `evidence_store`.

**Red means** one of these: the number of records that break a required expectation exceeds its tolerance; an
expectation could not be checked; the database has data that the data map does not declare. **Action:** open the report
in the bundle that the task `gate` names. If the run has no bundle, read the log of the task `seal`. `./parcelseal
quarantine list --rule ID` lists the records of a finding. Correct the records at their source and run this workflow
again; it then marks their quarantine entries as resolved. More: docs/how-to/correct-broken-records.md. **Owner:**
information management.
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
                title="Full / 全量检查",
                description="Examine all records, not only those that changed since the last sealed run. "
                "检查全部记录，而不只是上次封存以来有变化的记录。",
            ),
        },
    )
)
def check_quality() -> None:
    """Check the records of every mapped database and seal the evidence bundle."""
    tasks = tasks_of(CHECK_QUALITY)

    tasks.seal_after(tasks.check.expand(about=tasks.databases()))


check_quality()
