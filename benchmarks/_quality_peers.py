"""Measure one check by Soda Core or pandera, in an interpreter that contains them.

``python -m benchmarks._quality_peers TOOL FILE`` works like `benchmarks._quality_once`. Of
ParcelSeal's code, it uses only the SQL of formats and some constants.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import _quality_sql
from include.expectations import formats
from include.sample_company.identities import ID_CHECKS

_MISSING = {
    "phone": "missing_phone",
    "id_number": "missing_id_number",
    "reviewed_by": "no_reviewer",
}


def soda(parameters: dict[str, Any]) -> dict[str, Any]:
    """Verify a data contract with Soda's built-in checks and, where Soda has none, failed rows."""
    started = time.monotonic()
    from soda_core.contracts import contract_verification as verification
    from soda_core.contracts.api import verify_contract_locally

    folder = Path(parameters["work"])
    (folder / "soda-source.yml").write_text(_soda_source(parameters))
    (folder / "soda-contract.yml").write_text(
        _soda_contract(datetime.fromisoformat(parameters["now"]))
    )
    loaded = time.monotonic()
    verification_run = verify_contract_locally(
        data_source_file_path=str(folder / "soda-source.yml"),
        contract_file_path=str(folder / "soda-contract.yml"),
        publish=False,
    )
    ended = time.monotonic()
    (result,) = verification_run.contract_verification_results
    unknown = verification.CheckOutcome.NOT_EVALUATED
    if any(check.outcome is unknown for check in result.check_results):
        sys.exit(f"Soda could not verify the contract: {verification_run.get_errors_str()}")
    counts = {check.check.name: int(check.threshold_value or 0) for check in result.check_results}
    return {"imports": loaded - started, "check": ended - loaded, "counts": counts}


def _soda_source(parameters: dict[str, Any]) -> str:
    connection = {
        "host": parameters["host"],
        "port": 5432,
        "database": parameters["database"],
        "user": parameters["user"],
        "password": parameters["password"],
    }
    # JSON is YAML.
    return json.dumps({"type": "postgres", "name": "courier", "connection": connection})


def _soda_contract(now: datetime) -> str:
    columns: dict[str, list[dict[str, Any]]] = {
        column: [{"missing": {"name": rule, "qualifier": rule}}]
        for column, rule in _MISSING.items()
    }
    form = {"name": "mobile", "regex": formats.MOBILE}
    columns["phone"].append({"invalid": {"name": "invalid_phone", "valid_format": form}})
    checks: list[dict[str, Any]] = []
    for rule, broken in _quality_sql.row_rules(now).items():
        if rule not in {*_MISSING.values(), "invalid_phone"}:
            check = {"name": rule, "qualifier": rule, "expression": broken}
            checks.append({"failed_rows": check})
    for rule, broken in _quality_sql.joined_rules(now).items():
        query = f"SELECT c.customer_id FROM customer AS c WHERE {broken}"  # noqa: S608 - constants
        checks.append({"failed_rows": {"name": rule, "qualifier": rule, "query": query}})
    contract = {
        "dataset": "courier/source/public/customer",
        "columns": [{"name": name, "checks": rules} for name, rules in columns.items()],
        "checks": checks,
    }
    return json.dumps(contract)


def pandera(parameters: dict[str, Any]) -> dict[str, Any]:
    """Read the columns into polars, and validate them lazily so that every error is reported."""
    started = time.monotonic()
    os.environ["PANDERA_VALIDATION_DEPTH"] = "SCHEMA_AND_DATA"
    import pandera.polars as pa
    import polars as pl

    loaded = time.monotonic()
    frame = _pandera_frame(parameters["url"], pl)
    rules = _pandera_checks(pl, datetime.fromisoformat(parameters["now"]))
    matches = {
        "phone": pa.Check.str_matches(formats.MOBILE, error="invalid_phone"),
        "id_number": pa.Check.str_matches("^[0-9]{17}[0-9Xx]$", error="invalid_id_form"),
        "email": pa.Check.str_matches(formats.EMAIL, error="invalid_email"),
    }
    columns = {name: pa.Column(pl.String, check, nullable=True) for name, check in matches.items()}
    checks = [
        pa.Check(
            lambda data, broken=broken: data.lazyframe.select(~broken.fill_null(value=False)),
            name=rule,
        )
        for rule, broken in rules.items()
    ]
    counts = dict.fromkeys([*rules, *(check.error for check in matches.values())], 0)
    try:
        pa.DataFrameSchema(columns, checks).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        for rule, count in error.failure_cases.group_by("check").len().iter_rows():
            counts[rule] = count
    ended = time.monotonic()
    return {"imports": loaded - started, "check": ended - loaded, "counts": counts}


