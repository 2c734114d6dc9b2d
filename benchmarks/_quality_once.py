"""One check in a process of its own: ParcelSeal's, or Great Expectations' as its manual has it.

``python -m benchmarks._quality_once TOOL FILE`` with what to do as JSON in FILE, which gets the
answer: seconds of imports and of the check itself, and the counts by rule.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def ours(given: dict[str, Any]) -> dict[str, Any]:
    """Check the customers with the shipped suite, as the task of `check_quality` does."""
    begun = time.monotonic()
    from include.erasure.ledger import ErasureKeys
    from include.evidence.step_findings import StepFindings
    from include.expectations import gx
    from include.notify.outbox import Run
    from include.policy import SHIPPED
    from include.quality.check import CHECK, check_database
    from include.registry import load_pack
    from include.services.database import DatabaseAddress
    from include.state.connect import engine
    from include.workflow.run_context import RunContext

    assert gx  # loaded here, so that the check does not pay for it
    pack = load_pack(SHIPPED)
    suites = tuple(one for one in pack.suites_of("courier") if one.collection == "customer")
    address = DatabaseAddress.from_conninfo(given["source"])
    loaded = time.monotonic()
    services: Any = SimpleNamespace(
        pack=pack.model_copy(update={"suites": suites}),
        state=engine(given["state"]),
        erasure_keys=ErasureKeys({"1": b"k" * 32}, "1"),
        database=lambda _connection: address,
    )
    key = Run("check_quality", given["run_id"])
    run = RunContext(services, None, key, parameters={"full": given["full"]})
    findings = StepFindings(CHECK.name, CHECK.clause, "courier")
    at = datetime.fromisoformat(given["now"])
    checked = check_database(run, findings, pack.database("courier"), at)
    ended = time.monotonic()
    (found,) = checked.result.collections
    return {
        "imports": loaded - begun,
        "check": ended - loaded,
        "looked_at": found.looked_at,
        "rows": found.rows,
        "counts": {rule.rule: rule.broken for rule in found.rules},
    }


def great_expectations(given: dict[str, Any]) -> dict[str, Any]:
    """Check with core expectations and custom SQL, result format COMPLETE, keys of records."""
    begun = time.monotonic()
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import great_expectations.expectations as gxe

    from benchmarks import _quality_sql
    from include.expectations import formats

    now = datetime.fromisoformat(given["now"])
    loaded = time.monotonic()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_postgres("courier", connection_string=given["gx_url"])
    table = source.add_table_asset("customer", table_name="customer")
    batch = table.add_batch_definition_whole_table("all")
    blank = formats.blank("name").split("'")[1]
    expectations = {
        "missing_name": gxe.ExpectColumnValuesToNotMatchRegex(column="name", regex=blank),
        "missing_phone": gxe.ExpectColumnValuesToNotBeNull(column="phone"),
        "invalid_phone": gxe.ExpectColumnValuesToMatchRegex(column="phone", regex=formats.MOBILE),
        "missing_id_number": gxe.ExpectColumnValuesToNotBeNull(column="id_number"),
        "invalid_id_form": gxe.ExpectColumnValuesToMatchRegex(
            column="id_number", regex="^[0-9]{17}[0-9Xx]$"
        ),
        "no_reviewer": gxe.ExpectColumnValuesToNotBeNull(column="reviewed_by"),
        "over_collected_religion": gxe.ExpectColumnValuesToBeNull(column="religion"),
    }
    for rule, broken in {**_quality_sql.row_rules(now), **_quality_sql.joined_rules(now)}.items():
        if rule not in expectations:  # it has none of its own for these
            # Not its {batch}: that has an alias of its own, and reads all columns.
            query = f"SELECT c.customer_id FROM customer AS c WHERE {broken}"  # noqa: S608 - constants
            query = query.replace("{", "{{").replace("}", "}}")
            expectations[rule] = gxe.UnexpectedRowsExpectation(unexpected_rows_query=query)
    for rule, one in expectations.items():
        one.meta = {"rule": rule}
    suite = gx.ExpectationSuite(name="customer", expectations=list(expectations.values()))
    definition = gx.ValidationDefinition(
        name="customer", data=batch, suite=context.suites.add(suite)
    )
    context.validation_definitions.add(definition)
    done = definition.run(
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["customer_id"],
        }
    )
    ended = time.monotonic()
    counts = {}
    for one in done.results:
        if one.exception_info.get("raised_exception") or not one.result:
            sys.exit(f"Great Expectations raised: {one.exception_info}")
        found = one.result.get("unexpected_count", one.result.get("observed_value"))
        counts[one.expectation_config.meta["rule"]] = found
    return {"imports": loaded - begun, "check": ended - loaded, "counts": counts}


def main() -> None:
    """Do what the file says."""
    tool, file = sys.argv[1], Path(sys.argv[2])
    tools = {"ours": ours, "gx": great_expectations}
    file.write_text(json.dumps(tools[tool](json.loads(file.read_text()))))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # so do Airflow's task processes
