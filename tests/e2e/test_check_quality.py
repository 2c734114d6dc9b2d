"""`check_quality` as it is run: on the sample, and on a database that nobody mapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.conftest import Cli

pytestmark = pytest.mark.airflow

CHINOOK = Path(__file__).parents[1] / "schema" / "chinook.sql"
CONTRACT = {"dag_id", "run_id", "state", "outcome", "bundle", "reports", "findings", "error"}


def result(done: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads((Path(done["bundle"]) / "result.json").read_text()))


def collections(done: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (step,) = [one for one in result(done)["steps"] if one["step"] == "check"]
    return {one["collection"]: one for one in step["data"]["collections"]}


def test_planted_violations_turn_the_run_red_and_sealed(cli: Cli, checked: dict[str, Any]):
    """What no company tolerates; what stays within its tolerance is in the table only."""
    assert set(checked) == CONTRACT
    assert (checked["state"], checked["outcome"]) == ("failed", "fail")
    subjects = {one["subject"] for one in result(checked)["findings"]}
    assert {"courier.customer.no_reviewer", "courier.customer.reviewer_is_enterer"} <= subjects
    states = {one["id"]: one["state"] for one in result(checked)["controls"]}
    assert states["collect.accuracy"] == "not_held"
    assert states["collect.declared"] == "held"
    assert states["collect.minimum"] in {"held", "not_held"}  # as the sample's size has it
    names = {path.name for path in Path(checked["bundle"]).iterdir()}
    assert "datadocs.courier.customer.html" in names
    assert {"report.en.html", "report.zh-CN.html"} <= names


def test_the_register_has_the_answer_sheets_records(cli: Cli, checked: dict[str, Any]):
    """Every planted one and none else, through the whole of a real run."""
    planted = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())["planted"]
    with psycopg.connect(cli.postgres("parcelseal_state")) as conn:
        found = dict(
            conn.execute(
                "SELECT rule, count(*) FROM quarantine WHERE database = 'courier' AND collection"
                " <> 'intake_record' AND resolved_at IS NULL GROUP BY rule"
            ).fetchall()
        )
    assert found == {rule: planted[rule]["count"] for rule in found}
    assert len(found) >= 5


def test_a_second_run_looks_at_what_changed(cli: Cli, checked: dict[str, Any]):
    """Between two full checks; what is known to be broken stays so."""
    again = cli.json("run", "check_quality", code=1)
    before, after = collections(checked), collections(again)
    assert before["customer"]["whole"]
    assert not after["customer"]["whole"]
    assert after["customer"]["looked_at"] < before["customer"]["rows"] / 5
    assert before["address"]["whole"]
    assert after["address"]["whole"]  # it has no change column
    figures = [
        [{**rule, "examined": ""} for rule in found["customer"]["rules"]]
        for found in (before, after)
    ]
    assert figures[0] == figures[1]


def test_a_drafted_pack_checks_a_database_nobody_mapped(cli: Cli, tmp_path: Path):
    """`config map` on Chinook, `config check`, `check_quality`: the default expectations are met.

    None of them is required until a person says so: till then accuracy is not shown as held.
    """
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE drafted_chinook")
        admin.execute("CREATE ROLE drafted_reader LOGIN PASSWORD 'reader'")
        admin.execute("GRANT pg_read_all_data TO drafted_reader")
    with psycopg.connect(cli.postgres("drafted_chinook")) as conn:
        conn.execute(CHINOOK.read_bytes())
    address = cli.uri("drafted_chinook", "drafted_reader", "reader")
    pack = tmp_path / "pack"
    drafted = cli.call("config", "map", "--dsn", address, "--out", str(pack), "--name", "chinook")
    assert drafted.returncode == 0, drafted.stderr
    mine = {"AIRFLOW_CONN_CUSTOMER_DB": address, "PARCELSEAL_POLICY": str(pack)}
    assert cli.call("config", "check", **mine).returncode == 0
    done = cli.json("run", "check_quality", **mine)
    found = result(done)
    assert done["outcome"] == "attention"
    assert {one["code"] for one in found["findings"]} == {"control.not_shown"}
    assert {one["id"]: one["state"] for one in found["controls"]} == {
        "collect.accuracy": "not_shown",
        "collect.minimum": "held",
        "collect.declared": "held",
    }
    assert set(collections(done)) >= {"customer", "employee", "invoice"}