def _pandera_frame(url: str, pl: Any) -> Any:
    customer = pl.read_database_uri(
        "SELECT customer_id, name, phone, id_number, email, status::text AS status, verified_at,"
        " reviewed_by, entered_by, marketing_subscribed, birth_date, religion FROM customer",
        url,
    )
    consent = pl.read_database_uri(
        "SELECT customer_id, purpose = 'marketing' AS marketing,"
        " CASE WHEN purpose = 'marketing' THEN withdrawn_at END AS withdrawn_at,"
        " CASE WHEN purpose = 'marketing' AND withdrawn_at IS NULL THEN given_at END AS live_since,"
        " by_guardian AND withdrawn_at IS NULL AS guarded FROM consent",
        url,
    )
    last = pl.col("withdrawn_at").max()
    withdrawn = (last > pl.col("live_since").max()).fill_null(last.is_not_null())
    consents = consent.group_by("customer_id").agg(
        pl.len().alias("consents"),
        pl.col("marketing", "guarded").any(),
        withdrawn.alias("withdrawn"),
    )
    divisions = pl.read_database_uri(
        "SELECT code::text AS code, coalesce(to_char(retired_on, 'YYYYMMDD'), '99999999') AS until"
        " FROM administrative_division",
        url,
    )
    return (
        customer.with_columns(pl.col("id_number").str.slice(0, 6).alias("code"))
        .join(consents, on="customer_id", how="left")
        .join(divisions, on="code", how="left")
    )


def _pandera_checks(pl: Any, now: datetime) -> dict[str, Any]:
    """Return the polars condition under which a row breaks each rule; null counts as false."""
    number = pl.col("id_number")
    form = number.str.contains("^[0-9]{17}[0-9Xx]$")
    digits = [number.str.slice(index, 1).cast(pl.Int32, strict=False) for index in range(17)]
    total = sum(
        (weight * digit for weight, digit in zip(formats.WEIGHTS, digits, strict=True)), pl.lit(0)
    )
    expected = pl.lit(list(ID_CHECKS)).list.get(total % 11, null_on_oob=True)
    born = number.str.slice(6, 8)
    day = born.str.to_date("%Y%m%d", strict=False)
    subscribed, has_consent = pl.col("marketing_subscribed"), pl.col("consents").is_not_null()
    child = pl.col("birth_date") > now.replace(year=now.year - 14).date()
    identity = ["name", "phone", "id_number"]
    complete = pl.all_horizontal(pl.col(column).is_not_null() for column in identity)
    return {
        "missing_name": pl.col("name").str.contains(r"^[\s\u200b-\u200f\u2060\ufeff]*$"),
        "missing_phone": pl.col("phone").is_null(),
        "missing_id_number": number.is_null(),
        "invalid_id_birth_date": form & (day.is_null() | (day > now.date())),
        "invalid_id_check_digit": form & (number.str.slice(17, 1).str.to_uppercase() != expected),
        "stale_customer": (pl.col("status") != "closed")
        & (pl.col("verified_at") < now - timedelta(days=365)),
        "no_reviewer": pl.col("reviewed_by").is_null(),
        "reviewer_is_enterer": pl.col("reviewed_by") == pl.col("entered_by"),
        "over_collected_religion": pl.col("religion").is_not_null(),
        "unknown_id_division": form
        & ~(pl.col("until") >= number.str.slice(6, 8)).fill_null(value=False),
        "duplicate_customer": complete & ~pl.struct(identity).is_first_distinct(),
        "consent_missing": ~has_consent,
        "consent_not_covering_purpose": subscribed & ~pl.col("marketing").fill_null(value=False),
        "consent_withdrawn": subscribed & pl.col("withdrawn"),
        "minor_without_guardian_consent": child & ~pl.col("guarded").fill_null(value=False),
    }


def main() -> None:
    """Run the tool of the first argument with the parameters in the file of the second argument."""
    tool, file = sys.argv[1], Path(sys.argv[2])
    tools = {"soda": soda, "pandera": pandera}
    file.write_text(json.dumps(tools[tool](json.loads(file.read_text()))))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
