"""### Quality check

**Policy clauses 4.1 and 5.1:** what is collected is lawful, necessary and true, and is checked again periodically.

**What it does.** The records of every mapped database are held against the expectations of the policy pack
(`quality/*.yaml`), with Great Expectations, inside PostgreSQL: required fields, phone and ID numbers, administrative
divisions, duplicates, consent, staleness, fields that no purpose needs (`purposes.yaml`). The live schema is compared
with the data map. Records that break a rule stand in the quarantine register by key, until a check finds them good.

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

from typing import Any

from airflow.sdk import Param, dag, task

from include.orchestration import quality
from include.orchestration.databases import wanted_databases
from include.orchestration.run import require_held
from include.orchestration.workflow import DEFAULT_ARGS, SEAL_ARGS, Tag, cron, databases_param


@dag(
    dag_id="check_quality",
    dag_display_name="Quality check",
    description="Hold collected records against the policy's expectations; name what breaks them by key; seal.",
    doc_md=__doc__,
    schedule=cron("0 5 * * *"),
    catchup=False,
    max_active_runs=1,
    default_args={**DEFAULT_ARGS, "owner": "information_management"},
    tags=[Tag.QUALITY, Tag.CLAUSE_4_1, Tag.CLAUSE_5_1, Tag.DAILY],
    params={
        "databases": databases_param(),
        "full": Param(
            False,
            type="boolean",
            title="Full",
            description="Examine all records, not only those that changed since the last sealed run.",
        ),
    },
)
def check_quality() -> None:
    """Check the records of every mapped database and leave a sealed bundle."""

    @task
    def databases(params: dict[str, Any] | None = None) -> list[str]:
        """Name the databases to check: all mapped ones, or those the run was asked for."""
        return wanted_databases((params or {}).get("databases"), clause="4.1")

    @task
    def check(database: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Count what breaks each expectation, and enter broken records in the register by key."""
        return quality.check(database, full=bool((params or {}).get("full")))

    @task(**SEAL_ARGS)
    def seal() -> dict[str, Any]:
        """Write the sealed bundle, whatever happened before."""
        return quality.seal_quality()

    @task(retries=0)
    def gate(sealed: dict[str, Any]) -> None:
        """Fail the run when the control did not hold."""
        require_held(sealed)

    sealed = seal()
    check.expand(database=databases()) >> sealed
    gate(sealed)


check_quality()
