"""Measure one check by ParcelSeal or by Great Expectations in a separate process.

``python -m benchmarks._quality_once TOOL FILE`` reads the parameters as JSON from FILE and writes
the result into FILE: seconds of imports and of the check itself, and the counts by rule. Great
Expectations is used as its manual recommends.
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


def ours(parameters: dict[str, Any]) -> dict[str, Any]:
    """Check the customers with the shipped expectations, as the task of `check_quality` does."""
    started = time.monotonic()
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

    assert gx  # loaded here, so that the check time does not include it
    pack = load_pack(SHIPPED)
    suites = tuple(suite for suite in pack.suites_of("courier") if suite.collection == "customer")
    address = DatabaseAddress.from_conninfo(parameters["source"])
    loaded = time.monotonic()
    services: Any = SimpleNamespace(
        pack=pack.model_copy(update={"suites": suites}),
        state=engine(parameters["state"]),
        erasure_keys=ErasureKeys({"1": b"k" * 32}, "1"),
        database=lambda _connection: address,
    )
    key = Run("check_quality", parameters["run_id"])
    run = RunContext(services, None, key, parameters={"full": parameters["full"]})
    findings = StepFindings(CHECK.name, CHECK.clause, "courier")
    now = datetime.fromisoformat(parameters["now"])
    checked = check_database(run, findings, pack.database("courier"), now)
    ended = time.monotonic()
    (collection,) = checked.result.collections
    return {
        "imports": loaded - started,
        "check": ended - loaded,
        "looked_at": collection.looked_at,
        "rows": collection.rows,
        "counts": {rule.rule: rule.broken for rule in collection.rules},
    }


def great_expectations(parameters: dict[str, Any]) -> dict[str, Any]:
    """Check the customers with core expectations and custom SQL of Great Expectations.

    The result format COMPLETE lists the keys of the violating records.
    """
    started = time.monotonic()
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import great_expectations.expectations as gxe

    from benchmarks import _quality_sql
    from include.expectations import formats

    now = datetime.fromisoformat(parameters["now"])
    loaded = time.monotonic()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_postgres("courier", connection_string=parameters["gx_url"])
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
        # Rules for which Great Expectations has no built-in expectation.
        if rule not in expectations:
            # Its {batch} placeholder is not used: it adds an alias and reads all columns.
            query = f"SELECT c.customer_id FROM customer AS c WHERE {broken}"  # noqa: S608 - constants
            query = query.replace("{", "{{").replace("}", "}}")
            expectations[rule] = gxe.UnexpectedRowsExpectation(unexpected_rows_query=query)
    for rule, expectation in expectations.items():
        expectation.meta = {"rule": rule}
    suite = gx.ExpectationSuite(name="customer", expectations=list(expectations.values()))
    definition = gx.ValidationDefinition(
        name="customer", data=batch, suite=context.suites.add(suite)
    )
    context.validation_definitions.add(definition)
    validation = definition.run(
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["customer_id"],
        }
    )
    ended = time.monotonic()
    counts = {}
    for result in validation.results:
        if result.exception_info.get("raised_exception") or not result.result:
            sys.exit(f"Great Expectations raised: {result.exception_info}")
        count = result.result.get("unexpected_count", result.result.get("observed_value"))
        counts[result.expectation_config.meta["rule"]] = count
    return {"imports": loaded - started, "check": ended - loaded, "counts": counts}


def main() -> None:
    """Run the tool of the first argument with the parameters in the file of the second argument."""
    tool, file = sys.argv[1], Path(sys.argv[2])
    tools = {"ours": ours, "gx": great_expectations}
    file.write_text(json.dumps(tools[tool](json.loads(file.read_text()))))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # as Airflow's task processes do
